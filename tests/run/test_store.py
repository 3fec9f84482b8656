"""The state of a pass: what is written is read, from any box, and damage is never read as something else."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wsigen.base import geometry
from wsigen.base.errors import DamagedChunkError, RunError
from wsigen.base.geometry import Box, ChunkGrid, tile_side
from wsigen.run.arrays import PassArrays
from wsigen.run.keys import place_of_key
from wsigen.run.store import PassState, RunStore
from wsigen.storage.local import LocalFolder
from wsigen.storage.zarr_stores import ChunkFiles

CHANNELS, SIDE = 2, 32


@pytest.fixture(params=[128, 32], ids=["one tile", "four tiles"], scope="module")
def tiles(request: pytest.FixtureRequest) -> Iterator[int]:
    """Largest side of a tile, which a chunk of 64 px is in one or in four of."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(geometry, "TILE", request.param)
        yield request.param


def made(folder: str, grid: ChunkGrid) -> PassState:
    """The state of a pass of two steps."""
    return RunStore(LocalFolder(Path(folder))).create_pass(PassArrays(0, grid, CHANNELS, 2, SIDE, True))


def values(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)


@settings(max_examples=15, deadline=None)
@given(data=st.data(), height=st.integers(40, 150), width=st.integers(40, 150))
def test_any_box_of_what_was_written_is_read(tiles: int, data: st.DataObject, height: int, width: int) -> None:
    grid = ChunkGrid(height, width, 64)
    whole = values(0, CHANNELS, height, width)
    y0, x0 = data.draw(st.integers(0, height - 1)), data.draw(st.integers(0, width - 1))
    box = Box(y0, x0, data.draw(st.integers(y0 + 1, height)), data.draw(st.integers(x0 + 1, width)))
    with TemporaryDirectory() as folder:
        state = made(folder, grid)
        for ij in grid:
            state.write_latents(1, ij, whole[(slice(None), *grid.box(ij).slices)])
            state.write_history(0, ij, -whole[(slice(None), *grid.box(ij).slices)])
        np.testing.assert_array_equal(state.read_latents(1, box), whole[(slice(None), *box.slices)])
        np.testing.assert_array_equal(state.read_history(0, (0, 0)), -whole[(slice(None), *grid.box((0, 0)).slices)])
        assert state.record() == {ij: {2} for ij in grid}


