"""`Editor`: regions that were drawn on the page are made anew, one edit at a time, in a thread beside the server."""

from __future__ import annotations

import json
import shutil
import tempfile
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from wsigen.base.classes import ClassTable
from wsigen.base.errors import ConfigError, WsigenError, printable
from wsigen.base.state import State, parse_state
from wsigen.run.display import duration, time_left
from wsigen.run.engine.stage import Stage
from wsigen.run.output_check import held_output
from wsigen.viewing.versions import Versions, edits_folder, next_version, number_of, work_of

MOST_BYTES = 2**21
"""Of what a page may ask for."""

MOST_SEED = 2**53 - 1
"""JavaScript has no larger whole numbers."""

Edit = Callable[..., object]
"""`wsigen.edit`: ``(slide, output, *, regions, strength, seed, model, watch)``."""

Number = Annotated[float, Field(ge=-(2**31), le=2**31)]
Corner = tuple[Number, Number]


class Region(State):
    """An area that was drawn: its class, and its corners ``(x, y)`` in px of the slide, as its annotations count them."""

    name: Annotated[str, Field(max_length=200)]
    corners: Annotated[tuple[Corner, ...], Field(min_length=3, max_length=10_000)]


class Request(State):
    """What a page asks for: the slide by its number, the regions, how much of what was there may stay, and a seed.

    Without a seed it is the number of the edit: asked for twice, a region does not look the same.
    """

    slide: Annotated[int, Field(ge=0)]
    regions: Annotated[tuple[Region, ...], Field(min_length=1, max_length=200)]
    strength: Annotated[float, Field(gt=0, le=1)] = 1.0
    seed: Annotated[int, Field(ge=0, le=MOST_SEED)] | None = None


class _CancelledError(WsigenError):
    """The page asked to stop."""


@dataclass(slots=True)
class _Job:
    """An edit: how far it is, and what came of it."""

    slide: int
    output: Path
    title: str = "begins"
    share: float = 0.0
    left: str = ""
    state: Literal["busy", "done", "failed", "cancelled"] = "busy"
    error: str = ""
    made: int | None = None
    stop: threading.Event = field(default_factory=threading.Event)


class Editor:
    """Makes regions of the slides of a page anew.

    Parameters
    ----------
    versions : Versions
        The slides and where their edits come onto the page.
    edit : callable
        `wsigen.edit`.
    model : str
        The model's name or folder.
    table : ClassTable
        Its classes.
    """

    def __init__(self, versions: Versions, edit: Edit, model: str, table: ClassTable) -> None:
        self._versions, self._edit, self._model, self._table = versions, edit, model, table
        self._lock = threading.Lock()
        self._job: _Job | None = None
        self._thread: threading.Thread | None = None

    def offer(self) -> dict[str, Any]:
        """What the page is told once: the classes that a region may have, glass last."""
        table = sorted(self._table, key=lambda tissue: tissue.background)
        return {"classes": [{"name": tissue.name, "color": list(tissue.color)} for tissue in table]}

    def begin(self, body: bytes) -> bytes:
        """Begin the edit that a page asks for.

        Raises
        ------
        ConfigError
            If it asks for what cannot be, or another edit is being made.
        """
        if len(body) > MOST_BYTES:
            raise ConfigError(f"the edit: more than {MOST_BYTES >> 20} MB; draw fewer or simpler regions")
        asked = parse_state(Request, body, "the edit", ConfigError)
        for region in asked.regions:
            self._table.index(region.name)
        slide = self._versions.file(asked.slide)
        if slide is None:
            raise ConfigError("the edit: only slides that are files on this machine can be edited")
        with self._lock:
            if self._job is not None and self._job.state == "busy":
                raise ConfigError("an edit is being made; wait for it, or cancel it")
            self._job = job = _Job(asked.slide, next_version(slide))
            self._thread = threading.Thread(target=self._work, args=(job, slide, asked), name="wsigen edit", daemon=True)
            self._thread.start()
        return self.state()

    def cancel(self, body: bytes = b"") -> bytes:
        """Stop the edit at its next task."""
        if (job := self._job) is not None and job.state == "busy":
            job.stop.set()
            job.title, job.left = "stops after the task that is being done", ""
        return self.state()

    def state(self) -> bytes:
        """How far the edit is, or what came of the last one."""
        if (job := self._job) is None:
            return json.dumps({"state": "none", "edits": self._versions.edits}).encode()
        names = ("title", "share", "left", "state", "error", "made")
        said = {name: getattr(job, name) for name in names}
        return json.dumps({**said, "edits": self._versions.edits}, ensure_ascii=False, allow_nan=False).encode()

    def end(self) -> None:
        """Stop, as the server does."""
        self.cancel()
        if self._thread is not None:
            self._thread.join(60)

    # -- in the thread ---------------------------------------------------------------------------------------------------

    def _work(self, job: _Job, slide: Path, asked: Request) -> None:
        def look(stage: Stage) -> None:
            if job.stop.is_set():
                raise _CancelledError("cancelled")
            if not stage.note:
                job.title, job.share = stage.name, min(1.0, stage.done / max(1, stage.total))
                left = time_left(stage)
                job.left = f"{duration(left)} left" if left is not None else ""

        try:
            edits_folder(slide).mkdir(exist_ok=True)
            with tempfile.TemporaryDirectory(prefix="wsigen-") as folder:
                regions = Path(folder) / "regions.geojson"
                regions.write_text(json.dumps(self._features(asked.regions)), encoding="utf-8")
                given = {"regions": regions, "strength": asked.strength, "model": self._model}
                seed = number_of(job.output) if asked.seed is None else asked.seed
                self._edit(slide, job.output, **given, seed=seed, watch=look)
            job.made = self._versions.add(job.output, job.slide)
            job.state = "done"
        except _CancelledError:
            _clear(job.output)
            job.state = "cancelled"
        except Exception as error:  # the page has to be told; a thread has nobody else
            _clear(job.output)
            text = str(error) if isinstance(error, WsigenError | OSError) else f"{type(error).__name__}: {error}"
            job.error, job.state = printable(text), "failed"

    def _features(self, regions: Sequence[Region]) -> dict[str, Any]:
        """The regions as GeoJSON."""
        colours = {tissue.name: list(tissue.color) for tissue in self._table}
        return {
            "type": "FeatureCollection",
            "features": [
                {
                    "type": "Feature",
                    "geometry": {"type": "Polygon", "coordinates": [[*region.corners, region.corners[0]]]},
                    "properties": {
                        "objectType": "annotation",
                        "classification": {"name": region.name, "color": colours.get(region.name, [128] * 3)},
                    },
                }
                for region in regions
            ],
        }


def _clear(output: Path) -> None:
    """Remove what was made for an edit that did not end well: the next one has another name, and does not go on with it."""
    with suppress(WsigenError, OSError), held_output(output):  # a program beside this one may be making one of its name
        shutil.rmtree(work_of(output), ignore_errors=True)
