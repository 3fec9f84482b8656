"""``python -m benchmarks``: measure the promised figures and print them as a table."""

from __future__ import annotations

import argparse
import importlib
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING

from benchmarks.document import rewrite

if TYPE_CHECKING:
    from benchmarks.figure import Figure

NAMES = (
    "overhead",
    "overlap",
    "memory",
    "many_slides",
    "glass",
    "crops",
    "calls",
    "repeatable",
    "annotations",
    "training",
    "evaluation",
    "peers",
    "estimate",
    "pack",
    "workers",
    "resume",
    "editing",
    "cohort",
    "demo",
)
NOT_QUICK = ("demo",)


def main() -> int:
    """Measure; the exit code is 0 if every target is met, 1 if one is missed, 2 if one could not be measured."""
    args = _parser().parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is loaded, here and in every process started
    names = args.only or [name for name in NAMES if not (args.quick and name in NOT_QUICK)]
    begin = perf_counter()
    measured = [figures for name in names if (figures := _measure(name, args))]
    found = [figure for figures in measured for figure in figures]
    _print(found, perf_counter() - begin)
    if args.document:
        for figure in found:
            if figure.table:
                rewrite(args.document, f"python -m benchmarks --only {figure.name}", figure.table)
    if args.json:
        args.json.write_text(json.dumps([figure.to_json() for figure in found], indent=2), encoding="utf-8")
    if len(measured) < len(names):
        return 2
    return 0 if all(figure.reached for figure in found) else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--only", action="append", choices=NAMES, help="this figure (may be repeated)")
    parser.add_argument("--quick", action="store_true", help="smaller versions, three minutes in all; no demo")
    parser.add_argument("--model", default="default", help="bundle of overhead and demo (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="decides the moments of kills (default: %(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there, too")
    parser.add_argument("--document", type=Path, metavar="FILE", help="rewrite the tables of these figures in this document")
    parser.add_argument("--tmp", type=Path, metavar="DIR", help="where slides go (a few GB; default: the system's)")
    return parser


def _measure(name: str, args: argparse.Namespace) -> list[Figure]:
    """Run one benchmark in a folder of its own; an error becomes a line, and the others are measured all the same."""
    from benchmarks.figure import Options
    from wsigen.base.errors import WsigenError

    print(f"measuring {name} ...", file=sys.stderr, flush=True)
    begin = perf_counter()
    figures: list[Figure] = []
    with tempfile.TemporaryDirectory(prefix="wsigen-bench-", dir=args.tmp) as folder:
        options = Options(Path(folder), args.model, args.quick, args.seed)
        try:
            made: Figure | list[Figure] = importlib.import_module(f"benchmarks.{name}").measure(options)
            figures = made if isinstance(made, list) else [made]
        except (WsigenError, RuntimeError, OSError, subprocess.SubprocessError) as error:
            print(f"{name}: not measured: {error}", file=sys.stderr)
    print(f"{name}: {perf_counter() - begin:.0f} s", file=sys.stderr, flush=True)
    return figures


def _print(figures: list[Figure], seconds: float) -> None:
    """The table, and what to think of its numbers."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"wsigen benchmarks ({seconds:.0f} s)", show_lines=True)
    for name, justify in (("figure", "left"), ("value", "right"), ("target", "right"), ("", "left")):
        table.add_column(name, justify=justify, no_wrap=name != "")  # type: ignore[arg-type]  # one of rich's words
    table.add_column("how", ratio=1)
    for figure in figures:
        verdict = "[green]met[/]" if figure.reached else "[red]missed[/]"
        value = f"{figure.value:.4g} {figure.unit}".strip()
        table.add_row(figure.name, value, figure.promise, verdict, f"{figure.what}\n[dim]{figure.detail}[/]")
    console = Console(width=None if sys.stdout.isatty() else 130)
    console.print(table)
    for text in dict.fromkeys(figure.table for figure in figures if figure.table):
        print(f"\n{text}\n")
    load = os.getloadavg()[0]
    console.print(
        f"Ratios within one run; wall times are medians of repetitions in turn. Load {load:.1f} on "
        f"{os.cpu_count()} cores: times of a busy machine are noisy, counts, memory and checksums are not."
    )


if __name__ == "__main__":
    sys.exit(main())
