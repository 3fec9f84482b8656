"""wsigen beside two loops as its peers write them: the same weights, steps, sampler, layout and machine.

* A whole-canvas loop: MultiDiffusion as diffusers' panorama does it (window 64, stride 8, averaged).
* A one-crop loop: random patches as DiffInfinite describes them (one prediction per label and one for the null condition).

Each row is a process of its own with one thread. In a turn it denoises a step of the canvas (the peers: a part of one, scaled
to a step, as all windows cost the same); the first turn warms up. A figure is the ratio of the medians of CPU seconds, in which
other work on the machine matters little. Then each decodes its canvas in its own way, where a whole canvas takes most memory.
The seams come from a smaller slide, made to the end.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from statistics import median

from benchmarks.bundles import Square, tissues, write_squares
from benchmarks.document import table
from benchmarks.figure import Figure, Options
from benchmarks.peers.rows import MODES, ONE_CROP, PANORAMA, PART, Job, Turn, work
from benchmarks.processes import in_process

NAMES = (*MODES, ONE_CROP, PANORAMA)
SQUARE_PX = 256
"""The layout is a chequered board of two classes; a crop of 512 px has both in it wherever it lies."""

TARGETS = {ONE_CROP: 1 / 3, PANORAMA: 1 / 10}
STEPS_DONE = 25
"""Steps the table's whole times are for: the default model's own."""


@dataclass(frozen=True, slots=True)
class Scale:
    """How large a comparison is: px of the timed slide, turns, px and steps of the slide whose seams are measured."""

    size: int
    turns: int
    seam_size: int
    seam_steps: int


FULL, QUICK = Scale(2048, 4, 1024, 6), Scale(1024, 2, 768, 2)


@dataclass(frozen=True, slots=True)
class Row:
    """What was measured of one way to make a slide; the warming turn is left out of ``turns``."""

    name: str
    turns: list[Turn]
    rows: float
    peak: int
    seam: tuple[float, float]

    @property
    def wall(self) -> float:
        """Wall seconds of a step, median."""
        return median(turn.wall / turn.steps for turn in self.turns)

    @property
    def cpu(self) -> float:
        """CPU seconds of a step, median."""
        return median(turn.cpu / turn.steps for turn in self.turns)


def measure(options: Options) -> list[Figure]:
    from wsigen.models.bundle import find_bundle

    scale = QUICK if options.quick else FULL
    folder = find_bundle(options.model)
    labels = tissues(options.model)[:2]
    layout = write_squares(options.folder / "board.geojson", board(labels, scale.size))
    small = write_squares(options.folder / "small.geojson", board(labels, scale.seam_size))

    def job(name: str, timed: bool) -> Job:
        size, steps = (scale.size, STEPS_DONE) if timed else (scale.seam_size, scale.seam_steps)
        drawn = layout if timed else small
        place = options.folder / ("timed" if timed else "seams")
        place.mkdir(exist_ok=True)
        return Job(name, str(folder), drawn, place, size, steps, scale.turns if timed else 0)

    rows = {}
    for name in NAMES:
        (_, *turns), (peak, _) = in_process(work, job(name, timed=True))
        _, seam = in_process(work, job(name, timed=False))
        rows[name] = Row(name, turns, sum(turn.rows for turn in turns) / sum(turn.steps for turn in turns), int(peak), seam)
        print(f"peers: {rows[name]}", file=sys.stderr, flush=True)
    text = _table(rows, scale)
    return [_figure(rows["shifted"], rows[peer], scale, text) for peer in TARGETS]


def board(labels: list[str], size: int) -> list[Square]:
    """Squares of two classes in turn over a slide of ``size`` px."""
    places = range(0, size, SQUARE_PX)
    return [(labels[(x // SQUARE_PX + y // SQUARE_PX) % 2], x, y, SQUARE_PX) for y in places for x in places]


def _figure(ours: Row, peer: Row, scale: Scale, text: str) -> Figure:
    cpu, wall = ours.cpu / peer.cpu, ours.wall / peer.wall
    detail = (
        f"{1 / cpu:.1f} times as fast, in wall time {1 / wall:.1f} times; crops through the network {ours.rows:.0f} / "
        f"{peer.rows:.0f} a step; one thread each"
    )
    what = f"a denoising step of a {scale.size} px slide with guidance and two labels, shifted over the {peer.name} loop, CPU"
    return Figure("peers", what, cpu, TARGETS[peer.name], detail, table=text)


def _table(rows: dict[str, Row], scale: Scale) -> str:
    titles = {name: f"wsigen, {name}" for name in MODES} | {
        ONE_CROP: "one crop at a time (DiffInfinite)",
        PANORAMA: "whole canvas, stride 8 (diffusers' panorama)",
    }
    head = ["way", "wall s a step", "CPU s a step", f"{STEPS_DONE} steps, CPU min", "crops a step", "peak memory", "seam score"]
    lines = []
    for name, row in rows.items():
        seconds = [f"{row.wall:.1f}", f"{row.cpu:.1f}", f"{STEPS_DONE * row.cpu / 60:.1f}"]
        seam = f"{row.seam[0]:.3f} ± {row.seam[1]:.3f}"
        lines.append([titles[name], *seconds, f"{row.rows:.0f}", f"{row.peak / 2**20:.0f} MiB", seam])
    return (
        f"{scale.size} x {scale.size} px, two labels in every crop, guidance, DDIM, one thread. Seconds of a step: medians of\n"
        f"{scale.turns - 1} turns; a turn of the peers is {PART[ONE_CROP]} and {PART[PANORAMA]} windows, scaled to a step. "
        f"{STEPS_DONE} steps: scaled from one.\nSeams: windows of the last step on {scale.seam_size} px, {scale.seam_steps} "
        f"steps. Crops: rows through the network.\n\n{table(head, lines)}"
    )
