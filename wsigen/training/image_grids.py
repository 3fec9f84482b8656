"""The grids of a dataset's images, made once for each, and the windows of them that a denoiser is told in training."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, lru_cache
from pathlib import Path
from time import monotonic
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wsigen.base.errors import DatasetError, WsigenError
from wsigen.base.geometry import Box
from wsigen.dataset.crops import dihedral
from wsigen.dataset.dataset import Dataset
from wsigen.dataset.latents import await_others
from wsigen.dataset.members import Member
from wsigen.dataset.patches import Patches
from wsigen.grids.compress import compress
from wsigen.grids.grid import Grid, GridFile, standardised_cells
from wsigen.grids.opening import SUFFIXES, open_grid, read_about
from wsigen.grids.tiles import cells_of
from wsigen.grids.wsz import SUFFIX, open_wsz
from wsigen.models.card import GridCondition
from wsigen.models.extractors.extractors import Extractor, open_extractor
from wsigen.storage.files import sha256
from wsigen.training.grid_settings import EncodedGrid

Array = NDArray[np.float32]

KEPT_BYTES = 2**30
"""Cells kept in memory; those of further images are read from their files, a chunk for each window."""

OPEN_FILES = 64
"""Files of further images that are open at a time: a process may open about a thousand, of all kinds."""

GEOMETRY = 2
"""How cells lie on images; other numbers make grids anew. 1: a whole number of cells, stretched; 2: of their exact size."""

OTHER_SIZE = 0.05
"""Relative difference of sizes, of slides or of cells, that is let pass."""


@cache
def encoder_named(name: str | None, device: str) -> Extractor:
    """An extractor, loaded once (EvaluationError if it cannot be)."""
    return open_extractor(str(name), device)


@dataclass(frozen=True, eq=False)
class ImageGrids:
    """Windows of the grids of patches.

    Attributes
    ----------
    grids : mapping of int to Grid
        By the position of the image in the dataset's members.
    patches : Patches
        Of the training split.
    mpps : tuple of float
        um/px of the levels.
    side_px, cell_px : int
        Side of a patch, and of the cells of its class maps and latents.
    told : GridCondition
        What the card says of it.
    """

    grids: Mapping[int, Grid]
    patches: Patches
    mpps: Sequence[float]
    side_px: int
    cell_px: int
    told: GridCondition

    def window(self, row: int, variant: int) -> Array:
        """The window of a patch, turned as its variant: float32 ``(D + 1, S, S)``, standardised; the last channel is "known".

        S is that of the largest window; smaller ones of other levels lie in its upper left corner.
        """
        level = int(self.patches.level[row])
        mpp, told = self.mpps[level], self.told
        box = self.patches.box(row, self.side_px).snap(self.cell_px)
        side = told.parts[level] if told.told == "tokens" else self.side_px // self.cell_px
        values, known = self.grids[int(self.patches.member[row])].window(
            Box(0, 0, side, side), self.side_px * mpp / side, (box.y0 * mpp, box.x0 * mpp)
        )
        if told.told == "tokens":
            values = standardised_cells(values, known)
        else:
            mean, std = (np.asarray(v, dtype=np.float32)[:, None, None] for v in (told.mean, told.std))
            values = np.where(known, (values - mean) / std, np.float32(0))
        both = np.concatenate([values, known[None].astype(np.float32)]).transpose(1, 2, 0)
        turned = dihedral(both, variant % 8).transpose(2, 0, 1)
        largest = max(told.parts, default=side)
        return np.pad(turned, ((0, 0), (0, largest - side), (0, largest - side)))


def image_grids(
    dataset: Dataset,
    settings: EncodedGrid,
    folder: Path,
    cell_px: int,
    *,
    device: str = "cpu",
    watch: Callable[[int, int], None] | None = None,
    share: tuple[int, int] = (0, 1),
    meet: Callable[[], None] | None = None,
) -> ImageGrids:
    """Make the grids of the images of the training split that are not in ``folder`` yet.

    Parameters
    ----------
    cell_px : int
        px of a latent px.
    watch : callable, optional
        Called with (images done, images), both of this process's share.
    share, meet : tuple of int, callable
        As in `dataset.latents.cache_latents`.

    Raises
    ------
    DatasetError
        If an image cannot be encoded, or the files that are given are not of the images, or of several encoders.
    EvaluationError
        If there is no such encoder.
    """
    patches = dataset.split_patches("training")
    members = {int(m): dataset.members[int(m)] for m in np.unique(patches.member)}
    folder.mkdir(parents=True, exist_ok=True)
    source = _Files(settings.files) if settings.files else _Encoded(settings, device)
    if settings.files:
        _demand_names(settings.files, members.values())
    files = {position: source.place(folder, member) for position, member in members.items()}
    own, slowest_s = list(members)[share[0] :: share[1]], 0.0
    for number, position in enumerate(own, start=1):
        if not files[position].is_file():
            begin = monotonic()
            source.make(members[position], files[position])
            slowest_s = max(slowest_s, monotonic() - begin)
            if watch is not None:
                watch(number, len(own))
    if share[1] > 1:
        await_others(lambda: sum(not file.is_file() for file in files.values()), slowest_s)
    if meet is not None:
        meet()
    grids = KeptGrids(files)
    abouts = {members[position].name: about for position, about in grids.abouts.items()}
    told = _condition(settings, abouts, grids.dimensions, dataset)
    if told.told == "channels":
        mean, std = _moments(grids)
        told = told.model_copy(update={"mean": mean, "std": std})
    return ImageGrids(grids, patches, dataset.mpps, dataset.settings.patch_px, cell_px, told)


def grid_key(settings: EncodedGrid, dataset: Dataset, device: str = "cpu") -> str:
    """Name what decides the windows besides the dataset and the recipe: the encoder's weights, or the images' own files."""
    if settings.files is None:
        return encoder_named(settings.encoder, device).sha256[:16]
    members = [dataset.members[int(m)] for m in np.unique(dataset.split_patches("training").member)]
    digests = {member.name: _known_sha256(*_file_and_stamp(settings.files, member)) for member in members}
    return _digest(sorted(digests.items()))


class KeptGrids(Mapping[int, Grid]):
    """Grids of files: as many in memory as there is room for, and few of the others open at a time.

    Attributes
    ----------
    abouts : dict of int to GridFile
        What each says of itself.
    dimensions : set of int
        Numbers of a cell, of all of them.
    """

    def __init__(self, files: Mapping[int, Path]) -> None:
        self._files, self._opened = files, lru_cache(OPEN_FILES)(open_grid)
        self._held: dict[int, Grid] = {}
        self.abouts: dict[int, GridFile] = {}
        self.dimensions: set[int] = set()
        room = KEPT_BYTES
        for member, file in files.items():
            self.abouts[member], grid = open_wsz(file)
            self.dimensions.add(grid.values.shape[0])
            held = grid.held(room)
            if held is not grid:
                self._held[member] = held
                room -= held.values.nbytes

    def __getitem__(self, member: int) -> Grid:
        return self._held.get(member) or self._opened(self._files[member])

    def __iter__(self) -> Iterator[int]:
        return iter(self._files)

    def __len__(self) -> int:
        return len(self._files)


class _Encoded:
    """Grids that an encoder makes of the images."""

    def __init__(self, settings: EncodedGrid, device: str) -> None:
        self._encoder = encoder_named(settings.encoder, device)
        self._cells = cells_of(self._encoder.side_px, settings.cell_um, settings.encoder_mpp)

    def place(self, folder: Path, member: Member) -> Path:
        """Where the grid of an image is to lie."""
        cells, decisive = self._cells, [str(member.path), *_stamp(member.path), member.mpp, self._encoder.sha256]
        return folder / f"{member.path.stem}-{_digest([*decisive, cells.cell_um, cells.cell_px, GEOMETRY])}{SUFFIX}"

    def make(self, member: Member, file: Path) -> None:
        image = replace(member.reference, mpp=member.mpp)
        try:
            compress(image, file, encoder=self._encoder, cell_um=self._cells.cell_um, encoder_mpp=self._cells.mpp)
        except WsigenError as error:
            raise DatasetError(f"{member.name}: its grid cannot be made ({error}); mend or remove the image") from None


class _Files:
    """Grids that lie in a folder, by the names of the images."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def place(self, folder: Path, member: Member) -> Path:
        """The file itself, or where a copy of a feature file is to lie (DatasetError if it is of another slide)."""
        found = _file_of(self._folder, member)
        if found.suffix == SUFFIX:
            self._check(read_about(found), found, member)
            return found
        return folder / f"{member.path.stem}-{_digest([str(found), *_stamp(found)])}{SUFFIX}"

    def make(self, member: Member, file: Path) -> None:
        found = _file_of(self._folder, member)
        self._check(read_about(found), found, member)
        compress(found, file)

    def _check(self, about: GridFile, found: Path, member: Member) -> None:
        height, width = member.canvas(1.0)
        if any(abs(a - b) > OTHER_SIZE * b + about.cell_um for a, b in ((about.width_um, width), (about.height_um, height))):
            size = f"{about.width_um:.0f}x{about.height_um:.0f} um"
            raise DatasetError(f"{found}: is of a slide of {size}, {member.name} has {width}x{height} um")


