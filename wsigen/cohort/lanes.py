"""Several slides at a time over the same workers.

Each of K threads (lanes) drives one run after the other, with a client of its own on the shared workers. Tasks of an earlier
slide go before those of a later one, so the later one gets what the earlier one cannot use: the tail of its wavefront, its
decoding, the time in which it is written. At most K runs are alive, and what is left of slides that failed is kept of K of
them, so disk is bounded. No pixel depends on any of this.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from time import monotonic

from wsigen.base.errors import ResourceError, WsigenError, one_line
from wsigen.run.engine.cluster import Cluster
from wsigen.run.engine.stage import Stage, Watcher

TRIES = 3
"""Times a slide may fail before it is named and left for the next time."""

LOOK_S = 0.5
"""Seconds between two looks at the lanes."""

LEAVE_S = 20.0
"""Seconds for lanes to stop where they are interrupted; what they leave is gone on with."""

STAGES = 4
"""Stages of a slide of one pass: denoised, calibrated, decoded, written; more passes are shown as if they were quicker."""


class StoppedError(BaseException):
    """A lane is to stop at its next task."""


MakeSlide = Callable[[str, Cluster, Watcher], None]
"""Makes the slide of an id on a run's own cluster, and calls a watcher on the way."""

Forget = Callable[[str], None]
"""Removes what there is of a slide that failed."""


@dataclass(slots=True)
class Lanes:
    """Slides on their way.

    Attributes
    ----------
    slides : sequence of str
        Ids, in the order in which they are begun.
    make, forget : callable
        Makes one of them; removes what is left of one that failed, if that of too many is kept.
    name : str
        The cohort's.
    failed : dict of str to str
        What failed too often, and why.
    done : list of str
        What is made.
    """

    slides: Sequence[str]
    make: MakeSlide
    forget: Forget
    name: str = ""
    failed: dict[str, str] = field(default_factory=dict)
    done: list[str] = field(default_factory=list)
    _waiting: deque[tuple[int, str]] = field(default_factory=deque)
    _shares: dict[str, float] = field(default_factory=dict)
    _notes: deque[tuple[str, str]] = field(default_factory=deque)
    _calls: dict[str, int] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _stop: threading.Event = field(default_factory=threading.Event)
    _count: int = 0
    _fault: BaseException | None = None

    def run(self, another: Callable[[], Cluster], count: int, watch: Watcher) -> None:
        """Make all slides, at most ``count`` at a time.

        Parameters
        ----------
        another : callable
            Gives a lane a cluster of its own.
        watch : callable
            Called in this thread with a stage that counts hundredths of slides.

        Raises
        ------
        ResourceError
            If workers, scheduler or disk are gone for all of them.
        """
        self._waiting.extend(enumerate(self.slides))
        self._count = count
        clusters = [another() for _ in range(min(count, len(self.slides)))]
        threads = [threading.Thread(target=self._lane, args=(cluster,), daemon=True) for cluster in clusters]
        begin = monotonic()
        for thread in threads:
            thread.start()
        try:
            while any(thread.is_alive() for thread in threads):
                threads[0].join(LOOK_S) if threads[0].is_alive() else self._stop.wait(LOOK_S / 5)
                self._show(watch, begin, clusters[0])
        except BaseException:
            self._stop.set()
            end = monotonic() + LEAVE_S
            for thread in threads:
                thread.join(max(0.0, end - monotonic()))
            raise
        if self._fault is not None:
            raise self._fault
        self._show(watch, begin, clusters[0], finished=True)

    def _lane(self, cluster: Cluster) -> None:
        """Drive one slide after the other."""
        while not self._stop.is_set():
            with self._lock:
                if not self._waiting:
                    return
                order, slide = self._waiting.popleft()
            cluster.priority = -order
            try:
                self._try(slide, cluster)
            except StoppedError:
                return
            except BaseException as error:
                self._fault = self._fault or error
                self._stop.set()
                return

    def _try(self, slide: str, cluster: Cluster) -> None:
        begin = monotonic()
        for attempt in range(1, TRIES + 1):
            try:
                self.make(slide, cluster, self._watcher(slide))
            except ResourceError:
                raise
            except (WsigenError, OSError) as error:
                self._note(slide, f"failed ({attempt} of at most {TRIES} times): {one_line(str(error))}")
                if attempt == TRIES:
                    self.failed[slide] = one_line(str(error))
                    if len(self.failed) > self._count:
                        self.forget(slide)
            else:
                self.done.append(slide)
                self._note(slide, f"made in {monotonic() - begin:.0f} s")
                break
        self._shares[slide] = 1.0

    def _watcher(self, slide: str) -> Watcher:
        """What a slide's own run is watched by: its share is kept, its notes are passed on."""
        seen: list[str] = []

        def watch(stage: Stage) -> None:
            if self._stop.is_set():
                raise StoppedError
            if stage.note:
                self._note(slide, f"{stage.name}: {stage.note}")
                return
            if stage.name not in seen:
                seen.append(stage.name)
            part = stage.done / max(1, stage.total)
            share = (len(seen) - 1 + part) / max(STAGES, len(seen))
            with self._lock:
                self._shares[slide] = max(min(share, 0.99), self._shares.get(slide, 0.0))
                self._calls[f"{slide} {stage.name}"] = stage.calls

        return watch

    def _note(self, slide: str, text: str) -> None:
        self._notes.append((slide, text))

    def _show(self, watch: Watcher, begin: float, cluster: Cluster, finished: bool = False) -> None:
        while self._notes:
            slide, text = self._notes.popleft()
            watch(Stage(slide, 0, note=text, run=self.name))
        with self._lock:
            shares, calls = sum(self._shares.values()), sum(self._calls.values())
        watch(
            Stage(
                "slides (in hundredths)",
                100 * len(self.slides),
                int(100 * shares),
                calls=calls,
                workers=cluster.workers,
                seconds=monotonic() - begin,
                finished=finished,
                run=self.name,
            )
        )
