// A live list of one user's tasks. No dependencies; for browsers and Node.
//
//   const taskwire = new Taskwire({ url: "http://localhost:8000", getToken: () => token });
//   const stop = taskwire.subscribe(() => render(taskwire.tasks, taskwire.connection));
//
// It is connected while somebody listens. After a lost connection it goes on from its position, and drops what comes
// twice.
import { LOST, bearer, openEvents, openSocket, probe } from "./transport.js";

/** @import { End, Frame, Link, Opening } from "./transport.js" */

/**
 * @typedef {object} Task
 * @property {string} id
 * @property {string} title
 * @property {string | null} description
 * @property {string} user_id
 * @property {"low" | "medium" | "high" | "urgent"} priority
 * @property {string | null} due_date
 * @property {string[]} [labels]
 * @property {boolean} completed
 * @property {string | null} completed_at
 * @property {string} created_at
 * @property {string} updated_at
 * @property {number} version one more with each change
 *
 * @typedef {Frame} Event what happened: `type`, `data`, `event_id`, `time`, `pos`
 *
 * @typedef {object} Connection
 * @property {"idle" | "connecting" | "syncing" | "live" | "waiting" | "refused"} state `refused`: only `reconnect()`
 *   tries again
 * @property {"websocket" | "events" | null} transport
 * @property {string | null} userId
 * @property {string | null} session
 * @property {string | null} expiresAt of the token
 * @property {number} since when this state began, in milliseconds
 * @property {number | null} retryAt when `waiting` ends
 * @property {number | null} code why the last connection ended
 * @property {string | null} reason
 *
 * @typedef {object} Options
 * @property {string | URL} [url] the daemon; the page's own origin if left out
 * @property {string} [token]
 * @property {(wish: { refresh: boolean }) => string | undefined | Promise<string | undefined>} [getToken] `refresh`:
 *   the last one was refused or expires soon
 * @property {string} [user] development mode only: whose tasks
 * @property {"events"} [transport] server-sent events only
 * @property {typeof globalThis.fetch} [fetch]
 * @property {typeof globalThis.WebSocket} [WebSocket]
 */

/** Messages whose data is a whole task; others are an event's own data. */
const TASK = /^task_(created|updated|completed|priority_changed|due_soon)$/;
/** Event ids that are remembered to drop repeats. */
const SEEN_MAX = 4_096;
/** Shortest time between two calls of listeners. */
const TELL_MS = 16;
/** How long it stays connected when nobody listens: React unsubscribes and subscribes again at once. */
const LINGER_MS = 500;
const UP_MS = 1_000;
const WAIT_MIN_MS = 100;
const WAIT_MAX_MS = 15_000;

/** What the daemon answered with instead. */
export class Refused extends Error {
  /**
   * @param {number} status
   * @param {any} problem the problem document (RFC 9457)
   */
  constructor(status, problem) {
    super(problem?.detail ?? problem?.title ?? `status ${status}`);
    this.name = "Refused";
    this.status = status;
    /** @type {string | undefined} the stable code */
    this.code = problem?.code;
    this.problem = problem;
  }
}

export class Taskwire {
  /** @type {Connection} */
  connection = {
    state: "idle",
    transport: null,
    userId: null,
    session: null,
    expiresAt: null,
    since: Date.now(),
    retryAt: null,
    code: null,
    reason: null,
  };

  #options;
  #url;
  #fetch;
  /** @type {Map<string, Task>} */
  #tasks = new Map();
  /** @type {readonly Task[] | undefined} */
  #list = [];
  /** The parts of a snapshot so far. @type {Task[]} */
  #parts = [];
  /** Undefined: a snapshot is needed. @type {string | undefined} */
  #position;
  /** @type {Set<string>} */
  #seen = new Set();
  /** @type {Set<() => void>} */
  #listeners = new Set();
  /** @type {Set<(event: Event) => void>} */
  #eventListeners = new Set();
  /** @type {string | undefined} */
  #token;
  /** @type {Link | undefined} */
  #link;
  /** @type {AbortController | undefined} */
  #run;
  /** Ends a wait. @type {(() => void) | undefined} */
  #hurry;
  /** @type {any} */
  #telling;
  #told = 0;
  /** When the last live connection ended. */
  #downAt = Date.now();
  #waitMs = 0;

  /** @param {Options} [options] */
  constructor(options = {}) {
    this.#options = options;
    this.#url = new URL(options.url ?? globalThis.location?.origin ?? "http://localhost:8000");
    if (!this.#url.pathname.endsWith("/")) this.#url.pathname += "/";
    this.#fetch = options.fetch ?? globalThis.fetch.bind(globalThis);
    this.#token = options.token;
  }

  /** All tasks, oldest first; another array after each change. @returns {readonly Task[]} */
  get tasks() {
    this.#list ??= [...this.#tasks.values()].sort((a, b) =>
      a.created_at < b.created_at ? -1 : a.created_at > b.created_at ? 1 : a.id < b.id ? -1 : 1,
    );
    return this.#list;
  }

  /** After this position changes will come. @returns {string | undefined} */
  get position() {
    return this.#position;
  }

