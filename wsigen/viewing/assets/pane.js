// One slide on the screen: its tiles, the classes over them, its mark and its scale bar.

import { ClassLayer } from "./classes.js";
import { el, length } from "./dom.js";
import { tileSource } from "./tiles.js";

const BAR_PX = 150; // most of a scale bar
const OVERLAP_PX = 8; // most px of the screen for a px of the slide

export class Pane {
  /** `look` says how classes are drawn, for all panes; `changed` is called whenever what is seen has moved. */
  constructor(record, look, changed) {
    this.record = record;
    this.layer = null;
    this.viewer = null;
    this.closed = false;
    this.look = look;
    this.changed = changed;
    this.stage = el("div", { className: "osd" });
    this.overlay = el("canvas", { className: "overlay", "aria-hidden": "true" });
    this.bar = el("div", { className: "scale", hidden: true }, el("span"), el("i"));
    this.message = el("p", { className: "notice", hidden: true, role: "status" });
    const mark = record.mark ? el("strong", { className: "mark", "data-mark": record.mark }, record.mark) : null;
    this.element = el(
      "section",
      { className: "pane", "aria-label": record.name },
      this.stage,
      el("div", { className: "label" }, mark, el("span", { className: "name", title: record.name }, record.name)),
      this.bar,
      this.message,
    );
  }

  /** Open the slide; resolves when it is on the screen. */
  async open(navigator) {
    const { source, limited } = await tileSource(this.record);
    if (this.closed) return;
    if (limited) this.say(limited);
    this.viewer = OpenSeadragon({
      element: this.stage,
      drawer: "canvas",
      showNavigationControl: false,
      showNavigator: navigator,
      navigatorPosition: "TOP_RIGHT",
      navigatorSizeRatio: 0.17,
      navigatorAutoFade: false,
      navigatorBorderColor: "transparent",
      animationTime: matchMedia("(prefers-reduced-motion: reduce)").matches ? 0 : 0.4,
      springStiffness: 9,
      blendTime: 0,
      visibilityRatio: 0.2,
      minZoomImageRatio: 0.6,
      maxZoomPixelRatio: OVERLAP_PX,
      preserveImageSizeOnResize: true,
      imageLoaderLimit: 8,
      maxImageCacheCount: 400,
      gestureSettingsMouse: { clickToZoom: false, dblClickToZoom: true },
      tileSources: source,
    });
    this.viewer.innerTracker.keyHandler = this.viewer.innerTracker.keyDownHandler = null; // keys are the view's
    await new Promise((resolve, reject) => {
      this.viewer.addOnceHandler("open", resolve);
      this.viewer.addOnceHandler("open-failed", ({ message }) => reject(new Error(message)));
    });
    this.viewer.canvas.append(this.overlay);
    this.viewer.addOnceHandler("tile-drawn", () => performance.mark("first tile"));
    this.viewer.drawer.minimumOverlapRequired = () => !this.#onPixels(); // a px more for each tile hides seams, but shifts px
    this.viewer.addHandler("animation-finish", () => this.#onPixels() || !isWhole(this.view().scale) || this.place(this.view(), true));
    this.viewer.addHandler("update-viewport", () => this.draw());
    this.viewer.addHandler("resize", () => this.draw());
    this.viewer.addHandler("tile-load-failed", ({ message }) => this.say(`A tile cannot be read: ${message}`));
    this.draw();
  }

  /** Load and draw the classes, if there are any. */
  async loadClasses() {
    if (this.record.annotations) this.layer = await ClassLayer.load(this.record.annotations);
    this.draw();
  }

  say(text) {
    this.message.textContent = text;
    this.message.hidden = false;
  }

  /** What is seen: centre in px of the slide, and px of the screen for each of them. Where it moves to, or where it is now. */
  view(now = false) {
    const { viewport } = this.viewer;
    const centre = viewport.getCenter(now);
    const scale = (viewport.getContainerSize().x * viewport.getZoom(now)) / this.record.width;
    return { x: centre.x * this.record.width, y: centre.y * this.record.width, scale };
  }

  /** Show a place; at whole scales px of a level are put on px of the screen, which shows them as they are. */
  place({ x, y, scale }, immediately = false) {
    const { viewport } = this.viewer;
    const size = viewport.getContainerSize();
    if (isWhole(scale)) {
      x = (size.x / 2 - Math.round(size.x / 2 - x * scale)) / scale;
      y = (size.y / 2 - Math.round(size.y / 2 - y * scale)) / scale;
    }
    viewport.zoomTo((scale * this.record.width) / size.x, undefined, immediately);
    viewport.panTo(new OpenSeadragon.Point(x / this.record.width, y / this.record.width), immediately);
  }

  /** Whether px of a level lie on px of the screen now. */
  #onPixels() {
    const corner = this.viewer.viewport.pixelFromPoint(new OpenSeadragon.Point(0, 0), true);
    return isWhole(this.view(true).scale) && [corner.x, corner.y].every((at) => Math.abs(at - Math.round(at)) < 1e-3);
  }

  fit(immediately = false) {
    this.viewer.viewport.goHome(immediately);
  }

  /** Micrometres of a px of the screen, or null if nobody knows the slide's. */
  umOnScreen(now = false) {
    return this.record.mpp ? this.record.mpp / this.view(now).scale : null;
  }

  draw() {
    const { viewport } = this.viewer;
    const size = viewport.getContainerSize();
    const ratio = devicePixelRatio;
    const [width, height] = [Math.round(size.x * ratio), Math.round(size.y * ratio)];
    if (this.overlay.width !== width || this.overlay.height !== height) {
      Object.assign(this.overlay, { width, height });
      Object.assign(this.overlay.style, { width: `${size.x}px`, height: `${size.y}px` });
    }
    const { scale } = this.view(true);
    const { origin: [x, y], aspect, width: across } = this.record; // annotations count from there, in px that may not be square
    const corner = viewport.pixelFromPoint(new OpenSeadragon.Point(x / across, (y * aspect) / across), true);
    this.overlay.hidden = !this.look.shown;
    if (this.layer && this.look.shown) {
      this.layer.draw(this.overlay, { x: corner.x * ratio, y: corner.y * ratio }, scale * ratio, this.look, 2 * ratio, aspect);
    }
    this.#drawBar(this.umOnScreen(true));
    this.changed(this);
  }

  /** The longest bar of 1, 2 or 5 times a power of ten. */
  #drawBar(um) {
    this.bar.hidden = um === null;
    if (um === null) return;
    const most = BAR_PX * um;
    const power = 10 ** Math.floor(Math.log10(most));
    const bar = power * [5, 2, 1].find((n) => n * power <= most);
    this.bar.firstChild.textContent = length(bar);
    this.bar.lastChild.style.width = `${bar / um}px`;
  }

  /** Resolves when the tiles of what is seen are there, or after some time. */
  async drawn(most = 2000) {
    const item = this.viewer.world.getItemAt(0);
    for (let waited = 0; waited < most && !item.getFullyLoaded(); waited += 50) await new Promise((resolve) => setTimeout(resolve, 50));
  }

  close() {
    this.closed = true;
    this.viewer?.destroy();
    this.element.remove();
  }
}

/** Whether a px of a level is a whole number of px of the screen. */
function isWhole(scale) {
  const times = scale >= 1 ? scale : 1 / scale;
  return Math.abs(times - Math.round(times)) < 1e-6 && (scale >= 1 || Number.isInteger(Math.log2(Math.round(times))));
}
