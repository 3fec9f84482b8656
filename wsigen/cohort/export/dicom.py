"""``--dicom``: slides as whole-slide DICOM, a series a slide and a file a level, marked as Synthetic Data.

The JPEG tiles of a slide become the frames as they are: the pixels are those of the OME-TIFF. A frame is copied at a time.

VL Whole Slide Microscopy Image: DICOM PS3.3, A.32.8. Synthetic Data (0008,001C): PS3.3, C.12.1.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from PIL import ImageCms
from pydicom import dcmread
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.sequence import Sequence as Items
from pydicom.uid import UID, JPEGBaseline8Bit, VLWholeSlideMicroscopyImageStorage, generate_uid

from wsigen.base.errors import OutputError, refusing
from wsigen.base.version import __version__
from wsigen.cohort.folder import CohortFolder
from wsigen.run.manifest import Manifest
from wsigen.storage.files import atomic_path

ORIENTATION = [0, -1, 0, -1, 0, 0]
"""Rows run along the slide's -y, columns along -x: the label of the glass is at the top, as scanners have it."""

_ITEM, _END = b"\xfe\xff\x00\xe0", b"\xfe\xff\xdd\xe0\x00\x00\x00\x00"
_PIXEL_DATA = b"\xe0\x7f\x10\x00OB\x00\x00\xff\xff\xff\xff"


@dataclass(frozen=True, slots=True)
class _Level:
    """A level of a slide: size and tiles in px, and where the JPEG streams lie in the file."""

    number: int
    height: int
    width: int
    tile: int
    offsets: Sequence[int]
    sizes: Sequence[int]


def write_dicom(folder: CohortFolder, row: dict[str, str], out: Path) -> Path:
    """Write a slide as ``level-N.dcm`` in a folder; files that are there are not written again.

    Parameters
    ----------
    row : dict of str to str
        The slide's line of ``cohort.csv``.

    Returns
    -------
    Path
        The folder.

    Raises
    ------
    OutputError
        If the slide is not compressed as JPEG, a file cannot be written, or one of another slide is there.
    """
    slide, manifest = folder.root / row["slide"], folder.manifest(row["id"])
    for level in _levels(slide):
        path = out / f"level-{level.number}.dcm"
        if path.is_file():
            _demand_same(path, row, level)
            continue
        with refusing(OutputError, f"{path}: cannot be written", "make room, then the same command goes on"):
            out.mkdir(parents=True, exist_ok=True)
            with slide.open("rb") as source, atomic_path(path) as beside:
                dataset = _dataset(row, manifest, level)
                dataset.save_as(beside, enforce_file_format=True)
                with beside.open("ab") as file:
                    _append_frames(file, source, level)
    return out


# -- inside ------------------------------------------------------------------------------------------------------------


def _levels(slide: Path) -> list[_Level]:
    import tifffile

    with (
        refusing(OutputError, f"{slide}: no slide that can be read", "run wsigen cohort verify"),
        tifffile.TiffFile(slide) as tiff,
    ):
        pages = [tiff.pages[0], *(tiff.pages[0].pages or ())]
        if any(page.compression != 7 for page in pages):
            raise OutputError(f"{slide}: not compressed as JPEG, whose tiles become DICOM's frames as they are; leave it out")
        return [
            _Level(n, page.imagelength, page.imagewidth, page.tilelength, page.dataoffsets, page.databytecounts)
            for n, page in enumerate(pages)
        ]


def _demand_same(path: Path, row: dict[str, str], level: _Level) -> None:
    """Refuse a file that is of another slide (OutputError)."""
    with refusing(OutputError, f"{path}: no DICOM file", "remove it, or choose another --out"):
        there = dcmread(path, stop_before_pixels=True, specific_tags=["SOPInstanceUID"])
    if there.SOPInstanceUID != _uid(row, f"level {level.number}"):
        raise OutputError(f"{path}: is of another slide; remove it, or choose another --out")


