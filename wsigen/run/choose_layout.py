"""The layout a configuration asks for: a file, one class, or one drawn by a mask model or by rule."""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wsigen.base.classes import UNKNOWN, ClassTable
from wsigen.base.errors import ConfigError, LayoutError
from wsigen.base.geometry import Box
from wsigen.grids.opening import read_about
from wsigen.layout.layout import Layout, UniformLayout
from wsigen.run.config import RunConfig, check_size
from wsigen.run.continued import edited_layout

if TYPE_CHECKING:
    from wsigen.layout.polygons import PolygonLayout
    from wsigen.layout.raster import RasterLayout
    from wsigen.slide.reading import ImageSource


@dataclass(frozen=True, slots=True)
class ChosenLayout:
    """A layout, and how it came to be if it was drawn.

    Attributes
    ----------
    source : dict or None
        What a drawn layout depends on besides seed, size and um/px, and of a mask model's the cells drawn, in plain JSON
        values; part of the run's identity.
    title : str or None
        The same for people, in one line.
    notes : tuple of str
        What the user should know of the layout, a line each.
    """

    layout: Layout
    source: dict[str, Any] | None = None
    title: str | None = None
    notes: tuple[str, ...] = ()


def choose_layout(config: RunConfig, bundle: Path, table: ClassTable, mpp: float) -> ChosenLayout:
    """Read or draw the layout of a run.

    The slide's size is the setting's, that of the region, the layout's own extent, or that of the reference or the grid.

    Parameters
    ----------
    bundle : Path
        Folder of the model.
    mpp : float
        um per slide px.

    Raises
    ------
    WsigenError
        One line for whatever is wrong with the file, the subtype or the class.
    """
    if config.regions is not None:
        return ChosenLayout(edited_layout(config, table, mpp))
    if config.layout_file is not None:
        return _read(config, config.layout_file, table, mpp)
    size = _made_size(config) or _followed_size(config, mpp)
    if config.background:
        table.index(config.background)
    if config.sampled:
        return _draw(config, bundle, table, mpp, size)
    index = table.index(config.class_name) if config.class_name else UNKNOWN
    if index != UNKNOWN and table[index].background:
        raise LayoutError(f"class {config.class_name!r} is bare glass: a slide of it would be empty; choose a tissue class")
    return ChosenLayout(UniformLayout(*size, index), notes=_told_background(config))


def _made_size(config: RunConfig) -> tuple[int, int] | None:
    """``(height, width)`` of what is made, where a setting says it, px."""
    if config.region is not None:
        return config.region[3], config.region[2]
    return None if config.size is None else (config.size[1], config.size[0])


def _drawn_size(config: RunConfig, file: Path, mpp: float) -> tuple[int, int] | None:
    """``(height, width)`` of the whole slide that a file is drawn on, px; None: the file decides.

    A label image has a size; a drawing has none, but lies on the structures of the reference or the grid.
    """
    from wsigen.layout.geojson_file import looks_like_json

    if config.region is not None:
        return _followed_size(config, mpp)
    followed = config.reference is not None or config.grid is not None
    return _made_size(config) or (_followed_size(config, mpp) if followed and looks_like_json(file) else None)


def _read(config: RunConfig, file: Path, table: ClassTable, mpp: float) -> ChosenLayout:
    """From a file; it is drawn on the whole slide, also where a region of it is made."""
    from wsigen.layout.class_names import check_names
    from wsigen.layout.read import read_layout

    background = _background(config, table)
    scale = config.layout_mpp / mpp if config.layout_mpp else 1.0
    check_names(table, config.layout_names, "layout_names")
    check_names(table, {"nuclei": config.nuclei}, "nuclei")
    size = _drawn_size(config, file, mpp)
    named = (config.layout_classes, config.layout_names, config.nuclei)
    layout = read_layout(file, table, size, background, scale, *named, layout_mpp=config.layout_mpp)
    notes = _notes(file, layout, mpp)
    if config.region is not None:
        x, y, width, height = config.region
        layout = layout.part(Box(y, x, y + height, x + width))
    return ChosenLayout(layout, notes=notes)


def _draw(config: RunConfig, bundle: Path, table: ClassTable, mpp: float, size: tuple[int, int]) -> ChosenLayout:
    """By the mask model given, or the bundle's if the user brings no subtypes; else by rule."""
    from wsigen.models.mask_bundle import FOLDER, mask_folder

    try:
        check_size(size[1], size[0])
    except ValueError as error:
        raise ConfigError(f"setting 'size': {error}") from None
    if config.mask_model is not None:
        return _draw_by_model(config, mask_folder(config.mask_model), f"mask model {config.mask_model.name}", table, mpp, size)
    if config.subtypes is None and (bundle / FOLDER).is_dir():
        return _draw_by_model(config, bundle / FOLDER, "bundle's mask model", table, mpp, size)
    return _draw_by_rule(config, table, mpp, size)


