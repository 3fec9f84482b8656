// The view of one slide, alone or beside a real one: bar, panes, classes, keys.

import { el, fetchJson, icon, iconButton, isTyping, number } from "./dom.js";
import { Pane } from "./pane.js";

const MAGNIFICATIONS = [1.25, 2.5, 5, 10, 20, 40];
const UM_AT_1X = 10; // micrometres of a px at 1x: 0.5 um/px are 20x
const STEP = 0.15; // of the screen, that an arrow key moves
const KEYS = [
  ["← ↑ → ↓", "move (with Shift: further)"],
  ["+ −", "closer, further away"],
  ["0", "the whole slide"],
  ["1 … 6", "magnifications, in the order of the buttons"],
  ["C", "classes on or off"],
  ["[ ]", "classes fainter, stronger"],
  ["O", "areas or outlines"],
  ["P", "panel"],
  ["L", "link two slides, or let them go"],
  ["N B", "next slide, slide before"],
  ["G", "back to all slides"],
  ["F", "full screen"],
  ["?", "this list"],
];

export class SlideView {
  #leading = null;
  #linked = null;
  #remembered = 0;

  /** `around`: the slides before and after, null where there is one alone; `real`: the entry of a slide to stand beside. */
  constructor(entry, around, real) {
    Object.assign(this, { entry, around, real });
    this.look = { shown: true, opacity: 0.4, outline: false, hidden: new Set() };
    this.panes = [];
    this.stage = el("div", { className: "panes" });
    this.panel = el("aside", { className: "panel", "aria-label": "Classes and facts" });
    this.readout = el("output", { className: "readout", title: "Magnification and um per px of the screen" });
    this.buttons = el("div", { className: "magnify", role: "group", "aria-label": "Magnification" });
    this.help = el("dialog", { className: "help", "aria-label": "Keys" }, el("h2", {}, "Keys"), el("dl", {},
      ...KEYS.flatMap(([keys, what]) => [el("dt", {}, ...keys.split(" ").map((key) => el("kbd", {}, key))), el("dd", {}, what)])),
    el("form", { method: "dialog" }, el("button", { className: "plain", autofocus: true }, "Close")));
    this.linkButton = iconButton("link", "Link the two slides", "L", () => this.#link(!this.#linked), { "aria-pressed": "true" });
    const onKey = (event) => this.#key(event);
    document.addEventListener("keydown", onKey);
    this.forget = () => document.removeEventListener("keydown", onKey);
    this.element = el("div", { className: "view" }, this.#topBar(), el("main", { className: "stage" }, this.stage, el("div",
      { className: "controls" }, this.buttons, this.readout)), this.panel, this.help);
  }

  async open(asked) {
    document.title = this.entry.name;
    const entries = [this.entry, ...(this.real ? [this.real] : [])];
    const records = await Promise.all(entries.map((entry) => fetchJson(entry.about)));
    this.panes = records.map((record) => new Pane(record, this.look, (pane) => this.#seen(pane)));
    this.stage.append(...this.panes.map((pane) => pane.element));
    await Promise.all(this.panes.map((pane) => pane.open(this.panes.length === 1)));
    this.#fillButtons();
    for (const pane of this.panes) {
      for (const event of ["zoom", "pan"]) pane.viewer.addHandler(event, () => this.#follow(pane));
      pane.viewer.addHandler("animation-finish", () => this.#remember());
    }
    this.goTo(asked, true);
    this.#link(this.panes.length > 1);
    this.#fillPanel();
    await Promise.all(this.panes.map((pane) => pane.loadClasses().catch((error) => pane.say(`No classes: ${error.message}`))));
    this.#fillPanel();
    this.element.dataset.ready = "true";
  }

  close() {
    this.forget();
    for (const pane of this.panes) pane.close();
    this.panes = [];
    this.element.remove();
  }

  /** Show the place that stands in the address. */
  goTo(asked, immediately = false) {
    const [x, y, scale] = ["x", "y", "scale"].map((name) => Number(asked.get(name)));
    if (this.panes.length && scale > 0) this.panes[0].place({ x, y, scale }, immediately);
  }

  // -- what is around the panes -------------------------------------------------------------------------------------

  #topBar() {
    const go = (id) => id === null || id === undefined ? undefined : () => this.#leave(id);
    const { before, after } = this.around ?? {};
    const others = this.around ? [
      iconButton("back", "All slides", "G", () => this.#leave(null)),
      iconButton("back", "Slide before", "B", go(before), { disabled: before === null, className: "icon thin" }),
      iconButton("next", "Next slide", "N", go(after), { disabled: after === null, className: "icon thin" }),
    ] : [];
    const more = [this.entry.subtype, this.entry.split].filter(Boolean).join(" · ");
    return el(
      "header",
      { className: "bar" },
      this.around ? el("button", { type: "button", className: "plain", title: "All slides (G)", onclick: () => this.#leave(null) },
        icon("back"), "All slides") : null,
      el("h1", { title: this.entry.name }, this.entry.name),
      el("span", { className: "more" }, more),
      el("span", { className: "space" }),
      ...others.slice(1),
      this.real ? this.linkButton : null,
      iconButton("panel", "Panel", "P", () => this.#togglePanel()),
      iconButton("help", "Keys", "?", () => this.help.showModal()),
    );
  }

  #fillButtons() {
    const fit = iconButton("fit", "The whole slide", "0", () => this.#fit());
    const out = iconButton("minus", "Further away", "-", () => this.#zoom(1 / 2));
    const into = iconButton("plus", "Closer", "+", () => this.#zoom(2));
    const known = this.panes[0].record.mpp !== null;
    const buttons = MAGNIFICATIONS.map((times, i) => el("button", { type: "button", className: "times", "data-times": times,
      disabled: !known, title: known ? `${times}x: ${number(UM_AT_1X / times)} µm/px (${i + 1})` : "The slide does not say its um/px",
      onclick: () => this.#magnify(times) }, `${times}×`));
    this.buttons.replaceChildren(fit, out, ...buttons, into);
  }

  #fillPanel() {
    this.panel.replaceChildren(...this.panes.flatMap((pane) => legend(pane, this.panes.length > 1, this.look, () => this.#redraw())),
      ...(this.panes.some((pane) => pane.layer) ? [this.#lookOfClasses()] : []),
      ...this.panes.map((pane) => facts(pane.record, this.panes.length > 1)));
  }

  #lookOfClasses() {
    this.shown = el("input", { type: "checkbox", checked: this.look.shown, onchange: () => this.#set({ shown: this.shown.checked }) });
    this.outline = el("input", { type: "checkbox", checked: this.look.outline,
      onchange: () => this.#set({ outline: this.outline.checked }) });
    this.opacity = el("input", { type: "range", min: 0, max: 100, value: 100 * this.look.opacity, "aria-label": "Opacity",
      oninput: () => this.#set({ opacity: this.opacity.value / 100 }) });
    return el("section", { className: "look" },
      el("label", { className: "switch", title: "Classes (C)" }, this.shown, "Show classes"),
      el("label", { className: "switch", title: "Outlines (O)" }, this.outline, "Outlines"),
      el("label", { className: "slide" }, el("span", {}, "Opacity"), this.opacity));
  }

  #set(change) {
    Object.assign(this.look, change);
    this.look.opacity = Math.min(1, Math.max(0, this.look.opacity));
    if (this.shown) {
      this.shown.checked = this.look.shown;
      this.outline.checked = this.look.outline;
      this.opacity.value = 100 * this.look.opacity;
    }
    this.#redraw();
  }

  #redraw() {
    for (const pane of this.panes) pane.draw();
  }

  #togglePanel() {
    this.element.classList.toggle("panel-closed");
  }

  // -- moving --------------------------------------------------------------------------------------------------------

  #fit() {
    for (const pane of this.#linked ? this.panes.slice(0, 1) : this.panes) pane.fit();
  }

  #zoom(factor) {
    const [pane] = this.panes;
    const view = pane.view();
    pane.place({ ...view, scale: view.scale * factor });
  }

  #magnify(times) {
    const [pane] = this.panes;
    if (pane.record.mpp) pane.place({ ...pane.view(), scale: (pane.record.mpp * times) / UM_AT_1X });
  }

  #move(across, down, far) {
    const [pane] = this.panes;
    const view = pane.view();
    const size = pane.viewer.viewport.getContainerSize();
    const share = (far ? 4 : 1) * STEP;
    pane.place({ ...view, x: view.x + (across * share * size.x) / view.scale, y: view.y + (down * share * size.y) / view.scale });
  }

  /** Link two panes where they are, at one scale; or let them go. */
  #link(on) {
    this.linkButton.setAttribute("aria-pressed", String(on));
    this.#linked = null;
    if (!on || this.panes.length < 2) return;
    const [a, b] = this.panes;
    const ratio = (a.record.mpp && b.record.mpp) ? b.record.mpp / a.record.mpp : 1; // px of a for one of b
    this.#linked = { ratio, from: a.view(), to: b.view() };
    this.#follow(a);
  }

  /** Move the other pane as far as this one has moved, in micrometres. */
  #follow(pane) {
    if (!this.#linked || this.#leading) return;
    this.#leading = pane;
    const [a, b] = this.panes;
    const { ratio, from, to } = this.#linked;
    const view = pane.view();
    if (pane === a) {
      b.place({ x: to.x + (view.x - from.x) / ratio, y: to.y + (view.y - from.y) / ratio, scale: view.scale * ratio });
    } else {
      a.place({ x: from.x + (view.x - to.x) * ratio, y: from.y + (view.y - to.y) * ratio, scale: view.scale / ratio });
    }
    this.#leading = null;
  }

  #seen(pane) {
    if (pane !== this.panes[0]) return;
    const um = pane.umOnScreen(true);
    const times = um ? UM_AT_1X / um : null;
    this.readout.textContent = um ? `${number(times)}× · ${number(um)} µm/px` : "µm/px not known";
    for (const button of this.buttons.querySelectorAll(".times")) {
      const here = times !== null && Math.abs(times / Number(button.dataset.times) - 1) < 0.02;
      button.setAttribute("aria-pressed", String(here));
    }
  }

  /** Keep the place in the address, so that it can be passed on and found again. */
  #remember() {
    clearTimeout(this.#remembered);
    this.#remembered = setTimeout(() => {
      if (!this.panes.length) return;
      const { x, y, scale } = this.panes[0].view();
      const place = new URLSearchParams({ slide: this.entry.id, x: x.toFixed(1), y: y.toFixed(1), scale: scale.toPrecision(6) });
      history.replaceState(null, "", `#${place}`);
    }, 200);
  }

  #leave(id) {
    location.hash = id === null ? "" : new URLSearchParams({ slide: id });
  }

  #key(event) {
    if (isTyping(event) || event.ctrlKey || event.metaKey || event.altKey || this.help.open || !this.panes.length) return;
    if (event.target.type === "range" && event.key.startsWith("Arrow")) return;
    const act = this.#actions()[event.key.length === 1 ? event.key.toLowerCase() : event.key];
    const digit = "123456".indexOf(event.key);
    if (!act && (digit < 0 || event.key.length !== 1)) return;
    event.preventDefault();
    if (act) act(event.shiftKey);
    else this.#magnify(MAGNIFICATIONS[digit]);
  }

  #actions() {
    const { before, after } = this.around ?? { before: null, after: null };
    return {
      ArrowLeft: (far) => this.#move(-1, 0, far),
      ArrowRight: (far) => this.#move(1, 0, far),
      ArrowUp: (far) => this.#move(0, -1, far),
      ArrowDown: (far) => this.#move(0, 1, far),
      "+": () => this.#zoom(2),
      "=": () => this.#zoom(2),
      "-": () => this.#zoom(1 / 2),
      0: () => this.#fit(),
      Home: () => this.#fit(),
      c: () => this.#set({ shown: !this.look.shown }),
      o: () => this.#set({ outline: !this.look.outline }),
      "[": () => this.#set({ opacity: this.look.opacity - 0.1 }),
      "]": () => this.#set({ opacity: this.look.opacity + 0.1 }),
      p: () => this.#togglePanel(),
      l: () => this.real && this.#link(!this.#linked),
      n: () => after !== null && this.#leave(after),
      b: () => before !== null && this.#leave(before),
      g: () => this.around && this.#leave(null),
      f: () => (document.fullscreenElement ? document.exitFullscreen() : this.element.requestFullscreen()),
      "?": () => this.help.showModal(),
    };
  }
}

/** The classes of a slide: switches, colours, areas. */
function legend(pane, named, look, changed) {
  if (!pane.layer) return [];
  const { layer, record } = pane;
  const mm2 = record.mpp ? (record.mpp / 1000) ** 2 : null;
  const rows = layer.classes.map((entry) => {
    const box = el("input", { type: "checkbox", checked: !look.hidden.has(entry.name), onchange: () => {
      if (box.checked) look.hidden.delete(entry.name);
      else look.hidden.add(entry.name);
      changed();
    } });
    const share = `${number((100 * entry.area) / (layer.area || 1))} %`;
    const area = mm2 ? `${number(entry.area * mm2)} mm²` : `${number(entry.area / 1e6)} Mpx`;
    return el("li", {}, el("label", {}, box, el("i", { className: "swatch",
      style: { background: `rgb(${entry.color.map(Number).join(" ")})` } }),
    el("span", { className: "class", title: entry.name }, entry.name)), el("span", { className: "area" }, area),
    el("span", { className: "share" }, share));
  });
  return [el("section", { className: "legend" }, el("h2", {}, named ? `Classes of ${record.name}` : "Classes"),
    rows.length ? el("ul", {}, ...rows) : el("p", {}, "Nothing is annotated."))];
}

/** What is known of a slide. */
function facts(record, named) {
  const mm = record.mpp ? ` (${number((record.width * record.mpp) / 1000)} × ${number((record.height * record.mpp) / 1000)} mm)` : "";
  const rows = [
    ["Size", `${record.width.toLocaleString("en")} × ${record.height.toLocaleString("en")} px${mm}`],
    ["Resolution", record.mpp ? `${number(record.mpp)} µm/px` : "not known"],
    ...record.facts,
  ];
  return el("section", { className: "facts" }, el("h2", {}, named ? record.name : "Slide"), el("dl", {},
    ...rows.flatMap(([label, value]) => [el("dt", {}, label), el("dd", {}, value)])));
}
