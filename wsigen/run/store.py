"""The state of a run: one zarr group of versioned keys; `wsigen.run.keys` reads their names.

Layout of the group, one subgroup per pass::

    pass-0/latents   [steps + 1, C, I c, J c]    chunks (1, C, c, c)              state y[s] of every chunk
    pass-0/history   [steps, C, I c, J c]        chunks (1, C, c, c)              x0[s], kept for samplers with a memory
    pass-0/partials  [steps, I, J, C, c+p, c+p]  one key per (s, i, j)            weighted sums of a chunk's crops
    pass-0/classes   [H, W]                      chunks (c, c)                    the class map that conditions the pass
    pass-0/starts    [H, W]                      chunks (c, c)                    steps from which pixels are denoised
    pass-0/known     [1, C, I c, J c]            chunks (1, C, c, c)              known clean latents, near what is denoised
    pass-0/activity  [I, J]                       once                            which chunks hold or touch tissue
    pass-0/norm      [n]                         once, after the last step        GroupNorm statistics of the decoder

**The keys are the record.** Half-step h of chunk (i, j) is done if and only if its key exists: y[s] for h = 2 s, the partial of
step s for h = 2 s + 1. The history of step s is written before y[s + 1] and deleted with it. Every version of a chunk has its
own key, so a late duplicate rewrites equal bytes. Live state is not compressed (noise saves nothing) but carries a CRC-32C,
since a flipped bit would otherwise be read back silently. ``starts`` and ``known`` exist where a slide is continued.

Large chunks are zarr shards: one key, written at once, of tiles with a checksum each, so that a neighbour reads no more than
the edge it needs. Whoever reads a damaged tile says so; damage in a tile that nobody reads does no harm.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.codecs import Crc32cCodec
from zarr.storage import MemoryStore

from wsigen.base.errors import DamagedChunkError, RunError
from wsigen.base.geometry import Box
from wsigen.run.arrays import MOST_VALUES, NO_CLASS, NO_START, PassArrays, make_arrays
from wsigen.run.keys import KNOWN, Index, place_in_pass
from wsigen.storage.folder import Folder
from wsigen.storage.zarr_stores import BoundedBlosc, Overwriting

Array = NDArray[np.float32]


class RunStore:
    """The zarr group of a run.

    Parameters
    ----------
    folder : Folder
        Of the group, e.g. ``RUN/work-0123456789ab/state.zarr``.
    """

    def __init__(self, folder: Folder) -> None:
        self._folder = folder

    def create_pass(self, arrays: PassArrays) -> PassState:
        """Make the arrays of a pass; an unfinished attempt is replaced."""
        self._folder.make()
        group = make_arrays(self._folder.chunks(), arrays)
        return PassState(group, arrays, self._folder.sub(f"pass-{arrays.index}"))

    def restore_metadata(self, arrays: PassArrays) -> None:
        """Write the metadata of a pass's arrays again where it is not what ``create_pass`` wrote: it was damaged."""
        wanted: dict[str, Any] = {}
        make_arrays(MemoryStore(wanted), arrays)
        for key, value in wanted.items():
            content = value.to_bytes()
            if not self._folder.has(key) or self._folder.read(key) != content:
                self._folder.write(key, content)

    def open_pass(self, arrays: PassArrays) -> PassState:
        """Open the arrays of a pass.

        Raises
        ------
        RunError
            If they are not there, or not the ones that ``create_pass`` makes: nothing that a file says of itself is believed.
        """
        try:
            group = zarr.open_group(self._folder.chunks(), mode="r+")[f"pass-{arrays.index}"]
            for name, array in make_arrays(MemoryStore(), arrays).arrays():
                if group[name].metadata.to_dict() != array.metadata.to_dict():
                    raise ValueError(f"{name} is of another shape or coded otherwise")
            return PassState(group, arrays, self._folder.sub(f"pass-{arrays.index}"))
        except (FileNotFoundError, KeyError, ValueError, TypeError, AttributeError) as error:
            problem = f"pass {arrays.index} is missing or unreadable ({error})"
            raise RunError(f"{self._folder.name}: {problem}; resume the run") from None

    def has_pass(self, index: int) -> bool:
        """Whether a pass was prepared to the end."""
        return self._folder.has(f"pass-{index}/activity/c/0/0")