def _draw_by_model(
    config: RunConfig, folder: Path, called: str, table: ClassTable, mpp: float, size: tuple[int, int]
) -> ChosenLayout:
    from wsigen.models.mask_bundle import mask_hash, open_mask
    from wsigen.models.mask_sampling import draw_map

    mask = open_mask(folder, table)
    name, layout = draw_map(folder, mask, table, str(config.subtype), config.seed, size)
    shape = layout.cells.shape
    source = {
        "by": "mask model",
        "subtype": name,
        "mask_model": mask_hash(folder),
        "cells": list(shape),
        "cells_sha256": hashlib.sha256(layout.cells.tobytes()).hexdigest(),
    }
    cell = max(size) * mpp / max(shape)
    title = f"sampled by the {called}, subtype {name!r}, cells of {cell:.0f} um (trained on {mask.cell_um:g} um)"
    return ChosenLayout(layout, source, title, _told_background(config))


def _draw_by_rule(config: RunConfig, table: ClassTable, mpp: float, size: tuple[int, int]) -> ChosenLayout:
    from wsigen.layout.sampled import sample_layout
    from wsigen.layout.subtypes import choose_subtype, known_subtypes

    known = known_subtypes(table, config.subtypes)
    where = f"in {config.subtypes}" if config.subtypes else "for this model"
    name = choose_subtype(str(config.subtype), {key: key for key in known}, where)
    layout = sample_layout(config.seed, size, table, _background(config, table), name, known[name], mpp)
    source = {"by": "procedural sampler", "subtype": name, **known[name].model_dump(mode="json", exclude={"title"})}
    return ChosenLayout(layout, source, f"sampled by the procedural sampler, subtype {name!r}")


def _notes(path: Path, layout: PolygonLayout | RasterLayout, mpp: float) -> tuple[str, ...]:
    from wsigen.layout.raster import RasterLayout

    unused = f"{path.name}: nothing is of class {', '.join(map(repr, layout.unused_names))}, which 'layout_names' speaks of"
    notes = (*layout.notes, *([unused] if layout.unused_names else []))
    if isinstance(layout, RasterLayout):
        return (*notes, *_told_mpp(path, layout, mpp))
    guessed = (
        f"{path.name} does not say how large its image is: {layout.width}x{layout.height} px are guessed, with the drawing's "
        "left and top margins again at the right and bottom; give --size if it was another"
    )
    return (*notes, *([guessed] if layout.guessed else []))


def _told_mpp(path: Path, layout: RasterLayout, mpp: float) -> list[str]:
    """Say where a label image states another um/px than its pixels have on the slide."""
    from wsigen.slide.resolution import SAME
    from wsigen.slide.tiff_reader import stated_mpp

    said = stated_mpp(layout.image.path)
    taken = mpp * layout.width / layout.raster_width
    if said is None or max(said, taken) <= min(said, taken) * (1 + SAME):
        return []
    return [f"{path.name}: says {said:.4g} um/px, but its pixels are {taken:.4g} um on the slide; give --layout-mpp {said:.4g}"]


def told_missed(config: RunConfig, layout: Layout, table: ClassTable, cell_px: int, mpp: float) -> list[str]:
    """Say in one line, if at all, how many polygons of a drawing no cell of the class map shows."""
    from wsigen.layout.polygons import PolygonLayout

    if config.layout_file is None or not isinstance(layout, PolygonLayout):
        return []
    missed = layout.missed(cell_px)
    if not len(missed):
        return []
    counts = Counter(table[int(i)].name for i in layout.polygons.classes[missed])
    listed = ", ".join(f"{count} of {name}" for name, count in counts.most_common())
    cells = f"cells of {cell_px} px ({cell_px * mpp:.3g} um)"
    return [f"{config.layout_file.name}: {listed} too small or too thin for the class map's {cells}, and so left out"]


def _background(config: RunConfig, table: ClassTable) -> int:
    """The class outside every polygon, or around the tissue of a drawn slide."""
    index = table.index(config.background) if config.background else table.background
    if index is None:
        raise ConfigError("the model has no background class: say with --background what lies outside the tissue drawn")
    return index


def size_on_slide(image: ImageSource, mpp: float) -> tuple[int, int]:
    """``(height, width)`` of an image in px of a slide of ``mpp`` um/px; px are taken for those where nobody knows theirs."""
    return (image.height, image.width) if image.mpp is None else image.canvas(mpp)


def _told_background(config: RunConfig) -> tuple[str, ...]:
    """Say that no place is left for the class outside of what is drawn."""
    said = f"background {config.background!r} is not used: only drawings, label images and layouts drawn by rule have one"
    return (said,) if config.background else ()


def _followed_size(config: RunConfig, mpp: float) -> tuple[int, int]:
    """``(height, width)`` of the reference or the grid that the slide follows, px."""
    from wsigen.slide.reading import open_image

    if config.grid is not None:
        about = read_about(config.grid)
        return max(1, round(about.height_um / mpp)), max(1, round(about.width_um / mpp))
    if config.reference is None:
        raise ConfigError("the slide's size is not known: give --size WIDTHxHEIGHT")
    return size_on_slide(open_image(config.reference), mpp)
