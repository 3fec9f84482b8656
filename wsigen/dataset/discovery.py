"""Which images the sources of a dataset name; nothing is opened yet."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from wsigen.base.errors import DatasetError, suggest
from wsigen.dataset.settings import DatasetSettings, TileSource
from wsigen.dataset.tables import keys

SUFFIXES = frozenset(
    ".svs .tif .tiff .btf .ndpi .scn .bif .mrxs .vms .jpg .jpeg .jp2 .png .webp .bmp .qptiff".split()  # noqa: SIM905
)
"""What counts as an image in a folder; a file named on its own may have any suffix."""


@dataclass(frozen=True, slots=True)
class ImageFile:
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


def find_images(settings: DatasetSettings) -> list[ImageFile]:
    """List the images of all sources, sorted by name within each.

    Raises
    ------
    DatasetError
        If a folder is missing or empty, a folder's name is no class, or two sources share an image.
    """
    files: dict[str, ImageFile] = {}
    for position, source in enumerate(settings.sources):
        if isinstance(source, TileSource):
            of_source = list(_tiles(settings, source, position))
        else:
            of_source = [
                ImageFile(_name(settings, path), path, position)
                for text in source.images
                for path in _matching(settings.root, text, position)
            ]
            _check_mpp(source.mpp, position, of_source)
        for file in of_source:
            if file.name in files:
                raise DatasetError(f"{file.name}: named by source {files[file.name].source} and {position}; name it once")
            files[file.name] = file
    return list(files.values())


def _tiles(settings: DatasetSettings, source: TileSource, position: int) -> Iterator[ImageFile]:
    folder = settings.root / source.folder
    if not folder.is_dir():
        raise DatasetError(f"{folder}: no such folder of tiles (source {position}); check 'folder' and 'root'")
    classes = sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))
    if not classes:
        raise DatasetError(f"{folder}: empty, no folders named after classes; give folder/CLASS/tile.png")
    for name in sorted(set(source.names) - {p.name for p in classes}):
        there = ", ".join(p.name for p in classes)
        raise DatasetError(f"{folder}: no folder {name!r}, which 'names' mentions; it has {there}")
    for one in classes:
        index = settings.class_index(source.names.get(one.name, one.name), f"{one}: the folder")
        for path in _images_in(one):
            yield ImageFile(_name(settings, path), path, position, index)


def _matching(root: Path, text: str, position: int) -> Iterable[Path]:
    """The images that a folder, a pattern or a file name of a source stands for."""
    path = root / text
    if path.is_dir():
        return _images_in(path)
    if any(c in text for c in "*?["):
        base = Path(path.anchor) if Path(text).is_absolute() else root  # brackets in the root are no pattern
        paths = sorted(p for p in base.glob(str(path.relative_to(base))) if p.is_file())
        if not paths:
            raise DatasetError(f"{path}: no file matches (source {position}); check 'images' and 'root'")
        return paths
    if not path.is_file():
        raise DatasetError(f"{path}: no such image or folder (source {position}); check 'images' and 'root'")
    return [path]


def _check_mpp(stated: float | dict[str, float] | None, position: int, files: list[ImageFile]) -> None:
    """Refuse an um/px stated for an image that the source does not have."""
    known = {key for file in files for key in keys(file.name)}
    for key in stated if isinstance(stated, dict) else ():
        if key not in known:
            raise DatasetError(f"source {position}: 'mpp' speaks of {key!r}, which is no image of it{suggest(key, known)}")


def _images_in(folder: Path) -> list[Path]:
    paths = sorted(p for p in folder.iterdir() if p.suffix.casefold() in SUFFIXES and p.is_file())
    if not paths:
        raise DatasetError(f"{folder}: empty, no images in this folder; add some or leave it out")
    return paths


def _name(settings: DatasetSettings, path: Path) -> str:
    path = path.resolve()
    return path.relative_to(settings.root).as_posix() if path.is_relative_to(settings.root) else path.as_posix()
