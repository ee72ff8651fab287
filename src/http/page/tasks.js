// The user's tasks, live. Only the rows in sight are in the document, so that ten thousand tasks are as fluid as ten.
import { BIN, attempt, confirmed, field, h, icon, number, option, segments, toast, when } from "./dom.js";

const ROW_PX = 58;
/** Rows beyond the edges of the window, so that scrolling and the Tab key find some. */
const BEYOND = 12;
const TITLE_MAX = 500;
const TEXT_MAX = 10_000;
const PRIORITIES = ["urgent", "high", "medium", "low"];
/** A count is said at most this often. */
const SAY_MS = 1_500;

export function tasksView(place, app, rest) {
  const { taskwire } = app;
  const filter = { done: "all", priority: "", text: "" };
  /** The rows in the document, by task. */
  const rows = new Map();
  /** Rows that were scrolled away, to be used again. */
  const spare = [];
  /** Tasks seen when the list was last drawn, so that new ones can be marked. */
  let known;
  let shown = [];
  let drawn;
  let frame = 0;
  let said = 0;
  let saying;
  let dialog;

  const title = h("input", {
    name: "title",
    placeholder: "What is to be done?",
    maxlength: TITLE_MAX,
    required: true,
    autocomplete: "off",
  });
  const priority = h(
    "select",
    { name: "priority" },
    PRIORITIES.map((name) => option(name, name, name === "medium")),
  );
  const list = h("div", { class: "list", role: "list", "aria-label": "Tasks" });
  const none = h("div", { class: "empty", hidden: true });
  const total = h("span", { class: "quiet" });
  const status = h("span", { class: "hidden", role: "status" });

  place.append(
    h("div", { class: "head" }, h("h1", {}, "Tasks"), total, status),
    h(
      "form",
      { class: "card new", onsubmit: create },
      field("New task", title),
      field("Priority", priority),
      h("button", { class: "primary" }, "Add"),
    ),
    h(
      "div",
      { class: "tools" },
      segments(
        "Show",
        "done",
        [
          ["all", "All"],
          ["open", "Open"],
          ["done", "Done"],
        ],
        "all",
        (value) => refilter({ done: value }),
      ),
      h("span", { class: "grow" }),
      field(
        "Only priority",
        h(
          "select",
          { onchange: (event) => refilter({ priority: event.target.value }) },
          option("", "any"),
          PRIORITIES.map((name) => option(name)),
        ),
      ),
      field(
        "Search",
        h("input", {
          type: "search",
          placeholder: "Title, description, label",
          oninput: (event) => refilter({ text: event.target.value.trim().toLowerCase() }),
        }),
      ),
    ),
    h("div", { class: "card" }, list, none),
  );

  async function create(event) {
    event.preventDefault();
    const made = await attempt(event.submitter, () =>
      taskwire.create({ title: title.value, priority: priority.value }),
    );
    if (made) title.value = "";
    title.focus();
  }

  function refilter(change) {
    Object.assign(filter, change);
    drawn = undefined;
    schedule();
  }

  function matches(task) {
    const { done, priority, text } = filter;
    if (done !== "all" && task.completed !== (done === "done")) return false;
    if (priority && task.priority !== priority) return false;
    return (
      !text ||
      `${task.title}\n${task.description ?? ""}\n${(task.labels ?? []).join("\n")}`.toLowerCase().includes(text)
    );
  }

  function schedule() {
    if (!frame) frame = requestAnimationFrame(draw);
  }

  function draw() {
    frame = 0;
    const tasks = taskwire.tasks;
    if (drawn !== tasks) {
      drawn = tasks;
      shown = tasks.filter(matches).reverse();
      list.style.height = `${shown.length * ROW_PX}px`;
      showCount(tasks.length);
    }
    const top = -list.getBoundingClientRect().top;
    const first = Math.max(0, Math.floor(top / ROW_PX) - BEYOND);
    const last = Math.min(shown.length, Math.ceil((top + innerHeight) / ROW_PX) + BEYOND);
    const wanted = new Map();
    for (let at = first; at < last; at++) wanted.set(shown[at].id, at);
    // The row that has the focus stays, wherever it is.
    const focused = document.activeElement?.closest?.(".task")?.dataset.id;
    if (focused && !wanted.has(focused)) {
      const at = shown.findIndex((task) => task.id === focused);
      if (at >= 0) wanted.set(focused, at);
    }
    for (const [id, row] of rows) {
      if (wanted.has(id)) continue;
      const hadFocus = row.element.contains(document.activeElement);
      rows.delete(id);
      spare.push(row);
      if (hadFocus) title.focus({ preventScroll: true });
    }
    let before = null;
    for (const [id, at] of [...wanted].sort((a, b) => b[1] - a[1])) {
      const task = shown[at];
      let row = rows.get(id);
      if (!row) {
        row = spare.pop() ?? makeRow();
        rows.set(id, row);
        row.element.classList.toggle("new-one", known !== undefined && !known.has(id));
      }
      row.show(task, at);
      // In the document they are in the order of the list, for the Tab key and for screen readers.
      if (row.element.nextSibling !== before || !row.element.parentNode) list.insertBefore(row.element, before);
      before = row.element;
    }
    for (const row of spare) row.element.remove();
    if (taskwire.connection.state === "live") {
      if (!known || known.size !== tasks.length) known = new Set(tasks.map((task) => task.id));
    }
  }

  function showCount(all) {
    const isLoading = all === 0 && taskwire.connection.state !== "live";
    const text =
      shown.length === all
        ? `${number(all)} ${all === 1 ? "task" : "tasks"}`
        : `${number(shown.length)} of ${number(all)} tasks`;
    total.textContent = isLoading ? "" : text;
    none.hidden = shown.length > 0;
    if (!none.hidden) {
      none.replaceChildren(
        ...(isLoading
          ? ["Loading"]
          : all === 0
            ? [
                h("strong", {}, "Nothing to do yet"),
                "Add a task above, or publish a ",
                h("code", {}, "task_created"),
                " event.",
              ]
            : [h("strong", {}, "No task matches"), "Change the filter or the search."]),
      );
    }
    clearTimeout(saying);
    saying = setTimeout(
      () => {
        if (status.textContent !== text) status.textContent = text;
        said = performance.now();
      },
      Math.max(0, said + SAY_MS - performance.now()),
    );
  }

  function makeRow() {
    let id;
    const check = h("input", { type: "checkbox", onchange: () => toggle(id, check) });
    const name = h("span", { class: "title" });
    const sub = h("span", { class: "sub" });
    const marks = h("div", { class: "marks" });
    const bin = h("button", { class: "icon", onclick: () => remove(id) }, icon(BIN));
    const element = h(
      "div",
      { class: "task", role: "listitem" },
      check,
      h(
        "button",
        {
          class: "open",
          "aria-haspopup": "dialog",
          onclick: () => (location.hash = `#/tasks/${encodeURIComponent(id)}`),
        },
        name,
        sub,
      ),
      marks,
      bin,
    );
    let version;
    return {
      element,
      show(task, at) {
        element.style.transform = `translateY(${at * ROW_PX}px)`;
        element.setAttribute("aria-posinset", at + 1);
        element.setAttribute("aria-setsize", shown.length);
        if (version === task) return;
        version = task;
        id = task.id;
        element.dataset.id = id;
        element.classList.toggle("done", task.completed);
        check.checked = task.completed;
        check.setAttribute("aria-label", `Done: ${task.title}`);
        bin.setAttribute("aria-label", `Delete: ${task.title}`);
        name.textContent = task.title;
        sub.replaceChildren(task.description?.slice(0, 200) || "", task.description ? "" : when(task.created_at));
        marks.replaceChildren(
          ...(task.labels ?? []).slice(0, 3).map((label) => h("span", { class: "badge label" }, label)),
          task.due_date ? h("span", { class: dueClass(task) }, "due ", when(task.due_date)) : "",
          h("span", { class: `badge ${task.priority}` }, task.priority),
        );
      },
    };
  }

  function dueClass(task) {
    const isLate = !task.completed && Date.parse(task.due_date) < Date.now();
    return isLate ? "badge bad due" : "badge due";
  }

  async function toggle(id, check) {
    const wanted = check.checked;
    const done = await attempt(check, () =>
      wanted ? taskwire.complete(id) : taskwire.update(id, { completed: false }),
    );
    if (!done) check.checked = !wanted;
    if (rows.get(id)?.element.contains(check)) check.focus({ preventScroll: true });
  }

  async function remove(id) {
    const task = taskwire.tasks.find((task) => task.id === id);
    if (!task || !(await confirmed(`Delete "${task.title}"?`, "Delete"))) return false;
    await attempt(null, () => taskwire.delete(id));
    return true;
  }

  /** The dialog of one task, as the hash says. */
  function openTask(id) {
    dialog?.close();
    const task = id && taskwire.tasks.find((task) => task.id === id);
    if (!task) return;
    const problem = h("p", { class: "problem", role: "alert" });
    const input = (name, properties) => h("input", { name, ...properties });
    const form = h(
      "form",
      {
        method: "dialog",
        onsubmit: (event) => {
          event.preventDefault();
          save(task, form, problem);
        },
      },
      h("h1", {}, "Task"),
      problem,
      field("Title", input("title", { value: task.title, maxlength: TITLE_MAX, required: true })),
      field("Description", h("textarea", { name: "description", maxlength: TEXT_MAX, value: task.description ?? "" })),
      h(
        "div",
        { class: "row" },
        field(
          "Priority",
          h(
            "select",
            { name: "priority" },
            PRIORITIES.map((name) => option(name, name, name === task.priority)),
          ),
        ),
        field("Due", input("due_date", { type: "datetime-local", value: task.due_date ? local(task.due_date) : "" })),
      ),
      field(
        "Labels, separated by commas",
        input("labels", { value: (task.labels ?? []).join(", "), autocomplete: "off" }),
      ),
      h(
        "p",
        { class: "quiet small" },
        `Version ${task.version}, created `,
        when(task.created_at),
        ", changed ",
        when(task.updated_at),
      ),
      h(
        "div",
        { class: "actions" },
        h(
          "span",
          { class: "left" },
          h(
            "button",
            { type: "button", class: "danger", onclick: async () => (await remove(task.id)) && mine.close() },
            "Delete",
          ),
          app.isAdmin && h("a", { href: recordsOf(task) }, "Its records"),
        ),
        h("button", { type: "button", onclick: () => mine.close() }, "Cancel"),
        h("button", { class: "primary" }, "Save"),
      ),
    );
    const mine = h(
      "dialog",
      {
        "aria-label": "Task",
        onclose: () => {
          mine.remove();
          if (dialog === mine) dialog = undefined;
          if (location.hash === `#/tasks/${encodeURIComponent(task.id)}`) history.replaceState(null, "", "#/tasks");
          rows.get(task.id)?.element.querySelector(".open")?.focus({ preventScroll: true });
        },
      },
      form,
    );
    dialog = mine;
    document.body.append(mine);
    mine.showModal();
  }

  async function save(task, form, problem) {
    const data = new FormData(form);
    const due = data.get("due_date");
    const labels = data
      .get("labels")
      .split(",")
      .map((label) => label.trim())
      .filter(Boolean);
    const wanted = {
      title: data.get("title"),
      description: data.get("description") || null,
      priority: data.get("priority"),
      due_date: !due
        ? null
        : task.due_date && local(task.due_date) === due
          ? task.due_date
          : new Date(due).toISOString(),
      labels,
    };
    // Only what was changed: what others change meanwhile stays.
    const same = (a, b) => JSON.stringify(a ?? null) === JSON.stringify(b ?? null);
    const has = { ...task, labels: task.labels ?? [] };
    const changes = Object.fromEntries(Object.entries(wanted).filter(([name, value]) => !same(value, has[name])));
    try {
      if (Object.keys(changes).length) await taskwire.update(task.id, changes, task.version);
      form.closest("dialog").close();
    } catch (error) {
      problem.textContent =
        error.status === 412 ? "Somebody has changed this task meanwhile: close and open it again." : error.message;
    }
  }

  const recordsOf = ({ id, created_at }) => {
    const query = new URLSearchParams({ time: created_at, contains: id });
    return `#/records/${encodeURIComponent(app.overview?.topic ?? "")}?${query}`;
  };

  const stop = taskwire.subscribe(() => {
    if (taskwire.connection.state === "live" && pending) {
      const id = pending;
      pending = undefined;
      openTask(id);
    }
    schedule();
  });
  let pending = taskwire.connection.state === "live" ? undefined : rest[0];
  if (!pending) openTask(rest[0]);
  addEventListener("scroll", schedule, { passive: true });
  addEventListener("resize", schedule);
  draw();

  return {
    update([id]) {
      if (id && !taskwire.tasks.some((task) => task.id === id)) toast("There is no such task (any more)", true);
      openTask(id);
    },
    unmount() {
      stop();
      dialog?.close();
      cancelAnimationFrame(frame);
      clearTimeout(saying);
      removeEventListener("scroll", schedule);
      removeEventListener("resize", schedule);
    },
  };
}

/** For an input of a local time. */
function local(text) {
  const date = new Date(text);
  return new Date(date.getTime() - date.getTimezoneOffset() * 60_000).toISOString().slice(0, 16);
}
