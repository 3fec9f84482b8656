"""Peak memory of a worker on a large slide over one on a small slide, with a denoiser that costs almost nothing.

Each slide is made by a driver that is a process of its own, with one worker process. The worker's peak is read again and again
while it lives: the highest is its last.
"""

from __future__ import annotations

from pathlib import Path
from statistics import median
from time import perf_counter

import wsigen
from benchmarks.bundles import make_bundle, one_class
from benchmarks.figure import Figure, Options
from benchmarks.processes import WorkerPeak, in_process, peak_rss

SMALL_PX, LARGE_PX, QUICK_PX = 4096, 65536, 16384
CHUNK, BATCH, STEPS = 512, 16, 2
TARGET = 1.05


def measure(options: Options) -> Figure:
    bundle = make_bundle(options.folder / "bundle", widths=(4,), decoder_width=4)
    large = QUICK_PX if options.quick else LARGE_PX
    begin = perf_counter()
    times = 1 if options.quick else 3
    drivers, smalls = zip(*(in_process(peaks, bundle, SMALL_PX, options.folder) for _ in range(times)), strict=True)
    small, (driver, most) = median(smalls), in_process(peaks, bundle, large, options.folder)
    detail = (
        f"{most / 2**20:.0f} over {small / 2**20:.0f} MiB (the worker's VmHWM; small: median of {len(smalls)}, "
        f"{min(smalls) / 2**20:.0f} .. {max(smalls) / 2**20:.0f}); driver {driver / 2**20:.0f} over "
        f"{median(drivers) / 2**20:.0f}; all tissue, {STEPS} steps, chunk {CHUNK}, one worker; {perf_counter() - begin:.0f} s"
    )
    if options.quick:
        detail += f"; quick: {QUICK_PX} px stands for {LARGE_PX} px"
    what = f"peak memory of the worker of a run with a trivial denoiser, {large} px over {SMALL_PX} px"
    return Figure("memory", what, most / small, TARGET, detail)


def peaks(bundle: Path, size: int, folder: Path) -> tuple[int, int]:
    """Peak of driver and worker of one slide, all tissue."""
    watch = WorkerPeak()
    settings = one_class(bundle, size, steps=STEPS, guidance=0.0, chunk=CHUNK, batch=BATCH, processes=True)
    result = wsigen.generate(folder / f"memory-{size}.ome.tiff", watch=watch, **settings)
    result.slide.unlink()
    return peak_rss(), watch.most
