"""Plots of the report as inline SVG."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

import numpy as np

COLOURS = ("#2563eb", "#d9480f", "#0f766e", "#7c3aed", "#b45309", "#be123c", "#4d7c0f", "#475569")
WIDTH, HEIGHT, LEFT, BOTTOM, TOP = 640, 320, 64, 46, 14


def scatter(points: Sequence[tuple[str, float, float]], x_name: str, y_name: str) -> str:
    """Named points ``(name, x, y)`` in the unit square."""
    frame = _Frame((0.0, 1.0), (0.0, 1.0), 380, 340)
    marks = []
    for k, (name, x, y) in enumerate(points):
        u, v, colour = frame.x(x), frame.y(y), COLOURS[k % len(COLOURS)]
        anchor, shift = ("end", -9) if x > 0.7 else ("start", 9)
        marks.append(f'<circle cx="{u:.1f}" cy="{v:.1f}" r="5.5" fill="{colour}"/>')
        text = f'<text x="{u + shift:.1f}" y="{v + 4:.1f}" text-anchor="{anchor}" fill="{colour}">{escape(name)}</text>'
        marks.append(text)
    return frame.svg(marks, x_name, y_name)


def lines(x: Sequence[float], series: Sequence[tuple[str, Sequence[float]]], x_name: str, y_name: str) -> str:
    """Named lines over a common x, their names in the half with fewer points; NaN leaves a gap."""
    values = np.array([v for _, ys in series for v in ys if np.isfinite(v)])
    if not len(values):
        return ""
    low, high = min(0.95, float(values.min())), max(1.05, float(values.max()))
    frame = _Frame((min(x), max(x)), (low - 0.05 * (high - low), high + 0.05 * (high - low)))
    marks = []
    names = HEIGHT - BOTTOM - 16 * len(series) if np.median(values) > (low + high) / 2 else TOP + 16
    for k, (name, ys) in enumerate(series):
        colour = COLOURS[k % len(COLOURS)]
        path = " ".join(f"{frame.x(a):.1f},{frame.y(b):.1f}" for a, b in zip(x, ys, strict=True) if np.isfinite(b))
        marks.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.8"/>')
        marks.append(f'<text x="{LEFT + 10}" y="{names + 16 * k}" fill="{colour}">{escape(name)}</text>')
    return frame.svg(marks, x_name, y_name)


def boxes(groups: Sequence[tuple[str, Sequence[float]]], x_name: str) -> str:
    """Box plots, one a row, of quantiles ``(5, 25, 50, 75, 95 %)``."""
    if not groups:
        return ""
    top = max(q[-1] for _, q in groups) * 1.05 or 1.0
    frame = _Frame((0.0, top), (0.0, float(len(groups))), WIDTH, TOP + BOTTOM + 34 * len(groups), left=170)
    marks = []
    for k, (name, (a, b, c, d, e)) in enumerate(groups):
        y, colour = frame.y(len(groups) - k - 0.5), COLOURS[k % len(COLOURS)]
        x = [frame.x(v) for v in (a, b, c, d, e)]
        marks.append(f'<line x1="{x[0]:.1f}" x2="{x[4]:.1f}" y1="{y:.1f}" y2="{y:.1f}" stroke="{colour}"/>')
        box = f'<rect x="{x[1]:.1f}" y="{y - 8:.1f}" width="{max(1.0, x[3] - x[1]):.1f}" height="16" fill="{colour}"'
        marks.append(f'{box} fill-opacity=".3" stroke="{colour}"/>')
        marks.append(
            f'<line x1="{x[2]:.1f}" x2="{x[2]:.1f}" y1="{y - 8:.1f}" y2="{y + 8:.1f}" stroke="{colour}" stroke-width="3"/>'
        )
        marks.append(f'<text x="160" y="{y + 4:.1f}" text-anchor="end">{escape(name[:24])}</text>')
    return frame.svg(marks, x_name, "", y_ticks=False)


class _Frame:
    """Axes: data to px, ticks and names."""

    def __init__(
        self, xs: tuple[float, float], ys: tuple[float, float], width: int = WIDTH, height: int = HEIGHT, left: int = LEFT
    ) -> None:
        self.xs, self.ys, self.width, self.height, self.left = xs, ys, width, height, left

    def x(self, value: float) -> float:
        return self.left + (value - self.xs[0]) / (self.xs[1] - self.xs[0]) * (self.width - self.left - 14)

    def y(self, value: float) -> float:
        return self.height - BOTTOM - (value - self.ys[0]) / (self.ys[1] - self.ys[0]) * (self.height - BOTTOM - TOP)

    def svg(self, marks: list[str], x_name: str, y_name: str, y_ticks: bool = True) -> str:
        bottom, grid = self.height - BOTTOM, 'stroke="#e5e7eb"'
        parts = []
        for v in _ticks(*self.xs):
            u = self.x(v)
            parts.append(f'<line x1="{u:.1f}" x2="{u:.1f}" y1="{TOP}" y2="{bottom}" {grid}/>')
            parts.append(f'<text x="{u:.1f}" y="{bottom + 16}" text-anchor="middle" fill="#6b7280">{v:g}</text>')
        for v in _ticks(*self.ys) if y_ticks else []:
            u = self.y(v)
            parts.append(f'<line x1="{self.left}" x2="{self.width - 14}" y1="{u:.1f}" y2="{u:.1f}" {grid}/>')
            parts.append(f'<text x="{self.left - 6}" y="{u + 4:.1f}" text-anchor="end" fill="#6b7280">{v:g}</text>')
        middle = (self.left + self.width - 14) / 2
        parts.append(f'<text x="{middle}" y="{self.height - 8}" text-anchor="middle">{escape(x_name)}</text>')
        turned = f'transform="translate(14 {(TOP + bottom) / 2}) rotate(-90)" text-anchor="middle"'
        parts.append(f"<text {turned}>{escape(y_name)}</text>" if y_name else "")
        size = f'width="{self.width}" height="{self.height}" viewBox="0 0 {self.width} {self.height}"'
        return f'<svg {size} font-family="system-ui,sans-serif" font-size="12" role="img">{"".join(parts + marks)}</svg>'


def _ticks(low: float, high: float) -> list[float]:
    """About five round numbers between two."""
    rough = (high - low) / 5
    power = 10.0 ** np.floor(np.log10(rough))
    step = next(power * m for m in (1, 2, 5, 10) if power * m >= rough)
    first = np.ceil(low / step) * step
    return [round(float(v), 10) + 0.0 for v in np.arange(first, high + step * 1e-6, step)]
