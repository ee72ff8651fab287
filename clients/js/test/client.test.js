import assert from "node:assert/strict";
import { after, afterEach, before, describe, test } from "node:test";
import { Refused, Taskwire } from "../src/taskwire.js";
import { Daemon, until } from "./daemon.js";

/** @type {Daemon} */
let daemon;
/** @type {Taskwire[]} */
const open = [];

/** @param {import("../src/taskwire.js").Options} options */
function client(options) {
  const taskwire = new Taskwire({ url: daemon.url, ...options });
  open.push(taskwire);
  return taskwire;
}

/** @param {Taskwire} taskwire */
const titles = (taskwire) => taskwire.tasks.map((task) => task.title);

before(async () => {
  daemon = await Daemon.start();
});
afterEach(() => open.splice(0).forEach((taskwire) => taskwire.close()));
after(() => daemon.remove());

for (const transport of /** @type {const} */ (["websocket", "events"])) {
  const only = transport === "events" ? { transport } : {};
  describe(`over ${transport}`, () => {
    test("a list is a snapshot and then every change", async () => {
      const user = `ada-${transport}`;
      await daemon.create(user, { title: "first" });
      const ada = client({ token: daemon.token(user), ...only });
      await until(ada, () => ada.connection.state === "live");
      assert.deepEqual(titles(ada), ["first"]);
      assert.equal(ada.connection.transport, transport);
      assert.equal(ada.connection.userId, user);
      const made = await ada.create({ title: "second" });
      await until(ada, () => ada.tasks.length === 2);
      assert.deepEqual(titles(ada), ["first", "second"]);
      const list = ada.tasks;
      assert.equal(ada.tasks, list, "the same array until there is a change");
      await ada.update(made.id, { title: "second, mended", priority: "high" }, made.version);
      await until(ada, () => titles(ada).includes("second, mended"));
      await ada.complete(made.id);
      await until(ada, () => ada.tasks[1]?.completed);
      await ada.delete(made.id);
      await until(ada, () => ada.tasks.length === 1);
    });

    test("a list of many tasks comes in parts and is whole", async () => {
      const user = `many-${transport}`;
      for (let n = 0; n < 1_200; n += 50) {
        await Promise.all(Array.from({ length: 50 }, (_, i) => daemon.create(user, { title: `task ${n + i}` })));
      }
      const many = client({ token: daemon.token(user), ...only });
      await until(many, () => many.connection.state === "live");
      assert.equal(new Set(titles(many)).size, 1_200);
    });

    for (const signal of /** @type {const} */ (["SIGTERM", "SIGKILL"])) {
      test(`after ${signal} and a restart nothing is missing and nothing comes twice`, async () => {
        const user = `back-${transport}-${signal}`;
        const back = client({ token: daemon.token(user), ...only });
        /** @type {string[]} */
        const seen = [];
        back.onEvent((event) => seen.push(event.data.title));
        await until(back, () => back.connection.state === "live");
        const expected = [];
        for (let n = 0; n < 20; n++) expected.push((await daemon.create(user, { title: `before ${n}` })).title);
        await daemon.end(signal);
        await until(back, () => back.connection.state === "waiting");
        await daemon.start();
        const up = Date.now();
        for (let n = 0; n < 20; n++) expected.push((await daemon.create(user, { title: `after ${n}` })).title);
        await until(back, () => back.tasks.length === 40);
        assert.ok(Date.now() - up < 1_500, `it took ${Date.now() - up} ms`);
        await until(back, () => back.connection.state === "live");
        assert.deepEqual(seen, expected);
      });
    }

    test("a token that expires is renewed and the list goes on", async () => {
      const user = `renew-${transport}`;
      let calls = 0;
      const getToken = () => {
        calls += 1;
        return daemon.token(user, { seconds: calls === 1 ? 4 : 3600 });
      };
      const renewed = client({ getToken, ...only });
      await until(renewed, () => renewed.connection.state === "live");
      const { session, expiresAt } = renewed.connection;
      await until(renewed, () => renewed.connection.expiresAt !== expiresAt && renewed.connection.state === "live");
      assert.equal(calls, 2);
      if (transport === "websocket") assert.equal(renewed.connection.session, session, "in band");
      await daemon.create(user, { title: "after the renewal" });
      await until(renewed, () => renewed.tasks.length === 1);
    });

    test("a token that is refused is asked for once more, and then it stops", async () => {
      /** @type {boolean[]} */
      const wishes = [];
      const getToken = (/** @type {{ refresh: boolean }} */ { refresh }) => {
        wishes.push(refresh);
        return "not.a.token";
      };
      const refused = client({ getToken, ...only });
      await until(refused, () => refused.connection.state === "refused");
      assert.deepEqual(wishes, [false, true]);
      assert.equal(refused.connection.code, 4401);
    });

    test("a position that cannot be placed gives a new list", async () => {
      const user = `resync-${transport}`;
      await daemon.create(user, { title: "of the first store" });
      const resynced = client({ token: daemon.token(user), ...only });
      await until(resynced, () => resynced.connection.state === "live");
      // Another store at the same address: the old tasks and positions are not its own.
      await daemon.empty();
      await daemon.create(user, { title: "of the second store" });
      await until(resynced, () => titles(resynced)[0] === "of the second store");
      assert.equal(resynced.tasks.length, 1);
    });
  });
}

