"""``python -m benchmarks.steps``: quality of slides against the number of steps, for every sampler.

Each cell is a sampler and a number of steps: slides alike but for these two (one tissue class each in turn, seeds 0, 1, ...).
Measured: KID of random crops against real crops (the extractor is named), the seam score of the last step's windows, and the
distance in pixels from the slides of `FINEST` steps of DDIM, which deterministic samplers approach. With a mode whose windows
change from step to step, part of that distance is the windows'; it is the same for all cells.

Slides stay in OUT and are made again only if the model, the settings or the version of wsigen changed.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import wsigen
from benchmarks.document import rewrite, table
from benchmarks.quality import pooled, window_seams
from wsigen.base.errors import WsigenError

if TYPE_CHECKING:
    from wsigen.evaluation.features import FeatureSet
    from wsigen.models.extractors.extractors import Extractor

COMMAND = "python -m benchmarks.steps"
SAMPLERS: dict[str, tuple[str, dict[str, Any]]] = {
    "ddim": ("DDIM", {"sampler": "ddim", "eta": 0.0}),
    "dpm++": ("DPM-Solver++ (2M)", {"sampler": "dpm++"}),
    "ddpm": ("DDPM (DDIM, eta 1)", {"sampler": "ddim", "eta": 1.0}),
}
"""Title and settings. The last takes fresh noise in every step, so that it comes near to no other's pixels."""
STEPS = (5, 8, 12, 20, 30)
FINEST = 100
PICTURE = "steps.svg"


@dataclass(frozen=True, slots=True)
class Plan:
    """What all cells share: the bundle and its hash, the classes in turn, the slides' number, side (px) and mode, and where."""

    model: Path
    digest: str
    classes: tuple[str, ...]
    slides: int
    side: int
    mode: str
    out: Path


@dataclass(frozen=True, slots=True)
class Cell:
    """What was found of a sampler and a number of steps.

    Attributes
    ----------
    kid:
        Times 1000, and its standard deviation over subsets.
    seam:
        Score and standard error, of the last step's windows.
    distance:
        Root mean square difference from `FINEST` steps of DDIM, in grey levels of 0 .. 255; None for a noisy sampler.
    """

    sampler: str
    steps: int
    kid: tuple[float, float]
    seam: tuple[float, float]
    distance: float | None


