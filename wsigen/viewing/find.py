"""From what a user names to the slides of a page: one slide, a folder of slides, or a cohort with its table."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

from wsigen.base.csv_file import read_table
from wsigen.base.errors import ImageError, printable, refusing
from wsigen.viewing.shown_slide import ShownSlide

TABLE = "cohort.csv"
"""Table of a cohort: ``id``, ``split``, ``subtype`` and ``slide`` are read."""

SUFFIXES = (".ome.tiff", ".ome.tif", ".svs", ".ndpi", ".mrxs", ".scn", ".bif", ".tif", ".tiff", ".vms", ".svslide")
"""What counts as a slide in a folder without a table."""


def slide_in(folder: Path, path: Path, id: str = "", split: str = "", subtype: str = "") -> ShownSlide:
    """Return a slide that lies below the folder of the page, with the annotations beside it.

    Raises
    ------
    ImageError
        If it lies elsewhere.
    """
    drawn = annotations_of(path)
    return ShownSlide(
        id or base_of(path),
        str(path),
        _url(folder, path),
        drawn,
        _url(folder, drawn) if drawn else "",
        split,
        subtype,
    )


def slides_of_folder(folder: Path) -> list[ShownSlide]:
    """The slides of a folder: those of its ``cohort.csv``, else all that lie in it.

    Raises
    ------
    ImageError
        If it holds none, or its table cannot be read or names one that is not there.
    """
    if (folder / TABLE).is_file():
        return list(_of_table(folder))
    paths = sorted(p for p in folder.iterdir() if p.is_file() and not p.name.startswith(".") and is_slide(p))
    if not paths:
        raise ImageError(f"{folder}: neither a run nor a folder with slides; give a slide, a run's directory or a cohort")
    return [slide_in(folder, path, path.name) for path in paths]


def annotations_of(path: Path) -> Path | None:
    """The GeoJSON file beside a slide: ``NAME.geojson`` of ``NAME.ome.tiff``."""
    beside = path.with_name(f"{base_of(path)}.geojson")
    return beside if beside.is_file() else None


def _of_table(folder: Path) -> Iterator[ShownSlide]:
    table = folder / TABLE
    with refusing(ImageError, f"{table}: not a table", "make the cohort's table again"):
        header, rows = read_table(table)
    columns = {name.casefold(): position for position, name in enumerate(header)}
    if not {"id", "slide"} <= columns.keys():
        raise ImageError(f"{table}: has no columns 'id' and 'slide'; it is no table of a cohort")

    def cell(row: list[str], name: str) -> str:
        position = columns.get(name, len(row))
        return row[position] if position < len(row) else ""

    for row in rows:
        path = folder / cell(row, "slide")
        if not path.is_file():
            raise ImageError(f"{table}: {cell(row, 'slide')!r} is not there; 'wsigen cohort verify' says what is missing")
        yield slide_in(folder, path, cell(row, "id"), cell(row, "split"), cell(row, "subtype"))


def is_slide(path: Path) -> bool:
    """Whether a file's name is that of a slide."""
    return path.name.lower().endswith(SUFFIXES)


def base_of(path: Path) -> str:
    """The name of a slide without its suffix."""
    name = path.name
    for suffix in SUFFIXES:
        if name.lower().endswith(suffix):
            return name[: -len(suffix)]
    return path.stem


def _url(folder: Path, path: Path) -> str:
    """Of a file, relative to the page; a link that leads out of the folder is refused."""
    if not path.resolve().is_relative_to(folder.resolve()):
        raise ImageError(f"{path}: does not lie in {folder}; a page shows what lies beside it")
    return quoted(path.resolve().relative_to(folder.resolve()).as_posix())


def quoted(name: str) -> str:
    """A name as part of an address (ImageError: a browser cannot ask for it)."""
    try:
        return quote(name)
    except UnicodeEncodeError:
        raise ImageError(f"{printable(name)}: the name is not UTF-8, no browser can ask for it; rename the file") from None
