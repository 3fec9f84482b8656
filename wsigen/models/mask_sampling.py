"""Draw class maps of whole slides with a mask model: DDIM on one-hot maps, cleaned, spread over the slide."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wsigen.base.classes import UNKNOWN, ClassTable
from wsigen.base.geometry import Box
from wsigen.base.noise import Stream, normal_field
from wsigen.layout.cell_map import CellMapLayout
from wsigen.layout.cleaning import clean
from wsigen.models.mask_bundle import MaskCard
from wsigen.models.one_thread import one_thread
from wsigen.sampling.schedule import ddim_step, guided, make_schedule, predict_x0

MOST_ASPECT = 4.0
"""The longest map over the shortest: slides that are longer still are stretched."""


@dataclass(frozen=True)
class MaskNetwork:
    """The network of a mask model and its schedule: what sampling needs.

    Attributes
    ----------
    unet : UNet2DModel
        On noisy one-hot maps in [-1, 1], ``(B, K, h, w)``; its last embedding is the null condition.
    abar : ndarray
        Noise levels of training, float64.
    kind : str
        What it predicts (`sampling.schedule.PREDICTIONS`).
    """

    unet: Any
    abar: NDArray[np.float64]
    kind: str

    @property
    def multiple(self) -> int:
        """Sides of maps must be multiples of this."""
        return int(2 ** (len(self.unet.config.block_out_channels) - 1))


def draw_map(
    folder: Path, card: MaskCard, table: ClassTable, subtype: str, seed: int, size: tuple[int, int]
) -> tuple[str, CellMapLayout]:
    """Draw a slide's layout: a pure function of the folder's content, the subtype, the seed and the size.

    Parameters
    ----------
    folder, card : Path, MaskCard
        The mask model's folder and card, as `open_mask` read it.
    subtype : str
        Name of the slide's subtype.
    size : (int, int)
        ``(height, width)`` of the slide, px; the map is stretched over it.

    Returns
    -------
    (str, CellMapLayout)
        The subtype's name as the model spells it, and the layout in the indices of ``table``.

    Raises
    ------
    ConfigError
        If the model does not know the subtype.
    BundleError
        If its weights cannot be loaded.
    """
    index = card.subtype(subtype)
    network = load_mask(folder)
    cells = draw_cells(network, card, index, map_shape(size, card.side, network.multiple), seed)
    own = np.full(256, UNKNOWN, np.uint8)
    own[: len(card.classes)] = [table.index(name) for name in card.classes]
    return card.subtypes[index], CellMapLayout(size[0], size[1], own[cells])


def draw_cells(
    network: MaskNetwork, card: MaskCard, subtype: int, shape: tuple[int, int], seed: int, steps: int | None = None
) -> NDArray[np.uint8]:
    """Draw and clean a class map: uint8 ``(h, w)``, indices into ``card.classes`` or ``UNKNOWN``.

    Parameters
    ----------
    subtype : int
        Index into ``card.subtypes``; one beyond the last is the null condition.
    steps : int or None
        Transitions, by default the card's.
    """
    channels = sample_channels(network, shape, subtype, len(card.subtypes), card.guidance, steps or card.steps, seed)
    return clean(channels.argmax(axis=0).astype(np.uint8), card.pairs(), card.smallest)


def map_shape(size: tuple[int, int], side: int, multiple: int) -> tuple[int, int]:
    """Cells ``(h, w)`` of a map of the slide's shape and about ``side x side`` in area, as the network takes it."""
    aspect = min(MOST_ASPECT, max(1.0 / MOST_ASPECT, size[0] / size[1]))
    ideal = side * aspect**0.5, side / aspect**0.5
    height, width = (max(multiple, round(v / multiple) * multiple) for v in ideal)
    return height, width


def sample_channels(
    network: MaskNetwork, shape: tuple[int, int], subtype: int, null: int, guidance: float, steps: int, seed: int
) -> NDArray[np.float32]:
    """Run DDIM (eta 0) from the noise of the seed.

    Parameters
    ----------
    subtype, null : int
        Embeddings of the condition and of no condition.
    guidance : float
        w of DiffInfinite eq. 2, ``(1 + w) eps(c) - w eps(null)``.

    Returns
    -------
    ndarray
        float32 ``(K, h, w)``, about +1 where the class is and -1 elsewhere.
    """
    import torch

    schedule = make_schedule(network.abar, steps)
    y = normal_field(seed, Stream.MASK, Box(0, 0, *shape), int(network.unet.config.in_channels))
    device = next(network.unet.parameters()).device
    conditions = torch.tensor([subtype, null] if guidance else [subtype], device=device)
    with one_thread(), torch.inference_mode():
        for s, timestep in enumerate(schedule.timesteps):
            x = torch.from_numpy(y)[None].expand(len(conditions), -1, -1, -1).to(device)
            out = network.unet(x, timestep, class_labels=conditions).sample.cpu().numpy()
            prediction = guided([(out[0], None)], out[1] if guidance else None, guidance)
            x0 = predict_x0(prediction, y, schedule.abar[s], network.kind, clip=1.0)
            y = ddim_step(y, x0, schedule.abar[s], schedule.abar[s + 1])
    return y


def load_mask(folder: Path) -> MaskNetwork:
    """Load the mask model in ``folder`` onto the CPU, once (BundleError if its weights do not fit its config)."""
    stamps = tuple(file.stat().st_mtime_ns for file in sorted(folder.rglob("*")) if file.is_file())
    return _load(str(folder.absolute()), stamps)


@lru_cache(maxsize=2)
def _load(folder: str, stamps: tuple[int, ...]) -> MaskNetwork:
    """Times of change are part of the key: a model trained anew is read anew."""
    from wsigen.models.loading import load_network, read_schedule

    unet = load_network(Path(folder) / "unet", "cpu")
    abar, kind, _ = read_schedule(Path(folder))
    return MaskNetwork(unet, abar, kind)
