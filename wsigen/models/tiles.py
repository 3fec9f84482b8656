"""Single tiles of a model that is told tokens, drawn from tokens that a network draws: no layout, no grid, no slide."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from wsigen.base.errors import BundleError, ConfigError, refusing, suggest
from wsigen.base.geometry import Box
from wsigen.base.noise import Stream, normal_field
from wsigen.models.card import BundleCard
from wsigen.models.conditioning import NULL
from wsigen.models.denoisers import call
from wsigen.models.inputs import GridTokenInputs, with_tokens
from wsigen.models.model import Model, load_model
from wsigen.models.token_model import STEPS, TokenDraw, load_token_model, sample_tokens
from wsigen.sampling.schedule import ddim_step, guided, make_schedule, predict_x0

Array = NDArray[np.float32]

BATCH = 4
"""Tiles drawn at once."""


@dataclass(frozen=True, slots=True)
class TileSettings:
    """How tiles are drawn from their tokens: guidance w, DDIM steps without noise, and the level of the tokens.

    Classes, which a model may be told besides, are not known.
    """

    guidance: float
    steps: int
    level: int = 0


def write_tiles(
    folder: Path,
    out: Path,
    level: str | None = None,
    count: int = 16,
    seed: int = 0,
    steps: int | None = None,
    guidance: float | None = None,
    device: str = "cpu",
    token_steps: int = STEPS,
) -> list[Path]:
    """Draw tiles and write them as ``OUT/LEVEL-SEED.png``; tile i is that of the seed ``seed + i``.

    Parameters
    ----------
    folder : Path
        A bundle with a network that draws tokens.
    level : str, optional
        Name of a magnification; by default the finest.
    steps, guidance : optional
        By default those of the model.
    token_steps : int
        Of the tokens.

    Raises
    ------
    BundleError
        If the bundle draws no tokens.
    ConfigError
        If it has no such level, or the tiles cannot be written.
    """
    network, model = load_token_model(folder, device), load_model(folder, device)
    index = _level(model.card, level)
    wanted = model.card.guidance if guidance is None else guidance
    settings, files = TileSettings(wanted, steps or model.card.steps, index), []
    with refusing(ConfigError, f"{out}: cannot be written", "name a folder that you may write"):
        out.mkdir(parents=True, exist_ok=True)
    for first in range(0, count, BATCH):
        seeds = list(range(seed + first, seed + min(count, first + BATCH)))
        tokens = sample_tokens(network, TokenDraw(index, seeds, token_steps))
        for one, rgb in zip(seeds, sample_tiles(model, tokens, seeds, settings), strict=True):
            files.append(out / f"{model.card.levels[index].name}-{one:06d}.png")
            _write(files[-1], rgb, model.card)
    return files


def sample_tiles(model: Model, tokens: Array, seeds: list[int], settings: TileSettings) -> Iterator[NDArray[np.uint8]]:
    """Yield a tile, uint8 ``(h, w, 3)``, for each of the tokens ``(B, T, C)``, from the noise of its seed.

    The null condition of guidance is tokens of 0.
    """
    card, schedule = model.card, make_schedule(model.abar, settings.steps)
    side, channels = card.crop_latent, card.latent.channels
    y = np.stack([normal_field(seed, Stream.START, Box(0, 0, side, side), channels) for seed in seeds])
    for s, timestep in enumerate(schedule.timesteps):
        own = _predict(model, y, timestep, tokens, settings.level)
        null = _predict(model, y, timestep, np.zeros_like(tokens), settings.level) if settings.guidance else None
        prediction = guided([(own, None)], null, settings.guidance)
        x0 = predict_x0(prediction, y, schedule.abar[s], model.prediction_type, model.clip)
        y = ddim_step(y, x0, schedule.abar[s], schedule.abar[s + 1])
    for latents in y:
        yield np.rint(model.autoencoder.decode(latents)).astype(np.uint8)


def _predict(model: Model, y: Array, timestep: int, tokens: Array, level: int) -> Array:
    batch, told = (torch.from_numpy(array).to(model.device) for array in (y, tokens))
    besides = model.inputs.inputs if isinstance(model.inputs, GridTokenInputs) else model.inputs
    with torch.inference_mode():
        sample, extra = besides(batch, [NULL] * len(y), level)
        output = call(model.unet, sample, timestep, with_tokens(extra, told), y.shape[1])
    return np.ascontiguousarray(output.float().cpu().numpy())


def _level(card: BundleCard, name: str | None) -> int:
    names = [level.name for level in card.levels]
    if name is not None and name not in names:
        raise ConfigError(f"setting 'level': the model has no {name!r}{suggest(name, names)}; it has {', '.join(names)}")
    if card.grid is None or card.grid.told != "tokens":
        raise BundleError(f"model {card.name!r} is told no tokens: tiles cannot be drawn from them")
    return 0 if name is None else names.index(name)


def _write(file: Path, rgb: NDArray[np.uint8], card: BundleCard) -> None:
    from PIL import Image
    from PIL.PngImagePlugin import PngInfo

    said = PngInfo()
    said.add_text("Description", f"synthetic: drawn by {card.name}, not a patient's tissue")
    with refusing(ConfigError, f"{file}: cannot be written", "see whether there is space"):
        Image.fromarray(rgb).save(file, pnginfo=said)
