// What lies in the log: any topic, from an offset or a time, and live.
import { attempt, bytes, field, h, number, option, toast, when } from "./dom.js";

const LIMIT = 50;
const TAIL_MS = 700;
/** Rows of a live tail; older ones go. */
const ROWS_MAX = 500;
const WHOLE_BYTES = 4 << 20;

export function recordsView(place, app, rest, query) {
  const api = (method, path, body) => app.taskwire.request(method, path, body);
  const at = { topic: "", partition: "0", start: "last", offset: "", time: "", contains: "" };
  let topics = [];
  let page;
  let tail;
  let isGone = false;

  const topic = h("select", { onchange: () => choose({ topic: topic.value, partition: "0" }) });
  const partition = h("select", { onchange: () => choose({ partition: partition.value }) });
  const start = h(
    "select",
    { onchange: () => choose({ start: start.value }, false) },
    option("last", "the last ones"),
    option("earliest", "the first ones"),
    option("offset", "an offset"),
    option("time", "a time"),
  );
  const offset = h("input", { type: "number", min: 0, step: 1 });
  const time = h("input", { type: "datetime-local", step: "any" });
  const contains = h("input", { type: "search", placeholder: "text in key or value" });
  const offsetField = field("Offset", offset, { hidden: true });
  const timeField = field("Time", time, { hidden: true });
  const live = h("input", { type: "checkbox", role: "switch", onchange: () => setLive(live.checked) });
  const summary = h("p", { class: "quiet small", role: "status" });
  const body = h("tbody");
  const older = h("button", { onclick: () => go(Math.max(page.log_start, page.from - LIMIT)) }, "Older");
  const newer = h("button", { onclick: () => go(page.next) }, "Newer");

  place.append(
    h("div", { class: "head" }, h("h1", {}, "Records")),
    h(
      "form",
      {
        class: "tools",
        onsubmit: (event) => {
          event.preventDefault();
          load();
        },
      },
      field("Topic", topic),
      field("Partition", partition),
      field("Begin with", start),
      offsetField,
      timeField,
      field("Containing", contains),
      h("button", { class: "primary" }, "Show"),
      h("span", { class: "grow" }),
      h("label", { class: "row" }, live, "Live tail"),
    ),
    h("details", { class: "card", id: "produce" }, h("summary", {}, "Produce a record"), produceForm()),
    summary,
    h(
      "div",
      { class: "card scroll" },
      h(
        "table",
        {},
        h("caption", { class: "hidden" }, "Records"),
        h(
          "thead",
          {},
          h(
            "tr",
            {},
            h("th", { class: "num", scope: "col" }, "Offset"),
            h("th", { scope: "col" }, "Time"),
            h("th", { scope: "col" }, "Key"),
            h("th", { scope: "col" }, "Value and headers"),
          ),
        ),
        body,
      ),
    ),
    h("div", { class: "actions", id: "pages" }, older, newer),
  );
  summary.before(h("br"));

  function take([name], query) {
    const wanted = {
      topic: name ?? "",
      partition: query.get("partition") ?? "0",
      start: "last",
      offset: "",
      time: "",
      contains: query.get("contains") ?? "",
    };
    if (query.has("from")) Object.assign(wanted, { start: "offset", offset: query.get("from") });
    if (query.has("time")) Object.assign(wanted, { start: "time", time: query.get("time") });
    choose(wanted, false);
    contains.value = wanted.contains;
    offset.value = wanted.offset;
    time.value = wanted.time ? inputTime(wanted.time) : "";
    load();
  }

  function choose(change, loads = true) {
    Object.assign(at, change);
    const known =
      topics.find((known) => known.topic === at.topic) ??
      topics.find((known) => known.topic === app.overview?.topic) ??
      topics[0];
    at.topic = known?.topic ?? "";
    topic.value = at.topic;
    partition.replaceChildren(
      ...(known?.partitions ?? []).map(({ partition, log_start, log_end }) =>
        option(String(partition), `${partition} (${number(log_end - log_start)})`, String(partition) === at.partition),
      ),
    );
    start.value = at.start;
    offsetField.hidden = at.start !== "offset";
    timeField.hidden = at.start !== "time";
    if (loads) load();
  }

  function address(more) {
    const search = new URLSearchParams({ partition: at.partition, limit: LIMIT, ...more });
    return `/api/admin/topics/${encodeURIComponent(at.topic)}/records?${search}`;
  }

  /** Reads as the form says. */
  async function load() {
    setLive(false);
    if (!at.topic) {
      summary.textContent = "There is no topic yet.";
      return;
    }
    at.contains = contains.value;
    const more = at.contains ? { contains: at.contains } : {};
    if (at.start === "earliest") more.from = "earliest";
    if (at.start === "offset") more.from = offset.value || "0";
    if (at.start === "time") {
      // A link names the time to the millisecond, which the input may not show.
      const typed = time.value && inputTime(at.time || 0) !== time.value ? new Date(time.value).toISOString() : at.time;
      if (typed) more.time = typed;
    }
    await read(more);
  }

  const go = (from) => read({ from, ...(at.contains ? { contains: at.contains } : {}) });

  async function read(more) {
    const found = await attempt(null, () => api("GET", address(more)));
    if (!found || isGone) return;
    page = found;
    body.replaceChildren(...found.records.map((record) => row(record)));
    describe();
    if (at.contains && !found.records.length && found.next < found.log_end) {
      summary.append(
        " Nothing in this part; ",
        h("button", { class: "link", onclick: () => go(found.next) }, "look further"),
      );
    }
  }

  function describe() {
    const { log_start, log_end, from, next } = page;
    const part = body.childElementCount ? `Offsets ${number(from)} to ${number(next - 1)}` : "No records here";
    summary.textContent = `${part}; the log has ${number(log_start)} to ${number(Math.max(log_start, log_end - 1))} (${number(log_end - log_start)}).`;
    older.disabled = from <= log_start;
    newer.disabled = next >= log_end;
  }

  function row(record, isFresh = false) {
    if (record.unreadable) {
      return h(
        "tr",
        {},
        h("td", { class: "num mono" }, String(record.offset)),
        h(
          "td",
          { colspan: 3 },
          h("span", { class: "badge bad" }, "unreadable"),
          ` to ${record.end - 1}: ${record.unreadable}`,
        ),
      );
    }
    const value = h("div", { class: "value" });
    const chips = h("div", { class: "chips" }, headers(record));
    const cell = h("td", { class: "value" }, value, chips);
    const isCut =
      shownBytes(record, "value") < (record.value_bytes ?? 0) ||
      record.headers.some((header) => shownBytes(header, "value") < (header.value_bytes ?? 0));
    showValue(value, record);
    if (isCut || (record.value ?? "").length > 100) {
      const all = h(
        "button",
        {
          class: "link",
          onclick: async () => {
            const whole = await attempt(all, () =>
              api("GET", address({ from: record.offset, limit: 1, bytes: WHOLE_BYTES })),
            );
            if (!whole?.records[0]) return;
            showValue(value, whole.records[0], true);
            chips.replaceChildren(...headers(whole.records[0]));
            all.remove();
          },
        },
        `Show all (${bytes(record.value_bytes ?? 0)})`,
      );
      cell.append(all);
    }
    const task = taskOf(record);
    if (task)
      cell.append(h("div", { class: "small" }, h("a", { href: `#/tasks/${encodeURIComponent(task)}` }, "Its task")));
    return h(
      "tr",
      { class: isFresh ? "fresh" : null, "data-offset": record.offset },
      h("td", { class: "num mono" }, String(record.offset)),
      h("td", { class: "small" }, when(record.timestamp, true)),
      h("td", { class: "mono" }, text(record, "key") ?? h("span", { class: "quiet" }, "null")),
      cell,
    );
  }

  function headers(record) {
    return record.headers.map((header) =>
      h("span", { class: "chip" }, `${text(header, "name")}: ${text(header, "value") ?? "null"}`),
    );
  }

  function setLive(isOn) {
    live.checked = isOn;
    clearTimeout(tail);
    document.getElementById("pages")?.toggleAttribute("hidden", isOn);
    if (isOn) follow(page?.log_end ?? "latest");
  }

  /** New records above the older ones. */
  async function follow(from) {
    let next = from;
    try {
      const found = await api("GET", address({ from, limit: 200, ...(at.contains ? { contains: at.contains } : {}) }));
      if (!live.checked || isGone) return;
      next = found.next;
      if (from === page?.log_end && body.dataset.order !== "down") {
        body.replaceChildren(...[...body.children].reverse());
        body.dataset.order = "down";
      }
      for (const record of found.records) body.prepend(row(record, true));
      while (body.childElementCount > ROWS_MAX) body.lastElementChild.remove();
      summary.textContent = `Live, newest first; the log ends at ${number(found.log_end)}.`;
    } catch {
      summary.textContent = "The daemon does not answer; trying again.";
    }
    if (live.checked && !isGone) tail = setTimeout(() => follow(next), TAIL_MS);
  }

  function produceForm() {
    const key = h("input", { autocomplete: "off", placeholder: "none" });
    const value = h("textarea", {
      class: "mono",
      rows: 5,
      spellcheck: "false",
      value: JSON.stringify(
        {
          type: "task_created",
          data: { id: "task-1", title: "From a record", user_id: app.taskwire.connection.userId ?? "dev" },
        },
        null,
        1,
      ),
    });
    const more = h("input", { autocomplete: "off", placeholder: "name: value, name: value" });
    return h(
      "form",
      {
        class: "pad stack",
        onsubmit: async (event) => {
          event.preventDefault();
          const headers = more.value
            .split(",")
            .filter((part) => part.trim())
            .map((part) => {
              const [name, ...words] = part.split(":");
              return [name.trim(), words.join(":").trim()];
            });
          const made = await attempt(event.submitter, () =>
            api("POST", `/api/admin/topics/${encodeURIComponent(at.topic)}/records`, {
              key: key.value || null,
              value: value.value,
              headers,
            }),
          );
          if (!made) return;
          toast(`Record ${made.topic}-${made.partition}@${made.offset}`);
          if (live.checked) return;
          at.partition = String(made.partition);
          await refresh();
          at.start = "last";
          choose({});
        },
      },
      h("div", { class: "row" }, field("Key", key), field("Headers", more)),
      field("Value", value),
      h("div", { class: "actions" }, h("button", { class: "primary" }, "Produce")),
    );
  }

  async function refresh() {
    topics = (await attempt(null, () => api("GET", "/api/admin/topics"))) ?? topics;
    topic.replaceChildren(...topics.map((known) => option(known.topic)));
  }

  refresh().then(() => !isGone && take(rest, query));
  return {
    update: take,
    unmount() {
      isGone = true;
      clearTimeout(tail);
    },
  };
}