@settings(max_examples=15, deadline=None)
@given(data=st.data())
def test_any_box_of_a_partial_is_read(tiles: int, data: st.DataObject) -> None:
    grid = ChunkGrid(100, 128, 64)
    ij = data.draw(st.sampled_from(list(grid)))
    reach = grid.box(ij).dilate(SIDE // 2)
    partial = values(1, CHANNELS, *reach.shape)
    box = data.draw(st.sampled_from(grid.neighbourhood(ij)).map(grid.box)).intersect(reach)
    with TemporaryDirectory() as folder:
        state = made(folder, grid)
        state.write_partial(0, ij, partial)
        np.testing.assert_array_equal(
            next(state.read_partials(0, {ij: box})), partial[(slice(None), *box.relative_to(reach).slices)]
        )


@settings(max_examples=40, deadline=None)
@given(data=st.data(), odd=st.booleans(), bit=st.integers(0, 7), truncate=st.booleans())
def test_damage_is_told_or_does_no_harm(tiles: int, data: st.DataObject, odd: bool, bit: int, truncate: bool) -> None:
    grid, ij = ChunkGrid(64, 100, 64), (0, 1)
    box = grid.box(ij)
    right = values(2, CHANNELS, *box.shape)
    with TemporaryDirectory() as folder:
        state = made(folder, grid)
        if odd:
            state.write_partial(0, ij, np.pad(right, ((0, 0), (16, 16), (16, 16))))
        else:
            state.write_latents(0, ij, right)
        path = Path(folder) / "pass-0" / state.key(int(odd), ij)
        content = bytearray(path.read_bytes())
        at = data.draw(st.integers(0, len(content) - 1))
        content[at] ^= 1 << bit
        path.write_bytes(content[:at] if truncate else content)
        try:
            found = next(state.read_partials(0, {ij: box})) if odd else state.read_latents(0, box)
        except DamagedChunkError as error:
            named = str(error)
        else:
            named = ""
    if named:
        assert state.key(int(odd), ij) in named
    else:
        changed = found != right
        assert np.isnan(found[changed]).all(), "what is missing reads as NaN, which every reader of state refuses"


def test_what_is_damaged_can_be_written_again_and_nobody_looks_at_it(
    tiles: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    grid, ij = ChunkGrid(64, 64, 64), (0, 0)
    state, right = made(str(tmp_path), grid), values(4, CHANNELS, 64, 64)
    partial = np.pad(right, ((0, 0), (16, 16), (16, 16)))
    state.write_latents(0, ij, right)
    state.write_partial(0, ij, partial)
    for half_step in (0, 1):
        path = tmp_path / "pass-0" / state.key(half_step, ij)
        path.write_bytes(path.read_bytes()[:-5])
    with monkeypatch.context() as patch:
        patch.setattr(ChunkFiles, "get", None)
        patch.setattr(ChunkFiles, "get_sync", None, raising=False)
        state.write_latents(0, ij, right)
        state.write_partial(0, ij, partial)
    np.testing.assert_array_equal(state.read_latents(0, grid.box(ij)), right)
    np.testing.assert_array_equal(next(state.read_partials(0, {ij: grid.box(ij)})), right)


def test_a_late_store_is_asked_for_all_neighbours_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    grid = ChunkGrid(192, 192, 64)
    state, whole = made(str(tmp_path), grid), values(5, CHANNELS, 192, 192)
    for ij in grid:
        state.write_latents(0, ij, whole[(slice(None), *grid.box(ij).slices)])
    waiting, most, together, before = 0, 0, 1, ChunkFiles.get

    async def late(self: ChunkFiles, *args: Any, **more: Any) -> Any:
        nonlocal waiting, most
        waiting += 1
        most = max(most, waiting)
        for _ in range(100):  # a busy machine starts threads late
            await asyncio.sleep(0.02)
            if most >= together:
                break
        waiting -= 1
        return await before(self, *args, **more)

    monkeypatch.setattr(ChunkFiles, "get", late)
    monkeypatch.setattr(ChunkFiles, "get_sync", None, raising=False)
    box = Box(60, 60, 130, 130)
    for answers_late, together in ((False, 1), (True, 9)):
        monkeypatch.setattr(LocalFolder, "answers_late", answers_late)
        most = 0
        np.testing.assert_array_equal(state.read_latents(0, box), whole[(slice(None), *box.slices)])
        assert most == together


def test_an_edge_costs_its_tiles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A chunk of 512 px: one row of its tiles, not all; the whole in one request."""
    monkeypatch.setattr(geometry, "TILE", 128)
    grid = ChunkGrid(512, 512, 512)
    assert tile_side(512) == 128
    state = made(str(tmp_path), grid)
    state.write_latents(0, (0, 0), values(3, CHANNELS, 512, 512))
    read: list[int] = []
    before = ChunkFiles.get

    async def watched(self: ChunkFiles, *args: object, **more: object) -> object:
        found = await before(self, *args, **more)
        read.append(len(found))
        return found

    monkeypatch.setattr(ChunkFiles, "get", watched)
    monkeypatch.setattr(ChunkFiles, "get_sync", None, raising=False)
    state.read_latents(0, Box(496, 0, 512, 512))
    edge = sum(read)
    read.clear()
    state.read_latents(0, grid.canvas)
    assert len(read) == 1
    assert edge < 0.26 * read[0]


@pytest.mark.parametrize(
    ("key", "place"),
    [
        ("pass-1/latents/c/4/0/2/3", (1, "", 8, (2, 3))),
        ("pass-0/history/c/4/0/2/3", (0, "", 10, (2, 3))),
        ("pass-0/partials/c/4/2/3/0/0/0", (0, "", 9, (2, 3))),
        ("pass-12/classes", (12, "classes", 0, (0, 0))),
    ],
)
def test_a_key_names_what_it_belongs_to(key: str, place: tuple[Any, ...]) -> None:
    assert place_of_key(key) == place


@pytest.mark.parametrize("key", ["pass-0/zarr.json", "zarr.json", "pass-0/latents/c/4/0/2", "00000_00001.blk"])
def test_other_keys_cannot_be_made_again(key: str) -> None:
    with pytest.raises(RunError, match="generate anew"):
        place_of_key(key)
