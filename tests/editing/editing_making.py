"""Regions to be made anew, and what lies in the files of slides."""

import json

import tifffile

from wsigen.base.geometry import Box
from wsigen.slide.reading import open_image

SIZE = (1600, 2100)


def drawing(path, *rectangles):
    """GeoJSON of rectangles ``(x, y, w, h, class)``."""
    features = []
    for x, y, w, h, name in rectangles:
        ring = [[x, y], [x + w, y], [x + w, y + h], [x, y + h], [x, y]]
        features.append(
            {
                "type": "Feature",
                "geometry": {"type": "Polygon", "coordinates": [ring]},
                "properties": {"objectType": "annotation", "classification": {"name": name} if name else None},
            }
        )
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    return path


def pixels(path, level=0):
    image = open_image(path)
    return image.read(level, Box(0, 0, *image.levels[level])).astype(int)


def tiles_of(path):
    """The bytes of every tile of every level."""
    found = {}
    with tifffile.TiffFile(path) as tif, path.open("rb") as file:
        for level, series in enumerate(tif.series[0].levels):
            page = series.pages[0]
            for n, (offset, size) in enumerate(zip(page.dataoffsets, page.databytecounts, strict=True)):
                file.seek(offset)
                found[level, n] = file.read(size)
    return found
