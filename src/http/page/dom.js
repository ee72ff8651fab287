// Makes elements. Text is always a text node: nothing that comes from a task or a record is ever markup.

/** An element; properties starting with `on` are listeners, `class` and `aria-*` and the like are attributes. */
export function h(tag, properties, ...children) {
  return fill(document.createElement(tag), properties, children);
}

/** The same for SVG. */
export function svg(tag, properties, ...children) {
  return fill(document.createElementNS("http://www.w3.org/2000/svg", tag), properties, children);
}

function fill(element, properties, children) {
  for (const [name, value] of Object.entries(properties ?? {})) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "value" || name === "checked" || name === "htmlFor") element[name] = value;
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat(3).filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

/** A label around its control. */
export const field = (label, control, more) => h("label", { class: "field", ...more }, label, control);

export const option = (value, text = value, selected = false) => h("option", { value, selected }, text);

/** Radio buttons as one control. */
export function segments(legend, name, choices, chosen, onchange) {
  return h(
    "div",
    { class: "segments", role: "radiogroup", "aria-label": legend },
    choices.map(([value, text]) =>
      h(
        "label",
        {},
        h("input", { type: "radio", name, value, checked: value === chosen, onchange: () => onchange(value) }),
        text,
      ),
    ),
  );
}

/** Shows a sentence for a few seconds, and says it to screen readers. */
export function toast(text, isBad = false) {
  const toasts = document.getElementById("toasts");
  const shown = h("div", { class: isBad ? "toast bad" : "toast" }, text);
  toasts.append(shown);
  while (toasts.childElementCount > 3) toasts.firstElementChild.remove();
  setTimeout(() => shown.remove(), isBad ? 8000 : 3500);
}

/** Runs an action; while it runs its button is off; a refusal is told. */
export async function attempt(button, action) {
  if (button) button.disabled = true;
  try {
    return await action();
  } catch (error) {
    toast(error.message, true);
    return undefined;
  } finally {
    if (button) button.disabled = false;
  }
}

/** Asks before what cannot be undone. */
export function confirmed(question, verb) {
  return new Promise((resolve) => {
    const dialog = h(
      "dialog",
      {
        "aria-label": question,
        onclose: () => {
          resolve(dialog.returnValue === "yes");
          dialog.remove();
        },
      },
      h(
        "div",
        { class: "stack" },
        h("p", {}, question),
        h(
          "div",
          { class: "actions" },
          h("button", { type: "button", onclick: () => dialog.close("no") }, "Cancel"),
          h("button", { type: "button", class: "danger", autofocus: true, onclick: () => dialog.close("yes") }, verb),
        ),
      ),
    );
    document.body.append(dialog);
    dialog.showModal();
  });
}

const NUMBER = new Intl.NumberFormat("en");
export const number = (value) => NUMBER.format(value);

export function bytes(count) {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let at = 0;
  while (count >= 1024 && at < units.length - 1) {
    count /= 1024;
    at += 1;
  }
  return `${count >= 100 || at === 0 ? Math.round(count) : count.toFixed(1)} ${units[at]}`;
}

const DAY = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "short" });
const PRECISE = new Intl.DateTimeFormat(undefined, {
  year: "numeric",
  month: "2-digit",
  day: "2-digit",
  hour: "2-digit",
  minute: "2-digit",
  second: "2-digit",
  fractionalSecondDigits: 3,
  hour12: false,
});

/** A time element, exact to the minute, or to the millisecond. */
export function when(text, isPrecise = false) {
  const date = new Date(text);
  if (Number.isNaN(date.getTime())) return String(text);
  return h("time", { datetime: text, title: text }, (isPrecise ? PRECISE : DAY).format(date));
}

export function ago(ms) {
  const s = Math.max(0, Math.round(ms / 1000));
  if (s < 60) return `${s} s`;
  if (s < 3600) return `${Math.floor(s / 60)} min`;
  if (s < 86_400) return `${Math.floor(s / 3600)} h ${Math.floor((s % 3600) / 60)} min`;
  return `${Math.floor(s / 86_400)} d`;
}

/** An icon of one path, beside a name for those who do not see it. */
export const icon = (path) =>
  svg(
    "svg",
    {
      viewBox: "0 0 24 24",
      width: 18,
      height: 18,
      fill: "none",
      stroke: "currentColor",
      "stroke-width": 1.8,
      "stroke-linecap": "round",
      "stroke-linejoin": "round",
      "aria-hidden": "true",
    },
    svg("path", { d: path }),
  );
export const BIN = "M4 7h16M10 11v6M14 11v6M6 7l1 13h10l1-13M9 7V4h6v3";
