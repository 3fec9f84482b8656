"""Wall time of one single-threaded worker over that of two, on the same slide: nothing else may run on this machine.

Runs of one and of two workers in turn; the time is that of denoising and decoding, without the start of the processes.
"""

from __future__ import annotations

import os
from statistics import median

import wsigen
from benchmarks.bundles import one_class
from benchmarks.figure import Figure, Options, StageTimes, spread

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
    times, how = StageTimes(), one_class(options.model, size, steps=steps, workers=workers, processes=True)
    wsigen.generate(options.folder / "workers.ome.tiff", watch=times, **how)
    return times.wall("denoise", "decode")
