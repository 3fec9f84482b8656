"""A region of 1,000 px made anew in a slide, and in one of four times the side: what an edit costs and leaves alone.

A cheap random model; the slides are of one texture, written block by block. Seconds are those of the whole edit less those of
copying the file; the region lies at the same place of both, so that both have the same window.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

import wsigen
from benchmarks.bundles import make_bundle, write_squares
from benchmarks.figure import Figure, Options, StageTimes
from wsigen.base.geometry import Box
from wsigen.evaluation.borders import seam_scores
from wsigen.evaluation.seams import edges
from wsigen.sampling.passes import default_overlap
from wsigen.sampling.shifted import ShiftedPlan
from wsigen.slide.ome import ome_xml
from wsigen.slide.pyramid import PyramidSpec
from wsigen.slide.reading import open_image
from wsigen.slide.spool import Spool
from wsigen.slide.tiles import encode_block
from wsigen.slide.writer import write_slide

SIZE_PX, QUICK_PX, REGION_PX, CORNER_PX, MARGIN_UM, STEPS = 8192, 4096, 1000, 1536, 100.0, 8
MPP, CROP = 0.5, 32


def measure(options: Options) -> list[Figure]:
    size = QUICK_PX if options.quick else SIZE_PX
    bundle = make_bundle(options.folder / "bundle", widths=(16, 32), decoder_width=8, crop=CROP)
    regions = write_squares(options.folder / "regions.geojson", [("Tumor", CORNER_PX, CORNER_PX, REGION_PX)])
    settings: dict[str, Any] = {"regions": regions, "model": str(bundle), "steps": STEPS, "margin_um": MARGIN_UM}
    settings |= {"guidance": 0.0}
    seconds, changed = [], 0
    for side in (size, 4 * size):
        slide, times = _slide(options.folder / f"{side}.ome.tiff", side), StageTimes()
        begin = perf_counter()
        shutil.copyfile(slide, options.folder / "copy.ome.tiff")
        copied, begin = perf_counter() - begin, perf_counter()
        output = options.folder / f"edited-{side}.ome.tiff"
        made = wsigen.edit(slide, output, watch=times, workers=1, threads=1, **settings)
        seconds.append(perf_counter() - begin - copied)
        changed += _others_changed(slide, output)
    rows, alone, plain = times.rows / STEPS, _alone(), (REGION_PX / (8 * CROP)) ** 2
    score = _seams(output)
    window = f"window {made.boxes[0][2]} x {made.boxes[0][3]} px"
    return [
        Figure("editing", f"seconds of an edit in a slide of {4 * size} px over one of {size} px", seconds[1] / seconds[0], 1.2,
               f"{seconds[1]:.1f} / {seconds[0]:.1f} s, copying {copied:.1f} s left out; {window}"),
        Figure("editing", "tiles changed that lie outside region and margin", max(0, changed), 0, "all levels", unit=""),
        Figure("editing", f"model calls a step over those of a slide of {REGION_PX} px squared", rows / alone, 1.5,
               f"{rows:.1f} / {alone:.1f} crops, margin {MARGIN_UM:g} um included"),
        Figure("editing", "the same over crops that cover the region without overlap", rows / plain, 1.5,
               f"{rows:.1f} / {plain:.1f} crops; the slide itself: {alone / plain:.2f}"),
        Figure("editing", "seam score along the edge of region and margin", score[0], 1.0 + 3 * score[1],
               f"{score[0]:.3f} +- {score[1]:.3f}, a random model on random texture", floor=1.0 - 3 * score[1]),
    ]  # fmt: skip


def _alone() -> float:
    """Crops a step of a slide as large as the region, the mean of many offsets."""
    side = REGION_PX // 8
    plan = ShiftedPlan(side, side, seed=0, side=CROP, overlap=default_overlap("shifted", CROP))
    counts = [len(plan.crops(step, Box(0, 0, side, side))) for step in range(1000)]
    return sum(counts) / len(counts)


def _slide(path: Path, side: int) -> Path:
    """A slide of one texture, the same in every block."""
    spec = PyramidSpec(side, side, MPP, 20.0)
    noise = np.random.default_rng(0).normal(0, 14, (256, 256, 1)).repeat(8, 0).repeat(8, 1)
    rgb = np.clip(np.array([200.0, 150.0, 190.0]) + noise, 0, 255).astype(np.uint8)
    (folder := path.with_suffix(".spool")).mkdir()
    spool = Spool(folder)
    for ij in spec.grid:
        spool.write(ij, encode_block(spec, ij, rgb[: spec.grid.box(ij).height, : spec.grid.box(ij).width]))
    write_slide(path, spec, spool, ome_xml(spec, path.name, {}))
    shutil.rmtree(folder)
    return path


def _others_changed(parent: Path, edited: Path) -> int:
    """Tiles of all levels whose bytes differ though no px of region and margin lies in them."""
    import tifffile

    count = 0
    with tifffile.TiffFile(parent) as old, tifffile.TiffFile(edited) as new:
        for level, (before, after) in enumerate(zip(old.series[0].levels, new.series[0].levels, strict=True)):
            was, now = before.pages[0], after.pages[0]
            across = -(-was.imagewidth // was.tilewidth)
            for n in range(len(was.dataoffsets)):
                y, x = n // across * was.tilelength << level, n % across * was.tilewidth << level
                tile = Box(y, x, y + (was.tilelength << level), x + (was.tilewidth << level))
                count += not tile.overlaps(_edge()) and _bytes(old, was, n) != _bytes(new, now, n)
    return count


def _bytes(tif: Any, page: Any, number: int) -> bytes:
    tif.filehandle.seek(page.dataoffsets[number])
    return bytes(tif.filehandle.read(page.databytecounts[number]))


def _edge() -> Box:
    """Region and margin, to whole latent px."""
    square = Box(CORNER_PX, CORNER_PX, CORNER_PX + REGION_PX, CORNER_PX + REGION_PX)
    return square.dilate(round(MARGIN_UM / MPP) // 8 * 8)


def _seams(slide: Path) -> tuple[float, float]:
    """Score and noise of the outer edge of the margin, as far as it is straight."""
    image = open_image(slide)
    size = (image.height, image.width)
    (score,) = seam_scores(lambda box: image.region(box, size), size, {"edit": edges([_edge()], 1, size)})
    return score.score, score.noise