@cache
def _known_sha256(file: Path, size: int, changed_ns: int) -> str:
    """The SHA-256 of a file, read once as long as it stays as it is."""
    return sha256(file)


def _file_and_stamp(folder: Path, member: Member) -> tuple[Path, int, int]:
    file = _file_of(folder, member)
    return file, *_stamp(file)


def _file_of(folder: Path, member: Member) -> Path:
    """The grid of an image, by its name (DatasetError if there is none)."""
    for suffix in SUFFIXES:
        if (folder / f"{member.path.stem}{suffix}").is_file():
            return folder / f"{member.path.stem}{suffix}"
    raise DatasetError(f"{folder}: has no grid of {member.name} ({member.path.stem}.wsz or .h5)")


def _demand_names(folder: Path, members: Iterable[Member]) -> None:
    """Refuse images of one name in several folders: a grid would be taken for that of another image (DatasetError)."""
    first: dict[str, Member] = {}
    for member in members:
        other = first.setdefault(member.path.stem, member)
        if other is not member:
            raise DatasetError(
                f"{folder}: grids go by the names of images, and {other.name} and {member.name} have one; rename one of them"
            )


def _stamp(path: Path) -> tuple[int, int]:
    return path.stat().st_size, path.stat().st_mtime_ns


def _digest(values: Any) -> str:
    return hashlib.sha256(json.dumps(values).encode()).hexdigest()[:16]


