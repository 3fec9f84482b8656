"""`ShownSlide`: a slide on the page, what the page is told of it, and the pictures that stand for it."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wsigen.base.errors import ImageError, printable
from wsigen.base.geometry import Box
from wsigen.slide.class_picture import class_picture, read_features
from wsigen.slide.marks import synthetic_mark
from wsigen.slide.reading import ImageSource, open_image
from wsigen.viewing.tile_table import tile_table

SERVED_TILE_PX = 512
"""Side of the tiles that are made for a browser from a slide whose own it cannot decode."""

PICTURE_PX = 1024
"""Longest side of the picture of a whole slide."""

CLASSES_PX = 512
"""Longest side of the picture of its classes."""

MOST_MANIFEST_BYTES = 8 * 2**20


@dataclass(frozen=True, slots=True)
class ShownSlide:
    """A slide as the page shows it.

    Attributes
    ----------
    id : str
        By which the page tells slides apart.
    path : str
        The file, or the URL of a TIFF.
    url : str
        Where the page finds the file, relative to itself, quoted; empty for a slide whose tiles are made by the server.
    annotations : Path or None
        GeoJSON of its classes.
    annotations_url : str
        As ``url``.
    split, subtype : str
        For a gallery.
    real : bool
        Whether its user says that it is a real slide.
    """

    id: str
    path: str
    url: str = ""
    annotations: Path | None = None
    annotations_url: str = ""
    split: str = ""
    subtype: str = ""
    real: bool = False

    @property
    def name(self) -> str:
        """The file's name."""
        return self.path.rstrip("/").rpartition("/")[2]

    def open(self) -> ImageSource:
        """The slide, for its pixels (ImageError)."""
        return open_image(self.path)

    def entry(self, number: int) -> dict[str, Any]:
        """What a gallery says of the slide, whose pictures have this number; its pixels are not looked at."""
        return {
            "id": self.id,
            "number": number,
            "name": printable(self.name),
            "split": self.split,
            "subtype": self.subtype,
            "mark": mark_of(self.path, self.real),
            "about": f"page/slides/{number}.json",
            "picture": f"page/pictures/{number}.jpg",
            "classes": f"page/classes/{number}.png" if self.annotations else "",
        }

    def record(self, number: int, tiles_url: str = "") -> dict[str, Any]:
        """What the viewer is told of the slide.

        Parameters
        ----------
        tiles_url : str
            Where a server makes tiles of the slide, should a browser not read them from the file; empty where none does.
        """
        image = self.open()
        height, width = square_size(image)
        table = tile_table(Path(self.path)) if self.url and image.aspect == 1.0 else None
        made = {"url": tiles_url, "tile": SERVED_TILE_PX, "levels": served_levels(height, width)} if tiles_url else None
        return {
            **self.entry(number),
            "width": width,
            "height": height,
            "mpp": image.mpp,
            "file": self.url if table else "",
            "table": table,
            "served": None if table else made,
            "annotations": self.annotations_url,
            "origin": list(_origin(image)),
            "aspect": image.aspect,
            "editable": "://" not in self.path,
            "facts": facts(self.path),
        }

    def picture(self) -> bytes:
        """The whole slide as a JPEG of ``PICTURE_PX`` at most."""
        image = self.open()
        height, width = square_size(image)
        scale = min(1.0, PICTURE_PX / max(height, width))
        canvas = max(1, round(height * scale)), max(1, round(width * scale))
        return jpeg(image.region(Box(0, 0, *canvas), canvas), 80)

    def class_picture(self) -> bytes:
        """Its classes in their colours as a PNG, clear where there is none."""
        from PIL import Image

        if self.annotations is None:
            raise ImageError(f"{self.path}: no annotations lie beside it; there is no picture of its classes")
        image = self.open()
        scale = min(1.0, CLASSES_PX / max(image.height, image.width))
        canvas = max(1, round(image.height * scale)), max(1, round(image.width * scale))
        buffer = BytesIO()
        pixels = class_picture(read_features(self.annotations), (image.height, image.width), canvas, _origin(image))
        Image.fromarray(pixels, "RGBA").quantize(64).save(buffer, format="PNG", optimize=True)
        return buffer.getvalue()

    def served_tile(self, level: int, row: int, column: int) -> bytes:
        """A tile of a level that is 1 / 2^level of the slide, as a JPEG; for browsers that cannot decode the file's own.

        Raises
        ------
        KeyError
            If there is no such tile.
        """
        image = self.open()
        height, width = square_size(image)
        if not 0 <= level < served_levels(height, width):
            raise KeyError(level)
        canvas = -(-height >> level), -(-width >> level)
        y, x = row * SERVED_TILE_PX, column * SERVED_TILE_PX
        if not (0 <= y < canvas[0] and 0 <= x < canvas[1]):
            raise KeyError((row, column))
        box = Box(y, x, min(y + SERVED_TILE_PX, canvas[0]), min(x + SERVED_TILE_PX, canvas[1]))
        return jpeg(image.region(box, canvas), 90)


def square_size(image: ImageSource) -> tuple[int, int]:
    """``(height, width)`` in square px, as the page shows a slide."""
    return max(1, round(image.height * image.aspect)), image.width


def _origin(image: ImageSource) -> tuple[int, int]:
    """``(x, y)`` that annotations count from, px of the slide: QuPath shows the part that was scanned alone."""
    return (image.scanned.x0, image.scanned.y0) if image.scanned is not None else (0, 0)


def served_levels(height: int, width: int) -> int:
    """Levels, each half of the one before, down to one tile."""
    return max(0, (max(height, width) - 1).bit_length() - (SERVED_TILE_PX - 1).bit_length()) + 1


def mark_of(path: str, real: bool) -> str:
    """What the page writes over a slide: the slide's own statement goes before what its user says.

    Returns
    -------
    str
        ``synthetic``, ``partly synthetic``, ``real``, or nothing where nobody says.
    """
    said = {"true": "synthetic", "partly": "partly synthetic"}.get(synthetic_mark(path) or "", "")
    return said or ("real" if real else "")


def facts(path: str) -> list[list[str]]:
    """What the manifest beside a slide of ours says to people: label and value."""
    base = re.sub(r"(\.ome)?\.tiff?$", "", path, flags=re.IGNORECASE)
    try:
        with Path(f"{base}.json").open("rb") as file:
            said = json.loads(file.read(MOST_MANIFEST_BYTES))
        sampling, model, last = said["sampling"], said["model"], said["passes"][-1]
        rows = {
            "Model": model["title"] or model["name"],
            "Licence": model["licence"],
            "Layout": said["layout"],
            "Seed": sampling["seed"],
            "Mode": last["mode"],
            "Steps": len(last["schedule"]["timesteps"]),
            "Made": said["created"],
            "Run": said["run_id"],
        }
    except (OSError, ValueError, KeyError, TypeError, IndexError):  # not ours: nothing is said
        return []
    return [[label, printable(str(value))] for label, value in rows.items() if value not in (None, "")]


def jpeg(pixels: NDArray[np.uint8], quality: int) -> bytes:
    """Encode uint8 ``(h, w, 3)``."""
    from PIL import Image

    buffer = BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(buffer, format="JPEG", quality=quality)
    return buffer.getvalue()
