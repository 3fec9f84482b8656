"""Whether a slide looks, place by place, as the grid says from which it was decompressed.

The slide is compressed again, and its cells are compared with the grid's: at the side of a cell, and at the means of ever
larger parts. Two other figures say what a cosine is worth: a *floor*, cells compared with those of other places, and, where
the original slide is there, a *ceiling*, cells of the original that was only encoded and decoded by the model's autoencoder.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from wsigen.base.errors import EvaluationError
from wsigen.base.geometry import Box
from wsigen.grids.compress import compress
from wsigen.grids.grid import Grid, GridFile
from wsigen.grids.mean_colour import NAME
from wsigen.grids.opening import open_grid, read_about
from wsigen.grids.picture import grid_picture
from wsigen.models.extractors.extractors import Extractor
from wsigen.slide.reading import open_image

Cells = NDArray[np.float32]

GAP_PX = 8
"""Between pictures."""

LEAST_PARTS = 4
"""Parts a side of the coarsest comparison."""

WINDOWS, WINDOW_PX, SEED = 4, 1024, 0
"""Windows of the original that are encoded and decoded for the ceiling, their side at most, and which they are."""

RoundTrip = Callable[[NDArray[np.uint8]], NDArray[np.uint8]]
"""An autoencoder: a picture uint8 ``(H, W, 3)``, sides of `WINDOW_PX` or less, to what is left of it encoded and decoded."""

Rectangle = tuple[float, float, float, float]
"""Left, top, width and height, um."""


@dataclass(frozen=True, slots=True)
class Agreement:
    """How the cells of two grids of one place agree.

    Attributes
    ----------
    part_um : float
        Side of what is compared, um; a cell, or the mean of several.
    parts : int
        How many are known in both.
    cosine : float
        Mean cosine of the cells, each number standardised by the grid's own mean and deviation; 1: equal but for a factor.
    floor : float
        The same with the cells of the second grid in random order.
    ceiling : float or None
        The same between cells of the original and of what the autoencoder leaves of it, at the same parts.
    """

    part_um: float
    parts: int
    cosine: float
    floor: float
    ceiling: float | None = None


@dataclass(frozen=True, slots=True)
class Decompression:
    """What a grid kept of a slide.

    Attributes
    ----------
    levels : tuple of Agreement
        Fine to coarse.
    raw_bytes, grid_bytes, slide_bytes : int or None
        Of the slide's pixels at the model's um/px, of the grid's file, of the original's file.
    """

    levels: tuple[Agreement, ...]
    raw_bytes: int
    grid_bytes: int
    slide_bytes: int | None

    def lines(self) -> list[str]:
        """For people."""
        raw = f"{self.raw_bytes / self.grid_bytes:.0f} times less than the pixels ({self.raw_bytes / 2**20:.1f} MiB)"
        file = f", {self.slide_bytes / self.grid_bytes:.1f} times less than the file" if self.slide_bytes else ""
        found = [f"{'grid:':15}{self.grid_bytes / 2**20:.2f} MiB, {raw}{file}"]
        for level in self.levels:
            ceiling = "" if level.ceiling is None else f", at best {level.ceiling:.2f}"
            place = f"cosine {level.cosine:.2f} (by chance {level.floor:.2f}{ceiling}), {level.parts:,} places"
            found.append(f"{f'at {level.part_um:.4g} um:':15}{place}")
        return found


def compare_grids(grid: Grid, other: Grid, place: Rectangle, scale: tuple[Cells, Cells] | None = None) -> tuple[Agreement, ...]:
    """Compare a grid with another of the same encoder at the side of its cells, twice that, four times ...

    Parameters
    ----------
    grid, other : Grid
        The second covers ``place`` of the slide of the first.
    scale : (array, array), optional
        Mean and deviation of each number, ``(D, 1, 1)``; by default the first grid's own.
    """
    left, top, width, height = place
    mean, deviation = scale or standard_of(grid)
    found: list[Agreement] = []
    for power in count():
        part = grid.cell_um * 2**power
        rows, cols = int(height / part + 1e-6), int(width / part + 1e-6)
        if min(rows, cols) < (LEAST_PARTS if found else 1):
            return tuple(found)
        box = Box(0, 0, rows, cols)
        mine, known = grid.window(box, part, (top, left))
        its, also = other.window(box, part)
        both = known & also
        a, b = (((values - mean) / deviation)[:, both] for values in (mine, its))
        mixed = b[:, np.random.default_rng(SEED).permutation(b.shape[1])]
        found.append(Agreement(part, int(both.sum()), _cosine(a, b), _cosine(a, mixed)))
    raise AssertionError


def measure_decompression(
    grid_file: Path,
    slide: Path,
    *,
    place: Rectangle | None = None,
    original: Path | None = None,
    round_trip: RoundTrip | None = None,
    extractor: Extractor | None = None,
    picture: Path | None = None,
) -> Decompression:
    """Compress a decompressed slide again, and compare.

    Parameters
    ----------
    grid_file : Path
        The grid that it follows.
    slide : Path
        The slide, with its um/px.
    place : (float, float, float, float), optional
        What it shows of the grid's slide, um; by default all.
    original : Path, optional
        The slide that the grid was made of, for the ceiling and its bytes.
    round_trip : callable, optional
        The model's autoencoder, for the ceiling.
    extractor : Extractor, optional
        The grid's encoder, unless it is ``mean-colour``.
    picture : Path, optional
        A PNG for people: the grid, that of the slide, and the original, side by side.

    Raises
    ------
    EvaluationError
        If nothing of both is known, or the encoder is missing.
    """
    about, grid = read_about(grid_file), open_grid(grid_file)
    if about.encoder != NAME and extractor is None:
        raise EvaluationError(f"{grid_file}: is of encoder {about.encoder!r}, which is needed to compare; give it")
    mpp = open_image(slide).mpp
    if mpp is None:
        raise EvaluationError(f"{slide}: does not say its um/px; only slides of wsigen can be compared with a grid")
    place = place or (0.0, 0.0, about.width_um, about.height_um)
    with TemporaryDirectory(prefix="wsigen-") as folder:
        again = _compressed(slide, Path(folder) / "again.wsz", about, extractor)
        levels = compare_grids(grid, again, place)
        if not levels or not levels[0].parts:
            raise EvaluationError(f"{slide}: no place of it is known in {grid_file}, too: they show different places")
        if original is not None and round_trip is not None:
            best = _ceiling(about, grid, _Crops(original, about, mpp, place), round_trip, extractor, Path(folder))
            levels = tuple(replace(level, ceiling=best.get(level.part_um)) for level in levels)
        if picture is not None:
            Image.fromarray(_side_by_side(grid, again, place, original, about)).save(picture)
    raw = round(about.width_um / mpp) * round(about.height_um / mpp) * 3
    its = None if original is None else _bytes_of(original)
    return Decompression(levels, raw, grid_file.stat().st_size, its)


def standard_of(grid: Grid) -> tuple[Cells, Cells]:
    """Mean and deviation of each number over the known cells, ``(D, 1, 1)``."""
    values = np.asarray(grid.values[:], dtype=np.float32)[:, np.asarray(grid.known[:])]
    mean, deviation = values.mean(axis=1), values.std(axis=1)
    return mean[:, None, None], np.maximum(deviation, 1e-6)[:, None, None]


# -- inside ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Crops:
    """Crops of the original at the um/px of the model, within a rectangle of it."""

    original: Path
    about: GridFile
    mpp: float
    place: Rectangle

    def __iter__(self) -> Iterator[NDArray[np.uint8]]:
        image, rng = open_image(self.original), np.random.default_rng(SEED)
        canvas = (round(self.about.height_um / self.mpp), round(self.about.width_um / self.mpp))
        left, top, width, height = (round(extent / self.mpp) for extent in self.place)
        side = min(WINDOW_PX, width, height) // 64 * 64
        for _ in range(WINDOWS):
            y = top + int(rng.integers(0, height - side + 1))
            x = left + int(rng.integers(0, width - side + 1))
            yield image.region(Box(y, x, y + side, x + side), canvas)


def _ceiling(
    about: GridFile, grid: Grid, crops: _Crops, round_trip: RoundTrip, extractor: Extractor | None, folder: Path
) -> dict[float, float]:
    """Mean cosine between crops and what the autoencoder leaves of them, by the side of the parts."""
    sums: dict[float, tuple[float, int]] = {}
    for crop in crops:
        whole, left = (
            _compressed(_saved(pixels, folder / f"{name}.png"), folder / f"{name}.wsz", about, extractor, crops.mpp)
            for name, pixels in (("whole", crop), ("left", round_trip(crop)))
        )
        extent = (0.0, 0.0, crop.shape[1] * crops.mpp, crop.shape[0] * crops.mpp)
        for level in compare_grids(whole, left, extent, standard_of(grid)):
            if level.parts:
                total, parts = sums.get(level.part_um, (0.0, 0))
                sums[level.part_um] = (total + level.cosine * level.parts, parts + level.parts)
    return {part: total / parts for part, (total, parts) in sums.items()}


def _bytes_of(slide: Path) -> int:
    """Bytes of a slide's files: of a DICOM folder all, of MRXS those of the folder beside it, too."""
    beside = slide.with_suffix("")
    folders = [place for place in (slide, beside) if place.is_dir() and (place == slide or slide.suffix.lower() == ".mrxs")]
    files = [file for folder in folders for file in folder.rglob("*") if file.is_file()]
    return sum(file.stat().st_size for file in [*files, *([slide] if slide.is_file() else [])])


