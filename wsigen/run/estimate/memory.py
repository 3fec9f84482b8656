"""Projected memory and disk of a run, by arithmetic anyone can check, compared with what there is before work starts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from wsigen.base.errors import ResourceError
from wsigen.base.geometry import Box
from wsigen.base.machine import memory_left
from wsigen.layout.layout import Layout
from wsigen.models.attention import PART
from wsigen.models.autoencoder import PIECE
from wsigen.models.card import BundleCard, read_card
from wsigen.models.denoisers import read_architecture
from wsigen.models.halo import EFFECTIVE_HALO, POOLED_PX, attention_of, last_halo
from wsigen.models.network_config import Config, read_config
from wsigen.models.weights import read_shapes
from wsigen.run.config import RunConfig
from wsigen.run.spec import RunSpec
from wsigen.run.tasks.decode import WINDOW, calibrated_px
from wsigen.run.tasks.encode import HALO as ENCODE_HALO
from wsigen.run.tasks.encode import WINDOW as ENCODE_WINDOW
from wsigen.sampling.passes import PassPlan
from wsigen.slide.writer import scratch_bytes
from wsigen.storage.opening import as_place

MIB = 2**20

PROCESS = 500 * MIB
"""A process with torch, diffusers, zarr and dask loaded, before any weight or array (measured: 480-495 MiB)."""

DRIVER_PER_CHUNK = 400
"""Bytes the driver keeps per chunk: its place in the wavefront."""

UNET_PLANES, UNET_FIXED = 28, 20 * MIB
"""Full-resolution float32 feature maps over a U-Net's first width: about 12 are alive at its widest point, but the heap, cut up
by freed ones, grows to 25-31 for 1 to 16 crops (measured; most of it stays with the process). Then what no crop adds to."""

DECODER_PLANES, DECODER_FIXED = 6, 190 * MIB
"""The same for the decoder, over its last width (measured: 326, 502, 768, 1221 MiB for 512, 768, 1024, 1280 px at width 32,
and 100 MiB that the heap keeps of earlier ones)."""

ENCODER_PLANES = 5
"""The same for the encoder, over its first width, with the decoder's fixed part (measured: 869 MiB for 1152 px at width 32)."""

BLOCK_COPIES = 6
"""Copies of a block's pixels while it is decoded and encoded: itself, a float window, the image that is shrunk, its parts;
and what the heap keeps."""

CORRECTED_COPIES = 5
"""Float copies of a window's pixels while it is corrected to a coarser pass: as decoded, padded, enlarged along one axis and
along both, corrected."""

LOADED = ("unet", "transformer", "vae", "text_encoder", "grid/unet", "grid/transformer", "summariser")
"""Parts of a bundle that stay in memory."""

SAMPLE_SIDE = 256
"""Cells per side of the coarse class map from which the share of tissue is read."""


@dataclass(frozen=True, slots=True)
class Projection:
    """Projected need of a run in bytes.

    Attributes
    ----------
    denoise, decode : int
        Arrays and activations of one task.
    chunks, blocks : int
        Tasks of either kind that there are: more workers than that have nothing to do.
    weights : int
        Of the model, once per process.
    driver : int
        The driver's books, and a row of encoded blocks while it writes the slide.
    disk_state, disk_output, disk_scratch : int
        Of the run directory's state; of the spool and the slide together; beside the slide while it is put together.
    tissue : float
        Share of the slide that is not glass, from which the disk follows.
    """

    denoise: int
    decode: int
    chunks: int
    blocks: int
    weights: int
    driver: int
    disk_state: int
    disk_output: int
    disk_scratch: int = 0
    tissue: float = 1.0

    @property
    def worker(self) -> int:
        """What one worker takes for its tasks, on top of its process: a decoded window beside what denoising left behind."""
        return self.denoise + self.decode

    def total(self, workers: int, processes: bool, tasks_at_once: int = 1) -> int:
        """Memory of ``workers`` local workers and the driver; threads share one process and one model.

        Tasks of a worker call the model one after the other, but the heap keeps what each of them had.
        """
        under_way = workers * tasks_at_once
        tasks = min(under_way, self.chunks) * self.denoise + min(under_way, self.blocks) * self.decode
        others = min(workers, max(self.chunks, self.blocks)) if processes else 0
        return self.driver + tasks + (1 + others) * (PROCESS + self.weights)


