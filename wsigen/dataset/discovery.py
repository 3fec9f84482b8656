"""Which images the sources of a dataset name; nothing is opened yet."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from wsigen.base.errors import DatasetError, suggest
from wsigen.dataset.settings import DatasetSettings, Source, TileSource
from wsigen.dataset.tables import keys

SUFFIXES = frozenset(
    ".svs .tif .tiff .btf .ndpi .scn .bif .mrxs .vms .jpg .jpeg .jp2 .png .webp .bmp .qptiff".split()  # noqa: SIM905
)
"""What counts as an image in a folder; a file named on its own may have any suffix."""


@dataclass(frozen=True, slots=True)
class Found:
    """An image of the dataset.

    Attributes
    ----------
    name : its path from the dataset's root
    source : position of its source in the settings
    class_index : class of a tile, else None
    """

    name: str
    path: Path
    source: int
    class_index: int | None = None


def find_images(settings: DatasetSettings) -> list[Found]:
    """List the images of all sources, sorted by name within each.

    Raises
    ------
    DatasetError
        If a folder is missing or empty, a folder's name is no class, or two sources share an image.
    """
    found: dict[str, Found] = {}
    for position, source in enumerate(settings.sources):
        if isinstance(source, TileSource):
            items = list(_tiles(settings, source, position))
        else:
            items = list(_images(settings, source, position))
            _check_mpp(source.mpp, position, items)
        for item in items:
            if item.name in found:
                raise DatasetError(f"{item.name}: named by source {found[item.name].source} and {position}; name it once")
            found[item.name] = item
    return list(found.values())


def _tiles(settings: DatasetSettings, source: TileSource, position: int) -> Iterator[Found]:
    folder = settings.root / source.folder
    if not folder.is_dir():
        raise DatasetError(f"{folder}: no such folder of tiles (source {position}); check 'folder' and 'root'")
    parts = sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))
    if not parts:
        raise DatasetError(f"{folder}: empty, no folders named after classes; give folder/CLASS/tile.png")
    _check_names(source, {p.name for p in parts}, folder)
    for part in parts:
        index = class_index(settings, source.names.get(part.name, part.name), f"{part}: the folder")
        for path in _listed(part):
            yield Found(_name(settings, path), path, position, index)


def _check_names(source: TileSource, folders: set[str], folder: Path) -> None:
    missing = sorted(set(source.names) - folders)
    if missing:
        raise DatasetError(f"{folder}: no folder {missing[0]!r}, which 'names' mentions; it has {', '.join(sorted(folders))}")


def _images(settings: DatasetSettings, source: Source, position: int) -> Iterator[Found]:
    assert not isinstance(source, TileSource)
    for text in source.images:
        path = settings.root / text
        if path.is_dir():
            paths = _listed(path)
        elif any(c in text for c in "*?["):
            base = Path(path.anchor) if Path(text).is_absolute() else settings.root  # brackets in the root are no pattern
            paths = sorted(p for p in base.glob(str(path.relative_to(base))) if p.is_file())
            if not paths:
                raise DatasetError(f"{path}: no file matches (source {position}); check 'images' and 'root'")
        elif path.is_file():
            paths = [path]
        else:
            raise DatasetError(f"{path}: no such image or folder (source {position}); check 'images' and 'root'")
        for p in paths:
            yield Found(_name(settings, p), p, position)


def _check_mpp(stated: float | dict[str, float] | None, position: int, items: list[Found]) -> None:
    """Refuse an um/px stated for an image that the source does not have."""
    known = {key for item in items for key in keys(item.name)}
    for key in stated if isinstance(stated, dict) else ():
        if key not in known:
            raise DatasetError(f"source {position}: 'mpp' speaks of {key!r}, which is no image of it{suggest(key, known)}")


def _listed(folder: Path) -> list[Path]:
    paths = sorted(p for p in folder.iterdir() if p.suffix.casefold() in SUFFIXES and p.is_file())
    if not paths:
        raise DatasetError(f"{folder}: empty, no images in this folder; add some or leave it out")
    return paths


def _name(settings: DatasetSettings, path: Path) -> str:
    path = path.resolve()
    return path.relative_to(settings.root).as_posix() if path.is_relative_to(settings.root) else path.as_posix()


def class_index(settings: DatasetSettings, label: str, where: str) -> int:
    """Return the position of a class by name, case aside.

    Raises
    ------
    DatasetError
        If the dataset does not name it.
    """
    from wsigen.base.errors import ConfigError

    try:
        return settings.table.index(label)
    except ConfigError as error:
        raise DatasetError(f"{where} has an {error}; add it to 'classes' or map it with 'names'") from None
