"""Wall time of one single-threaded worker over that of two, on the same slide: nothing else may run on this machine.

Runs of one and of two workers in turn; the time is that of denoising and decoding, without the start of the processes.
"""

from __future__ import annotations

import os
from statistics import median

from benchmarks.figure import Figure, Options, StageTimes, spread
from wsigen.models.bundle import check_bundle, find_bundle
from wsigen.run.generate import generate

SIZE_PX, QUICK_PX = 4096, 2048
STEPS, QUICK_STEPS = 4, 2
REPETITIONS, QUICK_REPETITIONS = 3, 1
TARGET = 1.9


def measure(options: Options) -> Figure:
    size, steps = (QUICK_PX, QUICK_STEPS) if options.quick else (SIZE_PX, STEPS)
    one, two = [], []
    for _ in range(QUICK_REPETITIONS if options.quick else REPETITIONS):
        one.append(_seconds(options, size, steps, 1))
        two.append(_seconds(options, size, steps, 2))
    ratios = [a / b for a, b in zip(one, two, strict=True)]
    detail = f"{spread(ratios)}; {median(one):.1f} and {median(two):.1f} s; processes, {os.cpu_count()} cores"
    what = f"denoising and decoding a {size} px slide, {steps} steps: one single-threaded worker over two, wall time"
    return Figure("workers", what, median(ratios), float("inf"), detail, floor=TARGET)


def _seconds(options: Options, size: int, steps: int, workers: int) -> float:
    table = check_bundle(find_bundle(options.model)).table
    times = StageTimes()
    generate(
        options.folder / "workers.ome.tiff",
        watch=times,
        model=options.model,
        size=(size, size),
        class_name=next(c.name for c in table if not c.background),
        levels=1,
        steps=steps,
        workers=workers,
        processes=True,
        threads=1,
        overwrite=True,
    )
    return times.wall("denoise", "decode")