def main() -> int:
    """Make what is missing, measure, print; 1 if something is wrong with what was given."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    args = _arguments()
    try:
        _run(args)
    except WsigenError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _run(args: argparse.Namespace) -> None:
    from wsigen.evaluation.sides.sides import common_mpp, open_side
    from wsigen.models.bundle import bundle_hash, check_bundle, find_bundle
    from wsigen.models.extractors.extractors import open_extractor

    folder = find_bundle(args.model)
    card = check_bundle(folder)
    classes = tuple(c.name for c in card.table if not c.background)
    plan = Plan(folder, bundle_hash(folder), classes, args.slides, args.slide_px, args.mode, args.out)
    extractor = open_extractor(args.features)
    mpp = common_mpp([open_side("real", args.real, args.real_mpp)], args.mpp or card.levels[0].mpp)
    real = features_of("real", args.real, extractor, mpp, args)
    finest = make_slides(plan, "ddim", args.finest)
    cells = []
    for steps in sorted(args.steps):
        for sampler in SAMPLERS:
            paths = make_slides(plan, sampler, steps)
            made = features_of("synthetic", paths[0].parent, extractor, mpp, args)
            near = None if SAMPLERS[sampler][1].get("eta") else distance(paths, finest)
            cells.append(Cell(sampler, steps, _kid(real, made), pooled([window_seams(path)[-1] for path in paths]), near))
            print(cells[-1], file=sys.stderr, flush=True)
    settings = (
        f"{plan.slides} slides of {plan.side} px, mode `{plan.mode}`, model `{args.model}` ({plan.digest[:12]}); "
        f"KID x 1000 of {len(real.features)} real crops of {args.crop_px} px, features `{extractor.name}`."
    )
    text = f"{settings}\n\n{table_of(cells, args.finest)}"
    print(text)
    (plan.out / "steps.md").write_text(f"{text}\n", encoding="utf-8")
    for place in [plan.out, *([args.document.parent] if args.document else [])]:
        (place / PICTURE).write_text(plot(cells), encoding="utf-8")
    if args.document:
        rewrite(args.document, COMMAND, f"{text}\n\n![KID against steps]({PICTURE})")


def make_slides(plan: Plan, sampler: str, steps: int) -> list[Path]:
    """The slides of a cell, lossless; those that are there with their manifest are kept."""
    settings: dict[str, Any] = {"mode": plan.mode, "steps": steps, "size": (plan.side, plan.side), **SAMPLERS[sampler][1]}
    settings |= {"levels": 1, "compression": "deflate"}
    identity = [settings, plan.digest, plan.classes, plan.slides, wsigen.__version__]
    key = hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:12]
    folder = plan.out / f"{sampler}-{steps}-{key}"
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for seed in range(plan.slides):
        path = folder / f"{seed:03d}.ome.tiff"
        if not path.with_name(f"{seed:03d}.json").exists():  # the manifest comes last
            print(f"{folder.name}: slide {seed + 1} of {plan.slides}", file=sys.stderr, flush=True)
            tissue = plan.classes[seed % len(plan.classes)]
            wsigen.generate(path, model=str(plan.model), class_name=tissue, seed=seed, overwrite=True, **settings)
        paths.append(path)
    return paths


def features_of(name: str, path: Path, extractor: Extractor, mpp: float | None, args: argparse.Namespace) -> FeatureSet:
    """Features of random crops of a side, kept in OUT."""
    from wsigen.evaluation.features import extract
    from wsigen.evaluation.sides.places import place_crops
    from wsigen.evaluation.sides.sides import open_side

    side = open_side(name, path, args.real_mpp if name == "real" else None)
    crops = place_crops(side, args.crops, args.crop_px, mpp, 0)
    return extract(side, crops, extractor, args.out / "features")


def distance(paths: Sequence[Path], finest: Sequence[Path]) -> float:
    """Root mean square difference of the pixels of slides, grey levels."""
    import tifffile

    squares = [
        np.square(tifffile.imread(a).astype(np.float32) - tifffile.imread(b)).mean() for a, b in zip(paths, finest, strict=True)
    ]
    return float(np.sqrt(np.mean(squares)))


def _kid(real: FeatureSet, made: FeatureSet) -> tuple[float, float]:
    from wsigen.evaluation.fidelity import kernel_distance

    value, deviation = kernel_distance(real.features, made.features)
    return 1000 * value, 1000 * deviation


def table_of(cells: Sequence[Cell], finest: int) -> str:
    """Markdown, a row a cell."""
    rows = []
    for cell in cells:
        kid, seam = (f"{value:.{digits}f} ± {error:.{digits}f}" for (value, error), digits in ((cell.kid, 2), (cell.seam, 3)))
        near = "-" if cell.distance is None else f"{cell.distance:.1f}"
        rows.append([cell.steps, SAMPLERS[cell.sampler][0], kid, seam, near])
    return table(["steps", "sampler", "KID x 1000", "seam score", f"RMS from {finest} steps, grey levels"], rows)


def plot(cells: Sequence[Cell]) -> str:
    """KID against steps, a line a sampler, as SVG that stands alone."""
    from wsigen.evaluation.report.page import lines

    steps = sorted({cell.steps for cell in cells})
    found = {(cell.sampler, cell.steps): cell.kid[0] for cell in cells}
    series = [(title, [found.get((sampler, n), float("nan")) for n in steps]) for sampler, (title, _) in SAMPLERS.items()]
    svg = str(lines(steps, series, "steps", "KID x 1000"))  # markup would escape what replaces a part of it
    return svg.replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" style="background:white" ', 1)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog=COMMAND, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="default", help="bundle (default: %(default)s)")
    parser.add_argument(
        "--real", type=Path, required=True, help="folder of images or slides, or a dataset's YAML (held-out images)"
    )
    parser.add_argument("--out", type=Path, required=True, help="slides and features stay there")
    parser.add_argument("--slide-px", type=int, default=1024, help="default: %(default)s")
    parser.add_argument("--slides", type=int, default=8, help="of each cell (default: %(default)s)")
    parser.add_argument("--steps", type=int, nargs="+", default=STEPS, help="default: %(default)s")
    parser.add_argument("--finest", type=int, default=FINEST, help="steps of the run compared with (default: %(default)s)")
    parser.add_argument("--mode", default="shifted", help="default: %(default)s")
    parser.add_argument("--features", default="imagenet", help="extractor, as for wsigen evaluate (default: %(default)s)")
    parser.add_argument("--crops", type=int, default=500, help="of each side (default: %(default)s)")
    parser.add_argument("--crop-px", type=int, default=256, help="default: %(default)s")
    parser.add_argument("--mpp", type=float, help="compare at this um/px (default: the bundle's)")
    parser.add_argument("--real-mpp", type=float, help="um/px of real images that do not say it")
    parser.add_argument(
        "--document", type=Path, metavar="FILE", help="rewrite the table in this document; the plot goes beside it"
    )
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
