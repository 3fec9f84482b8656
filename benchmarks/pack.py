"""Time of packing decoded pixels into a slide, over the floor: reading them and encoding every tile of the slide.

The pixels of every level lie in files, as if decoded before. Both read those of level 0 by blocks, which is how decoding
leaves them. Packing averages the other levels, encodes, spools, and puts the OME-TIFF together with its checksum, all flushed
to disk. The floor reads the other levels ready made, encodes all tiles with the same encoder and settings, and writes nothing.
One thread each; block by block in turn, so that what is compared is measured within a second.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path
from statistics import median

import numpy as np

from benchmarks.evaluation import stained_noise
from benchmarks.figure import Figure, Options, Spent, spread
from wsigen.base.geometry import ChunkGrid
from wsigen.base.machine import keep_freed_memory
from wsigen.slide.ome import ome_xml
from wsigen.slide.pyramid import PyramidSpec
from wsigen.slide.spool import Spool
from wsigen.slide.tiles import RGB, area_mean, encode_block, encode_tile
from wsigen.slide.writer import level0_sha256, write_slide

SIZE_PX, QUICK_PX = 12288, 8192
REPETITIONS, QUICK_REPETITIONS = 5, 3
TARGET = 1.3


def measure(options: Options) -> Figure:
    size, repetitions = (QUICK_PX, QUICK_REPETITIONS) if options.quick else (SIZE_PX, REPETITIONS)
    keep_freed_memory()  # as every process that makes slides does
    spec = PyramidSpec(size, size, 0.5, 20.0)  # whole blocks
    levels = write_levels(spec, options.folder)
    walls, cpus, joins = [], [], []
    for _ in range(1 + repetitions):
        blocks, joining, floor = compare(spec, levels, options.folder / "slide")
        walls.append((blocks.wall + joining.wall) / floor.wall)
        cpus.append((blocks.cpu + joining.cpu) / floor.cpu)
        joins.append(joining.wall / floor.wall)
    tiles = sum(len(list(spec.tiles_of_level(level))) for level in range(spec.levels))
    detail = (
        f"{spread(walls[1:])}; CPU time {median(cpus[1:]):.3f}; {median(joins[1:]):.3f} of it putting the file together; "
        f"{tiles} tiles of {spec.tile} px as JPEG, floor {1000 * floor.cpu / tiles:.1f} ms a tile; one thread"
    )
    what = f"packing a {size} px slide over reading its levels' pixels and encoding all their tiles, wall time"
    return Figure("pack", what, median(walls[1:]), TARGET, detail)


def compare(spec: PyramidSpec, levels: list[RGB], folder: Path) -> tuple[Spent, Spent, Spent]:
    """What packing spends on the blocks, then on the file, and the floor."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    spool, path = Spool(folder / "spool"), folder / "slide.ome.tiff"
    blocks, joining, floor = Spent(), Spent(), Spent()
    decoded = np.empty((spec.block, spec.block, 3), np.uint8)  # decoding leaves its block in memory: no new pages to fetch
    for turn, ij in enumerate(spec.grid):
        for which in (turn % 2, 1 - turn % 2):  # each goes first in turn: the second finds level 0 in the cache
            with blocks if which else floor:
                decoded[:] = levels[0][spec.grid.box(ij).slices]
                if which:
                    spool.write(ij, encode_block(spec, ij, decoded))
                else:
                    _encode(spec, decoded, ChunkGrid(spec.block, spec.block, spec.tile))
                    for level in range(1, spec.block_levels):
                        _encode(spec, levels[level], spec.level_grid(level), spec.tiles_of_block(ij, level))
    with floor:
        for level in range(spec.block_levels, spec.levels):
            _encode(spec, levels[level], spec.level_grid(level))
    with joining:
        write_slide(path, spec, spool, ome_xml(spec, "pack", {}))
        level0_sha256(path)
    return blocks, joining, floor


def write_levels(spec: PyramidSpec, folder: Path) -> list[RGB]:
    """Write the pixels of all levels of a slide of stained noise; memory-mapped uint8 ``[h, w, 3]`` each."""
    side = 1 << (spec.levels - 1)
    pattern = stained_noise(spec.block)
    levels: list[RGB] = []
    for level in range(spec.levels):
        height, width = spec.level_size(level)
        found = np.memmap(folder / f"level-{level}.raw", np.uint8, "w+", shape=(height, width, 3))
        part = area_mean(pattern, 1 << level) if level else pattern
        assert spec.block % side == 0  # the pattern repeats on every level
        for y in range(0, height, len(part)):
            row = np.tile(part, (1, -(-width // len(part)), 1))[: height - y, :width]
            found[y : y + len(part)] = row
        found.flush()
        levels.append(found)
    return levels


def _encode(spec: PyramidSpec, pixels: RGB, grid: ChunkGrid, tiles: Iterable[tuple[int, int]] | None = None) -> None:
    for rc in grid if tiles is None else tiles:
        encode_tile(spec, np.array(pixels[grid.box(rc).slices]))
