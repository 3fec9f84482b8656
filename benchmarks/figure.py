"""What a benchmark is given and what it gives back."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from time import perf_counter, process_time
from typing import Any

from wsigen.run.engine.stage import Stage


@dataclass(frozen=True, slots=True)
class Options:
    """Settings of all benchmarks.

    Attributes
    ----------
    folder:
        An empty folder for slides and bundles of this benchmark.
    model:
        The bundle that is measured where the model matters: ``"default"`` or a folder.
    quick:
        Whether the smaller version is asked for.
    seed:
        Decides the moments of kills.
    """

    folder: Path
    model: str = "default"
    quick: bool = False
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured figure; at most ``target`` is promised (lower is better), and at least ``floor`` if there is one.

    Attributes
    ----------
    name, what:
        Name on the command line; what is measured over what.
    value, target, unit:
        The numbers compared, and what they count (``"x"`` for a ratio).
    detail:
        How the value came about.
    floor:
        For figures that may be off to either side (a projection over what was measured).
    table:
        Markdown with what lies behind the figure, printed below.
    """

    name: str
    what: str
    value: float
    target: float
    detail: str
    unit: str = "x"
    floor: float | None = None
    table: str = ""

    @property
    def reached(self) -> bool:
        """Whether the target is met."""
        return (self.floor is None or self.value >= self.floor) and self.value <= self.target

    @property
    def promise(self) -> str:
        """The target as text."""
        target = f"{self.target:.4g} {self.unit}".strip()
        return f"<= {target}" if self.floor is None else f"{self.floor:.4g} .. {target}"

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {**asdict(self), "reached": self.reached}


@dataclass(slots=True)
class Spent:
    """Wall and CPU seconds; ``with spent:`` adds those of its block."""

    wall: float = 0.0
    cpu: float = 0.0
    _begin: tuple[float, float] = field(default=(0.0, 0.0), repr=False)

    def __enter__(self) -> Spent:
        self._begin = perf_counter(), process_time()
        return self

    def __exit__(self, *_: object) -> None:
        self.wall += perf_counter() - self._begin[0]
        self.cpu += process_time() - self._begin[1]


class StageTimes:
    """A watcher that keeps the wall seconds of every stage, and all model rows."""

    def __init__(self) -> None:
        self._wall: dict[str, float] = {}
        self.rows = 0

    def __call__(self, stage: Stage) -> None:
        """Look at a stage."""
        self._wall[stage.name] = stage.seconds
        self.rows += stage.calls * stage.finished

    def wall(self, *names: str) -> float:
        """Wall seconds of all stages whose names begin with one of ``names``."""
        return sum(seconds for name, seconds in self._wall.items() if name.startswith(names))


def spread(values: list[float]) -> str:
    """Median and range as text."""
    return f"median {median(values):.3f} of {len(values)} ({min(values):.3f} .. {max(values):.3f})"
