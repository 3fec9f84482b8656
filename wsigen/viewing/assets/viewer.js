// The view of one slide, alone or beside a real one: bar, panes, classes, keys.

import { el, fetchJson, icon, iconButton, isTyping, number } from "./dom.js";
import { Editing, versionsOf } from "./edit.js";
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
  ["D", "draw a region, to be made anew"],
  ["V S", "next version, side by side with what it was made from"],
  ["N B", "next slide, slide before"],
  ["G", "back to all slides"],
  ["F", "full screen"],
  ["?", "this list"],
];

export class SlideView {
  #leading = null;
  #linked = null;
  #remembered = 0;
  #turn = 0;
  #seenNow = {}; // the version that is on the screen, and what is beside it
  #coming = { panes: [], stage: el("div") };

  /**
   * `around`: the slides before and after, null where there is one alone; `real`: the entry of a slide to stand beside;
   * `edit`: what the server offers for regions that are drawn, undefined where it makes none.
   */
  constructor(entry, around, real, edit) {
    Object.assign(this, { entry, around, real });
    this.versions = [entry, ...(entry.edits ?? [])];
    this.version = entry;
    this.beside = real ?? null;
    this.editing = edit ? new Editing(edit, entry.number, (edits, made) => this.#sync(edits, made)) : null;
    this.look = { shown: true, opacity: 0.4, outline: false, hidden: new Set() };
    this.panes = [];
    this.stage = el("div", { className: "panes" });
    this.holder = el("div", { className: "holder" }, this.stage);
    this.panel = el("aside", { className: "panel", "aria-label": "Classes and facts" });
    this.readout = el("output", { className: "readout", title: "Magnification and um per px of the screen" });
    this.buttons = el("div", { className: "magnify", role: "group", "aria-label": "Magnification" });
    this.help = el("dialog", { className: "help", "aria-label": "Keys" }, el("h2", {}, "Keys"), el("dl", {},
      ...KEYS.flatMap(([keys, what]) => [el("dt", {}, ...keys.split(" ").map((key) => el("kbd", {}, key))), el("dd", {}, what)])),
    el("form", { method: "dialog" }, el("button", { className: "plain", autofocus: true }, "Close")));
    this.linkButton = iconButton("link", "Link the two slides", "L", () => this.#link(!this.#linked), { "aria-pressed": "true", hidden: true });
    const onKey = (event) => this.#key(event);
    document.addEventListener("keydown", onKey);
    this.forget = () => document.removeEventListener("keydown", onKey);
    this.element = el("div", { className: "view" }, this.#topBar(), el("main", { className: "stage" }, this.holder, el("div",
      { className: "controls" }, this.buttons, this.readout)), this.panel, this.help);
  }

