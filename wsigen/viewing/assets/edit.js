// Regions made anew by the server, and the versions that came of it.

import { Drawing } from "./draw.js";
import { el, fetchJson, iconButton, number } from "./dom.js";

const EVERY_MS = 700;

export class Editing {
  #target = null;
  #closed = false;
  #watching = false;

  /** `offered`: what the server can do; `changed` is called with the edits of the slide and the number of a new one. */
  constructor(offered, slide, changed) {
    Object.assign(this, { slide, changed });
    this.drawing = new Drawing(() => this.#fill());
    this.drawing.chosen = offered.classes[0];
    this.state = { state: "none" };
    this.said = "";
    this.choice = el("select", { "aria-label": "Class of the region", onchange: () => this.#choose(offered.classes[this.choice.selectedIndex]) },
      ...offered.classes.map(({ name }) => el("option", {}, name)));
    this.swatch = el("i", { className: "swatch" });
    this.draw = el("button", { type: "button", className: "wide", title: "Drag an outline, or click its corners (D)",
      onclick: () => this.drawing.toggle() });
    this.hint = el("p", { className: "hint" }, "Drag an outline, or click its corners; a double click or Enter closes it, Escape gives up. "
      + "Without a mouse: arrows move the slide, Space sets a corner in the middle.");
    this.list = el("ul", { className: "regions" });
    this.strength = el("input", { type: "range", min: 10, max: 100, value: 100, "aria-label": "How much is made anew",
      oninput: () => this.#fill() });
    this.amount = el("output");
    this.seed = el("input", { type: "number", min: 0, max: Number.MAX_SAFE_INTEGER, step: 1, placeholder: "another each time",
      title: "Equal seeds give equal pixels", "aria-label": "Seed", oninput: () => this.#fill() });
    this.go = el("button", { type: "button", className: "wide strong", onclick: () => this.begin() }, "Make anew");
    this.bar = el("progress", { max: 1, "aria-label": "Progress of the edit" });
    this.detail = el("p", { className: "detail", role: "status" });
    this.stop = el("button", { type: "button", className: "wide", onclick: () => this.#post("edit/cancel") }, "Cancel");
    this.message = el("p", { className: "problem", role: "alert" });
    this.element = el("section", { className: "edit", "aria-label": "Make a region anew" }, el("h2", {}, "Make a region anew"),
      el("label", { className: "choose" }, this.swatch, this.choice), this.draw, this.hint, this.list,
      el("label", { className: "slide" }, el("span", {}, "Strength"), this.strength, this.amount),
      el("label", { className: "seed" }, el("span", {}, "Seed"), this.seed), this.go, this.bar, this.detail,
      this.stop, this.message);
    this.#fill();
  }

  /** Draw on a pane, or on none. */
  attach(pane) {
    this.#target = pane;
    this.drawing.attach(pane);
    this.#fill();
  }

  /** Go on watching an edit that was begun before the page was loaded. */
  async resume() {
    this.state = await fetchJson("edit/state.json");
    await this.#tell(null);
    if (this.state.state === "busy") await this.#watch();
  }

  async begin() {
    const { origin: [x0, y0], aspect, number: slide } = this.#target.record;
    const regions = this.drawing.regions.map(({ name, corners }) => ({ name,
      corners: corners.map(([x, y]) => [x - x0, y / aspect - y0]) })); // as annotations count
    this.said = "";
    const seed = this.seed.value === "" ? {} : { seed: this.seed.valueAsNumber };
    if (await this.#post("edit", { slide, regions, strength: this.strength.value / 100, ...seed })) await this.#watch();
  }

  close() {
    this.#closed = true;
    this.drawing.attach(null);
  }

  /** What a key does while a region is drawn; whether it was used. */
  key(event) {
    const { drawing } = this;
    if (!drawing.active || event.target instanceof HTMLButtonElement) return false;
    this.#target.stage.classList.add("by-keys"); // shows the middle
    const act = { Enter: () => drawing.close(), " ": () => drawing.cornerAtCentre(), Backspace: () => drawing.back(),
      Escape: () => drawing.stop() }[event.key];
    act?.();
    return Boolean(act);
  }

  async #post(name, body = {}) {
    try {
      const response = await fetch(name, { method: "POST", body: JSON.stringify(body) });
      if (!response.ok) throw new Error((await response.text()).trim().slice(0, 500) || String(response.status));
      this.state = await response.json();
      return true;
    } catch (error) {
      this.said = error.message;
      return false;
    } finally {
      this.#fill();
    }
  }

  async #watch() {
    if (this.#watching) return;
    this.#watching = true;
    while (!this.#closed && this.state.state === "busy") {
      this.#fill();
      await new Promise((resolve) => setTimeout(resolve, EVERY_MS));
      try {
        this.state = await fetchJson("edit/state.json");
      } catch (error) {
        this.said = `No news of the edit: ${error.message}`;
      }
    }
    this.#watching = false;
    if (this.#closed) return;
    const { state, made, error } = this.state;
    if (state === "done") {
      this.drawing.clear();
      await this.#tell(made);
    }
    this.said = state === "failed" ? error : state === "cancelled" ? "Cancelled; nothing was changed." : "";
    this.#fill();
  }

  #tell(made) {
    return this.changed(this.state.edits[this.slide] ?? [], made);
  }

  #choose(chosen) {
    this.drawing.chosen = chosen;
    this.#fill();
  }

  #fill() {
    const { drawing, state: { state, title, share, left } } = this;
    const busy = state === "busy";
    const can = this.#target?.record.editable ?? false;
    this.swatch.style.background = `rgb(${drawing.chosen.color.join(" ")})`;
    this.draw.textContent = drawing.active ? "Give up drawing" : "Draw a region";
    this.draw.setAttribute("aria-pressed", String(drawing.active));
    this.draw.disabled = !can;
    this.hint.hidden = !drawing.active;
    this.list.hidden = !drawing.regions.length;
    this.list.replaceChildren(...drawing.regions.map((region) => el("li", {}, el("i", { className: "swatch",
      style: { background: `rgb(${region.color.join(" ")})` } }), el("span", { className: "class", title: region.name }, region.name),
    el("span", { className: "area" }, this.#area(region)),
    iconButton("close", `Remove this region of ${region.name}`, "", () => drawing.remove(region), { className: "icon small" }))));
    this.amount.textContent = `${this.strength.value} %`;
    this.go.hidden = busy;
    this.go.disabled = !can || !drawing.regions.length || !this.seed.checkValidity();
    this.bar.hidden = this.detail.hidden = this.stop.hidden = !busy;
    if (busy) {
      this.bar.value = share;
      this.detail.textContent = [title, `${Math.floor(100 * share)} %`, left].filter(Boolean).join(" · ");
    }
    this.message.hidden = !this.said;
    this.message.textContent = this.said;
  }

  #area({ corners }) {
    let twice = 0;
    corners.forEach(([x, y], i) => {
      const [nextX, nextY] = corners[(i + 1) % corners.length];
      twice += x * nextY - nextX * y;
    });
    const mpp = this.#target?.record.mpp;
    return mpp ? `${number((Math.abs(twice) / 2) * (mpp / 1000) ** 2)} mm²` : `${number(Math.abs(twice) / 2e6)} Mpx`;
  }
}

/** The versions of a slide: which one is shown, and beside which. */
export function versionsOf(entries, shown, beside, choose, compare) {
  if (entries.length < 2) return [];
  const rows = entries.map((entry) => el("li", {}, el("button", { type: "button", className: "version", title: entry.name,
    "aria-pressed": String(entry === shown), onclick: () => choose(entry) }, entry.label ?? "original")));
  const box = el("input", { type: "checkbox", checked: beside, disabled: shown === entries[0], onchange: () => compare(box.checked) });
  return [el("section", { className: "versions" }, el("h2", {}, "Versions"), el("ul", {}, ...rows),
    el("label", { className: "switch", title: "Side by side (S)" }, box, "Beside what it was made from"))];
}