def _append_frames(file: IO[bytes], source: IO[bytes], level: _Level) -> None:
    """Pixel data in fragments of a frame each, without a basic offset table: the extended one lies before it."""
    file.write(_PIXEL_DATA + _ITEM + struct.pack("<I", 0))
    for offset, size in zip(level.offsets, level.sizes, strict=True):
        source.seek(offset)
        file.write(_ITEM + struct.pack("<I", size + size % 2) + source.read(size) + b"\x00" * (size % 2))
    file.write(_END)


def _offsets(level: _Level) -> Iterator[int]:
    at = 0
    for size in level.sizes:
        yield at
        at += 8 + size + size % 2


def _dataset(row: dict[str, str], manifest: Manifest, level: _Level) -> FileDataset:
    """All of a file but its frames."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = VLWholeSlideMicroscopyImageStorage
    meta.MediaStorageSOPInstanceUID = _uid(row, f"level {level.number}")
    meta.TransferSyntaxUID = JPEGBaseline8Bit
    dataset = FileDataset("", {}, file_meta=meta, preamble=b"\x00" * 128)
    for part in (_identity(row, manifest, level), _specimen(row), _picture(manifest, level), _frames(manifest, level)):
        dataset.update(part)
    return dataset


def _identity(row: dict[str, str], manifest: Manifest, level: _Level) -> Dataset:
    """Patient, study, series, equipment; that it is synthetic."""
    date = manifest.created[:10].replace("-", "")
    time = manifest.created[11:19].replace(":", "")
    return _of(
        SOPClassUID=VLWholeSlideMicroscopyImageStorage,
        SOPInstanceUID=_uid(row, f"level {level.number}"),
        SpecificCharacterSet="ISO_IR 192",
        SyntheticData="YES",
        PatientName=f"SYNTHETIC^{row['id']}"[:64],
        PatientID=row["id"][:64],
        PatientBirthDate="",
        PatientSex="",
        PatientComments=manifest.statement[:10240],
        StudyInstanceUID=_uid(row, "study"),
        StudyID="",
        StudyDate=date,
        StudyTime=time,
        StudyDescription="Synthetic whole slide",
        AccessionNumber="",
        ReferringPhysicianName="",
        Modality="SM",
        SeriesInstanceUID=_uid(row, "series"),
        SeriesNumber=1,
        SeriesDescription=f"Synthetic, {row['subtype']}"[:64],
        FrameOfReferenceUID=_uid(row, "frame"),
        PositionReferenceIndicator="SLIDE_CORNER",
        Manufacturer="wsigen",
        ManufacturerModelName=manifest.model.name[:64],
        DeviceSerialNumber=manifest.model.sha256,
        SoftwareVersions=__version__,
        AcquisitionContextSequence=Items(),
        AcquisitionDateTime=date + time,
        ContentDate=date,
        ContentTime=time,
        InstanceNumber=level.number + 1,
    )


def _specimen(row: dict[str, str]) -> Dataset:
    """A slide that never was."""
    slide = _code("433466003", "SCT", "Microscope slide")
    specimen = _of(
        SpecimenIdentifier=row["id"][:64],
        SpecimenUID=_uid(row, "specimen"),
        IssuerOfTheSpecimenIdentifierSequence=Items(),
        SpecimenPreparationSequence=Items(),
        SpecimenShortDescription="Synthetic: there is no specimen",
    )
    return _of(
        ContainerIdentifier=row["id"][:64],
        IssuerOfTheContainerIdentifierSequence=Items(),
        ContainerTypeCodeSequence=Items([slide]),
        ContainerComponentSequence=Items(),
        SpecimenDescriptionSequence=Items([specimen]),
    )


def _picture(manifest: Manifest, level: _Level) -> Dataset:
    """What a frame is, and how it was coded."""
    raw = level.height * level.width * 3
    path = _of(
        OpticalPathIdentifier="1",
        OpticalPathDescription="Brightfield, synthetic",
        IlluminationTypeCodeSequence=Items([_code("111744", "DCM", "Brightfield illumination")]),
        IlluminationColorCodeSequence=Items([_code("414298005", "SCT", "Full Spectrum")]),
        ICCProfile=_srgb(),
        ObjectiveLensPower=manifest.slide.magnification,
    )
    return _of(
        ImageType=["DERIVED", "PRIMARY", "VOLUME", "RESAMPLED" if level.number else "NONE"],
        SamplesPerPixel=3,
        PhotometricInterpretation="YBR_FULL_422",
        PlanarConfiguration=0,
        BitsAllocated=8,
        BitsStored=8,
        HighBit=7,
        PixelRepresentation=0,
        BurnedInAnnotation="NO",
        LossyImageCompression="01",
        LossyImageCompressionRatio=round(raw / max(1, sum(level.sizes)), 2),
        LossyImageCompressionMethod="ISO_10918_1",
        PresentationLUTShape="IDENTITY",
        VolumetricProperties="VOLUME",
        SpecimenLabelInImage="NO",
        FocusMethod="AUTO",
        ExtendedDepthOfField="NO",
        NumberOfOpticalPaths=1,
        OpticalPathSequence=Items([path]),
    )


def _frames(manifest: Manifest, level: _Level) -> Dataset:
    """The matrix of frames, and where each of them lies in the file."""
    mm = manifest.slide.level_mpp(level.number) / 1000
    measures = _of(PixelSpacing=[mm, mm], SliceThickness=0.004, SpacingBetweenSlices=0.0)
    kind = _of(FrameType=["DERIVED", "PRIMARY", "VOLUME", "RESAMPLED" if level.number else "NONE"])
    shared = _of(
        PixelMeasuresSequence=Items([measures]),
        WholeSlideMicroscopyImageFrameTypeSequence=Items([kind]),
        OpticalPathIdentificationSequence=Items([_of(OpticalPathIdentifier="1")]),
    )
    organisation = generate_uid(entropy_srcs=["wsigen", "dimensions"])
    return _of(
        Rows=level.tile,
        Columns=level.tile,
        NumberOfFrames=len(level.sizes),
        ImagedVolumeWidth=level.width * mm,
        ImagedVolumeHeight=level.height * mm,
        ImagedVolumeDepth=4.0,
        TotalPixelMatrixColumns=level.width,
        TotalPixelMatrixRows=level.height,
        TotalPixelMatrixFocalPlanes=1,
        TotalPixelMatrixOriginSequence=Items([_of(XOffsetInSlideCoordinateSystem=0.0, YOffsetInSlideCoordinateSystem=0.0)]),
        ImageOrientationSlide=ORIENTATION,
        DimensionOrganizationType="TILED_FULL",
        DimensionOrganizationSequence=Items([_of(DimensionOrganizationUID=organisation)]),
        SharedFunctionalGroupsSequence=Items([shared]),
        ExtendedOffsetTable=struct.pack(f"<{len(level.sizes)}Q", *_offsets(level)),
        ExtendedOffsetTableLengths=struct.pack(f"<{len(level.sizes)}Q", *(size + size % 2 for size in level.sizes)),
    )


def _of(**values: Any) -> Dataset:
    dataset = Dataset()
    for name, value in values.items():
        if value is not None:
            setattr(dataset, name, value)
    return dataset


def _code(value: str, scheme: str, meaning: str) -> Dataset:
    return _of(CodeValue=value, CodingSchemeDesignator=scheme, CodeMeaning=meaning)


def _uid(row: dict[str, str], what: str) -> UID:
    """A UID that follows from the slide's pixels and name: the same every time."""
    return generate_uid(entropy_srcs=["wsigen", row["level0_sha256"], row["id"], what])


def _srgb() -> bytes:
    """The colour space of the pixels; its date is left out, so that files are the same every time."""
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    return profile[:24] + struct.pack(">6H", 2000, 1, 1, 0, 0, 0) + profile[36:]
