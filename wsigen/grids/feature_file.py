"""Feature files of other programs (HDF5) as grids: TRIDENT's, which say everything, and CLAM's, which need to be told.

``features`` (n, D), floats, of n square patches; ``coords`` (n, 2), whole numbers: x and y of each patch's corner, px of the
slide at full resolution. TRIDENT's attributes: ``encoder`` of the features, and ``patch_size``, ``patch_size_level0``,
``target_magnification``, ``level0_width`` and ``level0_height`` of the coordinates. A cell is as large as a patch and holds the
area mean of the patches over it; where they cover less than half of it (glass), it is unknown.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wsigen.base.errors import GridError, refusing
from wsigen.grids.bounded_hdf5 import BoundedFile, read_numbers
from wsigen.grids.grid import MOST_CHANNELS, MOST_NUMBERS, MOSTLY, EncoderId, Grid, GridFile

FEATURES = (".h5", ".hdf5")
"""Endings of their names."""

UM_PX_AT_1X = 10.0
"""um/px at a magnification of one, as scanners count: 20x is 0.5."""

_MOST_PATCHES = 2**24
_MOST_CHUNK = 2**28
_ROUNDED = 0.01
"""By which share a stated number may differ from the file's, which is taken."""

_CURE = "extract its features anew"


@dataclass(frozen=True, slots=True)
class Stated:
    """What a person says of a file that does not say it itself; None: not said.

    Attributes
    ----------
    encoder : str or None
        Name of the encoder.
    cell_um : float or None
        Side of a patch, um.
    mpp : float or None
        um/px of the coordinates.
    """

    encoder: str | None = None
    cell_um: float | None = None
    mpp: float | None = None


def open_features(path: Path, stated: Stated | None = None) -> tuple[GridFile, Grid]:
    """Read a feature file.

    Memory bound: all of its numbers, and as many for the cells (`grid.MOST_NUMBERS`).

    Raises
    ------
    GridError
        If pyfive is missing, or the file has no features, coordinates or attributes, or what cannot be or is said otherwise.
    """
    try:
        import pyfive
    except ImportError:
        raise GridError(f"{path}: feature files need pyfive: pip install 'wsigen[features]'") from None
    # pyfive is Python alone: a damaged file cannot crash the process, as it can libhdf5; the bounds are set here.
    with refusing(GridError, f"{path}: cannot be read as a feature file", _CURE, (GridError,)), BoundedFile(path) as bounded:
        file = pyfive.File(bounded)
        features, coords = (_dataset(pyfive, file, name, path) for name in ("features", "coords"))
        said = {**dict(file.attrs), **dict(features.attrs), **dict(coords.attrs)}
        places = read_numbers(coords)
        about, patch_px = _about(path, said, places, stated or Stated())
        values, known = _cells(path, read_numbers(features), places.astype(np.float64) / patch_px, about)
    return about, Grid(values, known, about.cell_um, about.made_by)


def _dataset(pyfive: Any, file: Any, name: str, path: Path) -> Any:
    """A dataset within the file, of a plausible size (GridError, ValueError)."""
    if name not in file:
        there = ", ".join(sorted(map(str, file))[:5]) or "nothing"
        raise GridError(f"{path}: has no '{name}', only {there}; a grid needs features and coords of a slide's patches")
    data = file[name]
    if not isinstance(data, pyfive.Dataset):
        raise ValueError(f"'{name}' is no dataset of this file")
    begin = getattr(data.id, "data_offset", 0)  # of numbers that lie in one piece
    if begin + (int(data.size) * data.dtype.itemsize if begin else 0) > path.stat().st_size:
        raise ValueError(f"'{name}' does not lie in this file")
    kinds, width = ("f", MOST_CHANNELS) if name == "features" else ("iu", 2)
    if data.dtype.kind not in kinds or data.ndim != 2 or data.shape[1] > width or not 0 < data.shape[0] <= _MOST_PATCHES:
        raise ValueError(f"'{name}' has shape {data.shape} and type {data.dtype}")
    chunks = data.chunks or data.shape
    padded = math.prod(math.ceil(n / chunk) * chunk for n, chunk in zip(data.shape, chunks, strict=True))
    if padded > MOST_NUMBERS or (data.chunks and math.prod(chunks) * data.dtype.itemsize > _MOST_CHUNK):
        raise ValueError(f"'{name}' has {data.size} numbers, in chunks of {data.chunks}")
    return data


