"""Peak memory of a large slide over a small one, each in a process of its own, with a denoiser that costs almost nothing.

``python -m benchmarks.memory BUNDLE SIZE FOLDER`` is that process: it prints its peak resident set as JSON.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from statistics import median
from time import perf_counter

from benchmarks.bundles import make_bundle
from benchmarks.figure import Figure, Options
from wsigen.generation import generate

SMALL_PX, LARGE_PX, QUICK_PX = 4096, 32768, 16384
CHUNK, BATCH, STEPS = 512, 16, 2
TARGET = 1.10


def measure(options: Options) -> Figure:
    bundle = make_bundle(options.folder / "bundle", widths=(4,), decoder_width=4)
    large = QUICK_PX if options.quick else LARGE_PX
    begin = perf_counter()
    smalls = [_peak(bundle, SMALL_PX, options.folder) for _ in range(1 if options.quick else 3)]
    small, most = median(smalls), _peak(bundle, large, options.folder)
    detail = (
        f"{most / 2**20:.0f} over {small / 2**20:.0f} MiB (VmHWM; small: median of {len(smalls)}, "
        f"{min(smalls) / 2**20:.0f} .. {max(smalls) / 2**20:.0f}); all tissue, {STEPS} steps, "
        f"chunk {CHUNK}, one worker; {perf_counter() - begin:.0f} s"
    )
    if options.quick:
        detail += f"; quick: {QUICK_PX} px stands for {LARGE_PX} px"
    what = f"peak memory of a run with a trivial denoiser, {large} px over {SMALL_PX} px"
    return Figure("memory", what, most / small, TARGET, detail)


def peak_rss() -> int:
    """Highest resident set of this process so far, bytes.

    ``ru_maxrss`` is not it on Linux: after a fork and exec it starts at the parent's.
    """
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _peak(bundle: Path, size: int, folder: Path) -> int:
    command = [sys.executable, "-m", "benchmarks.memory", str(bundle), str(size), str(folder)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return int(json.loads(done.stdout.splitlines()[-1])["peak"])


def _run(bundle: str, size: int, folder: Path) -> None:
    """What is measured: one slide, all tissue."""
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
        threads=1,
        overwrite=True,
    )
    result.slide.unlink()
    print(json.dumps({"peak": peak_rss()}))


if __name__ == "__main__":
    _run(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]))
