import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { Window } from "happy-dom";
import { createElement as h, StrictMode } from "react";
import { useConnection, useTasks } from "../src/react.js";
import { Taskwire } from "../src/taskwire.js";
import { Daemon } from "./daemon.js";

/** @type {Daemon} */
let daemon;
before(async () => {
  daemon = await Daemon.start();
});
after(() => daemon.remove());

test("the hooks show the list and the connection, live, and let go of it at the end", async () => {
  const window = new Window();
  Object.assign(globalThis, { window, document: window.document });
  globalThis.navigator ??= /** @type {any} */ (window.navigator);
  const { createRoot } = await import("react-dom/client");
  const taskwire = new Taskwire({ url: daemon.url, token: daemon.token("ada") });
  function List() {
    const tasks = useTasks(taskwire);
    const { state } = useConnection(taskwire);
    return h("p", null, `${state}: ${tasks.map((task) => task.title).join(", ")}`);
  }
  const place = window.document.createElement("div");
  const root = createRoot(/** @type {any} */ (place));
  root.render(h(StrictMode, null, h(List)));
  const shows = async (/** @type {string} */ text) => {
    for (const end = Date.now() + 10_000; place.textContent !== text;) {
      if (Date.now() > end) assert.equal(place.textContent, text);
      await new Promise((resolve) => setTimeout(resolve, 10));
    }
  };
  await shows("live: ");
  await daemon.create("ada", { title: "<b>one</b>" });
  await shows("live: <b>one</b>");
  root.unmount();
  for (const end = Date.now() + 5_000; taskwire.connection.state !== "idle";) {
    if (Date.now() > end) assert.equal(taskwire.connection.state, "idle");
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
});

test("on a server there is an empty list and no connection", async () => {
  const { renderToString } = await import("react-dom/server");
  const taskwire = new Taskwire({ url: daemon.url });
  const List = () => h("p", null, `${useConnection(taskwire).state} ${useTasks(taskwire).length}`);
  assert.equal(renderToString(h(List)), "<p>idle 0</p>");
  assert.equal(taskwire.connection.state, "idle");
});
