// Regions drawn over a slide: freehand by dragging, corner by corner by clicking, or with the keyboard at the middle of the view.

const SVG = "http://www.w3.org/2000/svg";
const APART_PX = 4; // px of the screen between two corners of a freehand outline
const CLOSE_PX = 10; // a click so near to the first corner closes the region

export class Drawing {
  #pane = null;
  #line = null;
  #pointer = null;
  #handlers = [];

  /** `changed` is called when a region was added or the drawing has begun or ended. */
  constructor(changed) {
    this.changed = changed;
    this.regions = []; // {name, color, corners: [[x, y], ...]} in px of the slide
    this.chosen = null; // class of the next region: {name, color}
    this.active = false;
    this.svg = document.createElementNS(SVG, "svg");
    this.svg.setAttribute("class", "drawn");
    this.svg.setAttribute("aria-hidden", "true");
  }

  /** Draw on a pane that is open, or on none; regions stay. */
  attach(pane) {
    this.stop();
    for (const [name, act] of this.#handlers) this.#pane?.viewer?.removeHandler(name, act);
    this.#pane = pane;
    this.#handlers = [];
    if (!pane) return this.svg.remove();
    pane.viewer.canvas.append(this.svg);
    this.#handlers = [["canvas-press", (event) => this.#press(event)], ["canvas-drag", (event) => this.#drag(event)],
      ["canvas-drag-end", (event) => this.#release(event)], ["canvas-click", (event) => this.#click(event)],
      ["canvas-double-click", (event) => this.#finish(event)]];
    for (const [name, act] of this.#handlers) pane.viewer.addHandler(name, act);
    this.update();
  }

  /** Begin a region, or give up the one that is being drawn. */
  toggle() {
    if (this.active) return this.stop();
    if (!this.#pane) return undefined;
    this.active = true;
    this.#line = [];
    this.#pane.stage.classList.add("drawing");
    return this.#done();
  }

  stop() {
    if (!this.active) return;
    this.active = false;
    this.#line = this.#pointer = null;
    this.#pane?.stage.classList.remove("drawing", "by-keys");
    this.#done();
  }

  remove(region) {
    this.regions = this.regions.filter((each) => each !== region);
    this.#done();
  }

  clear() {
    this.regions = [];
    this.#done();
  }

  /** A corner at the middle of the view, for whoever has no mouse. */
  cornerAtCentre() {
    const { x, y } = this.#pane.view(true);
    this.#line.push([x, y]);
    this.update();
  }

  /** Take back the last corner. */
  back() {
    this.#line.pop();
    this.update();
  }

  /** Close the region. */
  close() {
    const { record } = this.#pane;
    const corners = tidy(this.#line.map(([x, y]) => [clamp(x, record.width), clamp(y, record.height)]));
    if (corners.length < 3) return;
    this.regions.push({ ...this.chosen, corners });
    this.stop();
  }

  /** Put everything where it belongs on the screen. */
  update() {
    if (!this.#pane?.viewer) return;
    const shapes = this.regions.map(({ corners, color }) => this.#shape("polygon", corners, color));
    if (this.active) {
      const line = this.#pointer ? [...this.#line, this.#pointer] : this.#line;
      shapes.push(this.#shape("polyline", line, this.chosen.color));
      if (this.#line.length) shapes.push(this.#dot(this.#line[0], this.chosen.color));
    }
    this.svg.replaceChildren(...shapes);
  }

  #done() {
    this.update();
    this.changed();
  }

  #shape(kind, corners, color) {
    const shape = document.createElementNS(SVG, kind);
    shape.setAttribute("points", corners.map((corner) => this.#onScreen(corner).join(",")).join(" "));
    shape.style.setProperty("--class", `rgb(${color.join(" ")})`);
    return shape;
  }

  #dot(corner, color) {
    const dot = document.createElementNS(SVG, "circle");
    const [x, y] = this.#onScreen(corner);
    for (const [name, value] of Object.entries({ cx: x, cy: y, r: 5 })) dot.setAttribute(name, value);
    dot.style.setProperty("--class", `rgb(${color.join(" ")})`);
    return dot;
  }

  #onScreen([x, y]) {
    const { viewer, record } = this.#pane;
    const at = viewer.viewport.pixelFromPoint(new OpenSeadragon.Point(x / record.width, y / record.width), true);
    return [at.x.toFixed(1), at.y.toFixed(1)];
  }

  #onSlide(position) {
    const { viewer, record } = this.#pane;
    const at = viewer.viewport.pointFromPixel(position, true);
    return [at.x * record.width, at.y * record.width];
  }

  #far(corner, position) {
    const [x, y] = this.#onScreen(corner);
    return Math.hypot(x - position.x, y - position.y);
  }

  // -- what the pointer does; clicks and drags are OpenSeadragon's while nothing is drawn ---------------------------------

  #press(event) {
    if (this.active) this.#pointer = this.#onSlide(event.position);
  }

  #drag(event) {
    if (!this.active) return;
    event.preventDefaultAction = true;
    if (!this.#line.length) this.#line.push(this.#pointer); // where the button went down
    if (this.#far(this.#line.at(-1), event.position) >= APART_PX) this.#line.push(this.#onSlide(event.position));
    this.#pointer = null;
    this.update();
  }

  #release(event) {
    if (!this.active) return;
    event.preventDefaultAction = true;
    this.close();
  }

  #click(event) {
    if (!this.active) return;
    event.preventDefaultAction = true;
    if (!event.quick) return; // the end of a drag
    this.#pointer = null;
    if (this.#line.length > 2 && this.#far(this.#line[0], event.position) < CLOSE_PX) return this.close();
    this.#line.push(this.#onSlide(event.position));
    this.update();
  }

  #finish(event) {
    if (!this.active) return;
    event.preventDefaultAction = true;
    this.close();
  }
}

function clamp(value, most) {
  return Math.min(most, Math.max(0, value));
}

/** Corners to a tenth of a px, each once. */
function tidy(corners) {
  const rounded = corners.map((corner) => corner.map((value) => Math.round(10 * value) / 10));
  return rounded.filter(([x, y], i) => i === 0 || x !== rounded[i - 1][0] || y !== rounded[i - 1][1]);
}