def _about(path: Path, said: Mapping[str, Any], coords: NDArray[np.integer[Any]], stated: Stated) -> tuple[GridFile, float]:
    """What the file, or else a person, says of it; and the side of a patch in px of the coordinates."""
    written = _text(said.get("encoder"))
    if written and stated.encoder and not EncoderId(written).agrees(EncoderId(stated.encoder)):
        raise GridError(
            f"{path}: says that its encoder is {written!r}, and you say {stated.encoder!r}; state only what it does not say"
        )
    encoder = stated.encoder or written
    if not encoder:
        raise GridError(f"{path}: does not say its encoder; 'wsigen compress {path.name} OUT.wsz --encoder NAME' does")
    cell_um, patch_px, width, height = _sizes(path, said, coords, stated)
    mpp = cell_um / patch_px
    about = GridFile(
        encoder=encoder,
        cell_um=cell_um,
        width_um=width * mpp,
        height_um=height * mpp,
        source=_text(said.get("name")) or path.stem,
    )
    if coords.min() < 0 or (coords.max(axis=0) > (width, height)).any():
        raise ValueError(f"coordinates from {coords.min(axis=0)} to {coords.max(axis=0)} on {width:.0f}x{height:.0f} px")
    return about, patch_px


def _sizes(
    path: Path, said: Mapping[str, Any], coords: NDArray[np.integer[Any]], stated: Stated
) -> tuple[float, float, float, float]:
    """The side of a patch in um and in px of the coordinates, and the slide's width and height in these px."""
    names = ("patch_size", "patch_size_level0", "target_magnification", "level0_width", "level0_height")
    numbers = {name: _number(said, name) for name in names}
    missing = [name for name, value in numbers.items() if not value]
    size, patch_px, magnification, width, height = numbers.values()
    cell_um = size * UM_PX_AT_1X / magnification if size and magnification else 0.0
    mpp = cell_um / patch_px if patch_px else 0.0
    _agree(path, "the side of its patches (um)", cell_um, stated.cell_um)
    _agree(path, "the um/px of its coordinates", mpp, stated.mpp)
    cell_um, mpp = cell_um or stated.cell_um or 0.0, mpp or stated.mpp or 0.0
    cell_um, mpp = cell_um or mpp * patch_px, mpp or (cell_um / patch_px if patch_px else 0.0)
    if not (cell_um and mpp) or (missing and not (stated.cell_um or stated.mpp)):
        raise GridError(
            f"{path}: does not say {', '.join(missing)}; say the side of its patches and the um/px of its coordinates, both: "
            f"'wsigen compress {path.name} OUT.wsz --cell-um UM --mpp UM_PX'"
        )
    _agree(path, "patch_size_level0 (px)", patch_px, cell_um / mpp)
    patch_px = patch_px or cell_um / mpp
    right, bottom = (float(v) + patch_px for v in coords.max(axis=0))
    return cell_um, patch_px, width or right, height or bottom


def _agree(path: Path, what: str, written: float, stated: float | None) -> None:
    """Refuse what contradicts the file; a rounded number does not (GridError)."""
    if written and stated and not math.isclose(written, stated, rel_tol=_ROUNDED):
        raise GridError(f"{path}: says {what}: {written:g}, and you say {stated:g}; state only what it does not say")


def _cells(
    path: Path, features: NDArray[np.floating[Any]], corners: NDArray[np.float64], about: GridFile
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Area means of the patches over each cell ``(D, rows, cols)``, and where they cover enough of it."""
    if len(features) != len(corners):
        raise ValueError(f"{len(features)} features of {len(corners)} coordinates")
    bad = np.flatnonzero(~(np.abs(features) <= np.finfo(np.float32).max).all(axis=1))
    if len(bad):
        raise GridError(f"{path}: {len(bad)} of {len(features)} features are not finite (first: {bad[0]}); {_CURE}")
    rows, cols = (max(1, math.ceil(extent / about.cell_um - 1e-6)) for extent in (about.height_um, about.width_um))
    if rows * cols * features.shape[1] > MOST_NUMBERS:
        raise ValueError(f"{cols}x{rows} cells of {features.shape[1]} numbers; at most {MOST_NUMBERS} are taken")
    total, weights = np.zeros((rows, cols, features.shape[1]), np.float32), np.zeros((rows, cols))
    first = np.floor(corners + 1e-6).astype(np.int64)
    beyond = np.maximum(corners - first, 0.0)
    for down in (0, 1):
        for right in (0, 1):
            x, y = first[:, 0] + right, first[:, 1] + down
            share = np.abs(1 - right - beyond[:, 0]) * np.abs(1 - down - beyond[:, 1])
            there = (share > 1e-6) & (y < rows) & (x < cols)
            np.add.at(weights, (y[there], x[there]), share[there])
            np.add.at(total, (y[there], x[there]), features[there] * share[there, None].astype(np.float32))
    known = weights >= MOSTLY - 1e-6
    total /= np.maximum(weights, 1e-6)[..., None].astype(np.float32)
    total[~known] = 0
    return total.transpose(2, 0, 1), known


def _text(value: Any) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else value if isinstance(value, str) else ""


def _number(said: Mapping[str, Any], name: str) -> float:
    """A positive number, or 0 where it is not said."""
    value = np.asarray(said.get(name, 0))
    number = float(value) if value.shape == () and value.dtype.kind in "iuf" else 0.0
    return number if math.isfinite(number) and number > 0 else 0.0
