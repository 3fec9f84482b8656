"""`read_geojson`: annotations drawn in QuPath -> the class of every cell of the slide.

Where annotations overlap the smaller one wins: polygons are painted from large to small, so that a nest of tumour on top of the
stroma shows, whatever their order in the file. Of two equal ones the later wins. Each part of a merged annotation counts for
itself.

Exports hold more than a layout: cells, regions of interest, points, several planes. What is left out is told, and all that is
wrong with a file is told at once.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from wsigen.base.classes import ClassTable
from wsigen.base.errors import LayoutError, refusing
from wsigen.layout.class_names import ClassNames
from wsigen.layout.geojson_drawn import Drawn, drawn_polygons
from wsigen.layout.geojson_features import declared_unit, read_features
from wsigen.layout.geojson_file import load_json
from wsigen.layout.geojson_shapes import Mended, Shape, drawn_px, hidden_shapes, valid_shapes
from wsigen.layout.layout import MAX_SIDE_PX
from wsigen.layout.polygons import PolygonLayout, Polygons, bounds_of
from wsigen.layout.problems import Problems

SMALL_PX = 512
"""A drawing smaller than this cannot be a slide in pixels: it was written in another unit."""

MARGIN = 0.02
"""Least margin at the right and bottom of a slide whose size is guessed, as a share of the drawing's longer side."""

ROUNDED_PX = 1.0
"""How far a polygon may reach beyond the slide without a word: QuPath rounds. Px of the image that it was drawn on."""

CLIPPED_PX, CLIPPED_SHARE = 16.0, 0.01
"""How far a polygon may reach beyond the slide and is clipped: px of the image that it was drawn on, or a share of the slide's
longer side. What reaches further was drawn on another image or at another um/px."""

UNIT_UM = {"um": 1.0, "mm": 1000.0}
"""um of the units that a file may declare."""

OTHER_UNIT = 0.01
"""Relative difference of um per unit, as stated and as declared, that is let pass."""


def read_geojson(
    path: str | Path,
    table: ClassTable,
    size: tuple[int, int] | None,
    background: int,
    scale: float = 1.0,
    names: Mapping[str, str | None] | None = None,
    nuclei: str | None = None,
    whole: bool = True,
    layout_mpp: float | None = None,
) -> PolygonLayout:
    """Read what QuPath exports as GeoJSON (plain, ``.gz`` or ``.zip``).

    Parameters
    ----------
    table : ClassTable
        The classes that annotations may have; case does not matter.
    size : tuple of int or None
        ``(height, width)`` of the slide (px), or None: it is guessed from the polygons, with equal margins on both sides.
    background : int
        Class index outside every polygon.
    scale : float
        Slide pixels per unit of the file: the um/px the layout was drawn at over that of the slide.
    names : mapping of str to (str or None), optional
        Classification -> name of a class, or None: as if it were not drawn (`ClassNames`).
    nuclei : str, optional
        Class of the nuclei of QuPath's cells, which lie on top of everything; by default they are left out.
    whole : bool
        Whether it is drawn for a whole slide; else for places of one, which may be small, or of glass alone.
    layout_mpp : float, optional
        um per unit of the file, where the user states it: it must be the unit that the file declares, if it does.

    Raises
    ------
    LayoutError
        If the file cannot be used: all that is wrong with it, where, and what to do.
    """
    path = Path(path)
    if not (math.isfinite(scale) and scale > 0):
        raise LayoutError(f"{path}: scale {scale} is not a positive number; check --layout-mpp")
    data, notes = load_json(path)
    problems, unit = Problems(path), declared_unit(data)
    with refusing(LayoutError, f"{path}: no GeoJSON that QuPath writes", "export the annotations anew"):
        features = read_features(data, path, problems, nuclei is not None)
    del data
    _check_unit(unit, layout_mpp, problems)
    known = ClassNames(table, names)
    drawn, told = drawn_polygons(features, known, None if nuclei is None else table.index(nuclei), problems)
    notes += told
    shapes, mended = valid_shapes([d.rings for d in drawn], [d.where for d in drawn], problems, scale)
    if drawn and not shapes and not problems:
        problems.add("the layout is empty, no polygon has an area", "draw areas, not lines")
    extent = bounds_of([d.rings for d in drawn]) * scale
    beyond = _check_range(drawn, extent, size, scale, problems, whole)
    if len(extent) and not problems and whole:
        _check_small(extent[:, 2:].max(0), size, problems)
    if whole:
        _check_contents(table, background, [drawn[s.source].class_index for s in shapes], problems)
    problems.demand_none()

    shapes.sort(key=lambda shape: (drawn[shape.source].nucleus, -shape.area))
    classes = np.array([drawn[shape.source].class_index for shape in shapes], np.uint8)
    height, width = size or _guessed_size(np.maximum(extent[:, :2].min(0), 0), extent[:, 2:].max(0))
    if max(height, width) > MAX_SIDE_PX:
        raise LayoutError(f"{path}: a slide of {width} x {height} px is beyond {MAX_SIDE_PX} px; check --size")
    notes += [*_told_shapes(mended, beyond, scale), *_told_hidden(shapes, classes, drawn, table)]
    polygons = Polygons.of([shape.rings for shape in shapes], classes.tolist())
    told_of = tuple(f"{path.name}: {note}" for note in notes)
    return PolygonLayout(height, width, background, polygons, (scale, scale), told_of, size is None, tuple(known.unused))


def class_names(path: str | Path) -> list[str]:
    """Return the classifications in a file as written, each once, case aside.

    Raises
    ------
    LayoutError
        If the file is no GeoJSON.
    """
    path = Path(path)
    data, _ = load_json(path)
    with refusing(LayoutError, f"{path}: no GeoJSON that QuPath writes", "export the annotations anew"):
        features = read_features(data, path, Problems(path))
    return list({f.class_name.casefold(): f.class_name for f in features if f.class_name}.values())


