"""``--ome-zarr``: slides as OME-Zarr 0.5, for viewers in browsers and for arrays in the cloud.

Written with zarr alone, which is what wsigen keeps its state in: https://ngff.openmicroscopy.org/0.5/.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from wsigen.base.errors import OutputError, refusing
from wsigen.base.geometry import Box
from wsigen.cohort.folder import CohortFolder
from wsigen.run.manifest import Manifest
from wsigen.slide.reading import ImageSource, open_image
from wsigen.storage.files import remove_tree

CHUNK_PX, SHARD_PX = 512, 4096
"""What a viewer reads at a time, and what lies in one file (px)."""

COLOURS = (("red", "FF0000"), ("green", "00FF00"), ("blue", "0000FF"))


def write_ome_zarr(folder: CohortFolder, row: dict[str, str], out: Path) -> Path:
    """Write a slide as ``ID.ome.zarr``; one that is there is not written again.

    Memory bound: a shard of 4096 px a side.

    Parameters
    ----------
    row : dict of str to str
        The slide's line of ``cohort.csv``.

    Raises
    ------
    OutputError
        If it cannot be written.
    """
    import zarr

    path, manifest = out / f"{row['id']}.ome.zarr", folder.manifest(row["id"])
    if path.is_dir():
        return path
    image, beside = open_image(folder.root / row["slide"]), out / f".{row['id']}.part"
    with refusing(OutputError, f"{path}: cannot be written", "make room, then the same command goes on"):
        remove_tree(beside)
        beside.mkdir(parents=True)
        group = zarr.open_group(beside, mode="w", zarr_format=3, attributes=_attributes(row, manifest, image))
        for number, size in enumerate(image.levels):
            _write_level(group, number, size, image)
        beside.rename(path)
    return path


# -- inside ------------------------------------------------------------------------------------------------------------


def _write_level(group: Any, number: int, size: tuple[int, int], image: ImageSource) -> None:
    height, width = size
    array = group.create_array(
        str(number),
        shape=(3, height, width),
        chunks=(1, CHUNK_PX, CHUNK_PX),
        shards=(3, SHARD_PX, SHARD_PX),
        dtype="uint8",
        fill_value=0,
        dimension_names=["c", "y", "x"],
    )
    for y in range(0, height, SHARD_PX):
        for x in range(0, width, SHARD_PX):
            box = Box(y, x, min(y + SHARD_PX, height), min(x + SHARD_PX, width))
            array[:, box.y0 : box.y1, box.x0 : box.x1] = np.moveaxis(image.read(number, box), 2, 0)


def _attributes(row: dict[str, str], manifest: Manifest, image: ImageSource) -> dict[str, Any]:
    """The metadata of OME-Zarr, and that the slide is synthetic."""
    mpp, datasets = manifest.slide.mpp, []
    for number, (height, width) in enumerate(image.levels):
        scale = image.height / height, image.width / width
        transformations = [{"type": "scale", "scale": [1.0, *(mpp * each for each in scale)]}]
        if number:  # a pixel's centre lies in the middle of those it is the mean of
            transformations.append({"type": "translation", "translation": [0.0, *(mpp * (each - 1) / 2 for each in scale)]})
        datasets.append({"path": str(number), "coordinateTransformations": transformations})
    axes = [{"name": "c", "type": "channel"}, *({"name": n, "type": "space", "unit": "micrometer"} for n in "yx")]
    window = {"min": 0, "max": 255, "start": 0, "end": 255}
    channels = [{"label": name, "color": colour, "active": True, "window": window} for name, colour in COLOURS]
    multiscale = {"name": row["id"], "axes": axes, "datasets": datasets, "type": "mean"}
    return {
        "ome": {"version": "0.5", "multiscales": [multiscale], "omero": {"channels": channels, "rdefs": {"model": "color"}}},
        "wsigen": {"synthetic": True, "statement": manifest.statement, "level0_sha256": row["level0_sha256"]},
    }
