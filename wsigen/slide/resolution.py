"""um/px of an image: from tags, OME-XML, the texts of scanners and ImageJ; what contradicts is told.

Whoever states most clearly goes first: OME-XML and a scanner's own text before resolution tags, which programs that save a
picture again often fill with a print resolution (72 dpi).
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

PLAUSIBLE_MPP = (0.05, 20.0)
"""Resolutions outside these um/px are print resolutions (72 dpi and the like), not those of a microscope."""

SAME = 0.02
"""Statements that differ by a smaller share agree."""

SQUARE = 0.01
"""Sides of a pixel that differ by a smaller share are equal: scanners write 0.2520 x 0.2518."""

_METRES = {"m": 1.0, "inch": 0.0254, "in": 0.0254, "thou": 2.54e-5, "mil": 2.54e-5, "ft": 0.3048, "pt": 0.0254 / 72, "å": 1e-10}
_PREFIXES = {"": 1.0, "d": 1e-1, "c": 1e-2, "m": 1e-3, "u": 1e-6, "n": 1e-9, "p": 1e-12, "k": 1e3}
_WORDS = {
    "micron": "um", "micrometer": "um", "micrometre": "um", "nanometer": "nm", "nanometre": "nm", "millimeter": "mm",
    "millimetre": "mm", "centimeter": "cm", "centimetre": "cm", "meter": "m", "metre": "m", "inches": "inch", '"': "inch",
    "angstrom": "å",
}  # fmt: skip
_TAG_UNITS = {2: "inch", 3: "cm", 4: "mm", 5: "um"}
"""Values of the ResolutionUnit tag; 4 and 5 are not of the standard, but are written."""

_MPP_TEXT = re.compile(r"\bMPP\s*[=:]\s*(\d+(?:[.,]\d+)?(?:e-?\d+)?)", re.IGNORECASE)
_IMAGEJ_UNIT = re.compile(r"^unit=(.+?)\s*$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Stated:
    """What one place of a file says: um per pixel along y and x."""

    y: float
    x: float
    source: str


@dataclass(frozen=True, slots=True)
class Resolution:
    """What is taken for true.

    Attributes
    ----------
    mpp : (float, float) or None
        um per pixel along y and x; equal where they are so but for a percent.
    source : str
        Who says it; of None why nobody does.
    notes : list of str
        Contradictions, and pixels that are not square.
    """

    mpp: tuple[float, float] | None
    source: str
    notes: list[str]


def decide(statements: Iterable[Stated | None], magnification: float | None = None) -> Resolution:
    """Take the first plausible statement, and say what contradicts it.

    Parameters
    ----------
    statements : iterable of Stated or None
        The most trusted first.
    magnification : float or None
        Of the objective; it decides nothing, as 10 / magnification is a habit and no measure.
    """
    all_of_them = [s for s in statements if s is not None]
    plausible = [s for s in all_of_them if _plausible(s.y) and _plausible(s.x)]
    if not plausible:
        source = "; ".join(f"{s.source}: {s.x:.4g}, no resolution of a microscope" for s in all_of_them)
        usual = [f"objective {magnification:g}x, but no um/px; usual is {10 / magnification:g}"] if magnification else []
        return Resolution(None, source, usual)
    first, *others = plausible
    square = abs(first.x / first.y - 1) <= SQUARE
    notes = [
        f"um/px contradict: {first.source} says {first.x:.4g}, {s.source} {s.x:.4g}; {first.source} is taken"
        for s in others
        if _differs(s.x, first.x, SAME) or _differs(s.y, first.y, SAME)
    ]
    if not square:
        notes.append(f"pixels of {first.x:.4g} x {first.y:.4g} um are not square; pictures are resampled so that they are")
    if magnification and _differs(first.x, 10 / magnification, 0.5):
        notes.append(f"objective {magnification:g}x is usually {10 / magnification:g} um/px, {first.source} says {first.x:.4g}")
    return Resolution((first.x if square else first.y, first.x), first.source, notes)


def in_um(value: float, unit: str) -> float | None:
    """Return a length in um; None for a unit that is none ("pixel", "reference frame")."""
    unit = unit.strip().casefold().replace("µ", "u").replace("μ", "u").replace("\\u00b5", "u")
    unit = _WORDS.get(unit, _WORDS.get(unit.removesuffix("s"), unit))
    if unit in _METRES:
        return value * _METRES[unit] * 1e6
    if unit.endswith("m") and unit[:-1] in _PREFIXES:
        return value * _PREFIXES[unit[:-1]] * 1e6
    return None


def from_tags(resolution: Sequence[tuple[int, int] | float], unit: int, description: str = "") -> Stated | None:
    """Read the tags XResolution, YResolution (pixels per unit) and ResolutionUnit, or the unit of ImageJ's description."""
    x, y = (_number(value) for value in resolution)
    source, name = "resolution tags", _TAG_UNITS.get(unit, "")
    if description.startswith("ImageJ=") and (found := _IMAGEJ_UNIT.search(description)):
        source, name = "ImageJ", found[1]
    um = in_um(1.0, name) if name else None
    return Stated(um / y, um / x, source) if um and x > 0 and y > 0 else None


def from_text(description: str) -> Stated | None:
    """Read ``MPP = 0.25``, as Aperio and others write it; also with a decimal comma."""
    found = _MPP_TEXT.search(description)
    value = float(found[1].replace(",", ".")) if found else 0.0
    return Stated(value, value, "MPP in the description") if value > 0 else None


def from_ome(pixels: Mapping[str, str]) -> Stated | None:
    """Read the attributes of OME-XML's ``Pixels``; without a unit they are um, one side alone stands for both."""
    sides = []
    for axis in "YX":
        number = _float(pixels.get(f"PhysicalSize{axis}"))
        um = in_um(number, pixels.get(f"PhysicalSize{axis}Unit", "um")) if number else None
        sides.append(um)
    y, x = sides[0] or sides[1], sides[1] or sides[0]
    return Stated(y, x, "OME-XML") if y and x and y > 0 and x > 0 else None


def from_openslide(properties: Mapping[str, str]) -> list[Stated | None]:
    """Read what OpenSlide and the scanner's own properties say."""
    y, x = (_float(properties.get(f"openslide.mpp-{axis}")) for axis in "yx")
    vendor = properties.get("openslide.vendor", "")
    tags = [_float(properties.get(f"tiff.{axis}Resolution")) or 0.0 for axis in "XY"]
    unit = {"inch": 2, "centimeter": 3}.get(properties.get("tiff.ResolutionUnit", "").casefold(), 1)
    return [
        Stated(y, x, f"OpenSlide, {vendor}") if y and x else None,
        from_text(f"MPP = {properties.get('aperio.MPP', '')}"),
        from_tags(tags, unit),
    ]


def _plausible(mpp: float) -> bool:
    return PLAUSIBLE_MPP[0] <= mpp <= PLAUSIBLE_MPP[1]


def _differs(a: float, b: float, share: float) -> bool:
    return max(a, b) > min(a, b) * (1 + share)


def _float(text: str | None) -> float | None:
    try:
        value = float((text or "").replace(",", "."))
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _number(value: tuple[int, int] | float) -> float:
    if not isinstance(value, tuple):
        return float(value)
    return value[0] / value[1] if value[1] else 0.0
