"""What of the windows goes into the slide's file: the pixels that were made, in px of the file."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from tempfile import TemporaryFile

import numpy as np
from numpy.typing import NDArray

from wsigen.base.errors import OutputError, refusing
from wsigen.base.geometry import Box
from wsigen.run.prepare import Prepared
from wsigen.sampling.known import NEVER
from wsigen.slide.placed import PlacedImage
from wsigen.slide.reading import ImageSource, open_image
from wsigen.slide.resample import apply, taps
from wsigen.slide.splice import Patch

CELL_PX = 2048
"""Side of what is looked at at a time, px of the file."""


def patches_of(windows: Iterable[tuple[Path, Box, Prepared]], placed: PlacedImage, folder: Path) -> list[Patch]:
    """Return the pixels that are to be put into a slide's file, cell by cell; cells without any are left out.

    Parameters
    ----------
    windows : iterable
        Of each window: the slide that was made of it, where it lies (px of the model), the run that made it.
    placed : PlacedImage
        The slide that is edited.
    folder : Path
        Where there is room for the pixels.

    Raises
    ------
    OutputError
        If there is no room for them.

    Notes
    -----
    **Memory bound.** A cell. All pixels lie in one nameless file, which is mapped once: only cells that change take room on
    the disk, and a process may hold few files open and few maps, but the windows may be large, and many.
    """
    cells: list[tuple[Box, int]] = []
    cure = "free disk space, then give the same command again"
    with refusing(OutputError, f"{folder}: new pixels cannot be kept there", cure), TemporaryFile(dir=folder) as file:
        for made, window, prepared in windows:
            image = open_image(made)
            for cell in _cells(_in_file(window, placed)):
                mask = _mask(cell, window, placed, prepared)
                if mask.any():
                    cells.append((cell, file.tell()))
                    file.write(np.ascontiguousarray(_pixels(image, window, placed, cell)).data)
                    file.write(np.ascontiguousarray(mask).data)
        file.flush()  # a full disk is an error here, and none of the map's
        stored = np.asarray(np.memmap(file, np.uint8, "r")) if cells else np.empty(0, np.uint8)
    return [_patch(cell, stored[at:]) for cell, at in cells]


def _patch(cell: Box, stored: NDArray[np.uint8]) -> Patch:
    """The patch of a cell, whose pixels and mask lie at the start of what is stored."""
    area = cell.height * cell.width
    pixels, mask = stored[: 3 * area], stored[3 * area : 4 * area]
    return Patch(cell, pixels.reshape(*cell.shape, 3), mask.view(np.bool_).reshape(cell.shape))


def _cells(box: Box) -> Iterator[Box]:
    for y in range(box.y0, box.y1, CELL_PX):
        for x in range(box.x0, box.x1, CELL_PX):
            yield Box(y, x, y + CELL_PX, x + CELL_PX).intersect(box)


def _mask(cell: Box, window: Box, placed: PlacedImage, prepared: Prepared) -> NDArray[np.bool_]:
    """Which px of a cell are made, bool ``(h, w)``."""
    plan, continued, glass = prepared.spec.passes[-1], prepared.continued, prepared.spec.glass.index
    assert continued is not None
    ys, xs = (each // plan.factor for each in _nearest(cell, window, placed))
    latents = Box(int(ys[0]), int(xs[0]), int(ys[-1]) + 1, int(xs[-1]) + 1)
    classes = prepared.layout.class_map(latents, plan.cell_px)
    bare = np.zeros(classes.shape, dtype=bool) if glass is None else classes == glass
    return np.asarray(continued.starts(plan, latents, bare) != NEVER)[np.ix_(ys - latents.y0, xs - latents.x0)]


def _in_file(window: Box, placed: PlacedImage) -> Box:
    """A window in px of the slide's file."""
    (y0, y1), (x0, x1) = (
        (round(a * full / own), min(full, round(b * full / own)))
        for a, b, full, own in (
            (window.y0, window.y1, placed.source.height, placed.size[0]),
            (window.x0, window.x1, placed.source.width, placed.size[1]),
        )
    )
    return Box(y0, x0, y1, x1)


def _nearest(cell: Box, window: Box, placed: PlacedImage) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows and columns of a window in which the px of a cell of the file have their middle."""
    fy, fx = placed.size[0] / placed.source.height, placed.size[1] / placed.source.width
    ys = np.clip(((np.arange(cell.y0, cell.y1) + 0.5) * fy).astype(int) - window.y0, 0, window.height - 1)
    xs = np.clip(((np.arange(cell.x0, cell.x1) + 0.5) * fx).astype(int) - window.x0, 0, window.width - 1)
    return ys, xs


def _pixels(image: ImageSource, window: Box, placed: PlacedImage, cell: Box) -> NDArray[np.uint8]:
    """A cell of a window in px of the slide's file: cubic where they are finer than the model's, else area means."""
    source, size = placed.source, placed.size
    if size == (source.height, source.width):
        return image.region(cell.relative_to(window), window.shape)
    rows = taps(cell.y0, cell.y1, source.height, size[0])
    columns = taps(cell.x0, cell.x1, source.width, size[1])
    for axis, low, high in ((rows, window.y0, window.y1), (columns, window.x0, window.x1)):
        np.clip(axis.index, low, high - 1, out=axis.index)
    (top, bottom), (left, right) = rows.span, columns.span
    part = image.region(Box(top, left, bottom, right).relative_to(window), window.shape)
    return apply(part, rows, columns)
