"""`RunPicture`: a run as it looks so far, small, without a call of the model."""

from __future__ import annotations

import math
from pathlib import Path
from time import monotonic

import numpy as np
from numpy.typing import NDArray

from wsigen.base.errors import DamagedChunkError, RunError, WsigenError, one_line
from wsigen.base.geometry import Box
from wsigen.models.latent_colours import LatentColours, latent_colours
from wsigen.run.tasks.context import PassContext, RunContext

RGB = NDArray[np.uint8]
Array = NDArray[np.float32]

PICTURE_SIDE = 1024
"""Longest side of the picture, px."""


class RunPicture:
    """The picture so far of a run, brought up to date where chunks went on.

    Parameters
    ----------
    run : RunContext
        The run.

    Attributes
    ----------
    note : str
        Why there is no picture; empty if there is one.
    """

    def __init__(self, run: RunContext) -> None:
        self.run, self.note = run, ""
        self._pass: PassContext | None = None
        self._shown: dict[tuple[int, int], int] = {}
        self._decoded: set[tuple[int, int]] = set()
        self._image: RGB | None = None
        try:
            self._colours: LatentColours | None = latent_colours(Path(run.spec.model), run.spec.model_sha256)
        except (WsigenError, ValueError, OSError) as error:
            self._colours, self.note = None, one_line(f"no picture: its model is not here ({error})")

    @property
    def stamp(self) -> str:
        """Changes when the picture does; empty while there is none."""
        if self._image is None or self._pass is None:
            return ""
        return f"{self._pass.plan.index}-{sum(self._shown.values())}-{len(self._decoded)}"

    def update(self, pass_: PassContext, done: dict[tuple[int, int], int], seconds: float) -> RGB | None:
        """Return the picture, uint8 ``(h, w, 3)``; None without a model, and while a grid is drawn.

        Parameters
        ----------
        pass_ : PassContext
            The pass that is worked on.
        done : dict
            The state y[s] that its chunks have reached; -1 before the start.
        seconds : float
            Most time to spend: what is behind furthest goes first, the rest is shown next time.
        """
        if self._colours is None or pass_.plan.network != "image":
            return None
        if self._pass is not pass_:
            self._begin(pass_)
        until = monotonic() + seconds
        behind = [ij for ij, step in done.items() if step > self._shown.get(ij, -1)]
        for ij in sorted(behind, key=lambda ij: (self._shown.get(ij, -1) - done[ij], ij)):
            if monotonic() > until:
                break
            self._show_chunk(pass_, ij, done[ij])
        if pass_ is self.run.passes[-1] and len(done) == sum(step == pass_.plan.steps for step in done.values()):
            for ij in sorted(self.run.spool.done() - self._decoded):
                if monotonic() > until:
                    break
                self._show_block(ij)
        return self._image

    def _begin(self, pass_: PassContext) -> None:
        plan = pass_.plan
        self._pass, self._shown, self._decoded = pass_, {}, set()
        self._cell = 1 << max(0, math.ceil(math.log2(max(plan.height, plan.width) / PICTURE_SIDE)))  # latent px a px
        size = -(-plan.height // self._cell), -(-plan.width // self._cell)
        assert self._colours is not None
        glass = self._colours.rgb(pass_.glass)
        self._image = np.broadcast_to(glass, (*size, 3)).copy()

    def _show_chunk(self, pass_: PassContext, ij: tuple[int, int], step: int) -> None:
        box = pass_.plan.grid.box(ij)
        try:
            latents = estimate(pass_, step, box, self._cell)
        except (DamagedChunkError, RunError, OSError):  # deleted meanwhile: a later state is there
            return
        y, x = box.y0 // self._cell, box.x0 // self._cell
        assert self._colours is not None
        assert self._image is not None
        self._image[y : y + latents.shape[1], x : x + latents.shape[2]] = self._colours.rgb(latents)
        self._shown[ij] = step

    def _show_block(self, ij: tuple[int, int]) -> None:
        """Put a decoded block in its place: its pixels at 1/8, shrunk."""
        from PIL import Image

        assert self._image is not None
        try:
            pixels = self.run.spool.read(ij).remainder
        except (DamagedChunkError, OSError):
            return
        height, width = self._image.shape[:2]
        slide, box = self.run.slide, self.run.slide.grid.box(ij)
        y0, y1 = (round(y * height / slide.height) for y in (box.y0, box.y1))
        x0, x1 = (round(x * width / slide.width) for x in (box.x0, box.x1))
        if y1 > y0 and x1 > x0:
            self._image[y0:y1, x0:x1] = np.asarray(Image.fromarray(pixels).resize((x1 - x0, y1 - y0), Image.Resampling.BOX))
        self._decoded.add(ij)


def estimate(pass_: PassContext, step: int, box: Box, cell: int) -> Array:
    """What x0 is likely to be, from y[step] alone: float32 ``(C, h, w)``, means over cells of ``cell x cell`` latents.

    Latents have unit variance, and y = sqrt(abar) x0 + sqrt(1 - abar) eps. The mean of n of them holds noise of variance
    (1 - abar) / n, so the best linear estimate of the mean of x0 is sqrt(abar) y / (abar + (1 - abar) / n): grey at the
    start, the picture at the end, and all the earlier the smaller it is shown. What is known is shown as it is.
    """
    abar = pass_.plan.schedule.abar[step]
    weight = math.sqrt(abar) / (abar + (1.0 - abar) / cell**2)
    y, known = pass_.read(step, box)
    x0 = np.where(known.held(step), known.x0, np.float32(weight) * y)
    return cell_means(x0, box, cell)


def cell_means(values: Array, box: Box, cell: int) -> Array:
    """Means of ``(C, h, w)`` over the cells of the canvas that a box touches, each over its part on the box."""
    if cell == 1:
        return values
    rows, columns = (
        np.maximum(np.arange(start // cell, -(-stop // cell)) * cell - start, 0)
        for start, stop in ((box.y0, box.y1), (box.x0, box.x1))
    )
    sums = np.add.reduceat(np.add.reduceat(values, rows, axis=1), columns, axis=2)
    heights, widths = np.diff([*rows, box.height]), np.diff([*columns, box.width])
    return np.asarray(sums / np.outer(heights, widths).astype(np.float32), np.float32)
