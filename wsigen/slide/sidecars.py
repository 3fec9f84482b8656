"""What lies beside a slide: thumbnail, manifest, and the script that brings the annotations into QuPath."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from wsigen.base.geometry import Box
from wsigen.storage.files import atomic_path, write_atomic


def import_script() -> str:
    """Return a Groovy script for QuPath: it imports ``X.geojson`` into ``X.ome.tiff`` and says it is H&E."""
    return (Path(__file__).parent / "import_annotations.groovy").read_text(encoding="utf-8")


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
