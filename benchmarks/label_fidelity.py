"""``python -m benchmarks.label_fidelity``: do the pictures of a model obey their class maps?

A small cohort is made (or gone on with) in OUT/cohort, its layouts drawn by rule. Networks trained on real crops alone read it;
beside each number stands that of the same networks on real crops of patients they have not seen, which is what can be reached.
Give real slides that the model has not seen: a dataset's held-out part.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import wsigen
from benchmarks.document import show, table
from wsigen.cli.evaluate import Progress
from wsigen.evaluation.downstream.label_fidelity import HEAD, about, rows

COMMAND = "python -m benchmarks.label_fidelity"


def main() -> int:
    """Make what is missing, measure, print; 1 if something is wrong with what was given."""
    args = _arguments()
    return show(COMMAND, lambda: measure(args), args.document)


def measure(args: argparse.Namespace) -> str:
    """Make the cohort, read it, and give the table as Markdown."""
    cohort = make_cohort(args)
    found = wsigen.evaluate_labels(
        args.real,
        cohort.folder / "slides",
        folds=args.folds,
        seeds=args.seeds,
        epochs=args.epochs,
        crops=args.crops,
        size=args.size,
        groups=args.groups,
        layout_names=args.layout_names,
        out=args.out / "labels",
        watch=Progress(),
    )
    steps = f"{args.steps} steps" if args.steps else "the model's steps"
    what = f"{args.slides} slides of {args.slide_px} px, subtype `{args.subtype}`, {steps}, model `{args.model}`"
    return "\n".join(
        [what + ";", *(f"{line};" for line in about(found)[:-1]), about(found)[-1] + ".", "", table(HEAD, rows(found))]
    )


def make_cohort(args: argparse.Namespace) -> Any:
    """The cohort that is read (ConfigError, RunError as ``wsigen.make_cohort``)."""
    from wsigen.cohort.plan import plan_of

    side = f"{args.slide_px}x{args.slide_px}"
    content = {
        "name": "fidelity",
        "model": args.model,
        "size": side,
        "settings": {"steps": args.steps} if args.steps else {},
        "parts": [{"slides": args.slides, "subtypes": args.subtype}],
    }
    plan = plan_of(content, "the plan of the benchmark", Path.cwd())
    made = wsigen.make_cohort(plan, args.out / "cohort", workers=args.workers, progress=True)
    for name, reason in made.failed.items():
        print(f"failed: {name}: {reason}", file=sys.stderr)
    return made


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog=COMMAND, description=__doc__)
    parser.add_argument(
        "--real", required=True, metavar="DIR|DATASET.yaml", help="annotated real slides; of a dataset the held-out ones"
    )
    parser.add_argument(
        "--out", type=Path, required=True, metavar="DIR", help="where cohort and report go; the same again goes on"
    )
    parser.add_argument("--model", default="default", help="bundle (default: %(default)s)")
    parser.add_argument("--subtype", default="balanced", help="kind of slide that is drawn (default: %(default)s)")
    parser.add_argument("--slides", type=int, default=6, help="default: %(default)s")
    parser.add_argument("--slide-px", type=int, default=1536, help="side of a slide (default: %(default)s)")
    parser.add_argument("--steps", type=int, help="of the slides; by default the model's")
    parser.add_argument("--crops", type=int, default=400, help="of each side at most (default: %(default)s)")
    parser.add_argument("--size", type=int, default=256, help="side of a crop, px (default: %(default)s)")
    parser.add_argument("--folds", type=int, default=3, help="of the real patients (default: %(default)s)")
    parser.add_argument("--seeds", type=int, default=1, help="default: %(default)s")
    parser.add_argument("--epochs", type=int, default=10, help="default: %(default)s")
    parser.add_argument("--groups", help="regular expression that finds the patient in a path")
    parser.add_argument("--layout-names", metavar="NAME=CLASS,...", help="renames classes of annotations")
    parser.add_argument("--workers", type=int, default=2, help="default: %(default)s")
    parser.add_argument("--document", type=Path, metavar="FILE", help="rewrite the table in this document")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
