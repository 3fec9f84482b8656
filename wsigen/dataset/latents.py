"""Latents of a dataset's patches, encoded once and kept in a zarr group; and a stream of them.

Layout of the group, for n patches and v variants (0 as it is, others turned and, if asked for, jittered in stain)::

    latents  float16 [n, v, C, p, p]   one shard per block of patches and variant, one inner chunk per patch, CRC-32C
    classes  uint8   [n, v, p, p]      the same
    moments  float64 [blocks, v, 3, C] count, sum and sum of squares over tissue; NaN: the block is still to be encoded
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.codecs import BloscCodec, Crc32cCodec

from wsigen.base.errors import DatasetError
from wsigen.dataset.batch import CELL_PX, LatentBatch, LatentStream
from wsigen.dataset.dataset import Dataset, Split
from wsigen.dataset.drawing import Drawer
from wsigen.dataset.encoding import Encode, PatchEncoder
from wsigen.dataset.patches import Patches

BLOCK = 64
"""Patches of a shard: what an interruption loses at most."""

LOOK_S = 5.0
"""Seconds between two looks at whether other processes have encoded their shares."""

STILL_S = 600.0
"""Seconds without a new block after which a process waits for the others without looking, no longer than ``meet`` does."""

STILL_BLOCKS = 10.0
"""Times its own slowest block, where that is more: one of 64 patches may take a slow CPU ten minutes."""

KEPT_BYTES = 2**30
"""Patches a stream keeps in memory: 15,000 of 64 x 64 latents of eight channels."""


@dataclass(frozen=True, slots=True, eq=False)
class LatentCache:
    """Encoded patches of one split.

    Attributes
    ----------
    mean, std : float32 [C], over the tissue of labelled and unlabelled patches
    """

    dataset: Dataset
    patches: Patches
    split: Split
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
    ) -> LatentStream:
        """Return standardised latents, balanced like the crops of pixels (`drawing.Drawer`)."""
        drawer = self.dataset.drawer(self.split, level_shares, unlabelled_share, most_frequent)
        return CachedLatents(self, drawer, seed, kept_bytes)


class CachedLatents:
    """Random latents of a cache; see `batch.LatentStream`.

    Memory bound: ``kept_bytes`` of patches that were read, and a batch. What is read first stays: patches are drawn at random,
    so that no other choice is hit more often, and zarr takes a millisecond of Python for each that is not there.
    """

    def __init__(self, cache: LatentCache, drawer: Drawer, seed: int, kept_bytes: int = KEPT_BYTES) -> None:
        self._cache, self._drawer, self._seed = cache, drawer, seed
        self._kept: dict[tuple[int, int], tuple[NDArray[Any], NDArray[Any]]] = {}
        self._room = kept_bytes
        self._latents, self._classes = cache.group["latents"], cache.group["classes"]
        self._labelled = np.array([m.labelled for m in cache.dataset.members])

    def batch(self, step: int, count: int) -> LatentBatch:
        """Return ``count`` latents of a step (>= 0)."""
        rows, latents, classes = [], [], []
        for i in range(count):
            rng = np.random.default_rng((self._seed, step, i))
            row, _ = self._drawer.draw(rng)
            variant = int(rng.integers(self._latents.shape[1]))
            latent, class_map = self._patch(row, variant)
            rows.append(row)
            latents.append(latent)
            classes.append(class_map)
        mean, std = (v[:, None, None] for v in (self._cache.mean, self._cache.std))
        patches = self._cache.patches
        labelled = self._labelled[patches.member[rows]]
        values = (np.stack(latents).astype(np.float32) - mean) / std
        return LatentBatch(values, np.stack(classes), patches.level[rows].astype(np.int64), labelled)

    def _patch(self, row: int, variant: int) -> tuple[NDArray[Any], NDArray[Any]]:
        """Latents and class map of a patch; several threads may ask, and at worst read the same one twice."""
        found = self._kept.get((row, variant))
        if found is None:
            found = self._read(self._latents, row, variant), self._read(self._classes, row, variant)
            size = sum(part.nbytes for part in found)
            if size <= self._room:
                self._room -= size
                self._kept[row, variant] = found
        return found

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
    split: Split = "training",
    variants: int = 1,
    jitter: float = 0.0,
    batch: int = 8,
    training: LatentCache | None = None,
    watch: Callable[[int, int], None] | None = None,
    share: tuple[int, int] = (0, 1),
    meet: Callable[[], None] | None = None,
) -> LatentCache:
    """Encode the patches of a split, or go on where an interruption left off.

    Parameters
    ----------
    folder:
        Of the zarr group; one of another dataset or key is replaced.
    key:
        Names the encoder, e.g. the hash of its weights.
    variants:
        How often each patch is encoded; beyond the first it is turned.
    jitter:
        Of the stains of turned patches: largest relative change of optical densities (`augment.jitter_stain`).
    batch:
        Patches encoded at a time.
    training:
        Cache of the training split, whose mean and deviation a held-out split is standardised with: a model knows no
        other latents, and figures of both splits must speak of the same.
    watch:
        Called with (blocks done, blocks in all), both of this process's share.
    share, meet:
        Which of how many processes this is, and what waits for all of them: each encodes every so manieth block (they lie
        under keys of their own), the first makes the group.

    Raises
    ------
    DatasetError
        If the split has no patches, the encoder's latents are not 1/8 of the patches' side, or ``training`` is missing
        for a held-out split or of another encoder.
    """
    _check_training(split, training, [key, dataset.key])
    patches = dataset.split_patches(split)
    if not len(patches):
        raise DatasetError(f"split {split!r} has no patches to encode; hold out other groups")
    maker = PatchEncoder(dataset, patches, encode, batch, jitter)
    wait = meet or (lambda: None)
    group = _open_group(Path(folder), maker, [key, dataset.key, split, jitter, variants]) if share[0] == 0 else None
    wait()
    group = zarr.open_group(str(folder), mode="r+") if group is None else group
    slowest_s = _encode_share(group, maker, share, watch)
    if share[1] > 1:
        _see_others_through(group["moments"], max(STILL_S, STILL_BLOCKS * slowest_s))
    wait()
    moments = group["moments"]
    if training is not None:
        return LatentCache(dataset, patches, split, group, training.mean, training.std)
    count, total, squares = moments[:].sum(axis=(0, 1))
    mean = total / np.maximum(count, 1)
    std = np.sqrt(np.maximum(squares / np.maximum(count, 1) - mean**2, 1e-12))
    return LatentCache(dataset, patches, split, group, mean.astype(np.float32), std.astype(np.float32))


def _encode_share(group: Any, maker: PatchEncoder, share: tuple[int, int], watch: Callable[[int, int], None] | None) -> float:
    """Encode the blocks of this process that are not there yet; whose a block is does not depend on what is done.

    Returns the seconds of the slowest (0 if all are there).
    """
    slowest_s = 0.0
    rank, processes = share
    moments, rows = group["moments"], group["latents"].shape[0]
    done = np.isfinite(moments[:]).all(axis=(2, 3)).ravel()
    mine = np.arange(rank, done.size, processes)
    todo = mine[~done[mine]]
    for number, place in enumerate(todo, start=len(mine) - len(todo) + 1):
        begin = monotonic()
        block, variant = divmod(int(place), moments.shape[1])
        first, last = block * BLOCK, min(rows, (block + 1) * BLOCK)
        latents, classes, sums = maker.block(range(first, last), variant)
        group["latents"][first:last, variant] = latents
        group["classes"][first:last, variant] = classes
        moments[block, variant] = sums
        slowest_s = max(slowest_s, monotonic() - begin)
        if watch is not None:
            watch(number, len(mine))
    return slowest_s


def _see_others_through(moments: Any, still_s: float) -> None:
    """Wait as long as others encode: their shares may take hours longer, more than processes wait for one that may be dead.

    Parameters
    ----------
    still_s:
        Seconds without a new block after which they may be dead.
    """
    missing, since = -1, monotonic()
    while left := int((~np.isfinite(moments[:])).any(axis=(2, 3)).sum()):
        if left != missing:
            missing, since = left, monotonic()
        elif monotonic() - since >= still_s:
            return
        sleep(LOOK_S)


def _check_training(split: Split, training: LatentCache | None, identity: list[str]) -> None:
    if (split == "training") != (training is None):
        raise DatasetError("latents of the held-out split, and only these, need 'training': the cache of the training split")
    if training is not None and training.group.attrs["identity"][:3] != [*identity, "training"]:
        raise DatasetError("'training' is the cache of another dataset, encoder or split; encode its training split")


def _open_group(folder: Path, maker: PatchEncoder, identity: list[Any]) -> Any:
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
    return _new_group(folder, maker, identity)


def _new_group(folder: Path, maker: PatchEncoder, identity: list[Any]) -> Any:
    n, variants, side = len(maker.patches), int(identity[-1]), maker.dataset.settings.patch_px // CELL_PX
    channels, blocks = maker.channels(), -(-n // BLOCK)
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
