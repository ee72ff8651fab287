// A live list of one user's tasks, for any page or framework. No dependencies.
//
//   const stop = followTasks({ url: "http://localhost:8000", token }, (tasks, state) => render(tasks));
//
// It lists the tasks, then opens a WebSocket from the position of that list, so that no change falls in between. After a
// lost connection it resumes from its position. `state` is "connecting", "live" or "refused".

const FIRST_WAIT_MS = 250;
const LAST_WAIT_MS = 10_000;
/** Messages whose data is a whole task; other types are an event's own data. */
const TASK_TYPES = new Set(["task_created", "task_updated", "task_completed", "task_priority_changed", "task_due_soon"]);

/** Calls `onChange(tasks, state)` with each change, until the function that is returned is called. */
export function followTasks({ url = "", token } = {}, onChange) {
  const base = new URL(url || location.origin, globalThis.location?.href);
  const tasks = new Map();
  let position;
  let socket;
  let timer;
  let waitMs = FIRST_WAIT_MS;
  let wasOpen = false;
  let isStopped = false;

  const tell = (state) => isStopped || onChange([...tasks.values()], state);
  const retry = () => {
    if (isStopped) return;
    tell("connecting");
    timer = setTimeout(() => start().catch(failed), waitMs * (0.5 + Math.random() / 2));
    waitMs = Math.min(waitMs * 2, LAST_WAIT_MS);
  };
  const failed = (error) => (error.isFinal ? tell("refused") : retry());

  async function start() {
    // A browser does not say why a handshake was refused; a request does.
    if (position === undefined) await list();
    else if (!wasOpen) await get(new URL("/api/tasks?limit=1", base));
    if (!isStopped) follow();
  }

  /** Reads all pages; the position is that of the first, so that changes made meanwhile come again. */
  async function list() {
    tasks.clear();
    let first;
    let next = new URL("/api/tasks", base);
    while (next) {
      const answer = await get(next);
      first ??= answer.headers.get("taskwire-position");
      for (const task of await answer.json()) tasks.set(task.id, task);
      const link = /<([^>]*)>;\s*rel="?next"?/.exec(answer.headers.get("link") ?? "");
      next = link && new URL(link[1], base);
    }
    position = first;
  }

  async function get(url) {
    const answer = await fetch(url, { headers: token ? { authorization: `Bearer ${token}` } : {} });
    if (answer.ok) return answer;
    throw Object.assign(new Error(`status ${answer.status}`), { isFinal: [401, 403].includes(answer.status) });
  }

  function follow() {
    wasOpen = false;
    const address = new URL("/ws/tasks", base);
    address.protocol = base.protocol === "https:" ? "wss:" : "ws:";
    address.searchParams.set("from", position);
    if (token) address.searchParams.set("token", token);
    socket = new WebSocket(address);
    socket.onopen = () => {
      wasOpen = true;
      waitMs = FIRST_WAIT_MS;
      tell("live");
    };
    socket.onmessage = ({ data }) => take(JSON.parse(data));
    socket.onclose = ({ code }) => (code >= 4400 && code < 4500 ? tell("refused") : retry());
  }

  function take({ type, data, pos }) {
    if (type === "resync") {
      // Our position is too old, or the store is another: read the list again.
      position = undefined;
      socket.close();
      return;
    }
    position = pos ?? position;
    if (type === "task_deleted") {
      tasks.delete(data.id);
    } else if (TASK_TYPES.has(type) && data.version > (tasks.get(data.id)?.version ?? 0)) {
      tasks.set(data.id, data);
    }
    tell("live");
  }

  start().catch(failed);
  return () => {
    isStopped = true;
    clearTimeout(timer);
    socket?.close();
  };
}