# -- where they lie ------------------------------------------------------------------------------------------------------------


def _check_unit(unit: str | None, layout_mpp: float | None, problems: Problems) -> None:
    """Refuse a file that declares another unit than px, or than the user states."""
    if unit is None:
        return
    if layout_mpp is None:
        problems.add(f"the file says its coordinates are in {unit}, not pixels", _remedy(unit))
    elif abs(layout_mpp / UNIT_UM[unit] - 1) > OTHER_UNIT:
        problems.add(f"the file says its coordinates are in {unit}, but --layout-mpp is {layout_mpp:g}", _remedy(unit))


def _check_range(
    drawn: Sequence[Drawn],
    extent: NDArray[np.float64],
    size: tuple[int, int] | None,
    scale: float,
    problems: Problems,
    whole: bool = True,
) -> NDArray[np.float64]:
    """Return how far each polygon reaches beyond the slide (px), after refusing those that reach too far."""
    height, width = size or (MAX_SIDE_PX, MAX_SIDE_PX)
    x0, y0, x1, y1 = extent.T
    beyond = np.maximum(np.maximum(-x0, -y0), np.maximum(x1 - width, y1 - height))
    far = max(x1.max(initial=0), y1.max(initial=0)) if size is None else max(size)
    most = max(CLIPPED_PX * drawn_px(scale), CLIPPED_SHARE * min(far, MAX_SIDE_PX))
    for which in np.flatnonzero(beyond > most):
        spans = f"x {x0[which]:.0f} to {x1[which]:.0f}, y {y0[which]:.0f} to {y1[which]:.0f}"
        where = drawn[int(which)].where
        if max(x1[which], y1[which]) > MAX_SIDE_PX:
            cause, remedy = f"beyond {MAX_SIDE_PX} px, larger than any slide", "check the coordinates or give --layout-mpp"
        elif min(x0[which], y0[which]) < -most:
            cause, remedy = "left of or above 0", "move or clip the polygon"
        else:
            cause = f"but the slide is {width} x {height} px"
            remedy = "clip the polygon, raise --size, or give --layout-mpp if it was drawn at another um/px"
            if not whole:
                remedy = "draw it on this slide, in px of its full resolution"
        problems.add(f"out of range, {spans}: {cause}", remedy, where, cause)
    return beyond


def _check_small(corner: NDArray[np.float64], size: tuple[int, int] | None, problems: Problems) -> None:
    """Refuse drawings too small for pixels; with a size, only if they fill less than an eighth of it."""
    x, y = corner
    if max(x, y) >= SMALL_PX or (size is not None and 8 * max(x, y) >= min(size)):
        return
    problems.add(
        f"the whole drawing ends at x={x:.0f}, y={y:.0f}, too small for pixels of a slide (at least {SMALL_PX})",
        f"coordinates in micrometres? {_remedy('um')}",
    )


def _guessed_size(low: NDArray[np.float64], high: NDArray[np.float64]) -> tuple[int, int]:
    """Guess ``(height, width)`` of the image behind a drawing between ``low`` and ``high``, (x, y) in slide px.

    Its left and top margins come again at the right and bottom, and are at least `MARGIN` there, so that no tissue is cut.
    A drawing that begins in the image's corner is taken to fill it.
    """
    least = MARGIN * (high - low).max() if low.max() >= 1 else 0.0
    width, height = (math.ceil(v - 1e-6) for v in high + np.maximum(low, least))
    return height, width


def _remedy(unit: str) -> str:
    return f"give --layout-mpp {UNIT_UM[unit]:g} (um per unit of the file) to scale them, or export in pixels"


def _check_contents(table: ClassTable, background: int, classes: Sequence[int], problems: Problems) -> None:
    """Refuse a layout that is all bare glass."""
    if classes and all(table[i].background for i in {background, *classes}):
        names = ", ".join(sorted({table[i].name for i in classes}))
        problems.add(f"the layout is empty, nothing but background ({names})", "set a tissue class on some polygon")


# -- what a person should know -------------------------------------------------------------------------------------------------


def _told_shapes(mended: Mended, beyond: NDArray[np.float64], scale: float) -> list[str]:
    notes = []
    if mended.flat:
        notes.append(f"left out: {mended.flat} polygon{'s' * (mended.flat > 1)} without an area")
    if mended.count:
        contours = "1 contour that touches or crosses itself is"
        if mended.count > 1:
            contours = f"{mended.count} contours that touch or cross themselves are"
        notes.append(f"{contours} mended; areas change by {mended.changed * scale**2:.0f} px² in all")
    outside = beyond[beyond > ROUNDED_PX * drawn_px(scale)]
    if len(outside):
        polygons = "1 polygon reaches" if len(outside) == 1 else f"{len(outside)} polygons reach"
        notes.append(f"{polygons} up to {outside.max():.0f} px beyond the slide's edge; what lies outside is cut off")
    return notes


def _told_hidden(shapes: Sequence[Shape], classes: NDArray[np.uint8], drawn: Sequence[Drawn], table: ClassTable) -> list[str]:
    hidden = hidden_shapes(shapes, classes)
    if hidden is None:
        return ["so many polygons overlap that those hidden by smaller ones are not counted"]
    if not len(hidden):
        return []
    counts = Counter(table[int(i)].name for i in classes[hidden])
    listed = ", ".join(f"{count} of {name}" for name, count in counts.most_common())
    first = drawn[shapes[int(hidden[0])].source].where
    return [f"{listed} hidden entirely by smaller polygons of other classes that lie on them, the first {first}"]
