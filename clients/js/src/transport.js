// How frames come: over a WebSocket, or as server-sent events. Both end with a close code.

/**
 * @typedef {{ type: string, data?: any, event_id?: string, time?: string, pos?: string }} Frame
 * @typedef {object} Opening
 * @property {URL} url where the daemon is
 * @property {string | undefined} token
 * @property {Record<string, string>} query
 * @property {typeof globalThis.fetch} fetch
 * @property {typeof globalThis.WebSocket | undefined} WebSocket
 * @property {AbortSignal} signal ends it
 * @property {(frame: Frame) => void} take gets each frame
 * @property {(link: Link | undefined) => void} attach gets the way back, while there is one
 * @typedef {object} Link
 * @property {(token: string) => void} renew sends a new token
 * @property {() => void} drop ends it, so that the next attempt begins
 * @typedef {{ code: number, reason?: string, waitMs?: number }} End
 */

/** Browsers do not show a server's pings, so a line that is dead is found by our own. */
const PING_MS = 20_000;
const PONG_MS = 10_000;
/** The daemon sends a comment each 15 s. */
const SILENCE_MS = 40_000;
/** Of a lost line, as a WebSocket has it. */
export const LOST = 1006;

/**
 * @param {Opening} opening
 * @returns {Promise<End>}
 */
export function openSocket({ url, token, query, WebSocket, signal, take, attach }) {
  return new Promise((resolve) => {
    const address = new URL("ws/tasks", url);
    address.protocol = url.protocol === "https:" ? "wss:" : "ws:";
    for (const name in query) address.searchParams.set(name, query[name]);
    const protocols = ["taskwire.v1"];
    if (token) protocols.push(`taskwire.bearer.${token}`);
    const socket = new /** @type {typeof globalThis.WebSocket} */ (WebSocket)(address, protocols);
    /** @type {any} */
    let timer;
    const watch = () => {
      clearTimeout(timer);
      timer = setTimeout(() => {
        socket.send("ping");
        timer = setTimeout(() => end({ code: LOST, reason: "no answer to a ping" }), PONG_MS);
      }, PING_MS);
    };
    /** @param {End} how */
    const end = (how) => {
      clearTimeout(timer);
      signal.removeEventListener("abort", drop);
      socket.onopen = socket.onmessage = socket.onclose = socket.onerror = null;
      socket.close();
      attach(undefined);
      resolve(how);
    };
    const drop = () => end({ code: LOST });
    signal.addEventListener("abort", drop);
    socket.onopen = () => {
      watch();
      attach({ renew: (token) => socket.send(JSON.stringify({ type: "auth", data: { token } })), drop });
    };
    socket.onmessage = ({ data }) => {
      watch();
      take(JSON.parse(data));
    };
    socket.onclose = ({ code, reason }) => end({ code, reason });
    // A close follows, but not everywhere; and an opening that never ends is none.
    socket.onerror = () => {
      clearTimeout(timer);
      timer = setTimeout(drop, PONG_MS / 100);
    };
    timer = setTimeout(drop, PONG_MS);
  });
}

/**
 * @param {Opening} opening
 * @returns {Promise<End>}
 */
export async function openEvents({ url, token, query, fetch, signal, take, attach }) {
  const abort = new AbortController();
  const drop = () => abort.abort();
  signal.addEventListener("abort", drop);
  /** @type {any} */
  let timer;
  const watch = () => {
    clearTimeout(timer);
    timer = setTimeout(drop, SILENCE_MS);
  };
  try {
    watch();
    const address = new URL("api/events", url);
    for (const name in query) address.searchParams.set(name, query[name]);
    const answer = await fetch(address, { headers: bearer(token), signal: abort.signal, cache: "no-store" });
    if (!answer.ok || !answer.body) return end_of(answer);
    attach({ renew: drop, drop }); // A new token needs a new request.
    const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
    let text = "";
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return { code: LOST };
      watch();
      const blocks = (text + value).split(/\r?\n\r?\n/);
      text = blocks.pop() ?? "";
      for (const block of blocks) {
        const data = block.match(/^data: ?(.*)$/gm)?.map((line) => line.replace(/^data: ?/, ""));
        if (data) take(JSON.parse(data.join("\n")));
      }
    }
  } catch (error) {
    return { code: LOST, reason: String(error) };
  } finally {
    clearTimeout(timer);
    signal.removeEventListener("abort", drop);
    abort.abort();
    attach(undefined);
  }
}

/**
 * Asks by a plain request why a WebSocket was refused, which browsers do not tell. Code 0: nothing is wrong but the
 * WebSocket.
 * @param {Opening} opening
 * @returns {Promise<End>}
 */
export async function probe({ url, token, query, fetch, signal }) {
  try {
    const address = new URL("api/tasks?limit=1", url);
    if (query.user) address.searchParams.set("user", query.user);
    const answer = await fetch(address, { headers: bearer(token), signal, cache: "no-store" });
    return answer.ok ? { code: 0 } : end_of(answer);
  } catch (error) {
    return { code: LOST, reason: String(error) };
  }
}

/**
 * A refused request as a close code.
 * @param {Response} answer
 * @returns {End}
 */
function end_of(answer) {
  const waitMs = Number(answer.headers.get("retry-after")) * 1000;
  const code = answer.status === 401 ? 4401 : answer.status === 403 ? 4403 : 4500;
  return { code, reason: `status ${answer.status}`, waitMs };
}

/**
 * @param {string | undefined} token
 * @returns {Record<string, string>}
 */
export const bearer = (token) => (token ? { authorization: `Bearer ${token}` } : {});