test("without a working WebSocket it falls back to events", async () => {
  class Broken extends EventTarget {
    constructor() {
      super();
      setTimeout(() => this.onclose?.({ code: 1006, reason: "" }));
    }
    /** @type {any} */
    onclose;
    close() {}
  }
  const broken = client({ token: daemon.token("fallback"), WebSocket: /** @type {any} */ (Broken) });
  await until(broken, () => broken.connection.state === "live");
  assert.equal(broken.connection.transport, "events");
});

test("one who leaves and comes back goes on from its position", async () => {
  const idle = client({ token: daemon.token("idle") });
  const stop = idle.subscribe(() => {});
  await until(idle, () => idle.connection.state === "live");
  stop();
  const asked = Date.now();
  while (idle.connection.state !== "idle" && Date.now() - asked < 5_000) await new Promise((r) => setTimeout(r, 20));
  assert.equal(idle.connection.state, "idle");
  const position = idle.position;
  await daemon.create("idle", { title: "meanwhile" });
  assert.deepEqual(titles(idle), []);
  await until(idle, () => titles(idle)[0] === "meanwhile");
  assert.notEqual(idle.position, position);
});

test("another user's token never mixes two lists", async () => {
  await daemon.create("one", { title: "of one" });
  await daemon.create("two", { title: "of two" });
  let user = "one";
  const mixed = client({ getToken: () => daemon.token(user, { seconds: 3600 }) });
  await until(mixed, () => mixed.connection.state === "live");
  user = "two";
  mixed.logIn();
  await until(mixed, () => titles(mixed)[0] === "of two");
  assert.deepEqual(titles(mixed), ["of two"]);
});

test("a refused request says why", async () => {
  const ada = client({ token: daemon.token("ada") });
  await assert.rejects(ada.create({ title: "" }), (error) => {
    assert.ok(error instanceof Refused);
    assert.deepEqual([error.status, error.code], [422, "invalid_field"]);
    return true;
  });
  await assert.rejects(ada.complete("none"), { status: 404, code: "task_not_found" });
});

test("an event without a task reaches its listener and changes no list", async () => {
  const ada = client({ token: daemon.token("note") });
  /** @type {any[]} */
  const events = [];
  ada.onEvent((event) => events.push(event));
  await until(ada, () => ada.connection.state === "live");
  await daemon.run("send", "note", "text=hello", "--user", "note", "--bootstrap", daemon.kafka);
  const asked = Date.now();
  while (events.length === 0 && Date.now() - asked < 5_000) await new Promise((r) => setTimeout(r, 10));
  assert.equal(events[0]?.type, "note");
  assert.equal(events[0].data.text, "hello");
  assert.equal(ada.tasks.length, 0);
});
