"""Compose a picture of a slide: thumbnail, class layout, two details at full resolution.

python examples/picture.py demo/demo.ome.tiff docs/demo.jpg --detail 900,1300 --detail 2300,2500
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw

SIDE = 640
"""Side of every panel in px."""

AREA = "Area µm^2"
"""The measurement by which annotations are drawn, large ones first."""


def thumbnail(slide: Any) -> Image.Image:
    """The whole slide."""
    return slide.get_thumbnail((SIDE, SIDE)).convert("RGB").resize((SIDE, SIDE))


def layout(geojson: Path, width: int, height: int) -> Image.Image:
    """The class map that lies beside the slide, in QuPath's colours."""
    image = Image.new("RGB", (SIDE, SIDE), (243, 241, 244))
    draw = ImageDraw.Draw(image)
    features = json.loads(geojson.read_text())["features"]
    for feature in sorted(features, key=lambda f: -f["properties"]["measurements"][AREA]):
        shape = feature["geometry"]
        polygons = [shape["coordinates"]] if shape["type"] == "Polygon" else shape["coordinates"]
        color = tuple(feature["properties"]["classification"]["color"])
        for outer, *holes in polygons:
            for ring, fill in ((outer, color), *((hole, (243, 241, 244)) for hole in holes)):
                draw.polygon([(x * SIDE / width, y * SIDE / height) for x, y in ring], fill=fill)
    return image


def detail(slide: Any, x: int, y: int) -> Image.Image:
    """A region at full resolution."""
    return slide.read_region((x, y), 0, (SIDE, SIDE)).convert("RGB")


def main() -> None:
    """Read the options, write the picture."""
    from tiffslide import TiffSlide

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("slide", type=Path)
    parser.add_argument("picture", type=Path)
    parser.add_argument("--detail", action="append", default=[], metavar="X,Y")
    options = parser.parse_args()
    slide = TiffSlide(options.slide)
    width, height = slide.dimensions
    beside = options.slide.with_name(options.slide.name.removesuffix(".ome.tiff") + ".geojson")
    panels = [thumbnail(slide), layout(beside, width, height)]
    panels += [detail(slide, *(int(v) for v in xy.split(","))) for xy in options.detail]
    columns = (len(panels) + 1) // 2
    sheet = Image.new("RGB", (columns * SIDE + (columns - 1) * 8, 2 * SIDE + 8), (255, 255, 255))
    for k, panel in enumerate(panels):
        sheet.paste(panel, ((k // 2) * (SIDE + 8), (k % 2) * (SIDE + 8)))
    sheet.save(options.picture, quality=88)


if __name__ == "__main__":
    main()
