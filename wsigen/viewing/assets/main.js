// The page: a gallery of slides, one slide, or a run. What is shown stands in the address after `#`.

import { el, fetchJson } from "./dom.js";
import { Gallery } from "./gallery.js";
import { showRun } from "./run.js";
import { SlideView } from "./viewer.js";

const app = document.getElementById("app");

/** Say what went wrong, in place of all else. */
function fail(error) {
  app.replaceChildren(el("p", { className: "message", role: "alert" }, `This cannot be shown: ${error.message ?? error}`));
}

async function showSlides(data) {
  const gallery = data.slides.length > 1 ? new Gallery(data) : null;
  let view = null;

  async function route() {
    const asked = new URLSearchParams(location.hash.slice(1));
    const id = asked.get("slide") ?? (gallery ? null : data.slides[0].id);
    const entry = data.slides.find((slide) => slide.id === id);
    if (view && entry === view.entry) return view.goTo(asked);
    view?.close();
    view = null;
    if (!entry) {
      document.title = data.title || "wsigen";
      app.replaceChildren(gallery.element);
      return gallery.show(asked);
    }
    const opened = new SlideView(entry, gallery ? gallery.around(entry) : null, data.real, data.edit);
    view = opened;
    app.replaceChildren(view.element);
    await opened.open(asked).catch((error) => {
      if (opened === view) throw error; // what was left meanwhile is nobody's concern
    });
  }

  addEventListener("hashchange", () => route().catch(fail));
  await route();
}

try {
  app.replaceChildren(el("p", { className: "message" }, "Loading…"));
  const data = await fetchJson("page/data.json");
  await (data.kind === "run" ? showRun(app, data) : showSlides(data));
} catch (error) {
  fail(error);
}
