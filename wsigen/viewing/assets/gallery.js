// Many slides: pictures, their classes, filters by split and subtype.

import { el, isTyping } from "./dom.js";

export class Gallery {
  #cards = [];
  #chosen = { split: "", subtype: "", text: "" };

  constructor(data) {
    this.data = data;
    this.count = el("p", { className: "count", "aria-live": "polite" });
    this.grid = el("ul", { className: "cards" });
    const classes = data.slides.some((slide) => slide.classes);
    this.classes = el("input", { type: "checkbox", onchange: () => this.#showClasses() });
    const filters = el(
      "div",
      { className: "filters" },
      this.#chips("split", "Split"),
      this.#chips("subtype", "Subtype"),
      el("label", { className: "search" }, el("span", {}, "Name"), el("input", { type: "search", placeholder: "part of a name",
        oninput: (event) => this.#choose("text", event.target.value) })),
      classes ? el("label", { className: "switch", title: "Classes (c)" }, this.classes, "Classes") : null,
    );
    for (const slide of data.slides) {
      const card = cardOf(slide);
      this.#cards.push({ slide, card });
      this.grid.append(card);
    }
    this.element = el(
      "main",
      { className: "gallery" },
      el("header", {}, el("h1", {}, data.title || "Slides"), this.count),
      filters,
      this.grid,
    );
    document.addEventListener("keydown", (event) => {
      if (event.key === "c" && this.element.isConnected && !isTyping(event) && classes) {
        this.classes.checked = !this.classes.checked;
        this.#showClasses();
      }
    });
    this.#filter();
  }

  /** Show the gallery with the filters that stand in the address. */
  show(asked) {
    for (const name of ["split", "subtype"]) if (asked.has(name)) this.#choose(name, asked.get(name));
    this.element.querySelector(`[data-last]`)?.focus();
  }

  /** The slides before and after one, of those that are not filtered out. */
  around(entry) {
    const shown = this.#cards.filter(({ card }) => !card.hidden).map(({ slide }) => slide);
    const at = shown.indexOf(entry);
    for (const { slide, card } of this.#cards) card.firstChild.toggleAttribute("data-last", slide === entry);
    return { before: at > 0 ? shown[at - 1].id : null, after: shown[at + 1]?.id ?? null };
  }

  #chips(name, label) {
    const values = [...new Set(this.data.slides.map((slide) => slide[name]).filter(Boolean))].sort();
    if (values.length < 2) return null;
    const chip = (value, text) => el("button", { type: "button", className: "chip", "aria-pressed": String(value === ""),
      "data-filter": name, "data-value": value, onclick: () => this.#choose(name, value) }, text);
    return el("div", { className: "chips", role: "group", "aria-label": label }, el("span", {}, label), chip("", "All"),
      ...values.map((value) => chip(value, value)));
  }

  #choose(name, value) {
    this.#chosen[name] = value;
    for (const chip of this.element.querySelectorAll(`[data-filter="${name}"]`)) {
      chip.setAttribute("aria-pressed", String(chip.dataset.value === value));
    }
    this.#filter();
  }

  #filter() {
    const { split, subtype, text } = this.#chosen;
    let shown = 0;
    for (const { slide, card } of this.#cards) {
      const fits = (!split || slide.split === split) && (!subtype || slide.subtype === subtype)
        && slide.id.toLowerCase().includes(text.toLowerCase());
      card.hidden = !fits;
      shown += fits;
    }
    const all = this.#cards.length;
    this.count.textContent = shown === all ? `${all} slides` : `${shown} of ${all} slides`;
  }

  #showClasses() {
    this.grid.classList.toggle("with-classes", this.classes.checked);
  }
}

function cardOf(slide) {
  const picture = el("img", { src: slide.picture, alt: "", loading: "lazy", decoding: "async" });
  const classes = slide.classes ? el("img", { src: slide.classes, alt: "", loading: "lazy", decoding: "async", className: "map" }) : null;
  const more = [slide.subtype, slide.split].filter(Boolean).join(" · ");
  return el(
    "li",
    {},
    el(
      "a",
      { href: `#${new URLSearchParams({ slide: slide.id })}` },
      el("div", { className: "frame" }, picture, classes,
        slide.mark ? el("strong", { className: "mark", "data-mark": slide.mark }, slide.mark) : null),
      el("div", { className: "caption" }, el("b", { title: slide.id }, slide.id), el("span", {}, more)),
    ),
  );
}
