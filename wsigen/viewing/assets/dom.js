// Elements from names and values. Text is only ever set as text: a name with HTML in it is shown as it is.

const SVG = "http://www.w3.org/2000/svg";

/** Make an element: properties by name (`class`, `on...` and `aria-...` as in HTML), children as nodes or text. */
export function el(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "style") Object.assign(element.style, value);
    else if (name in element && !name.includes("-") && name !== "list") element[name] = value;
    else element.setAttribute(name === "className" ? "class" : name, value === true ? "" : value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

const ICONS = {
  back: "M15 5l-7 7 7 7",
  fit: "M4 9V4h5M20 9V4h-5M4 15v5h5M20 15v5h-5",
  plus: "M12 5v14M5 12h14",
  minus: "M5 12h14",
  panel: "M4 5h16v14H4zM14 5v14",
  link: "M10 14a4 4 0 006 0l3-3a4 4 0 00-6-6l-1 1M14 10a4 4 0 00-6 0l-3 3a4 4 0 006 6l1-1",
  help: "M9 9a3 3 0 115 2c-1 1-2 1.5-2 3M12 18v.01",
  next: "M9 5l7 7-7 7",
  close: "M6 6l12 12M18 6L6 18",
};

/** An icon drawn with the colour of the text. */
export function icon(name) {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("viewBox", "0 0 24 24");
  svg.setAttribute("aria-hidden", "true");
  const path = document.createElementNS(SVG, "path");
  path.setAttribute("d", ICONS[name]);
  svg.append(path);
  return svg;
}

/** A button with an icon; its label is read aloud and shown on hovering, with its key. */
export function iconButton(name, label, key, onclick, more = {}) {
  const title = key ? `${label} (${key})` : label;
  return el("button", { type: "button", className: "icon", title, "aria-label": label, onclick, ...more }, icon(name));
}

/** Fetch JSON, or fail with what the host said. */
export async function fetchJson(url) {
  const response = await fetch(url);
  if (!response.ok) throw new Error(`${url}: ${(await response.text()).slice(0, 300) || response.status}`);
  return response.json();
}

/** Lengths as people write them. */
export function length(um) {
  if (um >= 10000) return `${number(um / 10000)} cm`;
  return um >= 1000 ? `${number(um / 1000)} mm` : `${number(um)} µm`;
}

/** Three significant digits, without an exponent. */
export function number(value) {
  if (value === 0) return "0";
  const digits = Math.max(0, 2 - Math.floor(Math.log10(Math.abs(value))));
  return value.toFixed(Math.min(digits, 6)).replace(/(\.\d*?)0+$/, "$1").replace(/\.$/, "");
}

/** Whether a key belongs to a field in which one writes. */
export function isTyping(event) {
  const target = event.target;
  return target instanceof HTMLInputElement && !["checkbox", "range", "radio"].includes(target.type)
    || target instanceof HTMLSelectElement || target instanceof HTMLTextAreaElement;
}
