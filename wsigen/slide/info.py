"""`SlideInfo`: what is known of an image before a pixel of it is used, and what its user should be told."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import PurePath

from wsigen.base.errors import printable
from wsigen.base.geometry import Box

Size = tuple[int, int]


@dataclass(frozen=True, slots=True)
class SlideInfo:
    """An image file, as its reader understands it.

    Attributes
    ----------
    path : str
        The file or URL.
    reader : str
        The library that reads it, and the format.
    levels : tuple of (int, int)
        ``(height, width)`` of each level in its own pixels, finest first.
    mpp : (float, float) or None
        um per pixel along y and x, or None if the file does not say.
    mpp_source : str
        Where that was found.
    planes : str
        What a pixel is in the file.
    image : str
        Which image of the file is read; empty if it holds one alone.
    others : tuple of str
        The file's other images.
    notes : tuple of str
        What is not as a user would expect, a line each.
    scanned : Box or None
        The part that was scanned, px of the full resolution, where the file says that it is not all. QuPath shows it alone.
    """

    path: str
    reader: str
    levels: tuple[Size, ...]
    mpp: tuple[float, float] | None
    mpp_source: str
    planes: str
    image: str = ""
    others: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    scanned: Box | None = None

    def lines(self) -> list[str]:
        """Say it all to a person, ``label: value`` lines."""
        (height, width), *_ = self.levels
        rows = {
            "file": self.path,
            "reader": self.reader,
            "size": f"{width} x {height} px" + self._in_mm(),
            "levels": ", ".join(f"{w} x {h}" for h, w in self.levels),
            "um/px": self._mpp(),
            "image": self.image,
            "other images": ", ".join(self.others),
            "pixels": self.planes,
        }
        lines = [f"{label + ':':14}{value}" for label, value in rows.items() if value]
        return list(map(printable, [*lines, *(f"note: {note}" for note in self.notes)]))

    def _mpp(self) -> str:
        if self.mpp is None:
            return "not known" + (f" ({self.mpp_source})" if self.mpp_source else "")
        y, x = self.mpp
        return (f"{x:.5g}" if y == x else f"{x:.5g} across, {y:.5g} down") + f" ({self.mpp_source})"

    def _in_mm(self) -> str:
        if self.mpp is None:
            return ""
        height, width = (n * um / 1000 for n, um in zip(self.levels[0], self.mpp, strict=True))
        return f", {width:.3g} x {height:.3g} mm"


def told(notes: Iterable[tuple[str, str]]) -> list[str]:
    """Put (file, note) pairs into lines: what is said of several files is said once.

    ``["a.svs and 37 more: NOTE"]``
    """
    files: dict[str, list[str]] = {}
    for file, note in notes:
        names = files.setdefault(note, [])
        if (name := PurePath(file).name) not in names:
            names.append(name)
    return [f"{names[0]}{f' and {len(names) - 1} more' if len(names) > 1 else ''}: {note}" for note, names in files.items()]
