"""What a run looks like: its progress in words, and its timestep map as a picture."""

from __future__ import annotations

from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from wsigen.base.errors import RunError, one_line, refusing
from wsigen.run.rundir import demand_plain, demand_sizes
from wsigen.run.tasks.context import PassContext, RunContext
from wsigen.storage.files import write_atomic
from wsigen.storage.opening import open_folder

PICTURE = "timesteps.png"
"""Name of the timestep map in the run directory."""

PICTURE_SIDE = 1024
"""Longest side of the timestep map in px."""

_GLASS = (255, 255, 255)
_WAITING = (25, 20, 60)
_DONE = (240, 170, 190)


@dataclass(frozen=True, slots=True)
class RunReport:
    """How far a run is, in lines for people (``print`` it), and where the picture is."""

    lines: list[str]
    picture: str | None

    def __str__(self) -> str:
        return "\n".join(self.lines)


def inspect(run_dir: str | Path, picture: str | Path | None = None) -> RunReport:
    """Show the progress of a run, and draw the timestep of every pixel as a picture.

    Parameters
    ----------
    run_dir : str or Path
        Directory or URL of a run, in progress, interrupted or kept.
    picture : str or Path, optional
        PNG to write; ``RUN_DIR/timesteps.png`` by default.

    Raises
    ------
    RunError
        If the directory holds no run, links that lead elsewhere, or state that is damaged or larger than this run makes it.
    """
    with refusing(RunError, f"{run_dir}: cannot be looked at", "resume the run, which makes again what is damaged"):
        return _report(run_dir, picture)


def _report(run_dir: str | Path, picture: str | Path | None) -> RunReport:
    folder = open_folder(run_dir)
    demand_plain(folder)
    run = RunContext(run_dir, folder)
    demand_sizes(run)
    spec, slide, sampling = run.spec, run.slide, run.spec.sampling
    lines = [
        f"run {spec.run_id}: {slide.width}x{slide.height} px at {slide.mpp} um/px, seed {sampling.seed}",
        f"model {spec.model_sha256[:12]} on {spec.device}, guidance {sampling.guidance}, eta {sampling.eta}",
        *([f"layout: {one_line(spec.layout_title)}"] if spec.layout_title else []),
        *map(_pass_line, run.passes),
        f"decode: {len(run.spool.done())} of {len(slide.grid)} blocks",
    ]
    begun = [pass_ for pass_ in run.passes if run.store.has_pass(pass_.plan.index)]
    if not begun:
        return RunReport([*lines, "nothing was started yet"], None)
    png = _png(timestep_map(begun[-1]), begun[-1].plan.steps)
    if picture is not None:
        write_atomic(Path(picture), png)
    else:
        run.folder.write(PICTURE, png)
    target = str(picture or f"{run_dir}/{PICTURE}")
    return RunReport([*lines, f"timestep map: {target}"], target)


def steps_done(pass_: PassContext) -> dict[tuple[int, int], int]:
    """The state y[s] every active chunk has reached; -1 before its start."""
    record = pass_.state.record()
    active = np.argwhere(pass_.state.activity).tolist()
    return {(i, j): max((h // 2 for h in record.get((i, j), set()) if h % 2 == 0), default=-1) for i, j in active}


def timestep_map(pass_: PassContext, side: int = PICTURE_SIDE) -> NDArray[np.int32]:
    """The number of steps still to go at every pixel of a small map: L(i) = S - steps done of its chunk.

    Returns int32 ``(h, w)`` with h, w at most ``side``: 0 finished .. S at the start, S + 1 not yet started, -1 glass.
    """
    plan = pass_.plan
    done = steps_done(pass_)
    scale = max(1, -(-max(plan.height, plan.width) // side))
    out = np.full((-(-plan.height // scale), -(-plan.width // scale)), -1, dtype=np.int32)
    for ij, step in done.items():
        box = plan.grid.box(ij)
        rows = np.arange(-(-box.y0 // scale) * scale, box.y1, scale)
        columns = np.arange(-(-box.x0 // scale) * scale, box.x1, scale)
        glass = pass_.held(box)[np.ix_(rows - box.y0, columns - box.x0)]
        out[np.ix_(rows // scale, columns // scale)] = np.where(glass, -1, plan.steps - step)
    return out


def _pass_line(pass_: PassContext) -> str:
    plan, run = pass_.plan, pass_.run
    drawn = plan.network == "grid"
    um = f"grid, cells of {run.slide.mpp * plan.cell_px:g} um" if drawn else f"{run.slide.mpp * plan.scale:g} um/px"
    title = f"pass {plan.index} ({plan.mode}, {um}, {plan.width}x{plan.height} {'cells' if drawn else 'latents'})"
    if not run.store.has_pass(plan.index):
        return f"{title}: not started"
    done = steps_done(pass_)
    if not done:
        return f"{title}: nothing but glass"
    steps = list(done.values())
    total = sum(s + 1 for s in steps) / (len(steps) * (plan.steps + 1))
    return f"{title}: {100 * total:.0f} %, {len(done)} chunks between step {min(steps)} and {max(steps)} of {plan.steps}"


def _png(steps: NDArray[np.int32], total: int) -> bytes:
    """Dark: much left to do; rose: finished; white: glass."""
    from PIL import Image

    share = np.clip(1.0 - steps / max(1, total + 1), 0.0, 1.0)[..., None]
    colour = np.asarray(_WAITING) + share * (np.asarray(_DONE) - np.asarray(_WAITING))
    colour[steps < 0] = _GLASS
    image = Image.fromarray(colour.astype(np.uint8))
    scale = max(1, 512 // max(image.size))
    buffer = BytesIO()
    image.resize((image.width * scale, image.height * scale), Image.Resampling.NEAREST).save(buffer, format="PNG")
    return buffer.getvalue()
