"""DICOM slides: a series is one slide, whichever of its files is given; other pictures of DICOM are refused by name."""

import os

import numpy as np
import pydicom
import pytest
from dataset.dataset_making import settings
from scanner_files import write_dicom
from typer.testing import CliRunner

from wsigen.base.errors import DatasetError, EvaluationError, ImageError
from wsigen.base.geometry import Box
from wsigen.cli.app import app
from wsigen.dataset.images import find_images
from wsigen.dataset.label_sources import annotations_of
from wsigen.evaluation.sides.sides import open_side
from wsigen.slide.dicom import one_of_each, read_header
from wsigen.slide.reading import open_image

COARSE = np.random.default_rng(0).integers(0, 255, (10, 12, 3))
RGB = np.kron(COARSE, np.ones((32, 32, 1))).astype(np.uint8)
CT = "1.2.840.10008.5.1.4.1.1.2"


def write_slide(folder, series="1.2.9", names=("z0.dcm", "z1.dcm", "a.dcm")):
    """Two levels and a label, which comes first by its name."""
    write_dicom(folder / names[0], RGB, 0.5, series)
    write_dicom(folder / names[1], RGB[::4, ::4], 2.0, series)
    write_dicom(folder / names[2], RGB[:64, :64], 0.5, series, "LABEL")
    return folder


def test_a_slide_is_read_from_any_of_its_files_and_from_its_folder(tmp_path):
    folder = write_slide(tmp_path / "slide")
    for path in (folder, *sorted(folder.iterdir())):
        image = open_image(path)
        assert image.levels == [(320, 384), (80, 96)]
        assert image.mpp == 0.5
        assert np.abs(image.read(0, Box(0, 0, 320, 384)).astype(int) - RGB).mean() < 2
    assert open_image(folder).path.endswith("z0.dcm")


def test_files_are_grouped_by_series_and_folder(tmp_path):
    write_slide(tmp_path)
    write_slide(tmp_path, "1.2.8", ("b1", "b2", "b3"))
    write_slide(tmp_path / "same")
    (tmp_path / "bad.dcm").write_bytes(b"no DICOM")
    found = one_of_each(path for path in tmp_path.rglob("*") if path.is_file())
    assert [path.relative_to(tmp_path).as_posix() for path in found] == ["b1", "bad.dcm", "same/z0.dcm", "z0.dcm"]
    (tmp_path / "bad.dcm").unlink()
    with pytest.raises(ImageError, match=r"2 DICOM slides; give a file of the one you mean: b1, z0\.dcm"):
        open_image(tmp_path)


def test_datasets_and_evaluations_find_each_slide_once(tmp_path):
    for number in range(2):
        write_slide(tmp_path / "slides" / f"patient{number}", f"1.2.{number}")
    for images in ("slides", "slides/*", "slides/*/*.dcm"):
        config = settings(tmp_path, {"kind": "unlabelled", "images": images})
        assert [file.name for file in find_images(config)] == ["slides/patient0/z0.dcm", "slides/patient1/z0.dcm"]
    members = open_side("real", tmp_path / "slides").members
    assert [member.path.parent.name for member in members] == ["patient0", "patient1"]


def test_pictures_of_other_modalities_are_refused_by_name(tmp_path):
    for number in range(3):
        write_dicom(tmp_path / "ct" / f"IM{number}", RGB[:128, :128], kind=CT)
    match = r"3 files of DICOM, but CT Image Storage and no whole slide; of DICOM only slides"
    with pytest.raises(ImageError, match=match):
        open_image(tmp_path / "ct")
    with pytest.raises(ImageError, match=r"IM0: DICOM, but CT Image Storage and no whole slide"):
        open_image(tmp_path / "ct" / "IM0")
    with pytest.raises(EvaluationError, match=r"none of 3 files can be read; the first: .*CT Image Storage"):
        open_side("real", tmp_path / "ct")


def test_info_of_a_folder(tmp_path):
    found = CliRunner().invoke(app, ["info", str(write_slide(tmp_path / "slide"))])
    assert "OpenSlide" in found.output
    assert "384 x 320 px" in found.output


@pytest.mark.parametrize("keep", [140, 200, 400])
def test_truncated_files_are_refused_in_a_line(tmp_path, keep):
    path = write_slide(tmp_path / "slide", names=("a.dcm", "b.dcm", "c.dcm")) / "a.dcm"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ImageError, match=r"a\.dcm: "):
        open_image(path)


def change(path, **values):
    data = pydicom.dcmread(path)
    for name, value in values.items():
        setattr(data, name, value)
    data.save_as(path)


def test_files_without_a_series_are_no_one_slide(tmp_path):
    for number in range(2):
        write_dicom(tmp_path / f"{number}.dcm", RGB, 0.5)
        change(tmp_path / f"{number}.dcm", SeriesInstanceUID="")
    assert len(one_of_each(tmp_path.iterdir())) == 2
    with pytest.raises(ImageError, match=r"0\.dcm: .*no series found"):
        read_header(tmp_path / "0.dcm")


def test_a_series_is_found_behind_a_long_private_element(tmp_path):
    write_dicom(tmp_path / "a.dcm", RGB, 0.5, "1.2.77")
    data = pydicom.dcmread(tmp_path / "a.dcm")
    data.private_block(0x0009, "maker", create=True).add_new(1, "OB", bytes(2**19))
    data.save_as(tmp_path / "a.dcm")
    header = read_header(tmp_path / "a.dcm")
    assert (header.series, header.is_volume) == ("1.2.77", True)


def test_folders_that_are_hidden_or_may_not_be_read_are_passed_over(tmp_path, monkeypatch):
    write_slide(tmp_path / "slides" / "a")
    write_slide(tmp_path / "slides" / ".trash")
    locked = tmp_path / "slides" / "lost+found"
    locked.mkdir()
    listed = os.listdir

    def refuse(path):
        if str(path) == str(locked):
            raise PermissionError(13, "Permission denied", str(path))
        return listed(path)

    monkeypatch.setattr("os.listdir", refuse)  # as chmod 0 does, but of the superuser, too
    for images in ("slides", "slides/*"):
        config = settings(tmp_path, {"kind": "unlabelled", "images": images})
        assert [file.name for file in find_images(config)] == ["slides/a/z0.dcm"]


@pytest.mark.parametrize("name", ["slide/z0.geojson", "slide/z1.dcm.geojson", "slide/a.geojson.gz", "slide.geojson"])
def test_annotations_are_called_as_any_file_of_a_slide_or_its_folder(tmp_path, name):
    folder = write_slide(tmp_path / "slide")
    (tmp_path / name).write_text("{}")
    assert annotations_of(folder / "z0.dcm") == tmp_path / name
    assert annotations_of(folder / "z0.dcm", tmp_path) == (tmp_path / name if name == "slide.geojson" else None)


def test_annotations_of_a_folder_of_several_slides_are_no_slides(tmp_path):
    folder = write_slide(write_slide(tmp_path / "slide"), "1.2.8", ("b1", "b2", "b3"))
    (tmp_path / "slide.geojson").write_text("{}")
    assert annotations_of(folder / "z0.dcm") is None
    for name in ("z0", "z1"):
        (folder / f"{name}.geojson").write_text("{}")
    assert annotations_of(folder / "b1") is None
    with pytest.raises(DatasetError, match=r"z0\.geojson, .*z1\.geojson may all be the annotations of .*z0\.dcm"):
        annotations_of(folder / "z0.dcm")
