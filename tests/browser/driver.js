// Chromium by its driver (W3C WebDriver over HTTP), and what the tests ask of a page.
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { freePort } from "../../clients/js/test/daemon.js";

const ELEMENT = "element-6066-11e4-a52e-4f735466cecf";
const SCREENSHOTS = new URL("../../target/screenshots/", import.meta.url).pathname;
const PATIENCE_MS = 10_000;
/** WebDriver's codes of keys. */
export const KEY = { tab: "\uE004", enter: "\uE007", space: " ", escape: "\uE00C" };

export class Browser {
  #driver;
  #dir;
  #base = "";

  static async start() {
    const browser = new Browser(await freePort());
    await browser.#open();
    return browser;
  }

  constructor(port) {
    this.#dir = mkdtempSync(join(tmpdir(), "taskwire-browser-"));
    this.#driver = spawn("chromedriver", [`--port=${port}`], {
      stdio: "ignore",
      env: { ...process.env, TMPDIR: this.#dir },
    });
    this.#base = `http://127.0.0.1:${port}`;
    mkdirSync(SCREENSHOTS, { recursive: true });
  }

  async #open() {
    for (const end = Date.now() + PATIENCE_MS; ;) {
      const answer = await fetch(`${this.#base}/status`).catch(() => undefined);
      if (answer?.ok) break;
      if (Date.now() > end) throw new Error("chromedriver does not start");
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
    const args = [
      "--headless=new",
      "--no-sandbox",
      "--disable-dev-shm-usage",
      "--disable-gpu",
      "--window-size=1280,860",
      "--no-first-run",
      "--disable-background-networking",
      "--disable-component-update",
      "--force-prefers-reduced-motion",
      `--user-data-dir=${join(this.#dir, "profile")}`,
    ];
    const capabilities = {
      alwaysMatch: {
        browserName: "chrome",
        "goog:chromeOptions": { args },
        "goog:loggingPrefs": { browser: "ALL", performance: "ALL" },
      },
    };
    const { sessionId } = await this.#ask("POST", "/session", { capabilities });
    this.#base += `/session/${sessionId}`;
  }

  async end() {
    await this.#ask("DELETE", "").catch(() => {});
    this.#driver.kill();
    rmSync(this.#dir, { recursive: true, force: true, maxRetries: 5 });
  }

  async #ask(method, path, body) {
    const answer = await fetch(this.#base + path, { method, body: body && JSON.stringify(body) });
    const { value } = await answer.json();
    if (!answer.ok) throw new Error(`${path}: ${value.message}`);
    return value;
  }

  go(url) {
    return this.#ask("POST", "/url", { url });
  }

  /** Runs a function in the page. */
  run(work, ...args) {
    return this.#ask("POST", "/execute/sync", { script: `return (${work}).apply(null, arguments)`, args });
  }

  /** The same for one that gives a promise. */
  runAsync(work, ...args) {
    const script = `const done = arguments[arguments.length - 1]; (${work}).apply(null, arguments).then(done)`;
    return this.#ask("POST", "/execute/async", { script, args });
  }

  /** Waits until a function of the page gives something. */
  async until(work, ...args) {
    for (const end = Date.now() + PATIENCE_MS; ;) {
      const value = await this.run(work, ...args);
      if (value) return value;
      if (Date.now() > end)
        throw new Error(
          `not in time: ${work} ${JSON.stringify(args)}\n${await this.run(() => document.body.innerText.slice(0, 2_000))}`,
        );
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
  }

  /** Waits until this text is shown. */
  shows(text) {
    return this.until((text) => document.body.innerText.includes(text), text);
  }

  async #find(css, text) {
    const found = await this.until(
      (css, text) =>
        [...document.querySelectorAll(css)].find(
          (element) => element.checkVisibility() && (!text || element.textContent.trim() === text),
        ),
      css,
      text,
    );
    return found[ELEMENT];
  }

  async click(css, text) {
    await this.#ask("POST", `/element/${await this.#find(css, text)}/click`, {});
  }

  async type(css, text) {
    await this.#ask("POST", `/element/${await this.#find(css)}/value`, { text });
  }

  async clear(css) {
    await this.#ask("POST", `/element/${await this.#find(css)}/clear`, {});
  }

  /** Keys, one after the other, to whatever has the focus. */
  async keys(...keys) {
    const actions = keys
      .flatMap((keys) => [...keys])
      .flatMap((value) => [
        { type: "keyDown", value },
        { type: "keyUp", value },
      ]);
    await this.#ask("POST", "/actions", { actions: [{ type: "key", id: "keys", actions }] });
  }

  /** A command of the browser's own protocol. */
  cdp(cmd, params = {}) {
    return this.#ask("POST", "/goog/cdp/execute", { cmd, params });
  }

  async screenshot(name) {
    writeFileSync(join(SCREENSHOTS, `${name}.png`), Buffer.from(await this.#ask("GET", "/screenshot"), "base64"));
  }

  /** Another tab, which is then the one in use. */
  async newTab() {
    const { handle } = await this.#ask("POST", "/window/new", { type: "tab" });
    await this.tab(handle);
    return handle;
  }

  currentTab() {
    return this.#ask("GET", "/window");
  }

  tab(handle) {
    return this.#ask("POST", "/window", { handle });
  }

  closeTab() {
    return this.#ask("DELETE", "/window");
  }

  /** Errors on the console since the last time. While the daemon is down a lost connection is told there, which is not the page's doing. */
  async errors() {
    const entries = await this.#ask("POST", "/se/log", { type: "browser" });
    return entries.filter(({ level }) => level === "SEVERE" || level === "WARNING").map(({ message }) => message);
  }

  /** The addresses that were asked for since the last time. */
  async requested() {
    const entries = await this.#ask("POST", "/se/log", { type: "performance" });
    return entries.flatMap(({ message }) => {
      const { method, params } = JSON.parse(message).message;
      if (method === "Network.requestWillBeSent") return [params.request.url];
      return method === "Network.webSocketCreated" ? [params.url] : [];
    });
  }

  /** What screen readers find wrong: controls without a name, missing landmarks and headings, too little contrast. */
  async accessibility() {
    const { nodes } = await this.cdp("Accessibility.getFullAXTree");
    const shown = nodes.filter((node) => !node.ignored);
    const controls = [
      "button",
      "link",
      "textbox",
      "searchbox",
      "checkbox",
      "radio",
      "combobox",
      "listbox",
      "spinbutton",
      "switch",
      "dialog",
      "table",
      "navigation",
      "radiogroup",
      "image",
      "slider",
      "DateTime",
      "InputTime",
    ];
    const complaints = shown
      .filter((node) => controls.includes(node.role?.value) && !node.name?.value?.trim())
      .map((node) => `no name: ${node.role.value} ${JSON.stringify(node.properties)?.slice(0, 200)}`);
    for (const role of ["banner", "main", "navigation"]) {
      const count = shown.filter((node) => node.role?.value === role).length;
      if (count !== 1) complaints.push(`${count} landmarks ${role}`);
    }
    return [...complaints, ...(await this.run(inspect))];
  }
}

/** Runs in the page. */
function inspect() {
  const complaints = [];
  if (!document.documentElement.lang) complaints.push("no language");
  if (document.querySelectorAll("main h1").length !== 1) complaints.push("not one h1");
  const ids = [...document.querySelectorAll("[id]")].map((element) => element.id);
  if (new Set(ids).size !== ids.length) complaints.push(`ids twice: ${ids}`);
  for (const element of document.querySelectorAll("[tabindex]"))
    if (element.tabIndex > 0) complaints.push("a tabindex above 0");
  const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const rgba = (color) => {
    canvas.clearRect(0, 0, 1, 1);
    canvas.fillStyle = color;
    canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data];
  };
  const light = ([r, g, b]) => {
    const [x, y, z] = [r, g, b].map((part) =>
      part / 255 <= 0.04045 ? part / 255 / 12.92 : ((part / 255 + 0.055) / 1.055) ** 2.4,
    );
    return 0.2126 * x + 0.7152 * y + 0.0722 * z;
  };
  const seen = new Set();
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement;
    if (
      !walker.currentNode.data.trim() ||
      !element.checkVisibility() ||
      element.closest(".hidden, .skip, :disabled, noscript, option")
    )
      continue;
    let ground = element;
    while (ground && rgba(getComputedStyle(ground).backgroundColor)[3] < 255) ground = ground.parentElement;
    const [a, b] = [
      rgba(getComputedStyle(element).color),
      ground ? rgba(getComputedStyle(ground).backgroundColor) : [255, 255, 255],
    ].map(light);
    const contrast = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    const key = `${element.tagName}.${element.className}`;
    if (contrast < 4.5 && !seen.has(key))
      complaints.push(`contrast ${contrast.toFixed(2)}: ${key} ${walker.currentNode.data.slice(0, 40)}`);
    seen.add(key);
  }
  return complaints;
}

/** Nothing was logged as an error, and nothing outside the origin was asked for. */
export async function isClean(browser, url) {
  const foreign = (await browser.requested()).filter((address) => {
    const { protocol, host } = new URL(address);
    return !["data:", "blob:", "chrome:", "about:"].includes(protocol) && host !== new URL(url).host;
  });
  assert.deepEqual(foreign, []);
  assert.deepEqual(await browser.errors(), []);
}
