"""What lies beside a slide: thumbnail, manifest, and the script that brings the annotations into QuPath."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from wsigen.base.geometry import Box
from wsigen.storage.files import atomic_path, write_atomic

_SCRIPT = """\
// Imports the annotations of a slide made by wsigen. In QuPath: open the slide, then Automate > Script
// editor, open this file and Run (Run for project handles many slides).
//
// X.geojson must lie in the same folder as X.ome.tiff. Running it again replaces the objects imported before.

import qupath.lib.images.ImageData
import qupath.lib.io.PathIO
import java.nio.file.Files
import java.nio.file.Paths

def imageData = getCurrentImageData()
if (imageData == null) {
    println 'wsigen: no image is open; open the slide first'
    return
}
imageData.setImageType(ImageData.ImageType.BRIGHTFIELD_H_E)

def uris = imageData.getServer().getURIs()
if (uris.isEmpty() || uris[0].getScheme() != 'file') {
    println 'wsigen: this image is not a local file, so no annotations can be found beside it'
    return
}
def image = Paths.get(new URI('file', null, uris[0].getPath(), null))
def base = image.getFileName().toString().replaceAll(/(?i)(\\.ome)?\\.tiff?$/, '')
def candidates = [base + '.geojson', base + '.geojson.gz'].collect { image.resolveSibling(it) }
def found = candidates.find { Files.isRegularFile(it) }
if (found == null) {
    println 'wsigen: no annotations found; expected ' + candidates[0] + ' (same folder and name as the slide)'
    return
}

def objects = PathIO.readObjects(found)
def ids = objects.collect { it.getID() } as Set
removeObjects(getAllObjects(false).findAll { ids.contains(it.getID()) }, true)
addObjects(objects)
fireHierarchyUpdate()
println 'wsigen: imported ' + objects.size() + ' annotations from ' + found
"""


def import_script() -> str:
    """Return a Groovy script for QuPath: it imports ``X.geojson`` into ``X.ome.tiff`` and says it is H&E."""
    return _SCRIPT


def write_thumbnail(slide_path: str | os.PathLike[str], png_path: str | os.PathLike[str], side: int = 1024) -> None:
    """Write a PNG of the whole slide whose longer side is at most ``side`` pixels; a slide is never enlarged."""
    from PIL import Image

    from wsigen.slide.reading import open_image

    slide = open_image(slide_path)
    scale = min(1.0, side / max(slide.height, slide.width))
    height, width = max(1, round(slide.height * scale)), max(1, round(slide.width * scale))
    pixels = slide.region(Box(0, 0, height, width), (height, width))
    with atomic_path(png_path) as beside:
        Image.fromarray(pixels).save(beside, format="PNG")


def write_manifest(path: str | os.PathLike[str], manifest: Mapping[str, Any]) -> None:
    """Write a manifest as JSON with sorted keys and an indent, so that two can be compared by line."""
    text = json.dumps(manifest, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False)
    write_atomic(Path(path), text.encode() + b"\n")
