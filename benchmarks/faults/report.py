"""What a campaign proved: the table, and the same as JSON."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from statistics import median
from typing import Any

from benchmarks.faults.campaign import Fault
from benchmarks.faults.kinds import END, END_WHAT, KINDS


@dataclass
class Report:
    """Outcome of a campaign.

    Attributes
    ----------
    seed, seconds, tasks:
        What the faults were drawn with; wall time of the disturbed run; half-steps and blocks of the slide.
    digest, expected:
        SHA-256 of level 0 of the disturbed and of the undisturbed run.
    problems:
        One line each: other pixels, other annotations, leftovers, a driver that ended though it should not. None: passed.
    skipped:
        Kinds that this machine does not permit, with the reason.
    starts:
        Times a driver was started.
    disk:
        How the disk was filled.
    healed, unread:
        Damaged files that were made again (or deleted as they should be), and those nobody read after the damage.
    """

    seed: int
    disk: str
    skipped: dict[str, str]
    seconds: float = 0.0
    tasks: int = 0
    digest: str = ""
    expected: str = ""
    starts: int = 0
    healed: int = 0
    unread: int = 0
    faults: list[Fault] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    @property
    def passed(self) -> bool:
        """Whether nothing was lost, changed or left over."""
        return bool(self.digest) and self.digest == self.expected and not self.problems

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {**asdict(self), "count": len(self.faults), "passed": self.passed, "kinds": self.rows()}

    def rows(self) -> list[dict[str, Any]]:
        """One entry per kind that struck."""
        found = []
        for kind in [*KINDS, END]:
            struck = [fault for fault in self.faults if fault.kind == kind]
            if struck:
                seconds = [fault.seconds for fault in struck]
                found.append(
                    {
                        "kind": kind,
                        "what": KINDS[kind].what if kind in KINDS else END_WHAT,
                        "count": len(struck),
                        "driver_ended": sum(fault.ended for fault in struck),
                        "median_s": round(median(seconds), 1),
                        "longest_s": round(max(seconds), 1),
                    }
                )
        return found

    def print(self) -> None:
        """The table and the verdict."""
        from rich.console import Console
        from rich.table import Table

        title = f"{len(self.faults)} faults in one run of {self.tasks} tasks ({self.seconds:.0f} s, seed {self.seed})"
        table = Table(title=title)
        table.add_column("fault")
        for name in ("count", "driver ended", "work went on after (median)", "(longest)"):
            table.add_column(name, justify="right")
        for row in self.rows():
            table.add_row(
                row["what"], str(row["count"]), str(row["driver_ended"]), f"{row['median_s']} s", f"{row['longest_s']} s"
            )
        for kind, reason in self.skipped.items():
            table.add_row(f"{KINDS[kind].what}: skipped, {reason}", "0", "", "", "")
        console = Console(width=140)
        console.print(table)
        console.print(f"disk: {self.disk}; drivers started: {self.starts}; level 0 sha256 {self.digest or '-'}", soft_wrap=True)
        console.print(
            f"damaged files: {self.healed} whole again or gone by their time, {self.unread} that nobody read any more"
        )
        for problem in self.problems:
            console.print(f"problem: {problem}", soft_wrap=True, markup=False)
        console.print("same pixels, same annotations, nothing left over" if self.passed else "FAILED")
