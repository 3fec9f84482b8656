// Annotated areas: their classes, sizes, and how they are drawn over a slide.

import { fetchJson } from "./dom.js";

const GREY = [128, 128, 128];
const EXACT_FROM = 1 / 8; // screen px a slide px: from here on each area is drawn as it is, if it can be seen

/** The areas of a GeoJSON file, by class. */
export class ClassLayer {
  static async load(url) {
    return new ClassLayer(await fetchJson(url));
  }

  constructor(content) {
    const byName = new Map();
    for (const feature of content.features ?? content) {
      const rings = ringsOf(feature.geometry);
      if (!rings.length) continue;
      const { name, color } = classOf(feature);
      if (!byName.has(name)) byName.set(name, { name, color, area: 0, areas: [], coarse: new Map() });
      const entry = byName.get(name);
      entry.area += rings.reduce((sum, ring) => sum + ring.sign * Math.abs(shoelace(ring.points)), 0);
      entry.areas.push({ rings, box: boxOf(rings), path: null });
    }
    this.classes = [...byName.values()].sort((a, b) => b.area - a.area);
    this.area = this.classes.reduce((sum, entry) => sum + entry.area, 0);
  }

  /**
   * Draw the classes that are shown.
   *
   * `origin` is where coordinates count from and `scale` the width of a slide px, both in px of the canvas; `aspect` is a
   * slide px's height by its width.
   */
  draw(canvas, origin, scale, { opacity, outline, hidden }, line, aspect = 1) {
    const context = canvas.getContext("2d");
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.clearRect(0, 0, canvas.width, canvas.height);
    context.setTransform(scale, 0, 0, scale * aspect, origin.x, origin.y);
    context.lineWidth = line / scale;
    context.lineJoin = "round";
    const down = scale * aspect;
    const seen = [-origin.x / scale, -origin.y / down, (canvas.width - origin.x) / scale, (canvas.height - origin.y) / down];
    for (const entry of this.classes) {
      if (hidden.has(entry.name)) continue;
      const colour = `rgb(${entry.color.join(" ")})`;
      context.globalAlpha = opacity;
      context.fillStyle = context.strokeStyle = colour;
      for (const path of pathsOf(entry, scale, seen)) {
        if (outline) context.stroke(path);
        else context.fill(path, "evenodd");
      }
    }
  }
}

/** Name and colour of an area's class; strangers write what they like there, and it is grey then (as in `class_picture.py`). */
function classOf(feature) {
  const said = feature.properties?.classification;
  const color = said?.color;
  const known = Array.isArray(color) && color.length >= 3 && color.slice(0, 3).every(Number.isInteger);
  const name = typeof said === "string" ? said : said?.name;
  return { name: String(name || "Unclassified"), color: known ? color.slice(0, 3).map((value) => value & 255) : GREY };
}

/** Paths to draw at a scale: one of all areas, simplified to what can be seen, or each area on the screen. */
function pathsOf(entry, scale, [x0, y0, x1, y1]) {
  if (scale < EXACT_FROM) {
    const step = 2 ** Math.floor(Math.log2(0.5 / scale)); // at most half a px of the screen
    if (!entry.coarse.has(step)) entry.coarse.set(step, pathOf(entry.areas.flatMap((area) => area.rings), step));
    return [entry.coarse.get(step)];
  }
  const visible = entry.areas.filter(({ box }) => box[0] < x1 && box[2] > x0 && box[1] < y1 && box[3] > y0);
  return visible.map((area) => (area.path ??= pathOf(area.rings, 0)));
}

/** A path of rings; with a step, corners are put on a grid of that many px and those that fall together are left out. */
function pathOf(rings, step) {
  const path = new Path2D();
  for (const { points } of rings) {
    let lastX = NaN, lastY = NaN, begun = false;
    for (const [x, y] of points) {
      const px = step ? Math.round(x / step) * step : x;
      const py = step ? Math.round(y / step) * step : y;
      if (px === lastX && py === lastY) continue;
      if (begun) path.lineTo(px, py);
      else path.moveTo(px, py);
      [lastX, lastY, begun] = [px, py, true];
    }
    path.closePath();
  }
  return path;
}

/** Rings with their sign: an outer one counts, a hole is taken away. */
function ringsOf(geometry) {
  const polygons = { Polygon: [geometry?.coordinates], MultiPolygon: geometry?.coordinates }[geometry?.type] ?? [];
  return polygons.flatMap((rings) => rings.map((points, i) => ({ points, sign: i ? -1 : 1 })));
}

function shoelace(points) {
  let sum = 0;
  for (let i = 0; i + 1 < points.length; i++) sum += points[i][0] * points[i + 1][1] - points[i + 1][0] * points[i][1];
  return sum / 2;
}

function boxOf(rings) {
  const box = [Infinity, Infinity, -Infinity, -Infinity];
  for (const { points } of rings) {
    for (const [x, y] of points) {
      if (x < box[0]) box[0] = x;
      if (y < box[1]) box[1] = y;
      if (x > box[2]) box[2] = x;
      if (y > box[3]) box[3] = y;
    }
  }
  return box;
}
