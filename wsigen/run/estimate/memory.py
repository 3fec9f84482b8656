"""Projected memory and disk of a run, by arithmetic anyone can check, compared with what there is before work starts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from wsigen.base.errors import ResourceError
from wsigen.models.attention import PART
from wsigen.models.halo import EFFECTIVE_HALO, POOLED_PX
from wsigen.sampling.passes import PassPlan
from wsigen.slide.pyramid import PyramidSpec
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


@dataclass(frozen=True, slots=True)
class ModelSize:
    """What memory depends on in a bundle: weights in bytes, the U-Net's first and the decoder's last width, its halo; bytes of
    the features of a latent pixel where they are held (decoders with attention); the encoder's first width; whether the decoder
    has norms."""

    weights: int
    unet_width: int
    decoder_width: int
    halo: int
    features: int = 0
    encoder_width: int = 0
    norms: bool = False


@dataclass(frozen=True, slots=True)
class Projection:
    """Projected need of a run in bytes.

    Attributes
    ----------
    denoise, decode:
        Arrays and activations of one task.
    chunks, blocks:
        Tasks of either kind that there are: more workers than that have nothing to do.
    weights:
        Of the model, once per process.
    driver:
        The driver's books, and a row of encoded blocks while it writes the slide.
    disk_state, disk_output, disk_scratch:
        Of the run directory's state; of the spool and the slide together; beside the slide while it is put together.
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

    @property
    def worker(self) -> int:
        """What one worker takes for its tasks, on top of its process: a decoded window beside what denoising left behind."""
        return self.denoise + self.decode

    def total(self, workers: int, processes: bool, tasks_at_once: int = 1) -> int:
        """Memory of ``workers`` local workers and the driver; threads share one process and one model.

        Tasks of a worker take turns at the model, but the heap keeps what each had at its own turn.
        """
        under_way = workers * tasks_at_once
        tasks = min(under_way, self.chunks) * self.denoise + min(under_way, self.blocks) * self.decode
        others = min(workers, max(self.chunks, self.blocks)) if processes else 0
        return self.driver + tasks + (1 + others) * (PROCESS + self.weights)


def project(
    passes: Sequence[PassPlan],
    channels: int,
    batch: int,
    model: ModelSize,
    slide: PyramidSpec,
    active_share: float,
    decode_window: int,
    encode_window: int,
) -> Projection:
    """Project memory of one worker's tasks, the driver's books, and the disk a run needs.

    Parameters
    ----------
    passes, channels, batch:
        Plans of all passes, latent channels, crops per model call.
    active_share:
        Share of the slide that is tissue, 0 .. 1.
    decode_window, encode_window:
        Sides of a decoded window and of an encoded one with its halo, in latent px.

    Notes
    -----
    An autoencoder also takes the windows of the decoder's shared statistics, and those of a picture that a pass starts from.

    A denoising task holds its chunk's reach (chunk + crop side, squared) as state, noise and sum, plus a chunk in transit, and
    the activations of a batch. A decoding task holds those of a window with its halo, and a block of the slide; with attention
    in the decoder also what the windows of a part of the block are decoded from.
    """
    denoise = decode = state = 0
    for part in passes:
        extent = max(part.height, part.width)
        reach = (min(part.chunk, extent) + part.side) ** 2 * channels * 4
        unet = batch * part.side**2 * model.unet_width * 4 * UNET_PLANES + UNET_FIXED
        denoise = max(denoise, 5 * reach + unet)
        window = math.prod(_window(side, decode_window, model.halo) * part.factor for side in (part.height, part.width))
        held = math.prod(min(side, PART + 2 * EFFECTIVE_HALO) for side in (part.height, part.width)) * model.features
        if model.norms:
            window = max(window, min(POOLED_PX, len(part.grid) * part.side**2) * part.factor**2)
        planes = window * model.decoder_width * 4 * DECODER_PLANES
        if part.start != "noise":
            encoded = math.prod(min(side, encode_window) * part.factor for side in (part.height, part.width))
            planes = max(planes, encoded * model.encoder_width * 4 * ENCODER_PLANES)
        decode = max(decode, planes + DECODER_FIXED + held)
        chunks = math.ceil(part.height / part.chunk) * math.ceil(part.width / part.chunk)
        live = 6 * part.chunk**2 * channels * 4 + 3 * reach  # three states and, with some samplers, three estimates
        state += int(chunks * max(active_share, 1 / chunks) * live)  # earlier passes stay until the end
    bytes_per_px = 0.5 if slide.compression == "jpeg" else 3.0
    row = (
        (slide.width + slide.block) * min(slide.block, slide.height) * bytes_per_px
    )  # the writer holds a row of blocks, and one
    output = int(slide.width * slide.height * 4 / 3 * bytes_per_px * max(active_share, 0.05))
    return Projection(
        denoise=denoise,
        decode=decode + min(slide.block, max(slide.width, slide.height)) ** 2 * 3 * BLOCK_COPIES,
        chunks=max(len(part.grid) for part in passes),
        blocks=len(slide.grid),
        weights=model.weights,
        driver=sum(len(part.grid) for part in passes) * DRIVER_PER_CHUNK + int(row),
        disk_state=state,
        disk_output=2 * output,
        disk_scratch=scratch_bytes(slide, bytes_per_px * max(active_share, 0.05)),
    )


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


def demand_disk(projection: Projection, run_dir: str | Path, output: Path, there: int = 0) -> None:
    """Refuse a run whose projected disk need exceeds the free space of where it would lie (ResourceError).

    An object store (``run_dir`` a URL) has no free space to ask for.

    Parameters
    ----------
    there:
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
