"""Faults: a slide made while its driver, workers, scheduler, disk and network fail, against an undisturbed one."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from benchmarks.figure import Figure, Options

FAULTS, QUICK_FAULTS = 100, 11


def measure(options: Options) -> Figure:
    """``python -m benchmarks --only faults``; ``python -m benchmarks.faults`` has more settings."""
    from benchmarks.faults.experiment import Plan, experiment, make_subject
    from benchmarks.figure import Figure

    faults = QUICK_FAULTS if options.quick else FAULTS
    plan = Plan(faults, options.seed, end=max(1, faults // 20))
    report = experiment(
        make_subject(options.folder, 1024 if options.quick else 2048, 24 if options.quick else 40), plan, options.folder
    )
    report.print()
    kinds = ", ".join(f"{row['count']} {row['kind']}" for row in report.rows())
    skipped = "".join(f"; {kind} skipped: {reason}" for kind, reason in report.skipped.items())
    missing = abs(faults - len(report.faults))
    wrong = len(report.problems) + missing + (report.digest != report.expected)
    what = f"pixels lost or changed, leftovers, faults that could not strike, of {faults} faults in one run"
    return Figure("faults", what, wrong, 0, f"{kinds}{skipped}; seed {options.seed}, {report.seconds:.0f} s", unit="")
