"""Open the images of a dataset: size, um/px, and a copy that can be read by region where the file cannot."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

from wsigen.base.errors import DatasetError
from wsigen.dataset.settings import Source, TileSource
from wsigen.dataset.tables import keys
from wsigen.slide.reading import ImageSource, as_rgb, open_image
from wsigen.storage.files import atomic_path

COPY_FROM_PX = 2**22
"""An untiled image of more pixels is copied once as a tiled TIFF: decoding all of it for each crop would be slow."""


def open_listed(path: Path, name: str, source: Source, cache: Path) -> ImageSource:
    """Open an image of a dataset: its pixels may be read from a copy in the cache, its um/px is known.

    Raises
    ------
    ImageError
        If it cannot be opened.
    DatasetError
        If nobody says its um/px.
    """
    image = open_image(path)
    mpp = stated_mpp(source, name) or image.mpp
    if mpp is None:
        raise DatasetError(f"{name}: no um/px in the file; give 'mpp:' in its source")
    if image.height * image.width > COPY_FROM_PX and not image.by_region:
        image = replace(image, path=str(tiled_copy(Path(image.path), cache)))
    return replace(image, mpp=float(mpp))


def stated_mpp(source: Source, name: str) -> float | None:
    """Return the um/px a source states for an image, which goes before what the file says."""
    if isinstance(source, TileSource) or not isinstance(source.mpp, dict):
        return source.mpp if not isinstance(source.mpp, dict) else None
    return next((source.mpp[key] for key in keys(name) if key in source.mpp), None)


def tiled_copy(path: Path, cache: Path) -> Path:
    """Write an image as a tiled TIFF pyramid without loss into the cache, once; returns its path.

    Raises
    ------
    DatasetError
        If it cannot be written; nothing half-written stays.
    """
    import pyvips

    stat = path.stat()
    key = hashlib.sha256(f"{path}:{stat.st_size}:{stat.st_mtime_ns}".encode()).hexdigest()[:16]
    target = cache / "tiled" / f"{path.stem}-{key}.tif"
    if not target.exists():
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            image = as_rgb(pyvips.Image.new_from_file(str(path), access="sequential", fail_on="error"))
            with atomic_path(target) as beside:
                image.tiffsave(
                    str(beside), tile=True, tile_width=512, tile_height=512, compression="deflate", level=1,
                    predictor="horizontal", bigtiff=True, pyramid=True
                )  # fmt: skip
        except (pyvips.Error, OSError) as error:  # the image was read to its end before: it is the writing
            reason = " ".join((getattr(error, "detail", "") or str(error)).split())[:160]
            raise DatasetError(
                f"{target.parent}: the tiled copy of {path.name} cannot be written ({reason}); make room, or give "
                "another --cache"
            ) from None
    return target
