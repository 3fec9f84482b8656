"""What a finished run hands back: the slide, the files beside it, and readers for them."""

from __future__ import annotations

import json
from base64 import b64encode
from dataclasses import dataclass
from html import escape
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wsigen.slide.class_picture import class_picture, veiled

if TYPE_CHECKING:
    from PIL.Image import Image
    from tiffslide import TiffSlide

SHOWN_PX = 512
"""Longest side of the picture that a notebook shows, px."""


@dataclass(frozen=True, slots=True, repr=False)
class Result:
    """A finished slide and the files beside it.

    Attributes
    ----------
    slide, annotations, manifest, thumbnail, overlay, script : Path
        The OME-TIFF, GeoJSON, JSON, JPEG of the whole slide, the same with the classes over it, and QuPath script.
    level0_sha256 : str
        SHA-256 over the encoded tiles of level 0, the slide's identity in pixels.
    area_px : dict of str to float
        Pixels of each class at full resolution, glass left out.
    layout : str or None
        The file of the layout, or by what it was drawn; None if there was none.
    notes : tuple of str
        What was to be known of the inputs before the run began, a line each: what of a drawing was left out, mended or guessed.
        `resume` does not say it again.

    Examples
    --------
    >>> result = wsigen.generate("slide.ome.tiff", layout="regions.geojson")
    >>> result.open().read_region((0, 0), 0, (512, 512))
    >>> [feature["properties"]["classification"]["name"] for feature in result.read_annotations()]
    """

    slide: Path
    annotations: Path
    manifest: Path
    thumbnail: Path
    overlay: Path
    script: Path
    level0_sha256: str
    area_px: dict[str, float]
    layout: str | None = None
    notes: tuple[str, ...] = ()

    def open(self) -> TiffSlide:
        """The slide as a ``tiffslide.TiffSlide`` (with OpenSlide's methods); close it, or use it in a ``with`` statement."""
        from tiffslide import TiffSlide

        return TiffSlide(self.slide)

    def read_annotations(self) -> list[dict[str, Any]]:
        """The GeoJSON features, one for each connected region of a class; coordinates are px of the full resolution."""
        features: list[dict[str, Any]] = json.loads(self.annotations.read_text(encoding="utf-8"))["features"]
        return features

    def read_manifest(self) -> dict[str, Any]:
        """Every parameter, seed, version, hash and checksum."""
        content: dict[str, Any] = json.loads(self.manifest.read_text(encoding="utf-8"))
        return content

    def read_thumbnail(self) -> Image:
        """The whole slide as a picture of 1024 px at most, and smaller than its file."""
        from PIL import Image

        with Image.open(self.thumbnail) as image:
            return image.convert("RGB")

    def __repr__(self) -> str:
        classes = ", ".join(name for name, area in self.area_px.items() if area)
        return f"Result({str(self.slide)!r}, {classes or 'no annotations'}, sha256 {self.level0_sha256[:12]})"

    def _repr_html_(self) -> str:
        """Thumbnail with the classes drawn over it, and their legend; without references to other files."""
        picture = BytesIO()
        self._draw_classes().save(picture, format="JPEG", quality=85)
        colours = self._colours()
        total = sum(self.area_px.values()) or 1.0
        legend = " ".join(
            f'<span style="color:rgb{colours[name]}">&#9632;</span>&nbsp;{escape(name)}&nbsp;{100 * area / total:.0f}&nbsp;%'
            for name, area in self.area_px.items()
            if area
        )
        return (
            f'<figure style="margin:0"><img alt="{escape(self.slide.name)}" '
            f'src="data:image/jpeg;base64,{b64encode(picture.getvalue()).decode()}">'
            f"<figcaption><b>{escape(str(self.slide))}</b> (synthetic)<br>{legend}</figcaption></figure>"
        )

    def _colours(self) -> dict[str, tuple[int, ...]]:
        return {c["name"]: tuple(c["color"]) for c in self.read_manifest()["classes"]}

    def _draw_classes(self) -> Image:
        """The thumbnail, a veil of its colour over each class."""
        image = self.read_thumbnail()
        image.thumbnail((SHOWN_PX, SHOWN_PX))
        slide = self.read_manifest()["slide"]
        size = slide["height"], slide["width"]
        return veiled(image, class_picture(self.read_annotations(), size, (image.height, image.width)))
