"""How fast this machine is: a short measurement of a worker's model calls, coding and state, and of the slide's file."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from wsigen.classes import UNKNOWN
from wsigen.files import sha256
from wsigen.folder.local import LocalFolder
from wsigen.geometry import Box, ChunkGrid
from wsigen.noise import Stream, normal_field
from wsigen.preparation import Prepared
from wsigen.runstore import RunStore
from wsigen.slide.ome import ome_xml
from wsigen.slide.pyramid import PyramidSpec
from wsigen.slide.spool import Spool
from wsigen.slide.tiles import encode_block
from wsigen.slide.writer import level0_sha256, write_slide
from wsigen.tasks.context import load_shared_model
from wsigen.tasks.decode import WINDOW

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from wsigen.models.model import Model

MEASURED_BATCHES = 5

Clock = Callable[[], float]
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Speed:
    """Seconds of one worker on this machine.

    Attributes
    ----------
    call:
        A row of a model call.
    decode:
        A latent pixel decoded (of a window with `Model.equal_halo` around it).
    pack:
        A latent pixel's part of the tiles of all levels.
    encode:
        A latent pixel encoded; 0 if no pass starts from a picture.
    noise:
        A latent pixel of the noise field.
    read, write:
        A byte of the state, checked or flushed.
    file:
        A latent pixel's part of the slide's file: its tiles taken from the spool, written, flushed and hashed (the driver's).
    """

    call: float
    decode: float
    pack: float
    encode: float = 0.0
    noise: float = 0.0
    read: float = 0.0
    write: float = 0.0
    file: float = 0.0


def measure_speed(prepared: Prepared, threads: int, clock: Clock, place: Path | None = None) -> Speed:
    """Measure on random latents: the median of some batches, one window each way, and one tile.

    Parameters
    ----------
    threads:
        torch's, as a worker has.
    clock:
        What seconds are.
    place:
        A folder on the disk that will hold state and slide, for a moment's scratch files (the system's if there is none).
    """
    import torch

    torch.set_num_threads(threads)
    m = prepared.manifest
    model = load_shared_model(m.model, m.device, m.precision)
    around = model.halo if model.decoder_is_local else 0
    extent = min(WINDOW + 2 * around, *(int(m.passes[-1][name]) for name in ("height", "width")))
    halo = around if extent == WINDOW + 2 * around else 0
    window = _noise(model, (), extent)
    model.decode(window[:, : model.card.crop_latent, : model.card.crop_latent])  # the first call of a process is slow
    decode, picture = _timed(clock, lambda: model.decode(window, (halo,) * 4))
    decoded = (WINDOW + 2 * model.equal_halo(WINDOW)) ** 2 if halo else extent**2
    rgb = np.rint(picture).astype(np.uint8)
    guided = any(part["start"] != "noise" for part in m.passes)
    encode = _timed(clock, lambda: model.encode(rgb))[0] if guided else 0.0
    encoded = rgb.shape[0] * rgb.shape[1] / model.card.latent.factor**2
    call = _call(prepared, model, clock)
    encoded_s = encode / encoded
    with TemporaryDirectory(dir=place, prefix=".wsigen-") as scratch:
        noise, read, write = _state(prepared, Path(scratch), clock)
        pack, file = _slide(prepared, rgb, Path(scratch), clock)
    return Speed(call, decode / decoded, pack, encoded_s, noise, read, write, file)


def _call(prepared: Prepared, model: Model, clock: Clock) -> float:
    """Seconds of a row of a model call."""
    from wsigen.models.conditioning import conditions_of

    m, card = prepared.manifest, prepared.card
    batch, side = int(m.sampling["batch"]), card.crop_latent
    condition = conditions_of(card, np.full((side, side), UNKNOWN, dtype=np.uint8))[0][0]
    latents, timestep = _noise(model, (batch,), side), int(m.passes[-1]["timesteps"][0])
    times = [
        _timed(clock, lambda: model.predict(latents, timestep, [condition] * batch, 0))[0] for _ in range(1 + MEASURED_BATCHES)
    ]
    return median(times[1:]) / batch  # the first call of a process is slow


def _state(prepared: Prepared, folder: Path, clock: Clock) -> tuple[float, float, float]:
    """Seconds of a latent pixel of noise, and of a byte of the state read and written."""
    m, channels = prepared.manifest, prepared.card.latent.channels
    plan = m.passes[-1]
    side = int(plan["chunk"])
    box = Box(0, 0, side, side)
    store = RunStore(LocalFolder(folder / "state.zarr"))
    state = store.create_pass(0, ChunkGrid(side, side, side), channels, 1, int(plan["side"]), history=False)
    noise, values = _timed(clock, lambda: normal_field(0, Stream.STEP, box, channels))
    state.write_latents(0, (0, 0), values)  # the first write of a process is slow
    write, _ = _timed(clock, lambda: state.write_latents(1, (0, 0), values))
    read, _ = _timed(clock, lambda: state.read_latents(1, box))
    return noise / side**2, read / values.nbytes, write / values.nbytes


def _slide(prepared: Prepared, rgb: NDArray[np.uint8], folder: Path, clock: Clock) -> tuple[float, float]:
    """Seconds of a latent pixel's part of the tiles of all levels, encoded and spooled, and of the file they go into."""
    whole = PyramidSpec(**prepared.manifest.slide)
    spec = replace(whole, width=whole.block, height=whole.block)
    times = [-(-whole.block // extent) for extent in rgb.shape[:2]]
    block = np.tile(rgb, (*times, 1))[: whole.block, : whole.block]
    spool, path = Spool(folder / "spool"), folder / "slide.ome.tiff"
    pack, _ = _timed(clock, lambda: spool.write((0, 0), encode_block(spec, (0, 0), block)))

    def put_together() -> None:
        write_slide(path, spec, spool, ome_xml(spec, path.name, {}))
        level0_sha256(path)
        sha256(path)

    file, _ = _timed(clock, put_together)
    area = (whole.block / prepared.card.latent.factor) ** 2
    return pack / area, file / area


def _noise(model: Model, batch: tuple[int, ...], side: int) -> NDArray[np.float32]:
    shape = (*batch, model.card.latent.channels, side, side)
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


def _timed(clock: Clock, work: Callable[[], T]) -> tuple[float, T]:
    """Seconds that work took, and what it gave."""
    begin = clock()
    found = work()
    return clock() - begin, found
