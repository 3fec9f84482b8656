"""Peak memory of an edit: ``python -m benchmarks.editing_memory --size 100000``.

One region in a large slide over the same in a small one, and a chain of regions that makes one window of a whole slide over
such a chain in a small one. A cheap random model; the slides are glass with tissue where regions lie. Each edit is made in a
process of its own, worker included.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from time import perf_counter
from typing import cast

import numpy as np
from numpy.typing import NDArray

import wsigen
from benchmarks.bundles import Square, make_bundle, write_squares
from benchmarks.processes import in_process, peak_rss
from wsigen.slide.ome import ome_xml
from wsigen.slide.pyramid import PyramidSpec
from wsigen.slide.spool import Spool
from wsigen.slide.tiles import EncodedBlock, encode_block, read_block
from wsigen.slide.writer import write_slide

SMALL_PX, CHAIN_PX = 8192, (8192, 24576)
REGION_PX, LINK_PX, APART_PX, MARGIN_UM = 1000, 200, 900, 20.0
MPP, GLASS, TISSUE = 0.5, (243, 241, 244), (200.0, 150.0, 190.0)

Index = tuple[int, int]


class Blocks:
    """In place of a spool: tissue in some blocks, glass in all others; blocks of one kind are encoded once."""

    def __init__(self, spec: PyramidSpec, tissue: Sequence[Index]) -> None:
        self.spec, self.tissue = spec, set(tissue)
        self._first: dict[tuple[bool, tuple[int, int]], EncodedBlock] = {}

    def key(self, ij: Index) -> str:
        """Name of a block."""
        return str(ij)

    def done(self) -> set[Index]:
        """All of them."""
        return set(self.spec.grid)

    def read(self, ij: Index) -> EncodedBlock:
        """A block, whose tiles are those of another one of its kind."""
        kind = ij in self.tissue, self.spec.grid.box(ij).shape
        if kind not in self._first:
            self._first[kind] = self._encode(ij, *kind)
        block = self._first[kind]
        down, across = ij[0] - block.ij[0], ij[1] - block.ij[1]
        tiles = {}
        for (level, row, column), data in block.tiles.items():
            per_block = self.spec.block // self.spec.tile >> level
            tiles[level, row + down * per_block, column + across * per_block] = data
        return EncodedBlock(ij, asdict(self.spec), tiles, block.remainder)

    def _encode(self, ij: Index, tissue: bool, shape: tuple[int, int]) -> EncodedBlock:
        rgb = np.empty((*shape, 3), np.uint8)
        rgb[:] = _texture(shape) if tissue else np.array(GLASS, np.uint8)
        return read_block(encode_block(self.spec, ij, rgb))


def _texture(shape: tuple[int, int]) -> NDArray[np.uint8]:
    noise = np.random.default_rng(0).normal(0, 14, (256, 256, 1)).repeat(8, 0).repeat(8, 1)
    return np.clip(np.array(TISSUE) + noise, 0, 255).astype(np.uint8)[: shape[0], : shape[1]]


def make_slide(path: Path, side: int, squares: Sequence[Square]) -> Path:
    """Write a slide with tissue in the blocks that squares touch."""
    spec = PyramidSpec(side, side, MPP, 20.0)
    touched = {
        (y // spec.block, x // spec.block) for _, left, top, px in squares for y in (top, top + px) for x in (left, left + px)
    }
    blocks = cast(Spool, Blocks(spec, sorted(touched)))  # it has what the writer asks of a spool
    write_slide(path, spec, blocks, ome_xml(spec, path.name, {}))
    return path


def edit(bundle: Path, slide: Path, regions: Path) -> tuple[float, float, int]:
    """Peak memory (MiB) and seconds of an edit, and pixels of its windows."""
    begin = perf_counter()
    output = slide.with_name(f"edited-{slide.name}")
    made = wsigen.edit(
        slide, output, regions=regions, model=str(bundle), steps=2, guidance=0.0, margin_um=MARGIN_UM, chunk=128, batch=8,
        workers=1, threads=1, undo=False, overwrite=True,
    )  # fmt: skip
    seconds = perf_counter() - begin
    output.unlink()
    return peak_rss() / 2**20, seconds, sum(w * h for *_, w, h in made.boxes)


def main() -> int:
    """Measure and print; 1 if memory grew by more than a tenth."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.editing_memory", description=__doc__)
    parser.add_argument("--size", type=int, default=100_000, help="side of the large slide, px (default: %(default)s)")
    parser.add_argument("--only", choices=["one", "chain"], help="one region, or the chain")
    args = parser.parse_args()
    missed = False
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        bundles = {  # the decoder of the first gives one colour on little tissue, which stops a run
            "one": make_bundle(folder / "one", (4,), 4, crop=32),
            "chain": make_bundle(folder / "chain", (8, 16), 8, crop=32),
        }
        one = [("Tumor", 2500, 2500, REGION_PX)]
        cases = {"one": [(side, one) for side in (SMALL_PX, args.size)], "chain": [(side, _chain(side)) for side in CHAIN_PX]}
        for kind, sides in cases.items():
            if args.only in (None, kind):
                missed |= _compare(kind, sides, bundles[kind], folder)
    return int(missed)


def _chain(side: int) -> list[Square]:
    return [("Tumor", at, at, LINK_PX) for at in range(300, side - 600, APART_PX)]


def _compare(kind: str, sides: Sequence[tuple[int, Sequence[Square]]], bundle: Path, folder: Path) -> bool:
    peaks = []
    for side, squares in sides:
        slide = make_slide(folder / f"{kind}-{side}.ome.tiff", side, squares)
        regions = write_squares(folder / "regions.geojson", list(squares))
        peak, seconds, pixels = in_process(edit, bundle, slide, regions)
        peaks.append(peak)
        file = slide.stat().st_size / 2**20
        slide.unlink()
        print(
            f"{kind}, {side} px: {peak:.0f} MiB, {seconds:.1f} s; windows {pixels / 1e6:.1f} Mpx, file {file:.0f} MiB",
            flush=True,
        )
    print(f"{kind}: {peaks[1] / peaks[0]:.3f} times the memory (at most 1.1)")
    return peaks[1] > 1.1 * peaks[0]


if __name__ == "__main__":
    sys.exit(main())