def _saved(pixels: NDArray[np.uint8], file: Path) -> Path:
    Image.fromarray(pixels).save(file)
    return file


def _compressed(image: Path, file: Path, about: GridFile, extractor: Extractor | None, mpp: float | None = None) -> Grid:
    """The grid of an image, with the cells and the encoder of another."""
    compress(image, file, encoder=extractor, cell_um=about.cell_um, encoder_mpp=about.encoder_mpp, mpp=mpp)
    return open_grid(file)


def _side_by_side(grid: Grid, again: Grid, place: Rectangle, original: Path | None, about: GridFile) -> NDArray[np.uint8]:
    """The part of the grid that was decompressed, the grid of what came of it, and the original."""
    left, top, width, height = place
    box = Box(0, 0, max(1, round(height / grid.cell_um)), max(1, round(width / grid.cell_um)))
    part = Grid(*grid.window(box, grid.cell_um, (top, left)), grid.cell_um, grid.encoder)
    pictures = [grid_picture(part), grid_picture(again)]
    rows, cols = (max(p.shape[i] for p in pictures) for i in (0, 1))
    if original is not None:
        canvas = (round(rows * about.height_um / height), round(cols * about.width_um / width))
        y, x = round(top / about.height_um * canvas[0]), round(left / about.width_um * canvas[1])
        inside = Box(y, x, y + rows, x + cols).intersect(Box(0, 0, *canvas))
        pictures.append(open_image(original).region(inside, canvas))
    sheet = np.full((rows, (cols + GAP_PX) * len(pictures) - GAP_PX, 3), 255, dtype=np.uint8)
    for number, shown in enumerate(pictures):
        begin = number * (cols + GAP_PX)
        sheet[: shown.shape[0], begin : begin + shown.shape[1]] = shown[:rows, :cols]
    return sheet


def _cosine(a: Cells, b: Cells) -> float:
    """Mean over the columns of ``(D, n)``."""
    if not a.shape[1]:
        return float("nan")
    lengths = np.linalg.norm(a, axis=0) * np.linalg.norm(b, axis=0)
    return float(np.mean((a * b).sum(axis=0) / np.maximum(lengths, 1e-12)))
