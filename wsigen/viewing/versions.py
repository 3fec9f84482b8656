"""`Versions`: what edits made of the slides of a page: how they are named, where they lie, how they come onto the page."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from wsigen.slide.splice import OtherFormatError, demand_replaceable
from wsigen.viewing.find import TABLE, base_of, is_slide
from wsigen.viewing.page import DATA, Make, pages_of_slide
from wsigen.viewing.shown_slide import MOST_MANIFEST_BYTES, ShownSlide

EDITS = "edits"
"""Folder of a cohort for edits of its slides: they are no part of it."""

_EDIT = re.compile(r"(.+?)\.edit-([1-9]\d{0,5})")


def next_version(slide: Path) -> Path:
    """Name the file of the next edit: ``x.edit-1.ome.tiff`` of ``x.ome.tiff``, ``x.edit-2.ome.tiff`` of either.

    Slides whose pixels cannot be replaced in their format become OME-TIFFs. ``wsigen-edit.groovy`` names edits in the same way.

    Raises
    ------
    ImageError
        If the slide cannot be read.
    """
    base = base_of(slide)
    name, suffix = (edit[1] if (edit := _EDIT.fullmatch(base)) else base), slide.name[len(base) :]
    try:
        demand_replaceable(slide)
    except OtherFormatError:
        suffix = ".ome.tiff"
    folder, number = edits_folder(slide), 1
    while (path := folder / f"{name}.edit-{number}{suffix}").exists() or work_of(path).exists():
        number += 1
    return path


def work_of(output: Path) -> Path:
    """The folder in which an edit is made: one that was stopped is there still."""
    return output.with_name(f"{base_of(output)}.edit")


def number_of(path: Path) -> int:
    """The number of an edit, 0 for a slide that is none."""
    edit = _EDIT.fullmatch(base_of(path))
    return int(edit[2]) if edit else 0


def parent_of(edit: Path) -> str:
    """The name of the slide that an edit was made from, as its manifest says; empty if nothing says so."""
    try:
        with edit.with_name(f"{base_of(edit)}.json").open("rb") as file:
            return str(json.loads(file.read(MOST_MANIFEST_BYTES))["history"][-1]["parent"])
    except (OSError, ValueError, KeyError, TypeError, IndexError):
        return ""


def originals(slides: Sequence[ShownSlide]) -> list[ShownSlide]:
    """Slides without the edits of others among them."""
    names = {base_of(Path(slide.path)) for slide in slides}
    edits = (_EDIT.fullmatch(base_of(Path(slide.path))) for slide in slides)
    return [slide for slide, edit in zip(slides, edits, strict=True) if edit is None or edit[1] not in names]


def edits_folder(slide: Path) -> Path:
    """Where edits of a slide lie: beside it, or in a folder of their own for those of a cohort."""
    slide = slide.absolute()  # its folder may be the working directory
    above = slide.parent if slide.parent.name == EDITS else slide.parent.parent / EDITS
    return above if (above.parent / TABLE).is_file() else slide.parent


def edits_in(folder: Path) -> dict[str, list[Path]]:
    """The edits of a folder by the name of what they were made of (without its suffix), in the order of their numbers."""
    found: dict[str, list[tuple[int, Path]]] = {}
    for path in folder.iterdir() if folder.is_dir() else ():
        if (edit := _EDIT.fullmatch(base_of(path))) and is_slide(path) and path.is_file():
            found.setdefault(edit[1], []).append((int(edit[2]), path))
    return {name: [path for _, path in sorted(each)] for name, each in found.items()}


class Versions:
    """The slides of a page and their edits.

    Parameters
    ----------
    slides : list of ShownSlide
        The site's; edits are added at its end, so that a slide keeps its number.
    made, files : dict
        The site's.
    shown : callable
        Makes the slide of a file and a number.
    """

    def __init__(
        self, slides: list[ShownSlide], made: dict[str, Make], files: dict[str, Path], shown: Callable[[Path, int], ShownSlide]
    ) -> None:
        self._slides, self._made, self._files, self._shown = slides, made, files, shown
        self._original = {number: number for number in range(len(slides))}
        self._edits: dict[int, list[dict[str, Any]]] = {}
        made[DATA] = self._data(cache(made[DATA]))

    def find(self) -> None:
        """Add the edits that lie there already."""
        known = cache(edits_in)
        for number in range(len(self._slides)):
            if (path := self.file(number)) is not None and not number_of(path):
                names = {path.name: number}
                for edit in known(edits_folder(path)).get(base_of(path), ()):
                    names[edit.name] = self.add(edit, names.get(parent_of(edit), number))

    def file(self, number: int) -> Path | None:
        """The file of a slide; None if there is no such slide, or it lies elsewhere than on this machine."""
        if not 0 <= number < len(self._slides) or "://" in self._slides[number].path:
            return None
        return Path(self._slides[number].path)

    @property
    def edits(self) -> dict[int, list[dict[str, Any]]]:
        """What the page is told of the edits of each slide, by the slide's number."""
        return self._edits

    def add(self, path: Path, parent: int) -> int:
        """Put an edit of a slide onto the page; its number."""
        number, original = len(self._slides), self._original[parent]
        slide = self._shown(path, number)
        self._made.update(pages_of_slide(slide, number, f"tiles/{number}/"))
        self._files[unquote(slide.url)] = path
        if slide.annotations is not None:
            self._files[unquote(slide.annotations_url)] = slide.annotations
        self._slides.append(slide)
        self._original[number] = original
        entry = {**slide.entry(number), "label": f"edit {number_of(path)}", "parent": parent}
        self._edits.setdefault(original, []).append(entry)
        return number

    def _data(self, without: Make) -> Make:
        """The list of slides, each with its edits."""

        def with_edits() -> bytes:
            content = json.loads(without())
            for entry in [*content["slides"], *filter(None, [content.get("real")])]:
                entry["edits"] = self._edits.get(entry["number"], [])
            return json.dumps(content, ensure_ascii=False).encode()

        return with_edits
