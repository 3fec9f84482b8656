"""Which image of a TIFF is the slide, and which of its planes: chosen by size, or refused by name where nobody can know.

A TIFF may hold a slide, its label and an overview in any order (Bio-Formats writes the macro of a Leica slide first), several
regions, focal planes, times, and channels of fluorescence. The largest image is the slide.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from xml.etree import ElementTree

import numpy as np

from wsigen.base.errors import ImageError

OTHER_SHARE = 0.25
"""Another image of more than this share of the slide's area is told of: it may be a second region."""

_COLOURS = {"r": 0, "red": 0, "g": 1, "green": 1, "b": 2, "blue": 2}
_OME_COLOURS = {0xFF0000: 0, 0x00FF00: 1, 0x0000FF: 2}
_NO_NAME = re.compile(r"(channel|ch|c)?[ :_-]*\d*([ :_-]\d+)*", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class TiffImage:
    """The image of a TIFF that is the slide.

    Attributes
    ----------
    levels : list
        tifffile's series of each level, finest first.
    planes : list of int
        Which pages of a level are read: one, or those of red, green and blue.
    pixels : dict
        Attributes of OME-XML's ``Pixels``; empty without.
    title : str
        Which image of how many; empty of one alone.
    others : list of str
        The other images.
    notes : list of str
        What was chosen where there was a choice.
    """

    levels: list[Any]
    planes: list[int]
    pixels: Mapping[str, str] = field(default_factory=dict)
    title: str = ""
    others: Sequence[str] = ()
    notes: Sequence[str] = ()


def choose_image(tif: Any, path: str) -> TiffImage:
    """Choose the largest image of an open `tifffile.TiffFile`, and its planes of colour.

    Raises
    ------
    ImageError
        If the file holds none, or one whose planes are no picture of H&E.
    """
    if _names_other_files(tif):
        raise ImageError(f"{path}: its planes lie in other files; save them in one OME-TIFF")
    series = list(tif.series)
    if not series:
        raise ImageError(f"{path}: the TIFF holds no image")
    at = max(range(len(series)), key=lambda i: _rank(series[i]))
    slide, names = series[at], [_called(i, s) for i, s in enumerate(series)]
    chosen, others = names[at], names[:at] + names[at + 1 :]
    notes = []
    if at or any(_area(s) > OTHER_SHARE * _area(slide) for s in series if s is not slide):
        rest = f" and {len(others) - 3} more" if len(others) > 3 else ""
        notes.append(f"{chosen} is read, the largest of {len(series)}; not {', '.join(others[:3])}{rest}")
    described = _described(tif)
    pixels = _of_series(described, slide, at)
    if described and pixels is None:
        sizes = ", ".join(f"{p.get('SizeX')} x {p.get('SizeY')}" for p in described[:3])
        notes.append(f"its OME-XML describes images of {sizes} px and not this one: nothing of it is taken, nor its um/px")
    channels = [] if pixels is None else [dict(c.attrib) for c in pixels if c.tag.endswith("}Channel")]
    planes, more = _planes(path, slide, channels)
    levels = [level for level in slide.levels if level.keyframe.samplesperpixel == slide.keyframe.samplesperpixel]
    attributes = {} if pixels is None else dict(pixels.attrib)
    return TiffImage(levels, planes, attributes, f"{chosen}, of {len(series)}" if others else "", others, [*notes, *more])


def _rank(series: Any) -> tuple[int, int, int]:
    """Larger for what is more of a slide: its area, and of one size (a mask of the same field) levels and samples of colour."""
    return _area(series), len(series.levels), series.keyframe.samplesperpixel


def _area(series: Any) -> int:
    page = series.keyframe
    return int(page.imagewidth * page.imagelength)


def _called(index: int, series: Any) -> str:
    page = series.keyframe
    name = f" {series.name!r}" if series.name else ""
    return f"image {index}{name} of {page.imagewidth} x {page.imagelength} px"


def _planes(path: str, series: Any, channels: Sequence[Mapping[str, str]]) -> tuple[list[int], list[str]]:
    """Which pages of a level are to be read: of focal planes the middle one, of times the first, of three channels all."""
    page = series.keyframe
    if page.parent is not series.parent and page.parent is not None and series.parent is not None:
        raise ImageError(f"{path}: its planes lie in other files; save them in one OME-TIFF")
    count = len(series.axes) - len(page.axes)
    axes = dict(zip(series.axes[:count], series.shape[:count], strict=True))
    if math.prod(axes.values()) > len(series):
        raise ImageError(f"{path}: {len(series)} of {math.prod(axes.values())} planes are there; save it as OME-TIFF")
    at, notes = dict.fromkeys(axes, 0), []
    for axis, size in axes.items():
        if axis == "Z" and size > 1:
            at["Z"] = size // 2
            notes.append(f"{size} focal planes: the middle one ({size // 2 + 1}) is read")
        elif axis == "T" and size > 1:
            notes.append(f"{size} times: the first is read")
        elif axis != "C" and size > 1:
            raise ImageError(
                f"{path}: {size} pages of the same size (axis {axis}), and nothing says which is the slide; save that one "
                "alone, or channels of colour as one RGB image"
            )
    order, note = _order(path, axes.get("C", 1), page.samplesperpixel, channels)
    shape = tuple(axes.values())
    places = [{**at, "C": c} if "C" in axes else at for c in order]
    planes = [int(np.ravel_multi_index(tuple(place[a] for a in axes), shape)) if shape else 0 for place in places]
    return planes, [*notes, *note]


def _order(path: str, count: int, samples: int, channels: Sequence[Mapping[str, str]]) -> tuple[list[int], list[str]]:
    """The channels of red, green and blue, or the one channel of pages that hold the colours themselves."""
    if count == 1:
        return [0], []
    names = [c.get("Name", "") for c in channels] or [""] * count
    listed = ", ".join(n or f"channel {i + 1}" for i, n in enumerate(names[:8]))
    refusal = f"{path}: {count} channels ({listed}), no brightfield RGB image; H&E is read from RGB: export it as such"
    if count != 3 or samples != 1 or len(names) not in (1, 3):
        raise ImageError(refusal)
    colours = [_colour(c) for c in channels]
    if sorted(c for c in colours if c is not None) == [0, 1, 2]:
        return [colours.index(c) for c in range(3)], []
    if any(not _NO_NAME.fullmatch(n) for n in names) or any(map(_fluorescent, channels)):
        raise ImageError(refusal)
    return [0, 1, 2], ["three grey channels without names are taken for red, green and blue"]


def _colour(channel: Mapping[str, str]) -> int | None:
    """Which of red, green, blue a channel of OME-XML is, by its name or else its colour."""
    name = channel.get("Name", "").strip().casefold()
    if name in _COLOURS:
        return _COLOURS[name]
    try:
        rgba = int(channel.get("Color", "")) & 0xFFFFFFFF
    except ValueError:
        return None
    return _OME_COLOURS.get(rgba >> 8) if _NO_NAME.fullmatch(name) and not _fluorescent(channel) else None


def _fluorescent(channel: Mapping[str, str]) -> bool:
    """Whether OME-XML says that a channel is light of a dye; its colour is then that of the display."""
    return "Fluor" in channel or "EmissionWavelength" in channel or channel.get("ContrastMethod") == "Fluorescence"


def _names_other_files(tif: Any) -> bool:
    """Whether OME-XML says that planes lie elsewhere: files it names are never opened, a stranger could name any."""
    if not tif.is_ome or "<UUID" not in (tif.ome_metadata or ""):
        return False
    root = ElementTree.fromstring(tif.ome_metadata)
    files = {element.text for element in root.iter() if element.tag.endswith("}UUID")}
    own = root.attrib.get("UUID")
    return len(files) > 1 or (own is not None and files != {own})


def _described(tif: Any) -> list[Any]:
    """The ``Pixels`` of every image in OME-XML."""
    if not tif.is_ome or not tif.ome_metadata:
        return []
    root = ElementTree.fromstring(tif.ome_metadata)
    return [p for image in root if image.tag.endswith("}Image") for p in image if p.tag.endswith("}Pixels")]


def _of_series(described: Sequence[Any], series: Any, index: int) -> Any:
    """Those of a series: at its place if they are of its size, else the first that are; None if none is."""
    size = {"SizeX": str(series.keyframe.imagewidth), "SizeY": str(series.keyframe.imagelength)}
    fits = [p for p in described if size.items() <= p.attrib.items()]
    if index < len(described) and described[index] in fits:
        return described[index]
    return fits[0] if fits else None
