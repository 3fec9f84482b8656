"""What is wrong with a label image: its bands, its format, its values."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from wsigen.base.classes import ClassTable
from wsigen.base.errors import LayoutError

STRIP_PX = 2**24


def check_image(path: Path, image: Any) -> None:
    """Refuse images that are not one band of whole numbers.

    Raises
    ------
    LayoutError
        For colour and palette images, fractions, and fewer than 8 bits (libvips stretches those to 0..255).
    """
    fields = image.get_fields()
    remedy = "save the labels as one band of 8 or 16 bit whole numbers (grey PNG or TIFF)"
    if "palette" in fields and image.get("palette"):
        raise LayoutError(f"{path}: a palette image, its colours are read and not its labels; {remedy}")
    if image.bands != 1:
        raise LayoutError(f"{path}: the image has {image.bands} bands, labels need one (palette or colours?); {remedy}")
    if image.format not in ("uchar", "char", "ushort", "short", "uint", "int"):
        raise LayoutError(f"{path}: the values are of type {image.format}, not whole numbers; {remedy}")
    bits = image.get("bits-per-sample") if "bits-per-sample" in fields else 8
    if bits < 8:
        raise LayoutError(f"{path}: the image has {bits} bit per pixel; {remedy}")


def check_values(path: Path, image: Any, known: Mapping[int, int], table: ClassTable) -> None:
    """Read the whole image once, strip by strip, and refuse values without a class.

    Raises
    ------
    LayoutError
        Naming the values, their pixels, and the known ones. A truncated file raises ``pyvips.Error``.
    """
    unknown = {v: n for v, n in _histogram(image).items() if v not in known}
    if not unknown:
        return
    most = sorted(unknown, key=lambda v: (-unknown[v], v))[:8]
    values = ", ".join(str(v) for v in most) + (f" and {len(unknown) - 8} more" if len(unknown) > 8 else "")
    names = ", ".join(f"{v}: {table[i].name}" for v, i in sorted(known.items()))
    raise LayoutError(
        f"{path}: unknown label values {values} in {sum(unknown.values())} of "
        f"{image.width * image.height} pixels; "
        f"known: {names}; correct the image or give a class table"
    )


def _histogram(image: Any) -> Counter[int]:
    """Return how many pixels have each value."""
    counts: Counter[int] = Counter()
    if image.format in ("uchar", "ushort"):
        found = image.hist_find().numpy().ravel()
        counts.update({int(v): int(found[v]) for v in np.flatnonzero(found)})
        return counts
    rows = max(1, STRIP_PX // image.width)
    for y in range(0, image.height, rows):
        values, found = np.unique(image.crop(0, y, image.width, min(rows, image.height - y)).numpy(), return_counts=True)
        counts.update(dict(zip(values.tolist(), found.tolist(), strict=True)))
    return counts