def project_run(spec: RunSpec, card: BundleCard, layout: Layout) -> Projection:
    """Project memory of one worker's tasks, the driver's books, and the disk a run needs.

    Notes
    -----
    A denoising task holds its chunk's reach (chunk + crop side, squared) as state, noise and sum, plus a chunk in transit, and
    the activations of a batch. A decoding task holds those of a window with its halo, and a block of the slide; with attention
    in the decoder also what the windows of a part of the block are decoded from. An autoencoder also takes the windows of the
    decoder's shared statistics, and those of a picture that a pass starts from.
    """
    folder, slide = Path(spec.model), spec.slide
    model = model_size(folder)
    in_pieces = spec.device == "cpu" and attention_of(read_config(folder, "vae")) == "none"
    decode_window, encode_window = PIECE if in_pieces else WINDOW, ENCODE_WINDOW + 2 * ENCODE_HALO
    active_share, channels = tissue_share(layout, spec.glass.index), card.latent.channels
    denoise = decode = state = 0
    for plan in spec.passes:
        reach = (min(plan.chunk, max(plan.height, plan.width)) + plan.side) ** 2 * channels * 4
        unet = int(spec.sampling.batch * plan.side**2 * model.unet_width * 4 * UNET_PLANES) + UNET_FIXED
        denoise = max(denoise, 5 * reach + unet)
        corrected, margin = _correction(spec.passes, plan)
        window = decode_window if in_pieces else decode_window + margin
        decode = max(decode, corrected + _autoencoder(plan, model, window, encode_window, margin))
        chunks = len(plan.grid)
        live = 6 * plan.chunk**2 * channels * 4 + 3 * reach  # three states and, with some samplers, three estimates
        state += int(chunks * max(active_share, 1 / chunks) * live)  # earlier passes stay until the end
    bytes_per_px = 0.5 if slide.compression == "jpeg" else 3.0
    # the writer holds a row of blocks, and one
    row = (slide.width + slide.block) * min(slide.block, slide.height) * bytes_per_px
    output = int(slide.width * slide.height * 4 / 3 * bytes_per_px * max(active_share, 0.05))
    return Projection(
        denoise=denoise,
        decode=decode + min(slide.block, max(slide.width, slide.height)) ** 2 * 3 * BLOCK_COPIES,
        chunks=max(len(plan.grid) for plan in spec.passes),
        blocks=len(slide.grid),
        weights=model.weights,
        driver=sum(len(plan.grid) for plan in spec.passes) * DRIVER_PER_CHUNK + int(row),
        disk_state=state,
        disk_output=2 * output,
        disk_scratch=scratch_bytes(slide, bytes_per_px * max(active_share, 0.05)),
        tissue=active_share,
    )


def _autoencoder(plan: PassPlan, model: ModelSize, decode_window: int, encode_window: int, margin: int) -> int:
    """Activations of a decoded window, or of an encoded one if that takes more, bytes; windows and margin in latent px."""
    sides = (plan.height, plan.width)
    window = math.prod(_window(side, decode_window, model.halo) * plan.factor for side in sides)
    held = math.prod(min(side, PART + 2 * EFFECTIVE_HALO + margin) for side in sides) * model.features
    if model.norms:
        window = max(window, min(POOLED_PX, calibrated_px(plan)) * plan.factor**2)
    planes = window * model.decoder_width * 4 * DECODER_PLANES
    if plan.start != "noise":
        encoded = math.prod(min(side, encode_window) * plan.factor for side in sides)
        planes = max(planes, encoded * model.encoder_width * 4 * ENCODER_PLANES)
    return planes + DECODER_FIXED + held


