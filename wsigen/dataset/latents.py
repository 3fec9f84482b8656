"""Latents of a dataset's patches, encoded once and kept in a zarr group; and a stream of them.

Layout of the group, for n patches and v variants (0 as it is, others turned and, if asked for, jittered in stain)::

    latents  float16 [n, v, C, p, p]   one shard per block of patches and variant, one inner chunk per patch, CRC-32C
    classes  uint8   [n, v, p, p]      the same
    moments  float64 [blocks, v, 3, C] count, sum and sum of squares over tissue; NaN: the block is still to be encoded
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.codecs import BloscCodec, Crc32cCodec

from wsigen.base.errors import DatasetError, ImageError
from wsigen.dataset.crops import REDRAWN, ReadFailures, dihedral, jitter_stain
from wsigen.dataset.dataset import Dataset
from wsigen.dataset.drawing import MOST, Drawer
from wsigen.dataset.patches import Patches
from wsigen.dataset.settings import CELL_PX

BLOCK = 64
"""Patches of a shard: what an interruption loses at most."""

MOST_TRIED = 20
"""Patches read in place of one that cannot be read, before a training gives up."""

LOOK_S = 5.0
"""Seconds between two looks at whether other processes have encoded their shares."""

STILL_S = 600.0
"""Seconds without a new block after which a process waits for the others without looking, no longer than ``meet`` does."""

STILL_BLOCKS = 10.0
"""Times its own slowest block, where that is more: one of 64 patches may take a slow CPU ten minutes."""

KEPT_BYTES = 2**30
"""Patches a stream keeps in memory: 15,000 of 64 x 64 latents of eight channels."""

Encode = Callable[[NDArray[np.uint8]], NDArray[np.float32]]
"""uint8 ``[B, P, P, 3]`` -> float32 ``[B, C, p, p]``, a latent px for every cell of the class maps."""


Window = Callable[[int, int], NDArray[np.float32]]
"""Row of a patch and its variant -> what a stream gives besides its latents, of one shape for all."""


@dataclass(frozen=True, slots=True)
class LatentBatch:
    """A batch of cached latents.

    Attributes
    ----------
    latents : float32 [B, C, p, p], standardised per channel
    class_maps : uint8 [B, p, p], as in `crops.CropBatch`
    levels : int64 [B]
    labelled : bool [B]
    windows : float32 [B, ...] or None, what `LatentCache.stream` was given of each patch
    """

    latents: NDArray[np.float32]
    class_maps: NDArray[np.uint8]
    levels: NDArray[np.int64]
    labelled: NDArray[np.bool_]
    windows: NDArray[np.float32] | None = None


@dataclass(frozen=True, slots=True, eq=False)
class LatentCache:
    """Encoded patches of the training split.

    Attributes
    ----------
    mean, std : float32 [C], over the tissue of labelled and unlabelled patches
    """

    dataset: Dataset
    patches: Patches
    group: Any
    mean: NDArray[np.float32]
    std: NDArray[np.float32]

    def stream(
        self,
        seed: int,
        level_shares: Sequence[float] | None = None,
        unlabelled_share: float | None = None,
        most_frequent: bool = False,
        kept_bytes: int = KEPT_BYTES,
        window: Window | None = None,
    ) -> LatentStream:
        """Return standardised latents, balanced like the crops of pixels (`drawing.Drawer`), with a window of each patch."""
        drawer = self.dataset.drawer("training", level_shares, unlabelled_share, most_frequent)
        return LatentStream(self, drawer, seed, kept_bytes, window)


class LatentStream:
    """Random latents of a cache; see `crops.Stream`.

    Memory bound: ``kept_bytes`` of patches that were read, and a batch. What is read first stays: patches are drawn at random,
    so that no other choice is hit more often, and zarr takes a millisecond of Python for each that is not there.
    """

    def __init__(
        self, cache: LatentCache, drawer: Drawer, seed: int, kept_bytes: int = KEPT_BYTES, window: Window | None = None
    ) -> None:
        self._cache, self._drawer, self._seed, self._window = cache, drawer, seed, window
        self._kept: dict[tuple[int, int], tuple[NDArray[Any], NDArray[Any]]] = {}
        self._room = kept_bytes
        self._latents, self._classes = cache.group["latents"], cache.group["classes"]
        self._labelled = np.array([m.labelled for m in cache.dataset.members])

    def batch(self, step: int, count: int) -> LatentBatch:
        """Return ``count`` latents of a step (>= 0)."""
        rows, variants, pairs = [], [], []
        for i in range(count):
            rng = np.random.default_rng((self._seed, step, i))
            row, _ = self._drawer.draw(rng)
            rows.append(row)
            variants.append(int(rng.integers(self._latents.shape[1])))
            pairs.append(self._patch(row, variants[-1]))
        latents, classes = (np.stack(part) for part in zip(*pairs, strict=True))
        mean, std = (v[:, None, None] for v in (self._cache.mean, self._cache.std))
        patches = self._cache.patches
        labelled = self._labelled[patches.member[rows]]
        standardised, levels = (latents.astype(np.float32) - mean) / std, patches.level[rows].astype(np.int64)
        windows = None if self._window is None else np.stack([self._window(*pair) for pair in zip(rows, variants, strict=True)])
        return LatentBatch(standardised, classes, levels, labelled, windows)

    def _patch(self, row: int, variant: int) -> tuple[NDArray[Any], NDArray[Any]]:
        """Latents and class map of a patch; several threads may ask, and at worst read the same one twice."""
        pair = self._kept.get((row, variant))
        if pair is None:
            pair = self._read(self._latents, row, variant), self._read(self._classes, row, variant)
            size = sum(part.nbytes for part in pair)
            if size <= self._room:
                self._room -= size
                self._kept[row, variant] = pair
        return pair

    def _read(self, array: Any, row: int, variant: int) -> NDArray[Any]:
        try:
            return np.asarray(array[row, variant])
        except (ValueError, RuntimeError) as error:
            raise DatasetError(
                f"cached latents of patch {row} are damaged ({error}); delete the cache and encode anew"
            ) from None


def cache_latents(
    dataset: Dataset,
    encode: Encode,
    folder: str | Path,
    key: str,
    *,
    variants: int = 1,
    jitter: float = 0.0,
    cell_px: int = CELL_PX,
    batch: int = 8,
    replacing: bool = True,
    watch: Callable[[int, int], None] | None = None,
    share: tuple[int, int] = (0, 1),
    meet: Callable[[], None] | None = None,
) -> LatentCache:
    """Encode the patches of the training split, or go on where an interruption left off.

    Parameters
    ----------
    folder : str or Path
        Of the zarr group; one of another dataset or key is replaced.
    key : str
        Names the encoder, e.g. the hash of its weights.
    variants : int
        How often each patch is encoded; beyond the first it is turned.
    jitter : float
        Of the stains of turned patches: largest relative change of optical densities (`crops.jitter_stain`).
    cell_px : int
        px of a latent px: patches are read on its grid, and their class maps in its cells.
    batch : int
        Patches encoded at a time.
    replacing : bool
        Whether another patch takes the place of one that cannot be read, if the dataset passes over such; not where batches
        hold a window (`LatentCache.stream`), which would be of another place than the patch.
    watch : callable, optional
        Called with (blocks done, blocks in all), both of this process's share.
    share, meet : tuple of int, callable
        Which of how many processes this is, and what waits for all of them: each encodes every so manieth block (they lie
        under keys of their own), the first makes the group.

    Raises
    ------
    DatasetError
        If there are no patches to train on, or none with tissue, they are not of whole cells, or the encoder gives no latent
        px for every cell.
    """
    patches = dataset.split_patches("training")
    if not len(patches):
        raise DatasetError("no patches to encode; hold out other groups")
    patch = dataset.settings.patch_px
    if patch % cell_px:
        raise DatasetError(f"patch_px {patch}: latents of 1/{cell_px} of the image need a multiple of {cell_px}")
    encoder = PatchEncoder(dataset, patches, encode, batch, jitter, cell_px, replacing)
    wait = meet or (lambda: None)
    group = _open_group(Path(folder), encoder, [key, dataset.key, jitter, variants]) if share[0] == 0 else None
    wait()
    group = zarr.open_group(str(folder), mode="r+") if group is None else group
    slowest_s = _encode_share(group, encoder, share, watch)
    if share[1] > 1:
        moments = group["moments"]
        await_others(lambda: int((~np.isfinite(moments[:])).any(axis=(2, 3)).sum()), slowest_s)
    wait()
    mean, std = _scale(group["moments"][:].sum(axis=(0, 1)), len(patches))
    return LatentCache(dataset, patches, group, mean, std)


def _scale(moments: NDArray[np.float64], patches: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Mean and deviation of every channel, of count, sum and sum of squares ``[3, C]`` (DatasetError: there are none)."""
    count, total, squares = moments
    if not count.all():
        raise DatasetError(
            f"none of {patches} patches to train on shows tissue outside the background class, so that their latents have no "
            "scale; check the images' um/px, and which class is 'background' in 'classes' and in the sources"
        )
    mean = total / count
    std = np.sqrt(np.maximum(squares / count - mean**2, 1e-12))
    return mean.astype(np.float32), std.astype(np.float32)


