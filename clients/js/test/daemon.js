// A real daemon in a directory of its own. TASKWIRE names the binary.
import { execFile, spawn } from "node:child_process";
import { createHmac, randomBytes } from "node:crypto";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";

const BINARY = process.env.TASKWIRE;
if (!BINARY) throw new Error("TASKWIRE must name the daemon's binary");

/** A port that was free a moment ago, so that the daemon can come back on it. */
export const freePort = () =>
  /** @type {Promise<number>} */ (
    new Promise((resolve, reject) => {
      const server = createServer();
      server.once("error", reject);
      server.listen(0, "127.0.0.1", () => {
        const { port } = /** @type {import("node:net").AddressInfo} */ (server.address());
        server.close(() => resolve(port));
      });
    })
  );

export class Daemon {
  #dir = mkdtempSync(join(tmpdir(), "taskwire-js-"));
  #secret = randomBytes(32).toString("hex");
  /** @type {import("node:child_process").ChildProcess | undefined} */
  #child;
  #args;
  #port;
  #kafkaPort;

  static async start({ withTokens = true, args = /** @type {string[]} */ ([]) } = {}) {
    const daemon = new Daemon(await freePort(), await freePort(), withTokens, args);
    await daemon.start();
    return daemon;
  }

  /** @param {number} port @param {number} kafkaPort @param {boolean} withTokens @param {string[]} args */
  constructor(port, kafkaPort, withTokens, args) {
    this.#port = port;
    this.#kafkaPort = kafkaPort;
    writeFileSync(join(this.#dir, "secret"), this.#secret);
    this.#args = [
      "serve",
      "--data-dir",
      join(this.#dir, "data"),
      "--http-listen",
      `127.0.0.1:${port}`,
      "--kafka-listen",
      `127.0.0.1:${kafkaPort}`,
      "--drain-timeout",
      "1s",
      ...args,
    ];
    if (withTokens) this.#args.push("--jwt-secret-file", join(this.#dir, "secret"));
  }

  get url() {
    return `http://127.0.0.1:${this.#port}`;
  }

  get kafka() {
    return `127.0.0.1:${this.#kafkaPort}`;
  }

  async start() {
    const child = spawn(/** @type {string} */ (BINARY), this.#args, { stdio: ["ignore", "ignore", "pipe"] });
    this.#child = child;
    let log = "";
    child.stderr.on("data", (text) => (log = (log + text).slice(-4_000)));
    for (const end = Date.now() + 20_000; ;) {
      const answer = await fetch(`${this.url}/readyz`).catch(() => undefined);
      if (answer?.ok) return;
      if (Date.now() > end || child.exitCode !== null) throw new Error(`the daemon does not start: ${log}`);
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
  }

  /** @param {NodeJS.Signals} signal */
  async end(signal = "SIGTERM") {
    const child = this.#child;
    if (!child || child.exitCode !== null || child.signalCode !== null) return;
    const gone = new Promise((resolve) => child.once("exit", resolve));
    child.kill(signal);
    await gone;
  }

  /** Starts again on an empty directory, at the same address. */
  async empty() {
    await this.end("SIGKILL");
    rmSync(join(this.#dir, "data"), { recursive: true, force: true });
    await this.start();
  }

  async remove() {
    await this.end("SIGKILL");
    rmSync(this.#dir, { recursive: true, force: true });
  }

  /** Runs the binary. @param {string[]} args */
  run(...args) {
    return promisify(execFile)(/** @type {string} */ (BINARY), args);
  }

  /** @param {string} user @param {object} more */
  token(user, { seconds = 3600, isAdmin = false } = {}) {
    /** @param {unknown} value */
    const part = (value) => Buffer.from(JSON.stringify(value)).toString("base64url");
    const claims = {
      sub: user,
      exp: Math.floor(Date.now() / 1000) + seconds,
      jti: randomBytes(4).toString("hex"),
      ...(isAdmin ? { taskwire_admin: true } : {}),
    };
    const text = `${part({ alg: "HS256", typ: "JWT" })}.${part(claims)}`;
    return `${text}.${createHmac("sha256", this.#secret).update(text).digest("base64url")}`;
  }

  /** @param {string} user @param {object} task */
  async create(user, task) {
    const answer = await fetch(`${this.url}/api/tasks`, {
      method: "POST",
      headers: { authorization: `Bearer ${this.token(user)}`, "content-type": "application/json" },
      body: JSON.stringify(task),
    });
    if (answer.status !== 201) throw new Error(`status ${answer.status}: ${await answer.text()}`);
    return answer.json();
  }
}

/**
 * Waits for a fact about a client.
 * @param {import("../src/taskwire.js").Taskwire} taskwire @param {() => unknown} fact
 */
export function until(taskwire, fact, ms = 10_000) {
  return /** @type {Promise<void>} */ (
    new Promise((resolve, reject) => {
      const timer = setTimeout(() => {
        reject(
          new Error(`not in time: ${fact}; ${JSON.stringify(taskwire.connection)}, ${taskwire.tasks.length} tasks`),
        );
        stop();
      }, ms);
      const look = () => {
        if (!fact()) return;
        clearTimeout(timer);
        queueMicrotask(() => stop());
        resolve();
      };
      const stop = taskwire.subscribe(look);
      look();
    })
  );
}