def _correction(plans: Sequence[PassPlan], plan: PassPlan) -> tuple[int, int]:
    """Arrays of a window that is corrected to a coarser pass, bytes, and the latent px by which it is then larger."""
    if plan.consistency == "none":
        return 0, 0
    reach = 6 * plans[plan.index - 1].scale // plan.scale  # coarser px: one that is cut, and two beyond it, at both borders
    side = min(WINDOW * plan.factor + reach, max(plan.height, plan.width) * plan.factor)
    return side**2 * 3 * 4 * CORRECTED_COPIES, -(-reach // plan.factor) + 1


def _window(extent: int, side: int, halo: int) -> int:
    """Side of the largest decoded window along an axis of ``extent`` latent px: only an inner one has both its halos."""
    halos = min(2, -(-extent // side) - 1)
    return min(extent, side + halos * halo)


def demand_memory(projection: Projection, workers: int, processes: bool, allowed: int, tasks_at_once: int = 1) -> None:
    """Refuse a run whose projected memory exceeds what is allowed; the message gives both numbers (ResourceError)."""
    needed = projection.total(workers, processes, tasks_at_once)
    if needed > allowed:
        raise ResourceError(
            f"projected memory {gib(needed)} for {workers} worker(s) exceeds the allowed {gib(allowed)}; "
            "use fewer --workers or --tasks-at-once, a smaller --chunk or --batch, or raise --memory-gb"
        )


def allowed_memory(config: RunConfig) -> int:
    """Bytes all local workers may use: as set, or what this machine and this process's control groups have left."""
    import psutil

    if config.memory_gb:
        return int(config.memory_gb * 2**30)
    machine, group = int(psutil.virtual_memory().available), memory_left()
    return machine if group is None else min(machine, group)


def demand_disk(projection: Projection, run_dir: str | Path, output: Path, there: int = 0) -> None:
    """Refuse a run whose projected disk need exceeds the free space of where it would lie (ResourceError).

    An object store (``run_dir`` a URL) has no free space to ask for.

    Parameters
    ----------
    there : int
        Bytes that a run to be gone on with has there already.
    """
    import shutil

    needs: dict[int, tuple[Path, int]] = {}
    rest = max(0, projection.disk_state + projection.disk_output // 2 - there)
    wanted = [(output, projection.disk_output // 2 + projection.disk_scratch)]
    place_of_run = as_place(run_dir)
    if isinstance(place_of_run, Path):
        wanted.append((place_of_run, rest))
    for path, need in wanted:
        place = existing_parent(path)
        device = place.stat().st_dev
        needs[device] = (place, needs.get(device, (place, 0))[1] + need)
    for place, need in needs.values():
        free = shutil.disk_usage(place).free
        if need > free:
            raise ResourceError(
                f"projected disk space {gib(need)} exceeds the {gib(free)} free at {place}; free some or use --run-dir"
            )


def existing_parent(path: Path) -> Path:
    """The nearest folder above ``path`` (or itself) that exists."""
    place = path.absolute()
    while not place.exists():
        place = place.parent
    return place


def gib(size: float) -> str:
    """Bytes as text, e.g. ``"1.5 GiB"``."""
    return f"{size / 2**30:.1f} GiB" if size >= 2**30 else f"{size / 2**20:.0f} MiB"


def tissue_share(layout: Layout, glass: int | None) -> float:
    """Share of the slide that is not glass, from a coarse class map."""
    if glass is None:
        return 1.0
    cell = max(1, -(-max(layout.height, layout.width) // SAMPLE_SIDE))
    box = Box(0, 0, -(-layout.height // cell), -(-layout.width // cell))
    return float(np.mean(layout.class_map(box, cell) != glass))


@dataclass(frozen=True, slots=True)
class ModelSize:
    """What memory depends on in a bundle: weights in bytes, numbers that a layer of the denoiser holds for a latent px, the
    decoder's last width, its halo; bytes of the features of a latent pixel where they are held (decoders with attention); the
    encoder's first width; whether the decoder has norms."""

    weights: int
    unet_width: float
    decoder_width: int
    halo: int
    features: int = 0
    encoder_width: int = 0
    norms: bool = False


def model_size(folder: Path) -> ModelSize:
    """Weights in bytes once loaded as float32, and the widths that decide the activations."""
    weights = 4 * sum(math.prod(shape) for name in LOADED for shape in read_shapes(folder / name).values())
    _, network = read_architecture(folder)
    vae = read_config(folder, "vae")
    decoder = _widths(vae, "block_out_channels", "decoder_block_out_channels")
    attention = attention_of(vae)
    halo = 0 if attention == "more" else last_halo(vae)  # cut off on the way to where most memory is taken
    features = 4 * decoder[-1] if attention == "middle" else 0
    encoder = _widths(vae, "block_out_channels", "encoder_block_out_channels")
    norms = vae.get("_class_name") != "AutoencoderTiny"
    planes = network.planes / read_card(folder).patch ** 2
    return ModelSize(weights, planes, decoder[0], halo, features, encoder[0], norms)


def _widths(config: Config, *keys: str) -> list[int]:
    return next((list(config[key]) for key in keys if config.get(key)), [64])