  /**
   * Calls `listener` after changes of `tasks` or `connection`, until the function that is returned is called.
   * @param {() => void} listener
   */
  subscribe = (listener) => this.#listen(this.#listeners, listener);

  /**
   * Calls `listener` with each event as it comes, those without a task among them.
   * @param {(event: Event) => void} listener
   */
  onEvent = (listener) => this.#listen(this.#eventListeners, listener);

  /** Tries again now, after `refused` too. */
  reconnect() {
    if (this.connection.state === "refused") this.close();
    this.#hurry?.();
    this.#start();
  }

  /** Asks `getToken` for another user's token, and comes back with that. */
  logIn() {
    this.#token = this.#options.token;
    this.close();
    this.#start();
  }

  /** Disconnects, whoever listens. */
  close() {
    this.#run?.abort();
    this.#run = this.#link = undefined;
    this.#set({ state: "idle", retryAt: null });
  }

  /** @param {Partial<Task>} fields @returns {Promise<Task>} */
  create(fields) {
    return this.request("POST", "api/tasks", fields);
  }

  /** @param {string} id @param {Partial<Task>} fields @param {number} [version] only if it still has this version */
  update(id, fields, version) {
    /** @type {Record<string, string>} */
    const headers = version ? { "if-match": `"${version}"` } : {};
    return this.request("PATCH", `api/tasks/${encodeURIComponent(id)}`, fields, headers);
  }

  /** @param {string} id @returns {Promise<Task>} */
  complete(id) {
    return this.request("POST", `api/tasks/${encodeURIComponent(id)}/complete`);
  }

  /** @param {string} id @returns {Promise<void>} */
  delete(id) {
    return this.request("DELETE", `api/tasks/${encodeURIComponent(id)}`);
  }

