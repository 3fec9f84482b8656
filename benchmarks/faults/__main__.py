"""``python -m benchmarks.faults --faults 100``: one run, many faults, the same slide."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import tempfile
from pathlib import Path

from benchmarks.faults.campaign import KINDS, CampaignError


def main() -> int:
    """Do the experiment; the exit code is 0 if nothing was lost, changed or left over."""
    parser = _parser()
    args = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))  # so that all is taken down
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is loaded, here and in every process started
    from benchmarks.faults.experiment import Plan, experiment, make_subject

    if args.work:
        args.work.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="wsigen-faults-", dir=args.work))
    subject = make_subject(folder, args.size, args.steps, args.known)
    plan = Plan(args.faults, args.seed, args.kinds, args.faults // 20, args.workers)
    try:
        report = experiment(subject, plan, folder)
    except CampaignError as error:
        print(f"{parser.prog}: error: {error}", file=sys.stderr)
        return 2
    report.print()
    target = args.json or folder / "faults.json"
    target.write_text(json.dumps(report.to_json(), indent=2), encoding="utf-8")
    print(f"logs and figures: {folder}, {target}")
    return 0 if report.passed else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.faults", description=__doc__)
    parser.add_argument("--faults", type=int, default=100, help="how many (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="draws kinds and moments (default: %(default)s)")
    parser.add_argument("--kinds", nargs="+", choices=list(KINDS), default=list(KINDS), help="of these kinds (default: all)")
    parser.add_argument("--size", type=int, default=2048, help="side of the slide, px (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=40, help="denoising steps (default: %(default)s)")
    parser.add_argument("--workers", type=int, default=2, help="worker processes (default: %(default)s)")
    parser.add_argument("--known", action="store_true", help="the slide continues another one, whose pixels stay")
    parser.add_argument("--work", type=Path, metavar="DIR", help="where all files go (default: the system's place)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="figures (default: in the work folder)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