class PassState:
    """The arrays of one pass.

    Parameters
    ----------
    group : object
        The pass's zarr group.
    arrays : PassArrays
        What it was made from.
    folder : Folder
        Where the group's keys lie.

    Attributes
    ----------
    steps, channels : int
        Transitions of the pass, latent channels.
    margin : int
        Half a crop side: how far a chunk's crops reach beyond it, latent px.
    """

    def __init__(self, group: Any, arrays: PassArrays, folder: Folder) -> None:
        self.group = group
        self._folder = folder
        self.grid, self.steps, self.channels = arrays.grid, arrays.steps, arrays.channels
        self.margin = arrays.side // 2
        self._latents = group["latents"]
        self._partials = group["partials"]
        self._history: Any = group["history"] if arrays.history else None
        self._known: Any = group["known"] if arrays.known else None
        self._classes: Any = self._packed("classes", 1)
        self._starts: Any = self._packed("starts", 2) if arrays.known else None

    @cached_property
    def _to(self) -> dict[str, Any]:
        """The arrays of live state as they are written to."""
        group = zarr.open_group(Overwriting(self.group.store), path=self.group.path, mode="r+")
        names = ("latents", "partials", "history", "known")
        return {name: group[name] for name in names if name in group}

    def _packed(self, name: str, value_bytes: int) -> Any:
        """An array that Blosc packs, read within bounds."""
        store = BoundedBlosc(self.group.store, value_bytes * self.grid.chunk**2)
        return zarr.open_group(store, path=self.group.path, mode="r+")[name]

    # -- reading and writing -------------------------------------------------------------------------------------------

    def read_latents(self, step: int, box: Box) -> Array:
        """State y[step] on ``box`` (inside the canvas), float32 ``(C, h, w)``; NaN where nothing was written."""
        out = np.full((self.channels, *box.shape), np.nan, dtype=np.float32)
        chunks = self.grid.overlapping(box)
        inside = [self.grid.box(ij).intersect(box) for ij in chunks]
        reads = [
            (self.key(2 * step, ij), lambda b=common: self._latents[(step, slice(None), *b.slices)])
            for ij, common in zip(chunks, inside, strict=True)
        ]
        for common, data in zip(inside, self._read_all(reads), strict=True):
            out[(slice(None), *common.relative_to(box).slices)] = data
        return out

    def write_latents(self, step: int, ij: Index, values: Array) -> None:
        """Write state y[step] of chunk ``ij``, float32 ``(C, h, w)``."""
        self._to["latents"][(step, slice(None), *self._whole(ij).slices)] = self._padded(values)

    def read_history(self, step: int, ij: Index) -> Array:
        """The merged estimate x0[step] of chunk ``ij``, float32 ``(C, h, w)``; NaN where nothing was written."""
        box = self.grid.box(ij)
        return self._checked(self._history_key(step, ij), lambda: self._history[(step, slice(None), *box.slices)])

    def write_history(self, step: int, ij: Index, values: Array) -> None:
        """Keep the merged estimate x0[step] of chunk ``ij`` for the next step, if the pass keeps a history."""
        if self._history is not None:
            self._to["history"][(step, slice(None), *self._whole(ij).slices)] = self._padded(values)

    def read_partials(self, step: int, boxes: Mapping[Index, Box]) -> Iterator[Array]:
        """Of each chunk the part of its weighted sum on a box, which lies in its reach; in the order of ``boxes``."""
        reads = []
        for ij, box in boxes.items():
            place = (step, *ij, slice(None), *box.relative_to(self.grid.box(ij).dilate(self.margin)).slices)
            reads.append((self.key(2 * step + 1, ij), lambda place=place: self._partials[place]))
        return self._read_all(reads)

    def write_partial(self, step: int, ij: Index, values: Array) -> None:
        """Write chunk ``ij``'s weighted sum over its box dilated by the margin, float32 ``(C, h + 2m, w + 2m)``."""
        entry = np.zeros((self.channels, *self._partials.shape[-2:]), dtype=np.float32)
        entry[:, : values.shape[1], : values.shape[2]] = values
        self._to["partials"][(step, *ij)] = entry

    def read_classes(self, box: Box) -> NDArray[np.uint8]:
        """The class map on ``box`` (inside the canvas), uint8 ``(h, w)``."""
        classes = np.asarray(self._checked("classes", lambda: self._classes[box.slices]))
        if (classes == NO_CLASS).any():
            key = f"{self.group.path}/classes"
            raise DamagedChunkError(f"{key}: a chunk of the class map is missing", key)
        return classes

    def write_classes(self, ij: Index, values: NDArray[np.uint8]) -> None:
        """Write the class map of one chunk."""
        self._classes[self.grid.box(ij).slices] = values

    def read_starts(self, box: Box) -> NDArray[np.uint16]:
        """The steps from which pixels of ``box`` are denoised, uint16 ``(h, w)``."""
        starts = np.asarray(self._checked("starts", lambda: self._starts[box.slices]))
        if (starts == NO_START).any():
            key = f"{self.group.path}/starts"
            raise DamagedChunkError(f"{key}: a chunk of the steps from which pixels are denoised is missing", key)
        return starts

    def write_starts(self, ij: Index, values: NDArray[np.uint16]) -> None:
        """Write the steps from which pixels of one chunk are denoised."""
        self._starts[self.grid.box(ij).slices] = values

    def read_known(self, box: Box, kept: Callable[[Index], bool]) -> Array:
        """Known clean latents on ``box``, float32 ``(C, h, w)``; 0 in chunks of which none are kept: nothing sees them."""
        out = np.zeros((self.channels, *box.shape), dtype=np.float32)
        chunks = [ij for ij in self.grid.overlapping(box) if kept(ij)]
        inside = [self.grid.box(ij).intersect(box) for ij in chunks]
        reads = [
            (self.known_key(ij), lambda b=common: self._known[(0, slice(None), *b.slices)])
            for ij, common in zip(chunks, inside, strict=True)
        ]
        for ij, common, data in zip(chunks, inside, self._read_all(reads), strict=True):
            if not np.isfinite(data).all():
                key = f"{self.group.path}/{self.known_key(ij)}"
                raise DamagedChunkError(f"{key}: missing or not finite", key)
            out[(slice(None), *common.relative_to(box).slices)] = data
        return out

    def write_known(self, ij: Index, values: Array) -> None:
        """Keep the known clean latents of chunk ``ij``, float32 ``(C, h, w)``."""
        self._to["known"][(0, slice(None), *self._whole(ij).slices)] = self._padded(values)

    def has_known(self) -> set[Index]:
        """The chunks whose known latents are kept."""
        found = (KNOWN.fullmatch(key) for key in self._folder.names("known/c"))
        return {(int(key[1]), int(key[2])) for key in found if key}

    def delete_known(self, ij: Index) -> None:
        """Delete the known latents of a chunk, so that they are made again."""
        self._folder.delete_all([self.known_key(ij)])

    @staticmethod
    def known_key(ij: Index) -> str:
        """Key of a chunk's known latents, relative to the pass's group."""
        return f"known/c/0/0/{ij[0]}/{ij[1]}"

    @cached_property
    def activity(self) -> NDArray[np.bool_]:
        """Chunks that take part, bool ``(I, J)``: a pixel to denoise lies in them or within half a crop of them."""
        return self._checked("activity", lambda: self._once("activity", (self.grid.rows, self.grid.columns)))

    def write_activity(self, activity: NDArray[np.bool_]) -> None:
        """Record which chunks take part: the last thing written when a pass is prepared."""
        array = self.group.create_array(
            "activity",
            shape=activity.shape,
            chunks=activity.shape,
            dtype="bool",
            compressors=[Crc32cCodec()],
            config={"write_empty_chunks": True},
            overwrite=True,
        )
        array[:] = activity

    def read_norm(self) -> NDArray[np.float64] | None:
        """Decoder statistics, if they were estimated and written to the end."""
        if not self._folder.has("norm/zarr.json"):
            return None
        values = self._checked("norm", lambda: self._once("norm"))
        return values if np.isfinite(values).all() else None

    def _once(self, name: str, shape: Index | None = None) -> NDArray[Any]:
        """An array that is written once (ValueError if it is of another shape or larger than it can be, or packed)."""
        array = self.group[name]
        codecs = [codec["name"] for codec in array.metadata.to_dict()["codecs"]]
        if codecs != ["bytes", "crc32c"] or array.shape != (shape or array.shape) or array.size > MOST_VALUES:
            raise ValueError(f"an array of shape {array.shape}, stored as {', '.join(codecs)}")
        return np.asarray(array[:])

    def delete_norm(self) -> None:
        """Forget the decoder statistics, so that they are estimated again."""
        self._folder.discard("norm")

    def write_norm(self, values: NDArray[np.float64]) -> None:
        """Keep the decoder statistics."""
        array = self.group.create_array(
            "norm", shape=values.shape, dtype="f8", fill_value=np.nan, compressors=[Crc32cCodec()], overwrite=True
        )
        if values.size:
            array[:] = values

    # -- the record ----------------------------------------------------------------------------------------------------

    def key(self, half_step: int, ij: Index) -> str:
        """Key of a half-step's result, relative to the pass's group."""
        step, odd = divmod(half_step, 2)
        return f"partials/c/{step}/{ij[0]}/{ij[1]}/0/0/0" if odd else f"latents/c/{step}/0/{ij[0]}/{ij[1]}"

    @staticmethod
    def _history_key(step: int, ij: Index) -> str:
        return f"history/c/{step}/0/{ij[0]}/{ij[1]}"

    def record(self) -> dict[Index, set[int]]:
        """The half-steps whose keys exist, by chunk. Whatever else lies there (what killed writers left) is none."""
        there: dict[Index, set[int]] = {}
        for key in (*self._folder.names("latents/c"), *self._folder.names("partials/c")):
            place = place_in_pass(key)
            if place and place[0] <= 2 * self.steps:
                half_step, ij = place
                there.setdefault(ij, set()).add(half_step)
        return there

    def demand_finite(self, values: Array, half_step: int, ij: Index) -> None:
        """Name the key whose values are not finite: it was missing or cut short (DamagedChunkError)."""
        if not np.isfinite(values).all():
            key = f"{self.group.path}/{self.key(half_step, ij)}"
            raise DamagedChunkError(f"{key}: missing or not finite", key)

    def delete_unfinished(self) -> None:
        """Delete what writers that were killed left unfinished."""
        self._folder.sweep()

    def delete_all(self) -> None:
        """Delete every half-step, so that the pass starts over; class map and activity stay."""
        for array in ("latents", "partials", "history"):
            self._folder.discard(f"{array}/c")

    def delete(self, half_step: int, ij: Index) -> None:
        """Delete a half-step's key and the history that goes with it; not an error if they are gone."""
        self.delete_all_of([(half_step, ij)])

    def delete_all_of(self, half_steps: Sequence[tuple[int, Index]]) -> None:
        """Delete the keys of several half-steps; histories first, as nobody would find one without its state."""
        if self._history is not None:
            later = [(h // 2 - 1, ij) for h, ij in half_steps if h > 0 and h % 2 == 0]
            self._folder.delete_all([self._history_key(step, ij) for step, ij in later])
        self._folder.delete_all([self.key(h, ij) for h, ij in half_steps])

    @property
    def delete_at_once(self) -> int:
        """Half-steps that are worth a request to delete them."""
        return self._folder.delete_at_once

    def _whole(self, ij: Index) -> Box:
        """A chunk with what of it lies beyond the canvas."""
        c = self.grid.chunk
        return Box(ij[0] * c, ij[1] * c, (ij[0] + 1) * c, (ij[1] + 1) * c)

    def _padded(self, values: Array) -> Array:
        """The values of a whole chunk, NaN beyond the canvas."""
        c = self.grid.chunk
        if values.shape[1:] == (c, c):
            return values
        whole = np.full((self.channels, c, c), np.nan, dtype=np.float32)
        whole[:, : values.shape[1], : values.shape[2]] = values
        return whole

    def _read_all(self, reads: Sequence[tuple[str, Callable[[], Any]]]) -> Iterator[NDArray[Any]]:
        """What is read of several keys, in order: one after the other, or together where each would be waited for."""
        if not self._folder.answers_late or len(reads) < 2:
            yield from (self._checked(key, read) for key, read in reads)
            return
        with ThreadPoolExecutor(len(reads)) as threads:  # they wait: zarr reads in a thread of its own
            yield from threads.map(lambda each: self._checked(*each), reads)

    def _checked(self, key: str, read: Any) -> NDArray[Any]:
        """Read; a chunk whose checksum or length is wrong is named, and so is an array whose metadata are damaged."""
        try:
            return np.asarray(read())
        except (ValueError, RuntimeError, LookupError, TypeError) as error:
            reason = "checksum or length is wrong" if "checksum" in str(error).lower() else str(error)
            raise DamagedChunkError(f"{self.group.path}/{key}: {reason}", f"{self.group.path}/{key}") from error
