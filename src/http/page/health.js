// How the daemon is: rates, delivery latency, disk. Charts are drawn here, from two counts a second.
import { bytes, h, number, svg } from "./dom.js";

const PERIOD_MS = 1_000;
const SAMPLES = 120;
const WIDTH = 240;
const HEIGHT = 56;

/** What a tile shows: title, unit, its value of two overviews. */
const RATES = [
  ["Records applied", "/s", rate("records")],
  ["Messages pushed", "/s", rate("messages")],
  ["HTTP requests", "/s", rate("http_requests")],
  ["Kafka requests", "/s", rate("kafka_requests")],
  ["Lag of apply", "records", (now) => now.lag_records],
  ["Open sockets", "", (now) => now.sockets],
];

function rate(name) {
  return (now, before) =>
    before ? ((now.totals[name] - before.totals[name]) * 1000) / Math.max(1, now.at_ms - before.at_ms) : 0;
}

export function healthView(place, app) {
  let timer;
  let before;
  let isGone = false;
  const state = h("span", { class: "badge" });
  const problems = h("ul", { class: "problem", hidden: true });
  const tiles = RATES.map(([title, unit, value]) => tile(title, unit, value));
  const latency = latencyTile();
  const disk = h("dl", { class: "facts" });
  place.append(
    h("div", { class: "head" }, h("h1", {}, "Health"), state),
    problems,
    h(
      "div",
      { class: "tiles" },
      tiles.map((tile) => tile.element),
      latency.element,
      h("section", { class: "card tile wide", "aria-label": "Disk and store" }, h("h2", {}, "Disk and store"), disk),
    ),
  );

  async function refresh() {
    try {
      const now = await app.taskwire.request("GET", "/api/admin/overview");
      if (isGone) return;
      app.overview = now;
      show(now);
      before = now;
    } catch {
      state.className = "badge bad";
      state.textContent = "no answer";
    }
    if (!isGone) timer = setTimeout(refresh, PERIOD_MS);
  }

  function show(now) {
    const { failures, damages } = now.health;
    const word = failures.length ? "failed" : damages.length ? "degraded" : now.is_caught_up ? "ok" : "catching up";
    state.className = `badge ${word === "ok" ? "good" : failures.length ? "bad" : "warn"}`;
    state.textContent = word;
    const reasons = [...failures, ...damages];
    problems.hidden = reasons.length === 0;
    problems.replaceChildren(...reasons.map((reason) => h("li", {}, reason)));
    for (const tile of tiles) tile.add(now, before);
    latency.show(now);
    const facts = [
      ["Free on disk", bytes(now.disk_free_bytes)],
      ["Log", bytes(now.log_bytes)],
      ["Tasks", number(now.tasks)],
      ["Changes kept for resuming", number(now.changes_kept)],
      ["Events waiting for their task", number(now.events_waiting)],
      ["Open dead letters", number(now.dead_letters_open)],
      ["Kafka connections", number(now.kafka_connections)],
      ["HTTP connections", number(now.http_connections)],
      ["Version", now.version],
    ];
    disk.replaceChildren(...facts.flatMap(([name, value]) => [h("dt", {}, name), h("dd", {}, value)]));
  }

  refresh();
  return {
    unmount() {
      isGone = true;
      clearTimeout(timer);
    },
  };
}

/** A number with the line of its last two minutes. */
function tile(title, unit, valueOf) {
  const samples = [];
  const big = h("div", { class: "big" });
  const line = svg("polyline", { class: "line" });
  const area = svg("polygon", { class: "area" });
  const chart = svg(
    "svg",
    { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", role: "img" },
    svg("line", { class: "base", x1: 0, y1: HEIGHT, x2: WIDTH, y2: HEIGHT }),
    area,
    line,
  );
  const peak = h("span", { class: "quiet small" });
  const element = h(
    "section",
    { class: "card tile", "aria-label": title },
    h("h2", { class: "quiet" }, title),
    big,
    chart,
    peak,
  );
  return {
    element,
    add(now, before) {
      samples.push(Math.max(0, valueOf(now, before)));
      if (samples.length > SAMPLES) samples.shift();
      const last = samples.at(-1);
      const max = Math.max(...samples);
      const text = (value) => number(value < 10 && value % 1 ? Math.round(value * 10) / 10 : Math.round(value));
      big.replaceChildren(text(last), " ", h("span", { class: "unit" }, unit));
      peak.textContent = `peak ${text(max)} in the last ${samples.length > 60 ? "2 minutes" : "minute"}`;
      chart.setAttribute("aria-label", `${title}: now ${text(last)} ${unit}, peak ${text(max)}`);
      const step = WIDTH / (SAMPLES - 1);
      const first = SAMPLES - samples.length;
      const points = samples.map(
        (value, at) =>
          `${((first + at) * step).toFixed(1)},${(HEIGHT - 2 - (value / Math.max(max, 1)) * (HEIGHT - 6)).toFixed(1)}`,
      );
      line.setAttribute("points", points.join(" "));
      area.setAttribute("points", `${(first * step).toFixed(1)},${HEIGHT} ${points.join(" ")} ${WIDTH},${HEIGHT}`);
    },
  };
}

/** From the commit of a change to its write to a socket, as a histogram. */
function latencyTile() {
  const bars = h("div", { class: "histogram", role: "img" });
  const axis = h("div", { class: "histogram-axis", "aria-hidden": "true" });
  const words = h("p", { class: "quiet small" });
  const element = h(
    "section",
    { class: "card tile wide", "aria-label": "Delivery latency" },
    h("h2", {}, "Delivery latency"),
    words,
    bars,
    axis,
  );
  return {
    element,
    show(now) {
      const histogram = now.delivery_seconds;
      element.hidden = !histogram;
      if (!histogram) return;
      const { buckets } = histogram;
      const count = buckets.reduce((sum, [, here]) => sum + here, 0);
      const max = Math.max(1, ...buckets.map(([, count]) => count));
      const text = `Time from a change's commit to its write to a socket; ${number(count)} measured, median ${quantile(buckets, count, 0.5)}, 99 % ${quantile(buckets, count, 0.99)}`;
      words.textContent = text;
      bars.setAttribute("aria-label", text);
      bars.replaceChildren(
        ...buckets.map(([upTo, count]) => {
          const bar = h("i", { title: `up to ${seconds(upTo)}: ${number(count)}` });
          bar.style.height = `${(count / max) * 100}%`;
          return bar;
        }),
      );
      axis.replaceChildren(...buckets.map(([upTo]) => h("span", {}, seconds(upTo))));
    },
  };
}

function quantile(buckets, count, part) {
  let seen = 0;
  for (const [upTo, here] of buckets) {
    seen += here;
    if (count && seen >= count * part) return `within ${seconds(upTo)}`;
  }
  return "unknown";
}

function seconds(value) {
  if (value === null) return "more";
  return value >= 1
    ? `${value} s`
    : value >= 0.001
      ? `${+(value * 1e3).toPrecision(2)} ms`
      : `${+(value * 1e6).toPrecision(2)} us`;
}
