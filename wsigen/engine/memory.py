"""Projected memory and disk of a run, by arithmetic anyone can check, compared with what there is before work starts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from wsigen.errors import ResourceError
from wsigen.folder.opening import is_url
from wsigen.sampling.multiscale import PassPlan
from wsigen.slide.pyramid import PyramidSpec

MIB = 2**20

PROCESS = 450 * MIB
"""A worker process with torch, diffusers, zarr and dask loaded, before any array (measured: 380-430 MiB)."""

DRIVER_PER_CHUNK = 400
"""Bytes the driver keeps per chunk: its place in the wavefront."""

UNET_PLANES = 14
"""Full-resolution float32 feature maps alive at the widest point of a U-Net, over its first width (measured: 9-12)."""

DECODER_PLANES = 5
"""The same for the decoder, over its last width (measured: 3-4)."""


@dataclass(frozen=True, slots=True)
class ModelSize:
    """What memory depends on in a bundle: weights in bytes, the U-Net's first and the decoder's last width, its halo."""

    weights: int
    unet_width: int
    decoder_width: int
    halo: int


@dataclass(frozen=True, slots=True)
class Projection:
    """Projected need of a run in bytes."""

    worker: int
    driver: int
    disk_state: int
    disk_output: int

    def total(self, workers: int, processes: bool) -> int:
        """Memory of ``workers`` local workers and the driver; threads share one process and one model."""
        per_process = PROCESS if processes else 0
        return PROCESS + self.driver + workers * (self.worker + per_process)


def project(
    passes: Sequence[PassPlan],
    channels: int,
    batch: int,
    model: ModelSize,
    slide: PyramidSpec,
    active_share: float,
    decode_window: int,
) -> Projection:
    """Project memory of one worker task, the driver's books, and the disk a run needs.

    Parameters
    ----------
    passes, channels, batch:
        Plans of all passes, latent channels, crops per model call.
    active_share:
        Share of the slide that is tissue, 0 .. 1.
    decode_window:
        Side of a decoded window in latent px.

    Notes
    -----
    A task holds its chunk's reach (chunk + crop side, squared) as state, noise and sum, plus a chunk in transit; model
    activations come on top for denoising, decoded windows and a block of the slide for decoding.
    """
    worker = 0
    state = 0
    for part in passes:
        reach = (min(part.chunk, max(part.height, part.width)) + part.side) ** 2 * channels * 4
        unet = batch * part.side**2 * model.unet_width * UNET_PLANES * 4
        window = (decode_window + 2 * model.halo) * part.factor
        decode = window**2 * model.decoder_width * DECODER_PLANES * 4 + slide.block**2 * 3 * 6
        worker = max(worker, 5 * reach + max(unet, decode))
        chunks = math.ceil(part.height / part.chunk) * math.ceil(part.width / part.chunk)
        live = 6 * part.chunk**2 * channels * 4 + 3 * reach  # three states and, with some samplers, three estimates
        state += int(chunks * max(active_share, 1 / chunks) * live)  # earlier passes stay until the end
    driver = sum(len(part.grid) for part in passes) * DRIVER_PER_CHUNK
    bytes_per_px = 0.5 if slide.compression == "jpeg" else 3.0
    output = int(slide.width * slide.height * 4 / 3 * bytes_per_px * max(active_share, 0.05))
    return Projection(worker + model.weights, driver, state, 2 * output)


def demand_memory(projection: Projection, workers: int, processes: bool, allowed: int) -> None:
    """Refuse a run whose projected memory exceeds what is allowed; the message gives both numbers (ResourceError)."""
    needed = projection.total(workers, processes)
    if needed > allowed:
        raise ResourceError(
            f"projected memory {gib(needed)} for {workers} worker(s) exceeds the allowed {gib(allowed)}; "
            "use fewer --workers, a smaller --chunk or --batch, or raise --memory-gb"
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
    wanted = [(output, projection.disk_output // 2)]
    if not is_url(run_dir):
        wanted.append((Path(run_dir), rest))
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
