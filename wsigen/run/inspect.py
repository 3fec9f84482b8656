"""What a run looks like: its progress in words, its timestep map and the picture so far."""

from __future__ import annotations

from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from wsigen.base.errors import RunError, one_line, refusing
from wsigen.run.run_picture import RunPicture
from wsigen.run.rundir import demand_plain, demand_sizes
from wsigen.run.tasks.context import PassContext, RunContext
from wsigen.sampling.known import NEVER
from wsigen.slide.class_picture import with_legend
from wsigen.slide.sidecars import write_picture
from wsigen.storage.opening import open_folder

if TYPE_CHECKING:
    from PIL.Image import Image

PICTURE = "timesteps.png"
"""Name of the timestep map in the run directory."""

PICTURE_SIDE = 1024
"""Longest side of the timestep map in px."""

PICTURE_SECONDS = 60.0
"""Most time to spend on the picture so far."""

_GLASS = (255, 255, 255)
_NOT_STARTED = (150, 150, 160)
_WAITING = (25, 20, 60)
_DONE = (240, 170, 190)

Colour = tuple[int, int, int]


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
        PNG or JPEG to write: the picture so far beside the timestep map, with a legend. By default it is the map alone, as
        ``RUN_DIR/timesteps.png``.

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
        f"model {spec.model_sha256[:12]} on {spec.device}, guidance {sampling.guidance}, {sampling.sampler} eta {sampling.eta}",
        *([f"layout: {one_line(spec.layout_title)}"] if spec.layout_title else []),
        *map(_pass_line, run.passes),
        f"decode: {len(run.spool.done())} of {len(slide.grid)} blocks",
    ]
    begun = [pass_ for pass_ in run.passes if run.store.has_pass(pass_.plan.index)]
    if not begun:
        return RunReport([*lines, "nothing was started yet"], None)
    pass_ = begun[-1]
    if picture is None:
        buffer = BytesIO()
        _with_legend([map_image(pass_)], pass_).save(buffer, format="PNG")
        run.folder.write(PICTURE, buffer.getvalue())
        target = f"{run_dir}/{PICTURE}"
        return RunReport([*lines, f"timestep map: {target}"], target)
    so_far = RunPicture(run)
    pixels = so_far.update(pass_, steps_done(pass_), PICTURE_SECONDS)
    images = [map_image(pass_)]
    if pixels is not None:
        images.insert(0, _image(pixels).resize(images[0].size))
    write_picture(picture, np.asarray(_with_legend(images, pass_)))
    notes = [so_far.note] if so_far.note else []
    return RunReport([*lines, *notes, f"picture: {picture}"], str(picture))


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
        glass = (pass_.starts(box) >= NEVER)[np.ix_(rows - box.y0, columns - box.x0)]
        out[np.ix_(rows // scale, columns // scale)] = np.where(glass, -1, plan.steps - step)
    return out


def step_colours(steps: NDArray[np.int32], total: int) -> NDArray[np.uint8]:
    """Colours of a timestep map, uint8 ``(h, w, 3)``: dark: much left to do; rose: finished; grey: waits; white: glass."""
    share = np.clip(1.0 - steps / max(1, total), 0.0, 1.0)[..., None]
    colour = np.asarray(_WAITING) + share * (np.asarray(_DONE) - np.asarray(_WAITING))
    colour[steps > total] = _NOT_STARTED
    colour[steps < 0] = _GLASS
    return np.rint(colour).astype(np.uint8)


def step_legend(total: int) -> list[tuple[Colour, str]]:
    """The colours of `step_colours` and what they mean."""
    counts = sorted({round(total * share) for share in (1.0, 0.75, 0.5, 0.25)} - {0}, reverse=True)
    to_go = {n: f"{n} step{'s' if n > 1 else ''} to go" for n in counts}
    names = {total + 1: "not started", **to_go, 0: "finished", -1: "glass"}
    colours = step_colours(np.array([list(names)], np.int32), total)[0]
    return [((int(r), int(g), int(b)), name) for (r, g, b), name in zip(colours, names.values(), strict=True)]


def map_image(pass_: PassContext) -> Image:
    """The timestep map of a pass, with px large enough to see."""
    from PIL import Image

    image = _image(step_colours(timestep_map(pass_), pass_.plan.steps))
    scale = max(1, 512 // max(image.size))
    return image.resize((image.width * scale, image.height * scale), Image.Resampling.NEAREST)


def share_done(pass_: PassContext, done: dict[tuple[int, int], int]) -> float:
    """How much of a pass is done, 0 to 1, from the states its chunks have reached."""
    return sum(step + 1 for step in done.values()) / (len(done) * (pass_.plan.steps + 1)) if done else 1.0


def pass_title(pass_: PassContext) -> str:
    """What a pass does, in a few words."""
    plan, run = pass_.plan, pass_.run
    drawn = plan.network == "grid"
    um = f"grid, cells of {run.slide.mpp * plan.cell_px:g} um" if drawn else f"{run.slide.mpp * plan.scale:g} um/px"
    return f"pass {plan.index} ({plan.mode}, {um}, {plan.width}x{plan.height} {'cells' if drawn else 'latents'})"


def _pass_line(pass_: PassContext) -> str:
    title = pass_title(pass_)
    if not pass_.run.store.has_pass(pass_.plan.index):
        return f"{title}: not started"
    done = steps_done(pass_)
    if not done:
        return f"{title}: nothing but glass"
    share, steps, total = share_done(pass_, done), list(done.values()), pass_.plan.steps
    return f"{title}: {100 * share:.0f} %, {len(done)} chunks between step {min(steps)} and {max(steps)} of {total}"


def _image(pixels: NDArray[np.uint8]) -> Image:
    from PIL import Image

    return Image.fromarray(pixels)


def _with_legend(images: list[Image], pass_: PassContext) -> Image:
    """Pictures side by side over a legend."""
    from PIL import Image

    gap = 8
    width = sum(image.width for image in images) + gap * (len(images) - 1)
    row = Image.new("RGB", (width, max(image.height for image in images)), "white")
    x = 0
    for image in images:
        row.paste(image, (x, 0))
        x += image.width + gap
    return with_legend(row, step_legend(pass_.plan.steps), "SYNTHETIC, in progress")
