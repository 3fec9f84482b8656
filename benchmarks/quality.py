"""``python -m benchmarks.quality``: seams of every mode and taper, and the model calls each costs, on slides made here.

With ``--out`` the table goes between two marks of a Markdown document.
"""

from __future__ import annotations

import argparse
import math
import os
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import mean
from typing import Any

import wsigen
from benchmarks.crops import SIZE_PX, crops_per_step
from benchmarks.document import rewrite, table

COMMAND = "python -m benchmarks.quality"
Seam = tuple[float, float]
"""Seam score and its standard error."""

LAST = 8
"""Steps whose windows count: earlier ones leave no visible borders."""


CASES: dict[str, dict[str, Any]] = {
    "tiles side by side, no overlap": {"mode": "pathup", "overlap": 0, "taper": "flat"},
    "pathup without weights (flat)": {"mode": "pathup", "taper": "flat"},
    "pathup, weights of the paper": {"mode": "pathup", "taper": "pathup"},
    "pathup, linear": {"mode": "pathup", "taper": "linear"},
    "pathup, hann": {"mode": "pathup", "taper": "hann"},
    "pathup, gaussian": {"mode": "pathup", "taper": "gaussian"},
    "random-patch": {"mode": "random-patch"},
    "random-patch, last 2 steps weighted": {"mode": "random-patch", "weighted_last": 2},
    "random-patch, last 5 steps weighted": {"mode": "random-patch", "weighted_last": 5},
    "shifted, overlap 4": {"mode": "shifted", "overlap": 4},
    "shifted, overlap 8": {"mode": "shifted", "overlap": 8},
    "shifted, overlap 16": {"mode": "shifted", "overlap": 16},
    "shifted, overlap 8, hann": {"mode": "shifted", "overlap": 8, "taper": "hann"},
    "shifted, overlap 8, flat": {"mode": "shifted", "overlap": 8, "taper": "flat"},
}
"""Ways to place and weigh windows: settings of ``wsigen.generate``."""

SAMPLING: dict[str, Any] = {"guidance": 0.5, "eta": 0.0}
"""Of every case, whatever the bundle prefers: no fresh noise that would hide what a step leaves."""


def main() -> None:
    """Generate, measure, print; rewrite the table of the document if one is given."""
    args = _arguments()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    rows = []
    for name, case in CASES.items():
        if args.only and not any(word in name for word in args.only):
            continue
        calls, *seams = measure(case, args.side, args.slides, args.steps, args.model)
        found = any(abs(score - 1) > 3 * error for score, error in seams)
        cells = [f"{score:.3f} ± {error:.3f}" for score, error in seams]
        rows.append([name, f"{calls:.2f}", *cells, "yes" if found else "no"])
        print(*rows[-1], sep=" | ", file=sys.stderr, flush=True)
    head = ["windows", "calls per step / fewest tiles", "seams of the last step", f"of the last {LAST} steps", "found?"]
    what = f"{args.slides} slides of {args.side} px, {args.steps} steps of DDIM, guidance 0.5, model `{args.model}`, lossless"
    text = f"{what}:\n\n{table(head, rows)}"
    print(text)
    if args.out:
        rewrite(args.out, COMMAND, text)


def measure(case: dict[str, Any], side: int, slides: int, steps: int, model: str) -> tuple[float, Seam, Seam]:
    """Generate slides of one class with seeds 0, 1, ...

    Returns
    -------
    tuple
        Crops per step over the fewest tiles, at 8192 px; the seams of the last step's windows, and of the last `LAST`.
    """
    from wsigen.evaluation.seams import read_manifest

    last, late = [], []
    with tempfile.TemporaryDirectory(prefix="wsigen-quality-") as folder:
        for seed in range(slides):
            path = Path(folder) / f"{seed}.ome.tiff"
            wsigen.generate(
                path, model=model, size=(side, side), class_name=("Tumor", "Stroma")[seed % 2], seed=seed, steps=steps,
                compression="deflate", **SAMPLING, **case,
            )  # fmt: skip
            scores = window_seams(path)
            last.append(pooled(scores[-1:]))
            late.append(pooled(scores[-LAST:]))
        manifest = read_manifest(path)
    assert manifest is not None  # made here
    plan = manifest.passes[-1]
    extent = SIZE_PX // plan.factor  # of a large slide: a small one pays for its edges
    large = replace(plan, height=extent, width=extent)
    calls = crops_per_step(large.crop_plan(), extent, plan.side, plan.steps)
    return calls, _over_slides(last), _over_slides(late)


def window_seams(slide: Path) -> list[Any]:
    """Seam scores of a slide of wsigen along the windows of each of its last steps, the last step's at the end."""
    from wsigen.evaluation.seams import read_manifest, slide_seams
    from wsigen.slide.reading import open_image

    manifest = read_manifest(slide)
    assert manifest is not None  # made here
    return [score for score in slide_seams(open_image(slide), manifest) if "windows" in score.name]


def pooled(scores: Sequence[Any]) -> Seam:
    """Mean over the steps of one slide, and a standard error that holds if all steps have the same borders (pathup)."""
    known = [s for s in scores if math.isfinite(s.score)]
    total = sum(s.pieces for s in known)
    return sum(s.pieces * s.score for s in known) / total, sum(s.pieces * s.noise for s in known) / total


def _over_slides(scores: Sequence[Seam]) -> Seam:
    """Mean over slides, which are independent, and its standard error."""
    return mean(score for score, _ in scores), math.sqrt(sum(error**2 for _, error in scores)) / len(scores)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.quality", description=__doc__)
    parser.add_argument("--side", type=int, default=1024, help="px (default: %(default)s)")
    parser.add_argument("--slides", type=int, default=4, help="of each case (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=10, help="default: %(default)s")
    parser.add_argument("--model", default="default", help="bundle (default: %(default)s)")
    parser.add_argument("--only", action="append", metavar="TEXT", help="cases with this in their name")
    parser.add_argument("--out", type=Path, metavar="FILE", help="rewrite the table in this document")
    return parser.parse_args()


if __name__ == "__main__":
    main()
