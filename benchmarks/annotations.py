"""Seconds to read 100,000 detections on a slide as training data, and to look up the classes of a batch's crops among them.

The GeoJSON is what QuPath exports of a slide of 16,000 px: stroma, a large tumour, and polygons of 20 corners all over it. CPU
time of this process, so that it holds on a shared machine; alone on a machine, wall time is the same. The quick form has a
tenth of the detections, on the same slide.
"""

from __future__ import annotations

import json
import math
import random
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from time import process_time
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.figure import Figure, Options
from benchmarks.processes import peak_rss

if TYPE_CHECKING:
    from wsigen.base.classes import ClassTable
    from wsigen.dataset.dataset import Dataset

SIDE, DETECTIONS, PATCH, BATCH = 16_000, 100_000, 512, 16

DATA_S, LOOKUP_S = 15.0, 0.3
"""Targets: building the index of the dataset, and the lookups of one batch."""

CLASSES = ("Tumor", "Stroma", "Immune cells")


def measure(options: Options) -> list[Figure]:
    from wsigen.dataset.dataset import open_dataset
    from wsigen.dataset.settings import DatasetSettings

    count = DETECTIONS // 10 if options.quick else DETECTIONS
    write_detections(options.folder / "slide.geojson", count)
    write_slide(options.folder / "slide.tif")
    settings = DatasetSettings.model_validate(
        {
            "root": options.folder,
            "classes": [{"name": name, "color": (i, i, i)} for i, name in enumerate(CLASSES)],
            "levels": [{"name": "patch", "mpp": 0.5}],
            "patch_px": PATCH,
            "sources": [{"kind": "annotated", "images": "slide.tif", "mpp": 0.5}],
        }
    )
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        reading, peak = pool.submit(_read, options.folder / "slide.geojson", settings.table).result()
    begin = process_time()
    dataset = open_dataset(settings, options.folder / "cache")
    indexing, lookup = process_time() - begin, _lookup(dataset)
    what = f"{count:,} detections on a slide of {SIDE:,} px"
    detail = f"CPU time; reading the GeoJSON alone takes {reading:.1f} s and a process of {peak / 2**20:.0f} MiB at its peak"
    return [
        Figure("annotations", f"building the index of {what}", indexing, DATA_S, detail, "s"),
        Figure("annotations", f"lookups of a batch of {BATCH} crops of {PATCH} px, {what}", lookup, LOOKUP_S, "CPU time", "s"),
    ]


def _read(path: Path, table: ClassTable) -> tuple[float, int]:
    """Seconds of reading a GeoJSON in this process, and its peak memory in bytes."""
    from wsigen.layout.geojson import read_geojson

    begin = process_time()
    read_geojson(path, table, (SIDE, SIDE), 0)
    return process_time() - begin, peak_rss()


def _lookup(dataset: Dataset, batches: int = 8) -> float:
    """Seconds that a batch spends with class maps: of each crop's patch, and of the crop."""
    rng, patches, drawer = np.random.default_rng(0), dataset.split_patches("training"), dataset.drawer("training")
    begin = process_time()
    for _ in range(batches * BATCH):
        row, _ = drawer.draw(rng)
        member, box = dataset.members[patches.member[row]], patches.box(row, PATCH)
        for _ in range(2):
            member.class_map(box, dataset.mpps[0])
    return (process_time() - begin) / batches


def write_detections(path: Path, count: int) -> None:
    """Write a GeoJSON of two annotations and ``count`` detections of 12 to 28 px."""
    rng = random.Random(0)
    features = [_feature([(0, 0), (SIDE, 0), (SIDE, SIDE), (0, SIDE)], "Stroma", "annotation")]
    features += [_feature([(2000, 2000), (8000, 2000), (8000, 8000), (2000, 8000)], "Tumor", "annotation")]
    for _ in range(count):
        x, y, radius = rng.uniform(20, SIDE - 20), rng.uniform(20, SIDE - 20), rng.uniform(6, 14)
        turns = [(math.cos(k * math.pi / 10), math.sin(k * math.pi / 10)) for k in range(20)]
        features.append(_feature([(x + radius * c, y + radius * s) for c, s in turns], "Immune cells", "detection"))
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}), encoding="utf-8")


def _feature(corners: list[tuple[float, float]], name: str, kind: str) -> dict[str, Any]:
    ring = [[round(x, 2), round(y, 2)] for x, y in [*corners, corners[0]]]
    return {
        "type": "Feature",
        "id": "00000000-0000-0000-0000-000000000000",
        "geometry": {"type": "Polygon", "coordinates": [ring]},
        "properties": {"objectType": kind, "classification": {"name": name, "color": [200, 0, 0]}},
    }


def write_slide(path: Path) -> None:
    """Write a tiled pyramid of stained noise."""
    import pyvips

    amount = 0.3 + np.random.default_rng(0).random((2000, 2000, 1)) * np.array([0.5, 1.0, 0.4])
    pixels = (255 * np.exp(-amount)).astype(np.uint8)
    tile = pyvips.Image.new_from_memory(pixels.tobytes(), 2000, 2000, 3, "uchar")
    tile.replicate(SIDE // 2000, SIDE // 2000).tiffsave(str(path), tile=True, pyramid=True, compression="jpeg")
