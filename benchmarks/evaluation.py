"""Peak memory of ``wsigen evaluate`` on twenty slides a side over two, each in a process of its own.

All slides are one file of repeated tissue under many names (hard links): evaluating reads each name for itself.
"""

from __future__ import annotations

import os
from pathlib import Path
from statistics import median
from time import perf_counter

import numpy as np
from numpy.typing import NDArray

from benchmarks.figure import Figure, Options
from benchmarks.processes import in_process, peak_rss

SIZE_PX, QUICK_PX = 16384, 4096
FEW, MANY = 2, 20
CROPS, QUICK_CROPS = 120, 60
TARGET = 1.10


def measure(options: Options) -> Figure:
    size, crops = (QUICK_PX, QUICK_CROPS) if options.quick else (SIZE_PX, CROPS)
    begin = perf_counter()
    slide = make_slide(options.folder / "slide", size)
    made = perf_counter() - begin
    for n in (FEW, MANY):
        for side in ("real", "synthetic"):
            _link(slide, options.folder / f"{side}-{n}", n)
    fews = [in_process(evaluate_all, options.folder, FEW, crops) for _ in range(1 if options.quick else 3)]
    few, many = median(fews), in_process(evaluate_all, options.folder, MANY, crops)
    spread = f"{FEW} slides: median of {len(fews)}, {min(fews) / 2**20:.0f} .. {max(fews) / 2**20:.0f}"
    each = (many - few) / (2 * (MANY - FEW)) / 2**20
    detail = (
        f"{many / 2**20:.0f} over {few / 2**20:.0f} MiB (VmHWM; {spread}), {each:.2f} MiB a slide; "
        f"{crops} crops of 256 px a side, embedded extractor, JPEG pyramids; slide made in {made:.0f} s, "
        f"{perf_counter() - begin:.0f} s in all"
    )
    if options.quick:
        detail += f"; quick: {QUICK_PX} px stands for {SIZE_PX} px"
    what = f"peak memory of evaluating {MANY} slides of {size} px a side over {FEW}"
    return Figure("evaluation", what, many / few, TARGET, detail)


def make_slide(folder: Path, size: int) -> Path:
    """Write a slide of stained noise that repeats every block, ``folder/slide.ome.tiff``."""
    from wsigen.slide.ome import ome_xml
    from wsigen.slide.pyramid import PyramidSpec
    from wsigen.slide.spool import Spool
    from wsigen.slide.tiles import encode_block
    from wsigen.slide.writer import write_slide

    spec = PyramidSpec(size, size, 0.5, 20.0)
    pixels = stained_noise(spec.block)
    spool = Spool(folder / "spool")
    for ij in spec.grid:
        height, width = spec.grid.box(ij).shape
        spool.write(ij, encode_block(spec, ij, pixels[:height, :width]))
    path = folder / "slide.ome.tiff"
    write_slide(path, spec, spool, ome_xml(spec, "benchmark", {}))
    return path


def stained_noise(side: int) -> NDArray[np.uint8]:
    """Noise in the colours of a stain, uint8 ``[side, side, 3]``, that goes on where it is repeated."""
    from scipy.ndimage import gaussian_filter

    noise = gaussian_filter(np.random.default_rng(0).standard_normal((side, side, 3)), (2, 2, 0), mode="wrap")
    return np.clip(noise / noise.std() * 20 + (200, 140, 180), 0, 255).astype(np.uint8)


def _link(slide: Path, folder: Path, count: int) -> None:
    folder.mkdir()
    for i in range(count):
        os.link(slide, folder / f"s{i:02d}.ome.tiff")


def evaluate_all(folder: Path, slides: int, crops: int) -> int:
    """What is measured: the command's own work, with its report, on so many slides a side. Its peak memory."""
    from wsigen.evaluation.evaluate import Settings, evaluate
    from wsigen.evaluation.report.report import write_report
    from wsigen.models.extractors.extractors import open_extractor

    settings = Settings(folder / f"real-{slides}", folder / f"synthetic-{slides}", crops=crops)
    write_report(evaluate(settings, open_extractor("embedded")), folder / f"report-{slides}")
    return peak_rss()
