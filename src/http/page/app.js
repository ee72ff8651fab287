// Who is here, which view is shown, and how the connection is.
import { attempt, field, h, toast } from "./dom.js";
import { Taskwire } from "./taskwire.js";
import { connectionsView } from "./connections.js";
import { groupsView } from "./groups.js";
import { healthView } from "./health.js";
import { lettersView } from "./letters.js";
import { recordsView } from "./records.js";
import { tasksView } from "./tasks.js";

/** Hash, name, view, and whether it is for administrators. */
const VIEWS = [
  ["tasks", "Tasks", tasksView, false],
  ["records", "Records", recordsView, true],
  ["groups", "Groups", groupsView, true],
  ["letters", "Dead letters", lettersView, true],
  ["connections", "Connections", connectionsView, true],
  ["health", "Health", healthView, true],
];
const TOKEN = "taskwire.token";
const STATES = {
  idle: "Not connected",
  connecting: "Connecting",
  syncing: "Loading",
  live: "Live",
  waiting: "Reconnecting",
  refused: "Disconnected",
};
const OVERVIEW_MS = 5_000;

const isDevelopment = document.documentElement.dataset.mode === "development";
const main = document.getElementById("main");
const nav = document.getElementById("nav");
const who = document.getElementById("who");

let app;
let shown;

/** What a token says of its user; it is checked by the daemon, not here. */
function claims(token) {
  try {
    const part = token.split(".")[1].replaceAll("-", "+").replaceAll("_", "/");
    return JSON.parse(new TextDecoder().decode(Uint8Array.from(atob(part), (char) => char.charCodeAt(0))));
  } catch {
    return {};
  }
}

function start(token) {
  const user = isDevelopment ? new URLSearchParams(location.search).get("user") : null;
  const isAdmin = token ? claims(token).taskwire_admin === true : isDevelopment && (!user || user === "dev");
  const taskwire = new Taskwire({ token, ...(user && !token ? { user } : {}) });
  app = { taskwire, isAdmin, views: VIEWS.filter(([, , , forAdmins]) => isAdmin || !forAdmins) };
  taskwire.subscribe(showConnection);
  if (isAdmin) count();
  if (!location.hash) history.replaceState(null, "", "#/tasks");
  show();
}

/** The open dead letters, in the bar. */
async function count() {
  try {
    app.overview = await app.taskwire.request("GET", "/api/admin/overview");
    showNav();
  } catch {
    // The connection's state says it already.
  }
  setTimeout(count, OVERVIEW_MS);
}

function route() {
  const [path, query = ""] = location.hash.replace(/^#\/?/, "").split("?");
  const [name, ...rest] = path.split("/").map(decodeURIComponent);
  return { name, rest, query: new URLSearchParams(query) };
}

function showNav() {
  const { name } = route();
  const letters = app.overview?.dead_letters_open ?? 0;
  const wanted = app.views.map(([id, text]) => `${id}:${id === "letters" ? letters : ""}:${id === name}`).join();
  if (nav.dataset.shown === wanted) return;
  nav.dataset.shown = wanted;
  const focused = nav.contains(document.activeElement) ? document.activeElement.getAttribute("href") : null;
  nav.replaceChildren(
    ...app.views.map(([id, text]) =>
      h(
        "a",
        { href: `#/${id}`, "aria-current": id === name ? "page" : null },
        text,
        id === "letters" &&
          letters > 0 &&
          h("span", { class: "count" }, String(letters), h("span", { class: "hidden" }, " open")),
      ),
    ),
  );
  if (focused) nav.querySelector(`[href="${focused}"]`)?.focus();
}

function show() {
  const { name, rest, query } = route();
  showNav();
  if (shown?.name === name) {
    shown.view.update?.(rest, query);
    return;
  }
  shown?.view.unmount?.();
  const [, text, view] = app.views.find(([id]) => id === name) ?? app.views[0];
  document.title = `${text} - taskwire`;
  main.replaceChildren();
  const isFirst = !shown;
  shown = { name, view: view(main, app, rest, query) };
  // A new view is read from its top; the first is where the browser has put the focus.
  if (!isFirst) main.focus({ preventScroll: true });
  scrollTo(0, 0);
}

const pill = h("span", { class: "pill" }, "");
const retry = h("button", { class: "link", onclick: () => app.taskwire.reconnect() }, "Try now");
function showConnection() {
  const { state, transport, userId, code } = app.taskwire.connection;
  pill.className = `pill ${state}`;
  pill.textContent = STATES[state] + (state === "live" && transport === "events" ? " (events)" : "");
  pill.title = state === "live" ? `by ${transport}` : "";
  retry.hidden = state !== "waiting" && state !== "refused";
  if (!who.childElementCount) {
    const leave = h(
      "button",
      {
        onclick: () => {
          sessionStorage.removeItem(TOKEN);
          location.reload();
        },
      },
      "Sign out",
    );
    who.replaceChildren(
      h("span", { class: "quiet", id: "user" }),
      pill,
      retry,
      sessionStorage.getItem(TOKEN) ? leave : "",
    );
  }
  document.getElementById("user").textContent = userId ?? "";
  if (state === "refused" && code === 4401 && !isDevelopment) signIn("That token was refused or has expired.");
}

function signIn(reason = "") {
  sessionStorage.removeItem(TOKEN);
  app?.taskwire.close();
  shown?.view.unmount?.();
  shown = undefined;
  nav.replaceChildren();
  nav.dataset.shown = "";
  who.replaceChildren();
  const token = h("input", {
    type: "password",
    name: "token",
    autocomplete: "off",
    spellcheck: "false",
    required: true,
  });
  main.replaceChildren(
    h(
      "form",
      {
        class: "card pad login stack",
        onsubmit: (event) => {
          event.preventDefault();
          attempt(null, async () => {
            const text = token.value.trim();
            sessionStorage.setItem(TOKEN, text);
            main.replaceChildren();
            start(text);
          });
        },
      },
      h("h1", {}, "Sign in"),
      h(
        "p",
        { class: "quiet" },
        "This daemon asks for a token. It is kept in this tab only, and forgotten when the tab is closed. ",
        h("code", {}, "taskwire token --user NAME"),
        " makes one.",
      ),
      h("p", { class: "problem", role: "alert" }, reason),
      field("Token", token),
      h("div", { class: "actions" }, h("button", { class: "primary" }, "Sign in")),
    ),
  );
  token.focus();
}

document.querySelector(".skip").addEventListener("click", (event) => {
  // The hash names the view.
  event.preventDefault();
  main.focus();
});
// A page that the browser keeps for going back holds no connection meanwhile.
addEventListener("pagehide", () => app?.taskwire.close());
addEventListener("pageshow", (event) => event.persisted && app?.taskwire.reconnect());
addEventListener("hashchange", () => app && show());
addEventListener("unhandledrejection", (event) => {
  event.preventDefault();
  toast(event.reason?.message ?? "Something went wrong", true);
});

const kept = sessionStorage.getItem(TOKEN) ?? undefined;
if (isDevelopment || kept) start(kept);
else signIn();
