from __future__ import annotations

import tracemalloc
import zlib
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from slide_making import exact_mean, tissue

from wsigen.base.errors import DamagedChunkError
from wsigen.slide import tiles
from wsigen.slide.pyramid import PyramidSpec
from wsigen.slide.spool import Spool
from wsigen.slide.tiles import area_mean, area_means, encode_block, encode_tile, read_block

SPEC = PyramidSpec(2500, 2049, 0.5, 20)
CORNER = encode_block(SPEC, (1, 1), tissue(1, 452))


@pytest.mark.parametrize("factor", [2, 4, 8])
def test_area_mean_is_rounded_once(factor: int) -> None:
    rgb = np.random.default_rng(0).integers(0, 256, (64, 96, 3), np.uint8)
    error = area_mean(rgb, factor) - exact_mean(rgb, factor)
    assert np.abs(error).max() <= 0.5 + 1e-3


@settings(max_examples=30, deadline=None)
@given(size=st.tuples(st.integers(1, 300), st.integers(1, 160)), eights=st.booleans(), white=st.booleans())
def test_shared_sums_give_each_mean_for_itself(size: tuple[int, int], eights: bool, white: bool) -> None:
    shape = (size[0] * 8, size[1] * 8, 3) if eights else (*size, 3)
    rgb = np.full(shape, 255, np.uint8) if white else np.random.default_rng(size[0]).integers(0, 256, shape, np.uint8)
    for factor, mean in zip((2, 4, 8), area_means(rgb), strict=True):
        assert np.array_equal(mean, area_mean(rgb, factor))


def test_area_mean_at_an_edge_uses_the_pixels_that_exist() -> None:
    rgb = np.zeros((9, 9, 3), np.uint8)
    rgb[8] = 200
    mean = area_mean(rgb, 8)
    assert mean.shape == (2, 2, 3)
    assert mean[1].tolist() == [[200] * 3] * 2
    assert not mean[0].any()


@pytest.mark.parametrize("compression", ["jpeg", "deflate"])
def test_a_block_holds_its_tiles_and_the_remainder(compression: str) -> None:
    spec = PyramidSpec(2500, 2049, 0.5, 20, compression)  # type: ignore[arg-type]
    rgb = tissue(2048, 452)
    block = read_block(encode_block(spec, (0, 1), rgb))
    assert block.ij == (0, 1)
    assert set(block.tiles) == {
        *((0, r, 4) for r in range(4)),
        *((1, r, 2) for r in range(2)),
        (2, 0, 1),
    }
    assert np.array_equal(block.remainder, area_mean(rgb, 8))
    if compression == "jpeg":
        tile = imagecodecs.jpeg8_decode(block.tiles[0, 1, 4])
        assert tile.shape == (512, 512, 3)
        assert np.abs(tile[:, :452].astype(int) - rgb[512:1024]).mean() < 3
        assert np.abs(tile[:, 460:].astype(int) - tile[:, 451:452]).mean() < 8  # the last column again


def test_encoding_is_repeatable() -> None:
    assert encode_block(SPEC, (1, 1), tissue(1, 452)) == CORNER


@pytest.mark.parametrize("compression", ["jpeg", "deflate"])
def test_glass_is_one_tile(compression: str) -> None:
    spec = PyramidSpec(4096, 4096, 0.5, 20, compression)  # type: ignore[arg-type]
    rgb = np.full((2048, 2048, 3), (244, 243, 246), np.uint8)
    blob = encode_block(spec, (1, 0), rgb)
    block = read_block(blob)
    assert len(blob) < 12_000
    assert len(block.tiles) == 16 + 4 + 1
    assert set(block.tiles.values()) == {encode_tile(spec, rgb[:512, :512])}
    assert (block.remainder == (244, 243, 246)).all()


def test_a_block_of_another_shape_is_refused() -> None:
    with pytest.raises(ValueError, match=r"expected uint8 \(1, 452, 3\)"):
        encode_block(SPEC, (1, 1), tissue(2, 452))


@given(length=st.integers(0, len(CORNER) - 1))
@settings(max_examples=60, deadline=None)
def test_a_truncated_blob_is_damaged(length: int) -> None:
    with pytest.raises(DamagedChunkError):
        read_block(CORNER[:length])


@given(at=st.integers(0, len(CORNER) - 1), bit=st.integers(0, 7))
@settings(max_examples=100, deadline=None)
def test_a_flipped_bit_is_damage(at: int, bit: int) -> None:
    blob = bytearray(CORNER)
    blob[at] ^= 1 << bit
    with pytest.raises(DamagedChunkError, match="made again"):
        read_block(bytes(blob))


@pytest.mark.parametrize("shape", [(1, 57, 3), (4097, 4096, 3), (10**5, 10**5, 3), (-1, -57, 3), (1, 57, 10**9), (0, 57, 3)])
def test_a_remainder_takes_no_more_memory_than_its_shape(shape: tuple[int, ...]) -> None:
    bomb = tiles._Payload()
    table = {"ij": [1, 1], "spec": {}, "tiles": [], "remainder": [*shape, *bomb.add(zlib.compress(bytes(10**8)))]}
    blob = bomb.sealed(table)
    tracemalloc.start()
    if shape == (1, 57, 3):
        assert read_block(blob).remainder.shape == shape
    else:
        with pytest.raises(DamagedChunkError, match="made again"):
            read_block(blob)
    assert tracemalloc.get_traced_memory()[1] < 10**6
    tracemalloc.stop()


def test_spool_keeps_blocks_by_their_place(tmp_path: Path) -> None:
    (tmp_path / "spool").mkdir()
    spool = Spool(tmp_path / "spool")
    assert spool.done() == set()
    assert not spool.has((1, 1))
    spool.write((1, 1), CORNER)
    spool.write((1, 1), CORNER)  # a late duplicate
    (tmp_path / "spool" / ".123.00000_00000.blk").write_bytes(b"left by a crash")
    assert spool.done() == {(1, 1)}
    assert spool.read((1, 1)).tiles == read_block(CORNER).tiles
    spool.discard((1, 1))
    assert not spool.has((1, 1))


def test_spool_names_the_block_that_is_wrong(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    with pytest.raises(DamagedChunkError, match=r"00000_00001\.blk: missing") as caught:
        spool.read((0, 1))
    assert caught.value.key == "00000_00001.blk"
    spool.write((0, 1), CORNER)
    with pytest.raises(DamagedChunkError, match=r"holds block \(1, 1\), expected \(0, 1\)"):
        spool.read((0, 1))