def _condition(settings: EncodedGrid, abouts: dict[str, GridFile], dimensions: set[int], dataset: Dataset) -> GridCondition:
    """What the card says of the grid; by channels the mean and deviation are still to be measured."""
    (first, about), *others = abouts.items()
    for name, other in others:
        same = other.made_by.agrees(about.made_by) and abs(other.cell_um - about.cell_um) <= OTHER_SIZE * about.cell_um
        if not same or len(dimensions) > 1:
            raise DatasetError(
                f"{name}: its grid is of {other.made_by} and cells of {other.cell_um:g} um, that of {first} of {about.made_by} "
                f"and {about.cell_um:g} um; give grids of one encoder"
            )
    dimension = dimensions.pop()
    made: dict[str, Any] = {
        "told": settings.telling,
        "encoder": about.encoder,
        "encoder_sha256": about.encoder_sha256,
        "cell_um": about.cell_um,
        "encoder_mpp": about.encoder_mpp,
        "required": settings.p_unknown == 0,
    }
    if settings.telling == "channels":
        return GridCondition(**made, mean=(0.0,) * dimension, std=(1.0,) * dimension)
    crops_um = [dataset.settings.patch_px * mpp for mpp in dataset.mpps]
    most = settings.summariser_settings.side
    return GridCondition(**made, dimension=dimension, parts=tuple(parts_of(um, about.cell_um, most) for um in crops_um))


def parts_of(crop_um: float, cell_um: float, most: int) -> int:
    """Parts a side of a crop's window: as many as it has cells, to the power of two below, at most ``most``."""
    cells = max(1, int(crop_um / cell_um + 1e-6))
    return min(most, 1 << (cells.bit_length() - 1))


def _moments(grids: Mapping[int, Grid]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and deviation of each number over the known cells of all grids."""
    count, total, squares = 0, np.zeros(1), np.zeros(1)
    for grid in grids.values():
        known = np.asarray(grid.known[:])
        cells = np.asarray(grid.values[:])[:, known].astype(np.float64)
        count, total, squares = count + cells.shape[1], total + cells.sum(axis=1), squares + (cells**2).sum(axis=1)
    if not count:
        raise DatasetError("no image shows tissue to an encoder; look at the images with 'wsigen info'")
    mean = total / count
    std = np.sqrt(np.maximum(squares / count - mean**2, 1e-12))
    return tuple(round(float(v), 6) for v in mean), tuple(max(1e-6, round(float(v), 6)) for v in std)
