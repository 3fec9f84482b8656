// A run in progress: the picture so far, how far each place is, and when it will be done.

import { el, fetchJson } from "./dom.js";

const EVERY_MS = 2000;

export async function showRun(app, data) {
  document.title = data.title;
  const picture = el("img", { className: "so-far", alt: "The picture so far" });
  const steps = el("img", { className: "steps", alt: "Steps to go at each place" });
  const opacity = el("input", { type: "range", min: 0, max: 100, value: 45, "aria-label": "Opacity of the timestep map",
    oninput: () => (steps.style.opacity = opacity.value / 100) });
  steps.style.opacity = 0.45;
  const notice = el("p", { className: "notice", role: "status", hidden: true });
  const progress = el("div", { className: "passes" });
  const left = el("p", { className: "left", "aria-live": "polite" });
  const facts = el("dl");
  const legend = el("div", { className: "ramp" });
  app.replaceChildren(el("div", { className: "view run" },
    el("header", { className: "bar" }, el("h1", {}, data.title), el("span", { className: "more" }, data.subtitle),
      el("span", { className: "space" }), left),
    el("main", { className: "stage" }, el("div", { className: "panes" }, el("section", { className: "pane" },
      el("div", { className: "frame" }, picture, steps),
      el("div", { className: "label" }, el("strong", { className: "mark", "data-mark": "synthetic" }, "synthetic"),
        el("span", { className: "name" }, "in progress")), notice))),
    el("aside", { className: "panel", "aria-label": "Progress" },
      el("section", {}, el("h2", {}, "Progress"), progress),
      el("section", { className: "look" }, el("h2", {}, "Steps to go"), legend,
        el("label", { className: "slide" }, el("span", {}, "Opacity"), opacity)),
      el("section", { className: "facts" }, el("h2", {}, "Run"), facts))));
  facts.append(...data.facts.flatMap(([label, value]) => [el("dt", {}, label), el("dd", {}, value)]));
  const shown = { picture: "", steps: "" };
  for (;;) {
    try {
      const state = await fetchJson("run/state.json");
      update(state);
      if (state.over && state.slide) return location.reload(); // the slide is shown in place of the run
      if (state.over) break;
    } catch (error) {
      notice.textContent = `No news of the run: ${error.message}`;
      notice.hidden = false;
    }
    await new Promise((resolve) => setTimeout(resolve, document.hidden ? 5 * EVERY_MS : EVERY_MS));
  }

  function update(state) {
    notice.textContent = state.note;
    notice.hidden = !state.note;
    left.textContent = state.left;
    progress.replaceChildren(...state.stages.map(({ title, share, detail }) => el("div", { className: "stage-row" },
      el("span", {}, title), el("progress", { max: 1, value: share, "aria-label": title }),
      el("small", {}, `${Math.floor(100 * share)} %${detail ? ` · ${detail}` : ""}`))));
    legend.replaceChildren(...state.legend.map(({ label, colour }) => el("span", {}, el("i", { className: "swatch",
      style: { background: `rgb(${colour.join(" ")})` } }), label)));
    for (const [name, image] of [["picture", picture], ["steps", steps]]) {
      const stamp = state[name];
      image.hidden = !stamp;
      if (stamp && stamp !== shown[name]) image.src = `run/${name}.png?${encodeURIComponent(stamp)}`;
      shown[name] = stamp;
    }
    document.querySelector(".view").dataset.ready = "true";
  }
}
