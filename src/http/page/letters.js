// Dead letters: what could not be applied, why, and what to do about it.
import { attempt, bytes, confirmed, field, h, segments, toast, when } from "./dom.js";

const LIMIT = 200;
const REASONS = {
  invalid_json: "is no JSON",
  invalid_event: "is no event",
  task_conflict: "another task has its id",
  task_deleted: "its task was deleted",
  wrong_user: "it is another user's task",
  event_id_reused: "its event id was used before",
  wait_expired: "its task never came",
};

export function lettersView(place, app, rest) {
  const { taskwire } = app;
  const api = (method, path, body, headers) => taskwire.request(method, path, body, headers);
  const path = (id, verb = "") => `/api/admin/dead-letters/${encodeURIComponent(id)}${verb}`;
  let state = "open";
  let chosen = rest[0];
  let isGone = false;
  const note = h("span", { class: "quiet", role: "status" });
  const body = h("tbody");
  const none = h("div", { class: "card empty", hidden: true });
  const table = h(
    "div",
    { class: "card scroll" },
    h(
      "table",
      {},
      h("caption", { class: "hidden" }, "Dead letters"),
      h(
        "thead",
        {},
        h(
          "tr",
          {},
          h("th", { scope: "col" }, "Letter"),
          h("th", { scope: "col" }, "Why"),
          h("th", { scope: "col" }, "Came from"),
          h("th", { scope: "col" }, "At"),
          h("th", { class: "num", scope: "col" }, "Size"),
        ),
      ),
      body,
    ),
  );
  const detail = h("section", { "aria-label": "Letter" });
  const all = h("button", { onclick: redriveAll }, "Redrive all open ones");
  place.append(
    h("div", { class: "head" }, h("h1", {}, "Dead letters"), note),
    h(
      "div",
      { class: "tools" },
      segments(
        "State",
        "state",
        [
          ["open", "Open"],
          ["redriven", "Redriven"],
          ["dismissed", "Dismissed"],
          ["", "All"],
        ],
        state,
        (value) => {
          state = value;
          chosen = undefined;
          refresh();
        },
      ),
      h("span", { class: "grow" }),
      all,
      h("button", { onclick: () => refresh() }, "Refresh"),
    ),
    h("div", { class: "stack" }, detail, table, none),
  );

  async function refresh() {
    const letters = await attempt(null, () =>
      api("GET", `/api/admin/dead-letters?limit=${LIMIT}${state && `&state=${state}`}`),
    );
    if (!letters || isGone) return;
    note.textContent = `${letters.length}${letters.length === LIMIT ? " shown, the oldest first" : ""}`;
    body.replaceChildren(...letters.map(row));
    table.hidden = letters.length === 0;
    none.hidden = letters.length > 0;
    all.disabled = !letters.some((letter) => letter.state === "open");
    none.replaceChildren(
      h("strong", {}, state === "open" ? "Nothing is stuck" : "None"),
      "Records that cannot be applied come here, with their reason.",
    );
    await show();
  }

  function row(letter) {
    const { id, reason, detail, source, at, value_bytes, state } = letter;
    return h(
      "tr",
      { "data-id": id, class: id === chosen ? "marked" : null },
      h(
        "td",
        {},
        h("a", { href: `#/letters/${encodeURIComponent(id)}` }, id),
        " ",
        state !== "open" && h("span", { class: "badge" }, state),
      ),
      h(
        "td",
        {},
        h("span", { class: "badge bad" }, reason),
        " ",
        h("span", { class: "small quiet" }, detail ?? REASONS[reason] ?? ""),
      ),
      h(
        "td",
        { class: "small" },
        h("a", { href: recordLink(source) }, `${source.topic}-${source.partition}@${source.offset}`),
      ),
      h("td", { class: "small" }, when(at)),
      h("td", { class: "num" }, bytes(value_bytes)),
    );
  }

  const recordLink = ({ topic, partition, offset }) =>
    `#/records/${encodeURIComponent(topic)}?partition=${partition}&from=${offset}`;

  async function show() {
    for (const row of body.children) row.classList.toggle("marked", row.dataset.id === chosen);
    if (!chosen) {
      detail.replaceChildren();
      return;
    }
    const letter = await attempt(null, () => api("GET", path(chosen)));
    if (!letter || letter.id !== chosen || isGone) return;
    const isText = letter.value_base64 === undefined;
    const original = isText ? (letter.value ?? "") : "";
    const value = h("textarea", { class: "mono", rows: 10, spellcheck: "false", value: pretty(original) });
    const shownFirst = value.value;
    const headers = letter.headers.map((header) =>
      h(
        "span",
        { class: "chip" },
        `${header.name ?? "?"}: ${header.value ?? (header.value_base64 ? "(bytes)" : "null")}`,
      ),
    );
    const act = (button, verb, mended) =>
      attempt(button, async () => {
        const headers = mended === undefined ? {} : { "content-type": "application/octet-stream" };
        const done = await api("POST", path(letter.id, verb), mended, headers);
        if (verb === "/dismiss") toast(`Letter ${letter.id} is dismissed`);
        else
          toast(
            `Redriven as ${done.record}: ${done.outcome ?? "not yet decided"}${done.reason ? `, ${done.reason}` : ""}`,
            done.outcome === "dead_letter",
          );
        chosen = undefined;
        history.replaceState(null, "", "#/letters");
        await refresh();
      });
    const redrive = h(
      "button",
      {
        class: "primary",
        onclick: () => act(redrive, "/redrive", value.value === shownFirst ? undefined : value.value),
      },
      "Redrive",
    );
    value.addEventListener(
      "input",
      () => (redrive.textContent = value.value === shownFirst ? "Redrive" : "Redrive the mended value"),
    );
    const dismiss = h(
      "button",
      { class: "danger", disabled: letter.state !== "open", onclick: () => act(dismiss, "/dismiss") },
      "Dismiss",
    );
    detail.replaceChildren(
      h(
        "div",
        { class: "card pad stack" },
        h(
          "div",
          { class: "head" },
          h("h2", {}, `Letter ${letter.id}`),
          h("span", { class: "badge bad" }, letter.reason),
          h("span", { class: "badge" }, letter.state),
        ),
        h(
          "dl",
          { class: "facts" },
          h("dt", {}, "Why"),
          h("dd", {}, letter.detail ?? REASONS[letter.reason] ?? letter.reason),
          h("dt", {}, "Record"),
          h(
            "dd",
            {},
            h(
              "a",
              { href: recordLink(letter.source) },
              `${letter.source.topic}-${letter.source.partition}@${letter.source.offset}`,
            ),
          ),
          h("dt", {}, "Key"),
          h("dd", { class: "mono" }, letter.key ?? letter.key_base64 ?? "null"),
          letter.event_id && [h("dt", {}, "Event id"), h("dd", { class: "mono" }, letter.event_id)],
          headers.length > 0 && [h("dt", {}, "Headers"), h("dd", { class: "chips" }, headers)],
        ),
        isText
          ? field("Value; what is changed here is sent in its place", value)
          : [
              h("p", { class: "quiet" }, "The value is no text; it can be sent again as it is."),
              h("pre", { class: "value" }, letter.value_base64.slice(0, 4_000)),
            ],
        h(
          "div",
          { class: "actions" },
          h("span", { class: "left" }, dismiss),
          h("button", { onclick: () => (location.hash = "#/letters") }, "Close"),
          redrive,
        ),
      ),
    );
  }

  async function redriveAll() {
    if (!(await confirmed("Send all open letters again, as they are?", "Redrive all"))) return;
    await attempt(all, async () => {
      let redriven = 0;
      let next = "";
      do {
        const done = await api(
          "POST",
          `/api/admin/dead-letters/redrive?all=true${next && `&cursor=${encodeURIComponent(next)}`}`,
        );
        redriven += done.redriven;
        next = done.next;
      } while (next);
      toast(`${redriven} redriven`);
    });
    await refresh();
  }

  refresh();
  return {
    update([id]) {
      chosen = id;
      show();
    },
    unmount() {
      isGone = true;
    },
  };
}

/** JSON with line breaks; anything else as it is. */
function pretty(text) {
  try {
    const json = JSON.parse(text);
    return typeof json === "object" ? JSON.stringify(json, null, 2) : text;
  } catch {
    return text;
  }
}
