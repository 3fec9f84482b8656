"""Peak memory of a worker on a large slide over one on a small slide, with a denoiser that costs almost nothing.

``python -m benchmarks.memory BUNDLE SIZE FOLDER`` makes one slide with one worker process and prints the peak resident sets of
both, the driver's and the worker's, as JSON. The worker's is read again and again while it lives: the highest is its last.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from statistics import median
from time import perf_counter

from benchmarks.bundles import make_bundle
from benchmarks.figure import Figure, Options
from benchmarks.killing import workers_of
from wsigen.run.engine.stage import Stage
from wsigen.run.generate import generate

SMALL_PX, LARGE_PX, QUICK_PX = 4096, 65536, 16384
CHUNK, BATCH, STEPS = 512, 16, 2
TARGET = 1.05


def measure(options: Options) -> Figure:
    bundle = make_bundle(options.folder / "bundle", widths=(4,), decoder_width=4)
    large = QUICK_PX if options.quick else LARGE_PX
    begin = perf_counter()
    drivers, smalls = zip(*(_peaks(bundle, SMALL_PX, options.folder) for _ in range(1 if options.quick else 3)), strict=True)
    small, (driver, most) = median(smalls), _peaks(bundle, large, options.folder)
    detail = (
        f"{most / 2**20:.0f} over {small / 2**20:.0f} MiB (the worker's VmHWM; small: median of {len(smalls)}, "
        f"{min(smalls) / 2**20:.0f} .. {max(smalls) / 2**20:.0f}); driver {driver / 2**20:.0f} over "
        f"{median(drivers) / 2**20:.0f}; all tissue, {STEPS} steps, chunk {CHUNK}, one worker; {perf_counter() - begin:.0f} s"
    )
    if options.quick:
        detail += f"; quick: {QUICK_PX} px stands for {LARGE_PX} px"
    what = f"peak memory of the worker of a run with a trivial denoiser, {large} px over {SMALL_PX} px"
    return Figure("memory", what, most / small, TARGET, detail)


def peak_rss(pid: int | str = "self") -> int:
    """Highest resident set of a process (on Linux: of any) so far, bytes.

    ``ru_maxrss`` is not it on Linux: after a fork and exec it starts at the parent's.
    """
    status = Path(f"/proc/{pid}/status")
    if status.exists():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


class WorkerPeak:
    """A watcher that keeps the highest peak of this process's workers: it looks after every task."""

    def __init__(self) -> None:
        self.most = 0

    def __call__(self, stage: Stage) -> None:
        """Look; a worker may end meanwhile."""
        for worker in workers_of(os.getpid()):
            with suppress(OSError, StopIteration):
                self.most = max(self.most, peak_rss(worker.pid))


def _peaks(bundle: Path, size: int, folder: Path) -> tuple[int, int]:
    """Peak of driver and worker of one slide."""
    command = [sys.executable, "-m", "benchmarks.memory", str(bundle), str(size), str(folder)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    found = json.loads(done.stdout.splitlines()[-1])
    return int(found["driver"]), int(found["worker"])


def _run(bundle: str, size: int, folder: Path) -> None:
    """What is measured: one slide, all tissue."""
    watch = WorkerPeak()
    result = generate(
        folder / f"memory-{size}.ome.tiff",
        model=bundle,
        size=(size, size),
        class_name="Tumor",
        steps=STEPS,
        guidance=0.0,
        chunk=CHUNK,
        batch=BATCH,
        workers=1,
        processes=True,
        threads=1,
        watch=watch,
        overwrite=True,
    )
    result.slide.unlink()
    print(json.dumps({"driver": peak_rss(), "worker": watch.most}))


if __name__ == "__main__":
    _run(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]))
