"""A cleaned section as a tiled TIFF with its um/px, and its class map as QuPath annotations: a dataset's images."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipelines.her2st.sections import PATCH_MPP, Section
from pipelines.her2st.seeds import CLASS_NAMES, UNKNOWN, Labels
from pipelines.her2st.weak_labels import CLASS_COLOURS
from wsigen.base.classes import UNKNOWN as NOBODY_KNOWS
from wsigen.base.classes import ClassTable, TissueClass
from wsigen.base.geometry import Box
from wsigen.slide.annotations import write_annotations
from wsigen.storage.files import atomic_path

CELL_PX = 8
TILE_PX = 512


def write_section(section: Section, labels: Labels, folder: Path) -> Path:
    """Write ``folder/NAME.tif`` (lossless) and ``folder/NAME.geojson``; where the label is unknown there is no annotation.

    Parameters
    ----------
    labels : (H/8, W/8), values of `seeds`
    """
    import tifffile

    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{section.name}.tif"
    per_cm = 10_000 / PATCH_MPP
    with atomic_path(path) as beside:
        tifffile.imwrite(
            beside, section.rgb, tile=(TILE_PX, TILE_PX), photometric="rgb", compression="deflate", predictor=True,
            resolution=(per_cm, per_cm), resolutionunit="CENTIMETER", metadata=None,
        )  # fmt: skip
    classes = np.where(labels == UNKNOWN, np.uint8(NOBODY_KNOWS), labels)
    write_annotations(
        path.with_suffix(".geojson"),
        lambda box: _cut(classes, box),
        (classes.shape[0], classes.shape[1]),
        CELL_PX,
        (section.rgb.shape[0], section.rgb.shape[1]),
        drawn_table(),
        0,
        PATCH_MPP,
    )
    return path


def drawn_table() -> ClassTable:
    """The classes; glass is drawn as well, since what is outside every polygon is unknown."""
    pairs = zip(CLASS_NAMES, CLASS_COLOURS, strict=False)
    return ClassTable(tuple(replace(TissueClass(name, colour), background=False) for name, colour in pairs))


def _cut(classes: NDArray[np.uint8], box: Box) -> NDArray[np.uint8]:
    return classes[box.y0 : box.y1, box.x0 : box.x1]
