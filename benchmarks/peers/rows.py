"""One row of the comparison in a process of its own: ``python -m benchmarks.peers JOB`` (JSON of a `Job`)."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.memory import peak_rss
from benchmarks.peers.turns import Player
from wsigen.run.engine.stage import Stage

MODES = ("shifted", "random-patch", "pathup")
PANORAMA, ONE_CROP = "panorama", "one crop"
GUIDANCE = 0.5

PART = {PANORAMA: 12, ONE_CROP: 8}
"""Windows of a turn of the peers: a step of theirs is long, and all its windows cost the same."""


@dataclass(frozen=True, slots=True)
class Job:
    """What a process does.

    Attributes
    ----------
    name:
        A mode of wsigen, or a peer.
    model, layout, folder:
        The bundle, the drawing, and where slides go.
    size, steps:
        Side of the slide in px, transitions of the sampler.
    turns:
        Turns to work in, the canvas being decoded after them; 0: work to the end and measure the seams.
    """

    name: str
    model: str
    layout: str
    folder: str
    size: int
    steps: int
    turns: int

    @property
    def text(self) -> str:
        """As an argument."""
        return json.dumps(asdict(self))


class StepTurns:
    """A watcher of a run whose every step is a turn; the first one has the noise of the start in it."""

    def __init__(self, player: Player, steps: int) -> None:
        self._player, self._steps = player, steps
        self._told, self._rows = -1, 0

    def __call__(self, stage: Stage) -> None:
        """Tell of a step once all its tasks are done, and wait before the next."""
        if not stage.name.startswith("denoise"):
            return
        chunks = stage.total // (2 * self._steps + 1)
        if self._told < 0 or (self._told < self._steps and stage.done == chunks * (2 * self._told + 3)):
            if self._told >= 0:
                self._player.tell(1.0, stage.calls - self._rows)
                self._rows = stage.calls
            self._told += 1
            self._player.wait()


def run_wsigen(job: Job, player: Player) -> dict[str, Any]:
    """A slide by ``wsigen.generate``: one worker of one thread, one task in flight, so that nothing runs between turns."""
    from wsigen.run.generate import generate

    path = Path(job.folder) / f"{job.name}.ome.tiff"
    steps = job.turns or job.steps
    generate(
        path,
        watch=StepTurns(player, steps),
        model=job.model,
        layout=job.layout,
        size=(job.size, job.size),
        mode=job.name,  # type: ignore[arg-type]  # jobs have the names of modes
        levels=1,
        steps=steps,
        guidance=GUIDANCE,
        eta=0.0,
        compression="jpeg" if job.turns else "deflate",
        workers=1,
        threads=1,
        window=1,
    )
    return {"peak": peak_rss()} if job.turns else _slide_seams(path)


def run_peer(job: Job, player: Player) -> dict[str, Any]:
    """A peer's loop, and its whole canvas decoded."""
    import torch

    from benchmarks.peers.network import Network
    from benchmarks.peers.one_crop import OneCrop
    from benchmarks.peers.panorama import Panorama
    from wsigen.base.geometry import Box

    torch.set_num_threads(1)
    with torch.inference_mode():
        network = Network(Path(job.model), job.steps)
        card = network.card
        extent = job.size // card.latent.factor
        latents, classes = network.start(extent, extent, 0), torch.from_numpy(_class_map(job, extent))
        loop: Panorama | OneCrop
        if job.name == PANORAMA:
            loop = Panorama(network, latents, classes, GUIDANCE)
            borders = [Box(y, x, y + loop.side, x + loop.side) for y, x in loop.corners()]
        else:
            loop = OneCrop(network, latents, classes, GUIDANCE, seed=0)
        windows = loop.run()
        for _ in range(job.turns):
            player.wait()
            _take(windows, PART[job.name], player)
        if job.turns:
            player.wait()
        else:
            for _window in windows:
                pass
        picture = network.decode(loop.latents)
    if job.turns:
        return {"peak": peak_rss()}
    from wsigen.evaluation.borders import seam_scores
    from wsigen.evaluation.seams import edges

    boxes = loop.crops if isinstance(loop, OneCrop) else borders
    size = (job.size, job.size)
    found = seam_scores(lambda box: picture[box.slices], size, {"windows": edges(boxes, card.latent.factor, size)})[0]
    return {"score": found.score, "noise": found.noise}


def _take(windows: Iterator[Any], count: int, player: Player) -> None:
    """Denoise ``count`` windows and tell of them."""
    done = [next(windows) for _ in range(count)]
    player.tell(sum(w.share for w in done), sum(w.rows for w in done))


def _class_map(job: Job, extent: int) -> Any:
    """The class map that wsigen makes of the drawing, int64 ``[extent, extent]``."""
    import numpy as np

    from wsigen.base.geometry import Box
    from wsigen.models.card import read_card
    from wsigen.run.choose_layout import choose_layout
    from wsigen.run.config import make_config

    config = make_config({"layout": job.layout, "size": (job.size, job.size), "model": job.model})
    card = read_card(Path(job.model))
    layout = choose_layout(config, Path(job.model), card.table, card.levels[0].mpp or 1.0).layout
    return layout.class_map(Box(0, 0, extent, extent), card.latent.factor).astype(np.int64)


def _slide_seams(path: Path) -> dict[str, Any]:
    """Seams along the windows of the last step."""
    from wsigen.evaluation.seams import read_manifest, slide_seams
    from wsigen.slide.reading import open_image

    manifest = read_manifest(path)
    assert manifest is not None
    last = [score for score in slide_seams(open_image(path), manifest) if "windows" in score.name][-1]
    return {"score": last.score, "noise": last.noise}


def main() -> None:
    """Do one job and say what was found."""
    job = Job(**json.loads(sys.argv[1]))
    player = Player(turns=job.turns > 0)
    found = (run_wsigen if job.name in MODES else run_peer)(job, player)
    player.end(**found)
