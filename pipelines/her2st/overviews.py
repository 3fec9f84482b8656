"""One window of any magnification level, drawn by the model alone: what the coarse passes of a cascade begin from."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from wsigen.models.conditioning import NULL, Condition
from wsigen.sampling.schedule import ddim_step, make_schedule, predict_x0

if TYPE_CHECKING:
    from wsigen.models.model import Model


def draw_window(model: Model, label: int, level: int, seed: int) -> NDArray[np.uint8]:
    """Draw a window of one class by DDIM with the steps, guidance and noise of the bundle, which is told class maps.

    Parameters
    ----------
    label:
        Index of the class in the card.
    level:
        Index of the magnification in the card.

    Returns
    -------
    uint8 ``[p f, p f, 3]``, p the card's ``crop_latent`` and f its factor
    """
    card = model.card
    side, w = card.crop_latent, card.guidance
    schedule = make_schedule(model.abar, card.steps)
    source, shape = np.random.default_rng(seed), (card.latent.channels, side, side)
    y = source.standard_normal(shape, dtype=np.float32)
    condition = Condition(class_map=np.full((side, side), label, np.uint8))
    for step, timestep in enumerate(schedule.timesteps):
        own, null = model.predict(np.stack([y, y]), timestep, [condition, NULL], level)
        abar, following = schedule.abar[step : step + 2]
        x0 = predict_x0((1 + w) * own - w * null, y, abar, model.prediction_type, model.clip)
        y = ddim_step(y, x0, abar, following, card.eta, source.standard_normal(shape, dtype=np.float32))
    return model.autoencoder.decode(y).round().astype(np.uint8)