const text = (of, name) => (of[`${name}_base64`] !== undefined ? `base64 ${of[`${name}_base64`]}` : of[name]);

function shownBytes(of, name) {
  if (of[`${name}_base64`] !== undefined) return Math.floor((of[`${name}_base64`].replace(/=+$/, "").length * 3) / 4);
  return new TextEncoder().encode(of[name] ?? "").length;
}

function showValue(place, record, isWhole = false) {
  let value = text(record, "value");
  if (value === null || value === undefined) {
    place.replaceChildren(h("span", { class: "quiet" }, "null"));
    return;
  }
  if (isWhole && value.startsWith("{")) {
    try {
      value = JSON.stringify(JSON.parse(value), null, 2);
    } catch {
      // No JSON: as it is.
    }
  }
  place.replaceChildren(h("pre", {}, value));
}

/** The id of the task that an event is about. */
function taskOf(record) {
  const value = record.value ?? "";
  if (
    !/task_(created|updated|completed|priority_changed|deleted|due_soon)/.test(value + JSON.stringify(record.headers))
  )
    return undefined;
  try {
    const event = JSON.parse(value);
    return String((event.data ?? event).id ?? "") || undefined;
  } catch {
    return /"id"\s*:\s*"([^"\\]+)"/.exec(value)?.[1];
  }
}

function inputTime(text) {
  const date = new Date(text);
  return new Date(date.getTime() - date.getTimezoneOffset() * 60_000).toISOString().slice(0, 23);
}
