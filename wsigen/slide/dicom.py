"""DICOM: which files are one slide. A level of a slide is a file; those of a series that lie in one folder belong together.

OpenSlide reads a slide from any of its files. Here files are told apart by the beginning of their headers; no pixel is decoded.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from wsigen.base.errors import ImageError, refusing
from wsigen.slide.formats import kind_of

SUFFIXES = (".dcm", ".dicom")
"""How such files are called; many have no suffix at all."""

WHOLE_SLIDE = "1.2.840.10008.5.1.4.1.1.77.1.6"
"""SOP class of slides, *VL Whole Slide Microscopy Image Storage* (DICOM PS3.4, B.5)."""

_LONG_BYTES = 1024
"""Of a value: longer ones are skipped where they stand, so that a header is read to its series however much is before it."""

_SERIES = 0x0020000E
"""The last tag that is read, *Series Instance UID*."""

_DEFLATED = "1.2.840.10008.1.2.1.99"


@dataclass(frozen=True, slots=True)
class DicomFile:
    """What the header of a file says.

    Attributes
    ----------
    kind : str
        Name of its SOP class, such as ``CT Image Storage``.
    is_slide : bool
        Whether it is of a slide.
    is_volume : bool
        Whether it is a level of the slide's pyramid, and no label or overview.
    series : str
        What the files of a slide have in common.
    """

    kind: str
    is_slide: bool
    is_volume: bool
    series: str


def is_dicom(path: Path) -> bool:
    """Whether a file is called as DICOM files are; of one without a suffix, whether it is one."""
    suffix = path.suffix.casefold()
    return path.is_file() and (suffix in SUFFIXES or (not suffix and kind_of(path) == "DICOM"))


def read_header(path: Path) -> DicomFile:
    """Read what a file is.

    Raises
    ------
    ImageError
        If it is no DICOM file, or damaged, or a slide's without a series.
    """
    from pydicom.filereader import read_file_meta_info, read_partial
    from pydicom.uid import UID

    with refusing(ImageError, f"{path}: no DICOM file that can be read", "copy it again"):
        meta = read_file_meta_info(path)
        kind = UID(str(meta.get("MediaStorageSOPClassUID", "")))
        if kind != WHOLE_SLIDE or meta.get("TransferSyntaxUID") == _DEFLATED:  # of which a few bytes become gigabytes
            return DicomFile(f"{kind.name or 'of an unknown kind'}{', deflated' * (kind == WHOLE_SLIDE)}", False, False, "")
        with path.open("rb") as file:
            data = read_partial(file, stop_when=lambda tag, vr, length: tag > _SERIES, defer_size=_LONG_BYTES)
        series = str(data.get("SeriesInstanceUID") or "")
        if not series:  # never a key: slides without one would be taken for one slide
            raise ValueError("no series found (SeriesInstanceUID)")
        return DicomFile(kind.name, True, "VOLUME" in (data.get("ImageType") or ()), series)


def one_of_each(paths: Iterable[Path]) -> list[Path]:
    """Leave of the files of a DICOM slide one, a level of it; other files stay, so that what is no slide is told."""
    found: dict[object, tuple[bool, Path]] = {}
    for path in sorted(paths):
        try:
            header = read_header(path) if is_dicom(path) else None
        except ImageError:  # said when it is opened
            header = None
        slide = (path.parent, header.series) if header and header.is_slide else path
        is_volume = header is not None and header.is_volume
        if slide not in found or (is_volume and not found[slide][0]):
            found[slide] = is_volume, path
    return sorted(path for _, path in found.values())


def files_of(path: Path) -> list[Path]:
    """All files of a slide: those of its series that lie beside it; of what is no DICOM slide the file itself."""
    series = _series_of(path)
    return [other for other in dicom_files(path.parent) if _series_of(other) == series] if series else [path]


def own_folder(path: Path) -> Path | None:
    """The folder of a DICOM slide that has one of its own."""
    return path.parent if _series_of(path) and len(set(map(_series_of, dicom_files(path.parent))) - {""}) == 1 else None


def _series_of(path: Path) -> str:
    """Empty of what is no DICOM slide, or a damaged one."""
    try:
        return _known_series(path, path.stat().st_mtime_ns) if is_dicom(path) else ""
    except (ImageError, OSError):
        return ""


@functools.lru_cache(maxsize=2**14)
def _known_series(path: Path, stamp: int) -> str:
    """Every slide of a folder asks for the files beside it. ``stamp`` (the time of change) makes a new file a new entry."""
    return read_header(path).series


def dicom_files(folder: Path) -> list[Path]:
    """The DICOM files in a folder; none of what is no folder, or may not be read."""
    try:
        return sorted(filter(is_dicom, folder.iterdir())) if folder.is_dir() else []
    except OSError:
        return []


def slide_in(folder: Path) -> Path:
    """Return a file of the one DICOM slide in a folder.

    Raises
    ------
    ImageError
        If none is there, or several are.
    """
    files = sorted(filter(is_dicom, folder.iterdir()))
    if not files:
        raise ImageError(f"{folder}: a folder without DICOM files; give a slide's file")
    slides = [path for path in one_of_each(files) if read_header(path).is_slide]
    if not slides:
        raise no_slide(folder, read_header(files[0]), f"{len(files)} files of DICOM")
    if len(slides) > 1:
        names = ", ".join(path.name for path in slides[:5]) + ", ..." * (len(slides) > 5)
        raise ImageError(f"{folder}: {len(slides)} DICOM slides; give a file of the one you mean: {names}")
    return slides[0]


def no_slide(path: Path, header: DicomFile, what: str = "DICOM") -> ImageError:
    """Say that a DICOM file is no slide, or none that is read."""
    if header.is_slide:
        return ImageError(f"{path}: OpenSlide reads no slide from it; bring the other files of its series beside it")
    return ImageError(
        f"{path}: {what}, but {header.kind} and no whole slide; of DICOM only slides (VL Whole Slide Microscopy Image) are read"
    )
