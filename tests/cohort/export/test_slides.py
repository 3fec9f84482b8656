"""A cohort's slides as DICOM and OME-Zarr: every level has the pixels of the OME-TIFF, and all say that they are synthetic."""

import hashlib

import numpy as np
import pydicom
import pytest
import zarr

from wsigen.base.errors import WsigenError
from wsigen.base.geometry import Box
from wsigen.cohort.export.slides import export_cohort_slides
from wsigen.slide.reading import open_image

ID = "demo-one-a-00"


@pytest.fixture(scope="module")
def dicom(cohort, tmp_path_factory):
    return export_cohort_slides(cohort, "dicom", tmp_path_factory.mktemp("dicom"))


def digests(folder):
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.glob("*.dcm")}


def levels(cohort):
    image = open_image(cohort / f"slides/{ID}.ome.tiff")
    return image, [image.read(n, Box(0, 0, *size)) for n, size in enumerate(image.levels)]


def test_dicom_says_that_it_is_synthetic(dicom, cohort):
    assert len(dicom) == 4
    for path in dicom[ID].glob("*.dcm"):
        dataset = pydicom.dcmread(path)
        assert (dataset.SyntheticData, str(dataset.PatientName)) == ("YES", f"SYNTHETIC^{ID}")
        assert dataset.Modality == "SM"
        assert dataset.pixel_array.shape[-3:] == (dataset.Rows, dataset.Columns, 3)
        assert len(dataset.ExtendedOffsetTable) == 8 * dataset.NumberOfFrames


def test_dicom_is_read_as_the_slide_it_is(dicom, cohort):
    """By OpenSlide, the reader of references and datasets."""
    mine, pixels = levels(cohort)
    read = open_image(dicom[ID])
    assert (read.height, read.width, read.levels) == (mine.height, mine.width, mine.levels)
    assert read.mpp == pytest.approx(mine.mpp)
    assert np.abs(read.read(0, Box(0, 0, *pixels[0].shape[:2])).astype(int) - pixels[0]).mean() < 1


def test_wsidicom_opens_all_levels(dicom, cohort):
    wsidicom = pytest.importorskip("wsidicom")
    mine, pixels = levels(cohort)
    with wsidicom.WsiDicom.open(dicom[ID]) as slide:
        assert [(level.size.height, level.size.width) for level in slide.levels] == mine.levels
        assert slide.mpp.width == pytest.approx(mine.mpp)
        for level, expected in zip(slide.levels, pixels, strict=True):
            height, width = expected.shape[:2]
            region = np.asarray(slide.read_region((0, 0), level.level, (width, height)).convert("RGB"))
            assert np.abs(region.astype(int) - expected).mean() < 1


def test_dicom_goes_on_and_is_the_same_every_time(dicom, cohort, tmp_path):
    before = digests(dicom[ID])
    next(dicom[ID].glob("level-0.dcm")).unlink()
    export_cohort_slides(cohort, "dicom", dicom[ID].parent)
    assert digests(dicom[ID]) == before
    foreign = tmp_path / ID / "level-0.dcm"
    foreign.parent.mkdir()
    foreign.write_bytes((dicom["demo-one-b-00"] / "level-0.dcm").read_bytes())
    with pytest.raises(WsigenError, match="is of another slide"):
        export_cohort_slides(cohort, "dicom", tmp_path)
    with pytest.raises(WsigenError, match="known are dicom and ome-zarr"):
        export_cohort_slides(cohort, "czi")


def test_ome_zarr_has_all_levels(cohort, tmp_path):
    written = export_cohort_slides(cohort, "ome-zarr", tmp_path)
    group = zarr.open_group(written[ID], mode="r")
    ome, (mine, pixels) = group.attrs["ome"], levels(cohort)
    assert (ome["version"], group.attrs["wsigen"]["synthetic"]) == ("0.5", True)
    for dataset, expected in zip(ome["multiscales"][0]["datasets"], pixels, strict=True):
        array = group[dataset["path"]]
        assert array.metadata.dimension_names == ("c", "y", "x")
        assert np.array_equal(np.moveaxis(array[:], 0, 2), expected)
        scale = dataset["coordinateTransformations"][0]["scale"]
        assert scale[1] * expected.shape[0] == pytest.approx(mine.mpp * mine.height)
    stamp = (written[ID] / "zarr.json").stat().st_mtime_ns
    export_cohort_slides(cohort, "ome-zarr", tmp_path)
    assert (written[ID] / "zarr.json").stat().st_mtime_ns == stamp