def _open_group(folder: Path, encoder: PatchEncoder, identity: list[Any]) -> Any:
    """Open the group if it is of the same patches and encoder, else make it anew."""
    try:
        group = zarr.open_group(str(folder), mode="r+")
        if group.attrs.get("identity") == identity:
            return group
        if "identity" not in group.attrs and any(True for _ in folder.iterdir()):
            raise DatasetError(f"{folder}: a zarr group of something else; give an empty folder for the latents")
    except (FileNotFoundError, ValueError, KeyError):
        if folder.exists() and any(folder.iterdir()):
            raise DatasetError(f"{folder}: holds other files; give an empty folder for the latents") from None
    return _new_group(folder, encoder, identity)


def _new_group(folder: Path, encoder: PatchEncoder, identity: list[Any]) -> Any:
    n, variants, side = len(encoder.patches), int(identity[-1]), encoder.side
    channels, blocks = encoder.channels(), -(-n // BLOCK)
    group = zarr.open_group(str(folder), mode="w", attributes={"kind": "wsigen latents", "identity": None})
    tail: tuple[int, ...]
    for name, dtype, tail in (("latents", "float16", (channels, side, side)), ("classes", "uint8", (side, side))):
        group.create_array(
            name,
            shape=(n, variants, *tail),
            shards=(BLOCK, 1, *tail),
            chunks=(1, 1, *tail),
            dtype=dtype,
            compressors=[BloscCodec(cname="zstd", clevel=1), Crc32cCodec()],
            config={"write_empty_chunks": True},
        )
    shape = (blocks, variants, 3, channels)
    group.create_array("moments", shape=shape, chunks=(1, 1, 3, channels), dtype="float64", fill_value=np.nan)
    group.attrs["identity"] = identity  # last: a group without it is not whole
    return group


def _encode_share(group: Any, encoder: PatchEncoder, share: tuple[int, int], watch: Callable[[int, int], None] | None) -> float:
    """Encode the blocks of this process that are not there yet; whose a block is does not depend on what is done.

    Returns the seconds of the slowest (0 if all are there).
    """
    slowest_s = 0.0
    rank, processes = share
    moments, rows = group["moments"], group["latents"].shape[0]
    done = np.isfinite(moments[:]).all(axis=(2, 3)).ravel()
    own = np.arange(rank, done.size, processes)
    todo = own[~done[own]]
    for number, place in enumerate(todo, start=len(own) - len(todo) + 1):
        begin = monotonic()
        block, variant = divmod(int(place), moments.shape[1])
        first, last = block * BLOCK, min(rows, (block + 1) * BLOCK)
        latents, classes, sums = encoder.block(range(first, last), variant)
        group["latents"][first:last, variant] = latents
        group["classes"][first:last, variant] = classes
        moments[block, variant] = sums
        slowest_s = max(slowest_s, monotonic() - begin)
        if watch is not None:
            watch(number, len(own))
    return slowest_s


def await_others(left: Callable[[], int], slowest_s: float) -> None:
    """Wait as long as others work: their shares may take hours longer, more than processes wait for one that may be dead.

    Parameters
    ----------
    left : callable
        How many parts are still to be made. If that stays the same for long, the others may be dead, and the wait ends.
    slowest_s : float
        Seconds of the slowest part that this process made.
    """
    missing, since, still_s = -1, monotonic(), max(STILL_S, STILL_BLOCKS * slowest_s)
    while now := left():
        if now != missing:
            missing, since = now, monotonic()
        elif monotonic() - since >= still_s:
            return
        sleep(LOOK_S)


class PatchEncoder:
    """Reads, augments and encodes patches; one that cannot be read is replaced or an error (`crops.ReadFailures`)."""

    def __init__(
        self,
        dataset: Dataset,
        patches: Patches,
        encode: Encode,
        batch: int,
        jitter: float,
        cell_px: int = CELL_PX,
        replacing: bool = True,
    ) -> None:
        self.dataset, self.patches, self._encode, self._batch, self._jitter = dataset, patches, encode, batch, jitter
        expected = len(patches.level)
        if replacing:
            self._failures = ReadFailures(dataset.skip_bad, expected)
        else:
            self._failures = ReadFailures(False, expected, "mend or remove it: with an encoder's grid images must be whole")
        self._cell, self.side = cell_px, dataset.settings.patch_px // cell_px
        self._glass = [i for i, c in enumerate(dataset.table) if c.background]

    def block(self, rows: range, variant: int) -> tuple[NDArray[np.float16], NDArray[np.uint8], NDArray[np.float64]]:
        """Encode some rows: latents, class maps, and count, sum, sum of squares over tissue, float64 ``[3, C]``."""
        latents, maps, tissues = [], [], []
        for start in range(rows.start, rows.stop, self._batch):
            read = [self._read(row, variant) for row in range(start, min(rows.stop, start + self._batch))]
            images, classes, tissue = (np.stack(part) for part in zip(*read, strict=True))
            latents.append(self._checked(images))
            maps.append(classes)
            tissues.append(tissue)
        values = np.concatenate(latents)
        inside = np.moveaxis(values, 1, 0)[:, np.concatenate(tissues)].astype(np.float64)
        sums = np.stack([np.full(len(inside), inside.shape[1]), inside.sum(axis=1), (inside**2).sum(axis=1)])
        return values.astype(np.float16), np.concatenate(maps), sums

    def channels(self) -> int:
        """Channels of the encoder's latents."""
        return int(self._checked(self._read(0, 0)[0][None]).shape[1])

    def _checked(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        latents, side = np.asarray(self._encode(images), np.float32), self.side
        if latents.ndim != 4 or latents.shape[0] != len(images) or latents.shape[2:] != (side, side):
            raise DatasetError(f"the encoder gives {latents.shape} for {images.shape}; class maps need {side} x {side} latents")
        if not np.isfinite(latents).all() or np.abs(latents).max() > np.finfo(np.float16).max:
            raise DatasetError("the encoder gives latents that are not finite or beyond float16; check its weights")
        return latents

    def _read(self, row: int, variant: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8], NDArray[np.bool_]]:
        """Pixels of a patch, and classes and tissue of its cells."""
        image, classes, tissue = self._readable(row)
        tissue = tissue & ~np.isin(classes, self._glass)
        if variant:
            rng = np.random.default_rng((self.dataset.settings.seed, row, variant))
            image = jitter_stain(image, rng, self._jitter) if self._jitter else image
            turn = variant % 8
            image, classes, tissue = dihedral(image, turn), dihedral(classes, turn), dihedral(tissue, turn)
        return image, classes, tissue

    def _readable(self, row: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8], NDArray[np.bool_]]:
        """Read a patch, or in its place one of the same kind: a function of (seed, row, attempt)."""
        taken = row
        failed: set[int] = set()
        for attempt in itertools.count():
            member, mpp = self.dataset.members[self.patches.member[taken]], self.dataset.mpps[self.patches.level[taken]]
            box = self.patches.box(taken, self.dataset.settings.patch_px).snap(self._cell)
            try:
                image = member.image(box, mpp)
            except ImageError as error:
                self._failures.failed(member.name, error)
                failed.add(taken)
                others = self._alike(row, failed)
                if len(others) == 0 or len(failed) >= MOST_TRIED:
                    raise DatasetError(
                        f"{member.name}: cannot be read at a patch, nor can {len(failed) - 1} others like it; mend or remove it"
                    ) from None
                rng = np.random.default_rng((self.dataset.settings.seed, row, REDRAWN + attempt))
                taken = int(others[rng.integers(len(others))])
                continue
            self._failures.succeeded()
            break
        return image, member.class_map(box, mpp, self._cell), member.tissue(box, mpp, self._cell)

    def _alike(self, row: int, failed: set[int]) -> NDArray[np.int64]:
        """Rows that are drawn as ``row`` is: of its level, its most frequent class, half of it or less, labelled or not.

        Without those that failed; if no other is left, any row of its level.
        """
        p = self.patches
        labelled = np.array([m.labelled for m in self.dataset.members])[p.member]
        most, label = p.counts.max(axis=1), p.counts.argmax(axis=1)
        kinds = np.stack([p.level, labelled, label, most > 0, most >= MOST * self.dataset.cells_of_patch])
        whole = np.ones(len(p.level), bool)
        whole[list(failed)] = False
        alike = np.flatnonzero((kinds == kinds[:, row, None]).all(axis=0) & whole)
        return alike if len(alike) else np.flatnonzero((p.level == p.level[row]) & whole)
