"""Slides, annotations and cohorts for the tests of `wsigen.viewing`."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from slide_making import make_slide, smooth_field, tissue

from wsigen.base.classes import UNKNOWN, ClassTable, TissueClass
from wsigen.run.engine.stage import Stage
from wsigen.slide.ome import ome_xml
from wsigen.slide.pyramid import PyramidSpec
from wsigen.slide.sidecars import write_annotations
from wsigen.slide.tiles import EncodedBlock, encode_block, read_block
from wsigen.slide.writer import write_slide

CLASSES = {"Tumor": [200, 0, 0], "Stroma": [0, 160, 60]}


class Repeating:
    """A spool in which every block is the same one: a slide of any size at the cost of copying tiles."""

    def __init__(self, spec: PyramidSpec) -> None:
        self.spec = spec
        block = read_block(encode_block(spec, (0, 0), tissue(spec.block, spec.block)))
        self.block = block

    def key(self, ij: tuple[int, int]) -> str:
        return str(ij)

    def done(self) -> set[tuple[int, int]]:
        return set(self.spec.grid)

    def read(self, ij: tuple[int, int]) -> EncodedBlock:
        def moved(level: int, row: int, column: int) -> tuple[int, int, int]:
            across = self.spec.block // self.spec.tile >> level
            return level, row + ij[0] * across, column + ij[1] * across

        tiles = {moved(*key): data for key, data in self.block.tiles.items()}
        return EncodedBlock(ij, asdict(self.spec), tiles, self.block.remainder)


def large_slide(path: Path, side: int) -> Path:
    """A slide of whole blocks of the same pixels."""
    spec = PyramidSpec(side, side, 0.5, 20, quality=40)
    write_slide(path, spec, Repeating(spec), ome_xml(spec, path.name, {}))  # type: ignore[arg-type]
    return path


def small_slide(folder: Path, width: int = 1500, height: int = 1100, name: str = "a", **more: Any) -> Path:
    """A slide with annotations beside it."""
    make_slide(folder / "made", PyramidSpec(width, height, 0.5, 20, **more), tissue(height, width))
    path = folder / f"{name}.ome.tiff"
    (folder / "made" / "x.ome.tiff").rename(path)
    write_areas(folder / f"{name}.geojson", width, height)
    return path


def write_areas(path: Path, width: int, height: int, names: tuple[str, ...] = tuple(CLASSES)) -> None:
    """Two areas side by side with a gap around; the first has a hole. All corners are multiples of 8 px."""
    x0, x1, x2, y0, y1 = 96, width // 2 // 8 * 8, (width - 96) // 8 * 8, 96, (height - 96) // 8 * 8
    hole = [[304, 400], [304, 496], [432, 496], [432, 400], [304, 400]]
    rings = [[_ring(x0, y0, x1, y1), hole], [_ring(x1, y0, x2, y1)]]
    features = [
        {
            "type": "Feature",
            "geometry": {"type": "Polygon", "coordinates": each},
            "properties": {"objectType": "annotation", "classification": {"name": name, "color": colour}},
        }
        for each, name, colour in zip(rings, names, CLASSES.values(), strict=True)
    ]
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}), encoding="utf-8")


def _ring(x0: int, y0: int, x1: int, y1: int) -> list[list[int]]:
    return [[x0, y0], [x1, y0], [x1, y1], [x0, y1], [x0, y0]]


def drawn_classes(path: Path, width: int, height: int) -> np.ndarray[Any, Any]:
    """Which class is at each px of a slide: 0 none, 1, 2 in the order of the file; by comparison of corners alone."""
    out = np.zeros((height, width), np.uint8)
    for number, feature in enumerate(json.loads(path.read_text(encoding="utf-8"))["features"], start=1):
        outer, *holes = feature["geometry"]["coordinates"]
        (x0, y0), (x1, y1) = outer[0], outer[2]
        out[y0:y1, x0:x1] = number
        for hole in holes:
            (a, b), (c, d) = hole[0], hole[2]
            out[b:d, a:c] = 0
    return out


def cohort(folder: Path, count: int = 3) -> Path:
    """A folder as a cohort has it: slides, annotations and the table."""
    slides = folder / "slides"
    slides.mkdir(parents=True)
    rows = ["id,split,subtype,slide"]
    for number in range(count):
        path = small_slide(slides, 1024 + 256 * number, 1024, f"demo-{number}")
        split, subtype = ("train", "test")[number % 2], ("ductal", "lobular", "<b>mixed</b>")[number % 3]
        rows.append(f"demo-{number},{split},{subtype},slides/{path.name}")
    (folder / "cohort.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    return folder


def painted_slide(folder: Path, width: int, height: int, name: str, seed: int = 0) -> Path:
    """A slide with glass around a section, and classes of round shapes that are painted in colours of their own."""
    from scipy.ndimage import zoom

    cells = (height // 8, width // 8)
    y, x = np.mgrid[: cells[0], : cells[1]]
    field = smooth_field(cells[0] + 8, cells[1] + 8, 32, seed)[: cells[0], : cells[1]]
    far = np.hypot((x / cells[1] - 0.5) / 0.46, (y / cells[0] - 0.5) / 0.44) + 0.06 * field
    classes = np.where(field > 0.5, 1, np.where(field < -0.9, 2, 0)).astype(np.uint8)
    classes[far > 1] = UNKNOWN
    classes_of = (TissueClass("Stroma", (150, 200, 150)), TissueClass("Tumor", (200, 0, 0)), TissueClass("Fat", (240, 200, 60)))
    table = ClassTable(classes_of)
    colours = np.array([[222, 160, 196], [150, 95, 170], [240, 226, 238]])
    of_cell = np.where((far > 1)[..., None], (246, 243, 247), colours[np.minimum(classes, 2)])
    whole = zoom(of_cell.astype(np.float32), (8, 8, 1), order=1, grid_mode=True, mode="nearest")[:height, :width]
    texture = tissue(height, width, seed).astype(np.float32) - np.array([205.0, 150.0, 190.0])
    glass = np.kron(far > 1, np.ones((8, 8)))[..., None]
    rgb = np.clip(whole + np.where(glass, 0, 0.9 * texture), 0, 255).astype(np.uint8)
    make_slide(folder / "made", PyramidSpec(width, height, 0.5, 20), rgb)
    path = folder / f"{name}.ome.tiff"
    (folder / "made" / "x.ome.tiff").rename(path)
    drawn = folder / f"{name}.geojson"
    write_annotations(drawn, lambda box: classes[box.slices], cells, 8, (height, width), table, seed, 0.5)
    return path


def fake_edit(slide: Path, output: Path, *, regions: Path, strength: float, seed: int, watch: Any, **more: Any) -> None:
    """In place of `wsigen.edit`: the regions become blue where they were drawn; what was asked for is kept beside the slide."""
    import tifffile
    from PIL import Image, ImageDraw

    drawn = json.loads(Path(regions).read_text(encoding="utf-8"))
    mask = Image.new("L", tifffile.imread(slide).shape[1::-1])
    for feature in drawn["features"]:
        (ring,) = feature["geometry"]["coordinates"]
        ImageDraw.Draw(mask).polygon([tuple(corner) for corner in ring], fill=1)
    rgb = tifffile.imread(slide).astype(np.int16)
    rgb[np.asarray(mask) == 1] += np.array([-60, -40, 20], np.int16)
    made = output.parent / "made"
    make_slide(made, PyramidSpec(rgb.shape[1], rgb.shape[0], 0.5, 20), np.clip(rgb, 0, 255).astype(np.uint8))
    (made / "x.ome.tiff").rename(output)
    said = {"seed": seed, "strength": strength, "regions": drawn}
    output.with_name(output.name.replace(".ome.tiff", ".regions")).write_text(json.dumps(said), encoding="utf-8")
    watch(Stage("write slide", 1, done=1, finished=True))
