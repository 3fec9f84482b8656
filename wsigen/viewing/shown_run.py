"""`ShownRun`: a run in progress as the page asks for it, again and again."""

from __future__ import annotations

import json
import threading
from collections import deque
from io import BytesIO
from pathlib import Path
from time import monotonic
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wsigen.base.errors import WsigenError, printable
from wsigen.run.display import duration
from wsigen.run.inspect import pass_title, share_done, step_colours, step_legend, steps_done, timestep_map
from wsigen.run.manifest import Manifest
from wsigen.run.outputs import files_of
from wsigen.run.run_picture import RunPicture
from wsigen.run.rundir import demand_plain, demand_sizes, output_of
from wsigen.run.tasks.context import PassContext, RunContext
from wsigen.storage.folder import RUN_SPEC
from wsigen.storage.opening import open_folder

SECONDS = 1.5
"""Most time to spend on the picture, each time the page asks."""

SPEED_OVER_S = 300.0
"""The time left follows from what was done in this time."""

STANDS_AFTER_S = 300.0
"""Seconds without progress after which the page says so."""


class ShownRun:
    """A run, looked at from outside: nothing of it is changed.

    Parameters
    ----------
    place : str
        Directory or URL of a run.

    Raises
    ------
    RunError
        If it is none, or holds what no run makes.

    Notes
    -----
    **Memory bound.** Two small pictures, and one chunk at a time while they are made.
    """

    def __init__(self, place: str) -> None:
        self._folder = open_folder(place)
        demand_plain(self._folder)
        self.run = RunContext(place, self._folder)
        demand_sizes(self.run)
        self._lock = threading.Lock()
        self._picture: RunPicture | None = None
        self._pixels: NDArray[np.uint8] | None = None
        self._steps: NDArray[np.uint8] | None = None
        self._stamp = ""
        self._seen: deque[tuple[float, str, float]] = deque()
        try:
            self._output: Path | None = output_of(self._folder)
        except WsigenError:
            self._output = None

    def data(self) -> bytes:
        """What the page is told once."""
        spec, slide, layout = self.run.spec, self.run.slide, self.run.spec.layout_title
        rows = {
            "Size": f"{slide.width} x {slide.height} px",
            "Resolution": f"{slide.mpp:g} um/px",
            "Layout": Path(layout).name if layout and Path(layout).is_absolute() else layout,
            "Model": Path(spec.model).name,
            "Seed": spec.sampling.seed,
            "Guidance": spec.sampling.guidance,
            "Run": spec.run_id,
        }
        facts = [[label, printable(str(value))] for label, value in rows.items() if value is not None]
        title = printable(spec.output)
        return _json({"kind": "run", "title": title, "subtitle": f"{slide.width} x {slide.height} px", "facts": facts})

    def state(self) -> bytes:
        """How far the run is; pictures are brought up to date, for a short time at most."""
        with self._lock:
            if not self._folder.has(RUN_SPEC):
                slide = self.finished_slide()
                said = "it is finished" if slide else "its directory is gone: it is finished, or was removed"
                return _json({"over": True, "slide": slide is not None, "note": said, "left": "", "stages": [], "legend": []})
            try:
                return _json(self._state())
            except (WsigenError, OSError) as error:
                return _json({"over": False, "note": printable(str(error)), "left": "", "stages": [], "legend": []})

    def picture(self) -> bytes:
        """The picture so far, as a PNG."""
        return _png(self._pixels)

    def steps(self) -> bytes:
        """The timestep map, as a PNG."""
        return _png(self._steps)

    def finished_slide(self) -> Path | None:
        """The slide beside the run's directory, if it is this run's."""
        if self._output is None or not self._output.is_file():
            return None
        try:
            manifest = Manifest.model_validate_json(files_of(self._output).manifest.read_bytes())
        except (OSError, ValueError):
            return None
        return self._output if manifest.run_id == self.run.spec.run_id else None

    def _state(self) -> dict[str, Any]:
        run = self.run
        begun = [pass_ for pass_ in run.passes if run.store.has_pass(pass_.plan.index)]
        done = {pass_.plan.index: steps_done(pass_) for pass_ in begun}
        stages = [_stage(pass_, done.get(pass_.plan.index)) for pass_ in run.passes]
        blocks, all_blocks = len(run.spool.done()), len(run.slide.grid)
        stages.append({"title": "decode", "share": blocks / all_blocks, "detail": f"{blocks} of {all_blocks} blocks"})
        now = next((stage for stage in stages if stage["share"] < 1.0), stages[-1])
        answer = {"over": False, "slide": False, "note": "", "left": self._left(now), "stages": stages, "legend": []}
        if not begun:
            return {**answer, "note": "nothing was started yet", "picture": "", "steps": ""}
        pass_, states = begun[-1], done[begun[-1].plan.index]
        stamp = f"{pass_.plan.index}-{sum(states.values())}"
        if stamp != self._stamp:
            self._steps = step_colours(timestep_map(pass_), pass_.plan.steps)
            self._stamp = stamp
        self._picture = self._picture or RunPicture(run)
        self._pixels = self._picture.update(pass_, states, SECONDS)
        legend = [{"label": label, "colour": colour} for colour, label in step_legend(pass_.plan.steps)]
        return {**answer, "note": self._picture.note, "picture": self._picture.stamp, "steps": stamp, "legend": legend}

    def _left(self, stage: dict[str, Any]) -> str:
        """How long the stage will take from the speed of late, in words."""
        now, title, share = monotonic(), stage["title"], stage["share"]
        while self._seen and (self._seen[0][1] != title or now - self._seen[0][0] > SPEED_OVER_S):
            self._seen.popleft()
        self._seen.append((now, title, share))
        began, _, was = self._seen[0]
        if share >= 1.0:
            return "the slide is being written"
        if share > was and now > began:
            return f"{title.partition(' (')[0]}: {duration((1 - share) * (now - began) / (share - was))} left"
        return "no progress for 5 min: does it still run?" if now - began > 0.9 * STANDS_AFTER_S else ""


def _stage(pass_: PassContext, done: dict[tuple[int, int], int] | None) -> dict[str, Any]:
    if done is None:
        return {"title": pass_title(pass_), "share": 0.0, "detail": "not started"}
    steps = list(done.values()) or [pass_.plan.steps]
    detail = f"step {min(steps)} to {max(steps)} of {pass_.plan.steps}"
    return {"title": pass_title(pass_), "share": share_done(pass_, done), "detail": detail}


def _png(pixels: NDArray[np.uint8] | None) -> bytes:
    from PIL import Image

    buffer = BytesIO()
    Image.fromarray(pixels if pixels is not None else np.full((1, 1, 3), 255, np.uint8)).save(buffer, format="PNG")
    return buffer.getvalue()


def _json(content: dict[str, Any]) -> bytes:
    return json.dumps(content, ensure_ascii=False, allow_nan=False).encode()
