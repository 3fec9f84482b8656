"""`Page`: what a browser is given, by name; kept as files beside a cohort, or made when it is asked for.

The same page is served by ``wsigen view`` and by any static host: names are relative, and the slides lie beside it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from importlib.resources import files
from pathlib import Path
from typing import Any

from wsigen.base.errors import OutputError, refusing
from wsigen.storage.files import whole_folder, write_atomic
from wsigen.viewing.shown_slide import ShownSlide

INDEX = "index.html"
FOLDER = "page"
"""Of all that belongs to the page beside ``index.html``."""

DATA = f"{FOLDER}/data.json"
"""What is shown: the list of slides, or a run."""

SCRIPT = "main.js"
"""What ``index.html`` runs: by it a page of ours is known."""

ASSETS = (
    "style.css",
    SCRIPT,
    "dom.js",
    "gallery.js",
    "viewer.js",
    "pane.js",
    "edit.js",
    "draw.js",
    "classes.js",
    "tiles.js",
    "run.js",
    "vendor/openseadragon.min.js",
    "vendor/openseadragon.LICENSE.txt",
)

Make = Callable[[], bytes]


def assets() -> dict[str, Make]:
    """The files of the page that are the same for all, by name."""
    root = files("wsigen.viewing") / "assets"
    return {
        INDEX: (root / INDEX).read_bytes,
        **{f"{FOLDER}/{name}": root.joinpath(*name.split("/")).read_bytes for name in ASSETS},
    }


def pages_of(slides: Sequence[ShownSlide], title: str, tiles_url: Callable[[int], str] = lambda index: "") -> dict[str, Make]:
    """What the page asks for about slides, by name: the list of them, and of each a record and pictures.

    Parameters
    ----------
    title : str
        Of the page.
    tiles_url : callable
        Where a server makes tiles of a slide, by its number; empty where none does.
    """
    made: dict[str, Make] = {DATA: cache(lambda: _json(_list(slides, title)))}
    for index, slide in enumerate(slides):
        made.update(pages_of_slide(slide, index, tiles_url(index)))
    return made


def pages_of_slide(slide: ShownSlide, number: int, tiles_url: str) -> dict[str, Make]:
    """What the page asks for about one slide, by name; the slide has this number among all."""
    made: dict[str, Make] = {
        f"{FOLDER}/slides/{number}.json": cache(partial(_record, slide, number, tiles_url)),
        f"{FOLDER}/pictures/{number}.jpg": slide.picture,
    }
    if slide.annotations is not None:
        made[f"{FOLDER}/classes/{number}.png"] = slide.class_picture
    return made


def write_page(folder: Path, slides: Sequence[ShownSlide], title: str = "") -> Path:
    """Write ``index.html`` and the folder ``page`` that show slides from any static host, with nothing loaded from elsewhere.

    Slides are read by range requests, as buckets, nginx and Apache answer them. ``python -m http.server`` does not: from such
    a host slides of up to 256 MB are fetched whole, and of larger ones the page shows the picture and says why.

    Parameters
    ----------
    folder : Path
        Where the slides lie, or a folder above them.
    slides : sequence of ShownSlide
        Their ``url`` and ``annotations_url`` are relative to ``folder`` (`wsigen.viewing.find.slide_in` makes them so).
    title : str
        Of the page.

    Returns
    -------
    Path
        ``index.html``. The same slides give the same bytes.

    Raises
    ------
    OutputError
        If the folder cannot be written, or holds an ``index.html`` or a ``page`` that is another's.
    ImageError
        If a slide cannot be read. What lay there before is untouched then.
    """
    made = {**assets(), **pages_of(slides, title)}
    _demand_ours(folder)
    with refusing(OutputError, f"{folder}: the page cannot be written", "check that the folder can be written"):
        with whole_folder(folder / FOLDER) as beside:
            for name, make in made.items():
                if name != INDEX:
                    target = beside / name.removeprefix(f"{FOLDER}/")
                    target.parent.mkdir(parents=True, exist_ok=True)
                    target.write_bytes(make())
        write_atomic(folder / INDEX, made[INDEX]())
    return folder / INDEX


def _demand_ours(folder: Path) -> None:
    """Refuse to replace what is not a page of ours (OutputError)."""
    page, index = folder / FOLDER, folder / INDEX
    script = f"{FOLDER}/{SCRIPT}"
    with refusing(OutputError, f"{folder}: cannot be looked at", "check that the folder can be read"):
        if page.exists() and not (folder / script).is_file():
            raise OutputError(f"{page}: is there, and no page of wsigen; move it, or choose another folder")
        if index.exists() and script.encode() not in index.read_bytes():
            raise OutputError(f"{index}: is there, and no page of wsigen; move it, or choose another folder")


def _record(slide: ShownSlide, number: int, tiles_url: str) -> bytes:
    return _json(slide.record(number, tiles_url))


def _list(slides: Sequence[ShownSlide], title: str) -> dict[str, Any]:
    return {"kind": "slides", "title": title, "slides": [slide.entry(number) for number, slide in enumerate(slides)]}


def _json(content: Mapping[str, Any]) -> bytes:
    return json.dumps(content, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()
