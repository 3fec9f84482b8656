"""What pages of reports are made of: jinja2 templates, pictures and plots inside them, and the folder they lie in.

A page is one file: no script, nothing loaded from elsewhere. Whatever is put into a template is escaped.
"""

from __future__ import annotations

import base64
import io
import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from numpy.typing import NDArray

from wsigen.base.errors import EvaluationError
from wsigen.base.version import __version__
from wsigen.storage.files import write_atomic

THUMB_PX, QUALITY = 160, 85
"""Longest side of a shown crop in px and its JPEG quality."""

COLOURS = ("#2456a6", "#c2410c", "#0f766e", "#7c3aed", "#a16207", "#be123c", "#4d7c0f", "#475569")
"""Of what a plot shows, in order."""

_NUMBER = re.compile(r"(-?[\d.,]+(e[-+]\d+)?%?|inf|nan|-)?( ± .*)?")
"""What a cell of a column of numbers holds: a number, perhaps with its deviation, or nothing."""


def render(template: str, **content: Any) -> str:
    """Fill a template of this package."""
    return _environment().get_template(template).render(version=__version__, **content)


@cache
def _environment() -> Environment:
    loader = PackageLoader("wsigen.evaluation.report")
    made = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    made.globals |= {"scatter": scatter, "lines": lines, "boxes": boxes, "colours": COLOURS}
    made.filters |= {"picture": picture, "numeric": _numeric}
    return made


def _numeric(rows: Sequence[Sequence[str]]) -> list[bool]:
    """Which columns of a table hold numbers alone."""
    return [all(_NUMBER.fullmatch(cell) for cell in column) for column in zip(*rows, strict=True)]


def picture(pixels: NDArray[np.uint8], name: str) -> Markup:
    """A crop, uint8 ``(P, P, 3)``, as an image tag that holds its pixels."""
    from PIL import Image

    image = Image.fromarray(pixels)
    image.thumbnail((THUMB_PX, THUMB_PX), Image.Resampling.BOX)
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=QUALITY)
    data = base64.b64encode(stream.getvalue()).decode()
    return Markup('<img alt="{}" src="data:image/jpeg;base64,{}">').format(name, data)


@dataclass(frozen=True, slots=True)
class Axis:
    """Values ``low`` .. ``high`` between two places of a plot (px)."""

    name: str
    low: float
    high: float
    start: float
    stop: float

    def px(self, value: float) -> float:
        """Where a value lies."""
        return round(self.start + (value - self.low) / (self.high - self.low) * (self.stop - self.start), 1)

    @property
    def ticks(self) -> list[float]:
        """About five round numbers."""
        rough = (self.high - self.low) / 5
        power = 10.0 ** math.floor(math.log10(rough))
        step = next(power * m for m in (1, 2, 5, 10) if power * m >= rough)
        first = math.ceil(self.low / step) * step
        return [round(float(v), 10) + 0.0 for v in np.arange(first, self.high + step * 1e-6, step)]


def scatter(points: Sequence[tuple[str, float, float]], x_name: str, y_name: str) -> Markup:
    """Named points ``(name, x, y)`` in the unit square."""
    return _plot("scatter", Axis(x_name, 0, 1, 64, 366), Axis(y_name, 0, 1, 294, 14), points=points)


def lines(x: Sequence[float], series: Sequence[tuple[str, Sequence[float]]], x_name: str, y_name: str) -> Markup:
    """Named lines over a common x, their names in the half with fewer points; NaN leaves a gap."""
    values = np.array([v for _, ys in series for v in ys if np.isfinite(v)])
    if not len(values):
        return Markup()
    low, high = min(0.95, float(values.min())), max(1.05, float(values.max()))
    margin = 0.05 * (high - low)
    points = [(name, [(a, b) for a, b in zip(x, ys, strict=True) if np.isfinite(b)]) for name, ys in series]
    first = 274 - 16 * len(series) if np.median(values) > (low + high) / 2 else 30
    axes = Axis(x_name, min(x), max(x), 64, 626), Axis(y_name, low - margin, high + margin, 274, 14)
    return _plot("lines", *axes, series=points, first=first)


def boxes(groups: Sequence[tuple[str, Sequence[float]]], x_name: str) -> Markup:
    """Box plots, one a row, of the 5, 25, 50, 75 and 95 % quantiles of named values."""
    rows = [(name, [float(q) for q in np.quantile(values, (0.05, 0.25, 0.5, 0.75, 0.95))]) for name, values in groups]
    if not rows:
        return Markup()
    high = max(quantiles[-1] for _, quantiles in rows) * 1.05 or 1.0
    return _plot("boxes", Axis(x_name, 0, high, 150, 466), Axis("", 0, len(rows), 14, 14 + 34 * len(rows)), rows=rows)


def _plot(kind: str, x: Axis, y: Axis, **content: Any) -> Markup:
    return Markup(render("plot.svg", kind=kind, x=x, y=y, **content))


def check_folder(folder: Path, option: str) -> None:
    """Make the folder that will be written to, and try it: hours of work shall not end for want of it.

    Raises
    ------
    EvaluationError
        If it cannot be made or written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=folder) as file:
            file.write(b"x")
    except OSError as error:
        raise EvaluationError(
            f"{option} {folder}: cannot be written to ({error.strerror or error}); give another folder"
        ) from None


def write(folder: Path, stem: str, numbers: dict[str, Any], page: str) -> tuple[Path, Path]:
    """Write ``STEM.json`` and ``STEM.html`` into a folder, which is made if need be; return their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = folder / f"{stem}.json", folder / f"{stem}.html"
    write_atomic(paths[0], json.dumps(numbers, indent=1, ensure_ascii=False, allow_nan=False).encode())
    write_atomic(paths[1], page.encode())
    return paths


def plain(content: dict[str, Any]) -> dict[str, Any]:
    """What a JSON file of a report holds: its version and time, then plain values; a number that does not exist is null."""
    when = datetime.now(UTC).isoformat(timespec="seconds")
    return {"format": 1, "wsigen": __version__, "created": when, **_plain(content)}


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if isinstance(value, Path):
        return str(value)
    return None if isinstance(value, float) and not math.isfinite(value) else value
