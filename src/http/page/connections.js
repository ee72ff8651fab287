// Who is connected: user, transport, position, lag, since when.
import { ago, attempt, confirmed, h, number, toast, when } from "./dom.js";

const REFRESH_MS = 2_000;

export function connectionsView(place, app) {
  let timer;
  let isGone = false;
  const note = h("span", { class: "quiet" });
  const body = h("tbody");
  place.append(
    h("div", { class: "head" }, h("h1", {}, "Connections"), note),
    h(
      "div",
      { class: "card scroll" },
      h(
        "table",
        {},
        h("caption", { class: "hidden" }, "Connections"),
        h(
          "thead",
          {},
          h(
            "tr",
            {},
            h("th", { scope: "col" }, "User"),
            h("th", { scope: "col" }, "Transport"),
            h("th", { scope: "col" }, "From"),
            h("th", { scope: "col" }, "Since"),
            h("th", { scope: "col" }, "Position"),
            h("th", { class: "num", scope: "col" }, "Lag"),
            h("th", { scope: "col" }, h("span", { class: "hidden" }, "Actions")),
          ),
        ),
        body,
      ),
    ),
  );

  async function refresh() {
    try {
      const { connections, total } = await app.taskwire.request("GET", "/api/admin/connections");
      if (isGone) return;
      note.textContent =
        total > connections.length ? `${number(connections.length)} of ${number(total)}` : number(total);
      const focused = body.contains(document.activeElement)
        ? document.activeElement.closest("tr").dataset.id
        : undefined;
      body.replaceChildren(...connections.map(row));
      if (focused) body.querySelector(`[data-id="${CSS.escape(focused)}"] button`)?.focus();
    } catch (error) {
      note.textContent = error.message;
    }
    if (!isGone) timer = setTimeout(refresh, REFRESH_MS);
  }

  function row({ id, user_id, transport, peer, since, position, lag }) {
    const isOwn = id === app.taskwire.connection.session;
    const close = h(
      "button",
      {
        class: "danger",
        "aria-label": `Close the connection of ${user_id}`,
        onclick: async () => {
          if (
            !(await confirmed(
              `Close this connection of ${user_id}? A client that keeps to the rules comes back.`,
              "Close it",
            ))
          )
            return;
          await attempt(close, async () => {
            await app.taskwire.request("POST", `/api/admin/connections/${encodeURIComponent(id)}/close`);
            toast("Closed");
          });
        },
      },
      "Close",
    );
    return h(
      "tr",
      { "data-id": id },
      h("td", {}, user_id, " ", isOwn && h("span", { class: "badge accent" }, "this page")),
      h("td", {}, h("span", { class: "badge" }, transport)),
      h("td", { class: "mono" }, peer ?? ""),
      h("td", {}, when(since), " ", h("span", { class: "quiet small" }, `(${ago(Date.now() - Date.parse(since))})`)),
      h("td", { class: "mono" }, position),
      h("td", { class: "num" }, lag ? h("span", { class: "badge warn" }, number(lag)) : "0"),
      h("td", { class: "num" }, close),
    );
  }

  refresh();
  return {
    unmount() {
      isGone = true;
      clearTimeout(timer);
    },
  };
}
