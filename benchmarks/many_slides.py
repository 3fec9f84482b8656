"""Many small slides in one process: does anything stay when a slide is done? Memory and Python objects, the last over an early
one."""

from __future__ import annotations

import gc
from pathlib import Path
from time import perf_counter

import psutil

import wsigen
from benchmarks.bundles import make_bundle, one_class
from benchmarks.figure import Figure, Options
from benchmarks.processes import in_process

SLIDES, EARLY, QUICK = 200, 20, 40
SIZE_PX = 512
MEMORY, OBJECTS = 1.03, 1.002
"""Targets; a thousand objects that stay with each slide would be 1.4."""


def measure(options: Options) -> list[Figure]:
    """Make the slides in a process of their own."""
    bundle = make_bundle(options.folder / "bundle", widths=(4,), decoder_width=4)
    slides = QUICK if options.quick else SLIDES
    begin = perf_counter()
    (early, early_objects), (last, objects) = in_process(make_many, bundle, slides, options.folder)
    how = f"slides of {SIZE_PX} px, one step, two workers; {perf_counter() - begin:.0f} s"
    over = f"slide {slides} over slide {EARLY} of one process"
    mib, counts = f"{last / 2**20:.1f} over {early / 2**20:.1f} MiB; {how}", f"{objects:,} over {early_objects:,}"
    return [
        Figure("many_slides", f"memory: {over}", last / early, MEMORY, mib),
        Figure("many_slides", f"Python objects: {over}", objects / early_objects, OBJECTS, counts),
    ]


def make_many(bundle: Path, slides: int, folder: Path) -> tuple[tuple[int, int], tuple[int, int]]:
    """Resident memory (bytes) and objects after slide `EARLY` and after the last one."""
    taken = []
    settings = one_class(bundle, SIZE_PX, steps=1, guidance=0.0, workers=2)
    for number in range(1, slides + 1):
        wsigen.generate(folder / f"{number}.ome.tiff", **settings, seed=number)
        if number in (EARLY, slides):
            gc.collect()
            taken.append((psutil.Process().memory_info().rss, len(gc.get_objects())))
    early, last = taken
    return early, last