  async open(asked) {
    document.title = this.entry.name;
    this.version = this.versions[Number(asked.get("version"))] ?? this.entry;
    if (!(await this.#show(asked))) return;
    this.element.dataset.ready = "true";
    await this.editing?.resume();
  }

  close() {
    this.#turn++;
    clearTimeout(this.#remembered);
    this.forget();
    this.editing?.close();
    for (const pane of [...this.panes, ...this.#coming.panes]) pane.close();
    this.panes = [];
    this.element.remove();
  }

  /**
   * Show what is to be seen, in place of what is seen now: there is no moment without a picture.
   *
   * False if something else was asked for meanwhile, which then has closed what was on its way.
   */
  async #show(asked) {
    const turn = ++this.#turn;
    this.#giveUpComing();
    const stage = el("div", { className: "panes coming" });
    const coming = { stage, panes: [] };
    this.#coming = coming;
    const records = await Promise.all(this.#inOrder().map((entry) => fetchJson(entry.about)));
    if (turn !== this.#turn) return false;
    coming.panes = records.map((record) => new Pane(record, this.look, (pane) => this.#seen(pane)));
    stage.append(...coming.panes.map((pane) => pane.element));
    this.holder.append(stage);
    await Promise.all(coming.panes.map((pane) => pane.open(records.length === 1)));
    if (turn !== this.#turn) return false;
    const replaces = this.panes.length > 0;
    if (replaces) {
      for (const pane of coming.panes) pane.place(this.#before(pane).view(), true);
      await Promise.all(coming.panes.flatMap((pane) => [this.#loadClasses(pane), pane.drawn()]));
      if (turn !== this.#turn) return false;
    }
    this.#take(coming);
    if (!replaces) this.goTo(asked, true);
    this.#link(this.panes.length > 1);
    if (!replaces) {
      this.#fillPanel();
      await Promise.all(this.panes.map((pane) => this.#loadClasses(pane)));
      if (turn !== this.#turn) return false;
    }
    this.#fillPanel();
    this.editing?.attach(this.panes.find((pane) => pane.record.number === this.version.number));
    return true;
  }

  /** Close panes that are on their way. */
  #giveUpComing() {
    for (const pane of this.#coming.panes) pane.close();
    this.#coming.stage.remove();
    this.#coming = { panes: [], stage: el("div") };
  }

  /** Put panes that are ready in place of those that are seen. */
  #take({ panes, stage }) {
    for (const pane of this.panes) pane.close();
    this.stage.remove();
    this.panes = panes;
    this.stage = stage;
    this.#seenNow = { version: this.version, beside: this.beside };
    this.#coming = { panes: [], stage: el("div") };
    stage.classList.remove("coming");
    this.linkButton.hidden = panes.length < 2;
    this.#fillButtons();
    for (const pane of panes) {
      for (const event of ["zoom", "pan"]) pane.viewer.addHandler(event, () => this.#follow(pane));
      pane.viewer.addHandler("animation-finish", () => this.#remember());
      pane.draw();
    }
  }

  /** The pane that shows now what another one will: the same slide, or another version of it. */
  #before({ record }) {
    const number = (pane) => pane.record.number;
    return this.panes.find((pane) => number(pane) === record.number) ?? this.panes.find((pane) => this.#isVersion(number(pane)));
  }

  #loadClasses(pane) {
    return pane.loadClasses().catch((error) => pane.say(`No classes: ${error.message}`));
  }

  // -- versions --------------------------------------------------------------------------------------------------------

  #isVersion(number) {
    return this.versions.some((entry) => entry.number === number);
  }

  /** What is seen, from left to right: a version stands right of what it was made from, and left of a real slide. */
  #inOrder() {
    if (!this.beside) return [this.version];
    return this.#isVersion(this.beside.number) ? [this.beside, this.version] : [this.version, this.beside];
  }

  /** Show another version. */
  choose(entry) {
    this.version = entry;
    return this.compare(this.beside !== null && this.#isVersion(this.beside.number));
  }

  /**
   * Show the version beside what it was made from, or alone (beside the real slide, if there is one).
   *
   * If it cannot be shown, what is seen stays, and says why.
   */
  async compare(on) {
    const parent = this.versions.find((entry) => entry.number === this.version.parent);
    this.beside = (on && parent) || (this.real ?? null);
    this.#fillPanel();
    const turn = this.#turn + 1;
    try {
      await this.#show();
    } catch (error) {
      if (turn !== this.#turn) return; // something else was asked for meanwhile
      this.#giveUpComing();
      Object.assign(this, this.#seenNow);
      this.#fillPanel();
      for (const pane of this.panes) pane.say(`The version cannot be shown: ${error.message}`);
    }
  }

  /** Take over the versions that there are now, and show a new one. */
  #sync(edits, made) {
    this.versions = [this.entry, ...edits];
    this.entry.edits = edits;
    const entry = edits.find(({ number }) => number === made);
    if (entry) return this.choose(entry);
    this.#fillPanel();
    return undefined;
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
      this.linkButton,
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
    const besideVersion = this.beside !== null && this.#isVersion(this.beside.number);
    this.panel.replaceChildren(
      ...versionsOf(this.versions, this.version, besideVersion, (entry) => this.choose(entry), (on) => this.compare(on)),
      ...(this.editing ? [this.editing.element] : []),
      ...this.panes.flatMap((pane) => legend(pane, this.panes.length > 1, this.look, () => this.#redraw())),
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
    this.editing?.drawing.update();
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
      if (!this.panes.length || this.#isLeft()) return;
      const { x, y, scale } = this.panes[0].view();
      const place = new URLSearchParams({ slide: this.entry.id, x: x.toFixed(1), y: y.toFixed(1), scale: scale.toPrecision(6) });
      const version = this.versions.indexOf(this.version);
      if (version > 0) place.set("version", version);
      history.replaceState(null, "", `#${place}`);
    }, 200);
  }

  /** Whether the address names another slide or none already; what changes with it comes a moment later. */
  #isLeft() {
    return this.around && new URLSearchParams(location.hash.slice(1)).get("slide") !== this.entry.id;
  }

  #leave(id) {
    location.hash = id === null ? "" : new URLSearchParams({ slide: id });
  }

  #key(event) {
    if (isTyping(event) || event.ctrlKey || event.metaKey || event.altKey || this.help.open || !this.panes.length) return;
    if (event.target.type === "range" && event.key.startsWith("Arrow")) return;
    if (this.editing?.key(event)) return event.preventDefault();
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
      l: () => this.panes.length > 1 && this.#link(!this.#linked),
      d: () => this.editing?.drawing.toggle(),
      v: () => this.versions.length > 1 && this.choose(this.versions[(this.versions.indexOf(this.version) + 1) % this.versions.length]),
      s: () => this.version !== this.entry && this.compare(!(this.beside && this.#isVersion(this.beside.number))),
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
      style: { background: `rgb(${entry.color.join(" ")})` } }),
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