  /**
   * Any request of the API, as its user. A token that was refused is renewed once.
   * @param {string} method
   * @param {string} path
   * @param {any} [body] sent as JSON, unless `headers` name another type
   * @param {Record<string, string>} [headers]
   * @returns {Promise<any>}
   */
  async request(method, path, body, headers) {
    const address = new URL(path, this.#url);
    if (this.#options.user) address.searchParams.set("user", this.#options.user);
    const isRaw = body === undefined || headers?.["content-type"];
    for (let refresh = false; ; refresh = true) {
      const token = await this.#tokenNow(refresh);
      const answer = await this.#fetch(address, {
        method,
        headers: { ...bearer(token), ...(isRaw ? {} : { "content-type": "application/json" }), ...headers },
        body: isRaw ? body : JSON.stringify(body),
      });
      if (answer.status === 401 && !refresh && this.#options.getToken) continue;
      const text = await answer.text();
      const json = /json/.test(answer.headers.get("content-type") ?? "") ? JSON.parse(text) : undefined;
      if (!answer.ok) throw new Refused(answer.status, json);
      return json;
    }
  }

  /** @template T @param {Set<T>} listeners @param {T} listener */
  #listen(listeners, listener) {
    listeners.add(listener);
    this.#start();
    return () => {
      listeners.delete(listener);
      setTimeout(() => this.#listeners.size + this.#eventListeners.size || this.close(), LINGER_MS);
    };
  }

  #start() {
    if (this.#run) return;
    this.#run = new AbortController();
    this.#downAt = Date.now();
    this.#follow(this.#run.signal);
  }

  /** Connects again and again, until it is told not to. @param {AbortSignal} signal */
  async #follow(signal) {
    const hurry = () => this.#hurry?.();
    globalThis.addEventListener?.("online", hurry);
    /** Attempts in a row at which only the WebSocket failed. */
    let failures = 0;
    let refresh = false;
    while (!signal.aborted) {
      const before = this.#token;
      /** @type {End} */
      let end = { code: LOST };
      try {
        const token = await this.#tokenNow(refresh);
        if (refresh && token === before) {
          this.#set({ state: "refused" });
          break;
        }
        const byEvents = this.#options.transport || !this.#socket || failures > 1;
        end = await this.#attend(signal, token, byEvents ? "events" : "websocket");
        // After a time of events the WebSocket gets another chance.
        failures = end.code === 0 ? failures + 1 : byEvents ? 1 : 0;
      } catch (error) {
        end.reason = String(error);
      }
      if (signal.aborted) break;
      const { code, reason = "" } = end;
      refresh = code === 4401;
      this.#set({ code, reason });
      if ((refresh && !this.#options.getToken) || (!refresh && code >= 4400 && code < 4500)) {
        this.#set({ state: "refused" });
        break;
      }
      // A token that was good enough for a while is renewed at once; else we wait a quarter of the time that we have
      // been down, so that short restarts are short and long ones cost little, and not all come at once.
      const wait = Math.min(Math.max((Date.now() - this.#downAt) / 4, WAIT_MIN_MS), WAIT_MAX_MS);
      const ms = Math.max(end.waitMs || 0, this.#waitMs) + wait * (0.5 + Math.random());
      this.#waitMs = 0;
      this.#set({ state: "waiting", retryAt: Date.now() + ms });
      await /** @type {Promise<void>} */ (
        new Promise((resolve) => {
          const timer = setTimeout(resolve, ms);
          this.#hurry = () => {
            clearTimeout(timer);
            resolve();
          };
          signal.addEventListener("abort", this.#hurry, { once: true });
        })
      );
      this.#hurry = undefined;
    }
    globalThis.removeEventListener?.("online", hurry);
  }

  get #socket() {
    return this.#options.WebSocket ?? globalThis.WebSocket;
  }

  /**
   * One connection, to its end.
   * @param {AbortSignal} signal @param {string | undefined} token @param {"websocket" | "events"} transport
   * @returns {Promise<End>}
   */
  async #attend(signal, token, transport) {
    this.#set({ state: "connecting", transport, retryAt: null });
    this.#parts = [];
    let isGreeted = false;
    /** @type {Record<string, string>} */
    const query = this.#position ? { from: this.#position, or: "snapshot" } : { from: "snapshot" };
    if (this.#options.user) query.user = this.#options.user;
    /** @type {Opening} */
    const opening = {
      url: this.#url,
      token,
      query,
      fetch: this.#fetch,
      WebSocket: this.#socket,
      signal,
      take: (frame) => {
        isGreeted = true;
        if (!signal.aborted) this.#take(frame);
      },
      attach: (link) => {
        if (!signal.aborted) this.#link = link;
      },
    };
    const end = await (transport === "events" ? openEvents : openSocket)(opening);
    // One that ends again and again at once is not up.
    if (this.connection.state === "live" && Date.now() - this.connection.since > UP_MS) this.#downAt = Date.now();
    const isUnknown = transport === "websocket" && !isGreeted && end.code < 4000 && !signal.aborted;
    return isUnknown ? probe(opening) : end;
  }

  /** @param {Frame} frame */
  #take({ type, data, event_id, time, pos }) {
    if (type === "hello") {
      const { user_id, session, expires_at } = data;
      const { userId } = this.connection;
      if (userId && userId !== user_id) {
        // Another user's token: nothing of the old list is ours.
        this.#tasks.clear();
        this.#position = undefined;
        this.#changed();
      }
      this.#set({ state: "syncing", userId: user_id, session, expiresAt: expires_at });
    } else if (type === "snapshot") {
      this.#parts.push(...data.tasks);
      if (data.more) return;
      this.#tasks = new Map(this.#parts.map((task) => [task.id, task]));
      this.#parts = [];
      this.#position = pos;
      this.#changed();
    } else if (type === "resync") {
      // What we have is not to be trusted; until a snapshot is whole there is no position to come back with.
      this.#position = undefined;
      this.#seen.clear();
    } else if (type === "live") {
      if (this.#position === undefined) return this.#link?.drop();
      this.#position = pos ?? this.#position;
      this.#set({ state: "live", code: null, reason: null });
    } else if (type === "drain") {
      this.#waitMs = data.reconnect_after_ms;
    } else if (type === "token_expiring") {
      this.#renew();
    } else if (type === "auth_ok") {
      this.#set({ expiresAt: data.expires_at });
    } else if (type !== "pong") {
      // After a resync in mid-stream a change would be one of a list that we do not have.
      if (this.#position === undefined) return this.#link?.drop();
      this.#position = pos ?? this.#position;
      this.#change({ type, data, event_id, time, pos });
    }
  }

  /** @param {Frame} event */
  #change(event) {
    const { type, data, event_id } = event;
    if (event_id !== undefined) {
      if (this.#seen.has(event_id)) return;
      this.#seen.add(event_id);
      if (this.#seen.size > SEEN_MAX) this.#seen.delete(/** @type {string} */ (this.#seen.values().next().value));
    }
    if (type === "task_deleted") {
      if (this.#tasks.delete(data.id)) this.#changed();
    } else if (TASK.test(type) && data.version > (this.#tasks.get(data.id)?.version ?? 0)) {
      this.#tasks.set(data.id, data);
      this.#changed();
    }
    for (const listener of this.#eventListeners) listener(event);
  }

  /** @param {boolean} refresh */
  async #tokenNow(refresh) {
    const { getToken } = this.#options;
    if (getToken && (refresh || this.#token === undefined)) this.#token = await getToken({ refresh });
    return this.#token;
  }

  async #renew() {
    const before = this.#token;
    try {
      const token = await this.#tokenNow(true);
      if (token && token !== before) this.#link?.renew(token);
    } catch {
      // The old one is good for a while; its end asks again.
    }
  }

  /** @param {Partial<Connection>} changes */
  #set(changes) {
    const since = changes.state && changes.state !== this.connection.state ? Date.now() : this.connection.since;
    this.connection = { ...this.connection, ...changes, since };
    this.#tell();
  }

  #changed() {
    this.#list = undefined;
    this.#tell();
  }

  /** At once if the last time is a while ago, so that a burst costs its listeners few calls. */
  #tell() {
    if (this.#telling) return;
    const tell = () => {
      this.#telling = undefined;
      this.#told = Date.now();
      for (const listener of this.#listeners) listener();
    };
    this.#telling = setTimeout(tell, Math.max(0, this.#told + TELL_MS - Date.now()));
  }
}
