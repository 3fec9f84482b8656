"""A slide of 65,536 px from end to end, a third of it tissue, with a trivial denoiser: time, memory, and what was estimated.

    python -m benchmarks.whole OUT [--size PX] [--workers N]

The slide and what lies beside it stay in OUT, to be opened with any reader. Its pixels mean nothing: the model is random.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from time import perf_counter
from typing import Any

import wsigen
from benchmarks.bundles import make_bundle, write_sections
from benchmarks.processes import WorkerPeak, peak_rss

SIZE_PX = 65536


def settings(folder: Path, size: int) -> dict[str, Any]:
    """What such a slide is generated from; the bundle and the layout are written into ``folder``."""
    bundle = make_bundle(folder / "bundle", widths=(4,), decoder_width=4)
    layout = write_sections(folder / "layout.geojson", size, "Tumor")
    return {"model": str(bundle), "layout": layout, "size": (size, size), "steps": 4, "guidance": 0.0, "batch": 16}


def main() -> None:
    """Estimate the slide, make it, and say what it took."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.whole", description=__doc__.splitlines()[0] if __doc__ else None
    )
    parser.add_argument("out", type=Path, help="folder of the slide")
    parser.add_argument("--size", type=int, default=SIZE_PX, help="side, px (default: %(default)s)")
    cores = os.cpu_count() or 1
    parser.add_argument("--workers", type=int, default=cores, help="processes of one thread (default: every core)")
    args = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    args.out.mkdir(parents=True, exist_ok=True)
    asked = settings(args.out, args.size) | {"workers": args.workers, "processes": True, "threads": 1}
    estimated = wsigen.estimate(**asked).seconds
    watch, begin = WorkerPeak(), perf_counter()
    result = wsigen.generate(args.out / "whole.ome.tiff", watch=watch, overwrite=True, **asked)
    seconds = perf_counter() - begin
    print(f"time:    {seconds / 60:.1f} minutes, estimated {estimated / 60:.1f} ({estimated / seconds:.2f} of it)")
    print(f"memory:  {watch.most / 2**20:.0f} MiB a worker at most, {peak_rss() / 2**20:.0f} MiB the driver")
    print(f"slide:   {result.slide.stat().st_size / 2**20:.0f} MiB, level-0 SHA-256 {result.level0_sha256}")


if __name__ == "__main__":
    main()
