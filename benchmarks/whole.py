"""A slide of 65,536 px from end to end, a third of it tissue, with a trivial denoiser: time, memory, and what was estimated.

    python -m benchmarks.whole OUT [--size PX] [--workers N]

The slide and what lies beside it stay in OUT, to be opened with any reader. Its pixels mean nothing: the model is random.
"""

from __future__ import annotations

import argparse
import os
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

from benchmarks.bundles import make_bundle, write_sections
from benchmarks.memory import WorkerPeak, peak_rss

SIZE_PX = 65536
STEPS, BATCH = 4, 16


@dataclass(frozen=True)
class Whole:
    """What became of a slide: seconds, peaks of memory in bytes, size of the file, checksum."""

    estimated_s: float
    measured_s: float
    driver: int
    worker: int
    bytes: int
    sha256: str

    @property
    def lines(self) -> list[str]:
        """For people."""
        return [
            f"time:    {self.measured_s / 60:.1f} minutes, estimated {self.estimated_s / 60:.1f} "
            f"({self.estimated_s / self.measured_s:.2f} of it)",
            f"memory:  {self.worker / 2**20:.0f} MiB a worker at most, {self.driver / 2**20:.0f} MiB the driver",
            f"slide:   {self.bytes / 2**20:.0f} MiB, level-0 SHA-256 {self.sha256}",
        ]


def settings(folder: Path, size: int) -> dict[str, Any]:
    """What such a slide is generated from; the bundle and the layout are written into ``folder``."""
    bundle = make_bundle(folder / "bundle", widths=(4,), decoder_width=4)
    layout = write_sections(folder / "layout.geojson", size, "Tumor")
    return {"model": str(bundle), "layout": layout, "size": (size, size), "steps": STEPS, "guidance": 0.0, "batch": BATCH}


def make(folder: Path, size: int, workers: int) -> Whole:
    """Estimate the slide, then generate it."""
    from wsigen.run.config import make_config
    from wsigen.run.estimate.estimate import estimate
    from wsigen.run.generate import generate

    asked = settings(folder, size) | {"workers": workers, "processes": True, "threads": 1}
    expected = estimate(make_config(asked))
    watch = WorkerPeak()
    begin = perf_counter()
    result = generate(folder / "whole.ome.tiff", watch=watch, overwrite=True, **asked)
    seconds = perf_counter() - begin
    return Whole(expected.seconds, seconds, peak_rss(), watch.most, result.slide.stat().st_size, result.level0_sha256)


def main() -> None:
    """Make the slide and say what it took."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.whole", description=__doc__.splitlines()[0] if __doc__ else None
    )
    parser.add_argument("out", type=Path, help="folder of the slide")
    parser.add_argument("--size", type=int, default=SIZE_PX, help="side, px (default: %(default)s)")
    parser.add_argument(
        "--workers", type=int, default=os.cpu_count() or 1, help="processes of one thread (default: every core)"
    )
    args = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    args.out.mkdir(parents=True, exist_ok=True)
    print("\n".join(make(args.out, args.size, args.workers).lines))


if __name__ == "__main__":
    main()
