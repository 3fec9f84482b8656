"""The images of a dataset: which ones its sources name, and how they are opened."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path, PurePath
from tempfile import NamedTemporaryFile

from wsigen.base.errors import DatasetError, suggest
from wsigen.base.geometry import Box
from wsigen.dataset.settings import DatasetSettings, Source, TileSource
from wsigen.dataset.tables import keys
from wsigen.slide.dicom import SUFFIXES as DICOM_SUFFIXES
from wsigen.slide.dicom import dicom_files, is_dicom, one_of_each
from wsigen.slide.reading import ImageSource, let_go, open_image
from wsigen.storage.files import atomic_path

_SLIDES = ".svs .tif .tiff .btf .ndpi .scn .bif .mrxs .vms .vmu .svslide .czi .vsi .qptiff"
SUFFIXES = frozenset([*_SLIDES.split(), *DICOM_SUFFIXES, ".jpg", ".jpeg", ".jp2", ".png", ".webp", ".bmp"])
"""What counts as an image in a folder; a file named on its own may have any suffix."""

COPY_FROM_PX = 2**22
"""An untiled image of more pixels is copied once as a tiled TIFF: decoding all of it for each crop would be slow."""

COPY_ROWS = 512
"""Rows of px copied at a time."""


def base_name(slide: PurePath) -> str:
    """Name of a slide without its suffixes, ``.ome.tiff`` among them: files beside it begin with it."""
    return PurePath(slide.stem).stem if slide.name.lower().endswith((".ome.tiff", ".ome.tif")) else slide.stem


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
    """List the images of all sources, sorted by name within each; nothing is opened yet.

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
    named = [(one, to) for one in classes if (to := source.names.get(one.name, one.name)) is not None]
    if not named:
        raise DatasetError(f"{folder}: 'names' leaves out every folder; keep one, or remove the source")
    for one, to in named:
        index = settings.class_index(to, f"{one}: the folder")
        for path in _images_in(one):
            yield ImageFile(_name(settings, path), path, position, index)


def _matching(root: Path, text: str, position: int) -> Iterable[Path]:
    """The images that a folder, a pattern or a file name of a source stands for."""
    path = root / text
    if path.is_dir():
        return _images_in(path)
    if any(c in text for c in "*?["):
        base = Path(path.anchor) if Path(text).is_absolute() else root  # brackets in the root are no pattern
        matched = list(base.glob(str(path.relative_to(base))))
        paths = [p for p in matched if p.is_file()] + _in_folders(matched)
        if not paths:
            raise DatasetError(f"{path}: no file matches (source {position}); check 'images' and 'root'")
        return one_of_each(paths)
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
    """The images in a folder, and DICOM slides that have a folder of their own in it."""
    paths = [p for p in folder.iterdir() if (p.suffix.casefold() in SUFFIXES and p.is_file()) or is_dicom(p)]
    paths += _in_folders(folder.iterdir())
    if not paths:
        raise DatasetError(f"{folder}: empty, no images in this folder; add some or leave it out")
    return one_of_each(paths)


def _in_folders(paths: Iterable[Path]) -> list[Path]:
    """The DICOM files of slides that have a folder of their own; hidden folders are passed over."""
    return [file for path in paths if not path.name.startswith(".") for file in dicom_files(path)]


def _name(settings: DatasetSettings, path: Path) -> str:
    path = path.resolve()
    return path.relative_to(settings.root).as_posix() if path.is_relative_to(settings.root) else path.as_posix()


def open_listed(path: Path, name: str, source: Source, cache: Path) -> ImageSource:
    """Open an image of a dataset: its pixels may be read from a copy in the cache, its um/px is known.

    Raises
    ------
    ImageError
        If it cannot be opened.
    DatasetError
        If nobody says its um/px.
    """
    image = open_image(path).stated(stated_mpp(source, name))
    if image.mpp is None:
        raise DatasetError(f"{name}: no um/px in the file; give 'mpp:' in its source")
    if image.height * image.width > COPY_FROM_PX and not image.by_region:
        image = replace(image, path=str(tiled_copy(image, cache)))
    return image


def stated_mpp(source: Source, name: str) -> float | None:
    """Return the um/px a source states for an image, which goes before what the file says."""
    if isinstance(source, TileSource) or not isinstance(source.mpp, dict):
        return source.mpp if not isinstance(source.mpp, dict) else None
    return next((source.mpp[key] for key in keys(name) if key in source.mpp), None)


def tiled_copy(image: ImageSource, cache: Path) -> Path:
    """Write an image as a tiled TIFF pyramid without loss into the cache, once; returns its path.

    Its pixels lie in a temporary file meanwhile, three bytes each.

    Raises
    ------
    DatasetError
        If it cannot be written; nothing half-written stays.
    """
    import pyvips

    path = Path(image.path)
    stat = path.stat()
    key = hashlib.sha256(f"{path}:{stat.st_size}:{stat.st_mtime_ns}".encode()).hexdigest()[:16]
    target = cache / "tiled" / f"{path.stem}-{key}.tif"
    if not target.exists():
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            with atomic_path(target) as beside, NamedTemporaryFile(dir=target.parent, prefix=".", suffix=".raw") as raw:
                for y in range(0, image.height, COPY_ROWS):
                    raw.write(image.read(0, Box(y, 0, min(y + COPY_ROWS, image.height), image.width)).tobytes())
                raw.flush()
                pixels = pyvips.Image.rawload(raw.name, image.width, image.height, 3).copy(interpretation="srgb")
                pixels.tiffsave(
                    str(beside), tile=True, tile_width=512, tile_height=512, compression="deflate", level=1,
                    predictor="horizontal", bigtiff=True, pyramid=True
                )  # fmt: skip
        except (pyvips.Error, OSError) as error:
            reason = " ".join((getattr(error, "detail", "") or str(error)).split())[:160]
            raise DatasetError(
                f"{target.parent}: the tiled copy of {path.name} cannot be written ({reason}); make room, or give "
                "another --cache"
            ) from None
        let_go()  # the decoded picture is not needed any more
    return target
