"""How fast this machine is: a short measurement of a worker's model calls, and of all that a run does beside them."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from wsigen.base.classes import UNKNOWN
from wsigen.base.errors import ResourceError
from wsigen.run.estimate.rehearsal import BesideModel, Clock, measure_beside
from wsigen.run.prepare import Prepared
from wsigen.run.tasks.context import load_shared_model
from wsigen.run.tasks.decode import WINDOW

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from wsigen.models.model import Model

MEASURED_BATCHES = 5

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Speed:
    """Seconds on this machine.

    Attributes
    ----------
    call:
        A row of a model call.
    decode:
        A latent pixel decoded (of a window with `Autoencoder.equal_halo` around it).
    encode:
        A latent pixel encoded; 0 if no pass starts from a picture.
    calibrate:
        A latent pixel of the windows whose statistics the decoder's norms share.
    beside:
        All else.
    """

    call: float
    decode: float
    encode: float = 0.0
    calibrate: float = 0.0
    beside: BesideModel = field(default_factory=BesideModel)


def measure_speed(prepared: Prepared, threads: int, clock: Clock, place: Path | None = None) -> Speed:
    """Measure on random latents: the median of some batches, one window each way, and tasks without the model.

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
    model, card = load_shared_model(m.model, m.device, m.precision), prepared.card
    autoencoder = model.autoencoder
    around = autoencoder.halo if autoencoder.is_local else 0
    extent = min(WINDOW + 2 * around, *(int(m.passes[-1][name]) for name in ("height", "width")))
    halo = around if extent == WINDOW + 2 * around else 0
    window = _noise(model, (), extent)
    crops = [window[:, : card.crop_latent, : card.crop_latent]] * 2
    autoencoder.norm_statistics(crops)
    calibrate, statistics = _timed(clock, lambda: autoencoder.norm_statistics(crops))
    autoencoder.freeze_norm(statistics)
    autoencoder.decode(window, (halo,) * 4)  # the first call of a process is slow
    decode, picture = _timed(clock, lambda: autoencoder.decode(window, (halo,) * 4))
    autoencoder.freeze_norm(None)
    decoded = (WINDOW + 2 * autoencoder.equal_halo(WINDOW)) ** 2 if halo else extent**2
    guided = any(part["start"] != "noise" for part in m.passes)
    encode = _timed(clock, lambda: autoencoder.encode(np.rint(picture).astype(np.uint8)))[0] if guided else 0.0
    encoded = picture.shape[0] * picture.shape[1] / card.latent.factor**2
    calibrated = len(crops) * card.crop_latent**2
    call = _call(prepared, model, clock)
    try:
        with TemporaryDirectory(dir=place, prefix=".wsigen-") as scratch:
            beside = measure_beside(prepared, model, picture, clock, Path(scratch))
    except OSError as error:
        where = place or "the system's folder for temporary files"
        raise ResourceError(f"{where}: cannot hold the estimate's scratch files ({error.strerror}); free some space") from None
    return Speed(call, decode / decoded, encode / encoded, calibrate / calibrated, beside)


def _call(prepared: Prepared, model: Model, clock: Clock) -> float:
    """Seconds of a row of a model call."""
    from wsigen.models.conditioning import conditions_of

    m, card = prepared.manifest, prepared.card
    batch, side = int(m.sampling["batch"]), card.crop_latent
    condition = conditions_of(card, np.full((side, side), UNKNOWN, dtype=np.uint8))[0][0]
    latents, timestep = _noise(model, (batch,), side), int(m.passes[-1]["schedule"]["timesteps"][0])
    times = [
        _timed(clock, lambda: model.predict(latents, timestep, [condition] * batch, 0))[0] for _ in range(1 + MEASURED_BATCHES)
    ]
    return median(times[1:]) / batch  # the first call of a process is slow


def _noise(model: Model, batch: tuple[int, ...], side: int) -> NDArray[np.float32]:
    shape = (*batch, model.card.latent.channels, side, side)
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


def _timed(clock: Clock, work: Callable[[], T]) -> tuple[float, T]:
    """Seconds that work took, and what it gave."""
    begin = clock()
    found = work()
    return clock() - begin, found
