"""What an edited slide says of itself: programs and people can tell, and nothing else is lost."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import openslide
import pytest
from ome_types import from_xml
from scanner_files import jpeg, write_ome, write_svs
from slide_making import make_slide, tissue

from wsigen.base.errors import ImageError
from wsigen.base.geometry import Box
from wsigen.slide.edited_description import edited_description, holds_rois
from wsigen.slide.marks import STATEMENT, description_of, synthetic_mark
from wsigen.slide.ome import ome_xml
from wsigen.slide.ome_rois import Roi
from wsigen.slide.pyramid import PyramidSpec
from wsigen.slide.reading import open_image
from wsigen.slide.splice import Patch, replace_pixels
from wsigen.slide.tiles import area_mean

BOX = Box(100, 100, 200, 220)
PATCH = Patch(BOX, tissue(*BOX.shape, seed=1), np.ones(BOX.shape, bool))
PICTURE = tissue(512, 512)


def edited(path: Path, output: Path, regions: int) -> str:
    mark = synthetic_mark(path)
    text = edited_description(description_of(path) or "", regions, {"seed": str(regions)}, output.name)
    replace_pixels(path, output, [PATCH], description=text)
    before, after = open_image(path), open_image(output)
    assert (before.mpp, before.levels) == (after.mpp, after.levels)
    assert synthetic_mark(output) == (mark or "partly")
    return description_of(output) or ""


def test_a_slide_of_ours_stays_synthetic_and_says_what_was_edited(tmp_path: Path) -> None:
    path = make_slide(tmp_path, PyramidSpec(600, 512, 0.5, 20), tissue(512, 600))
    one = from_xml(edited(path, tmp_path / "1.ome.tiff", 1), validate=True)
    two = from_xml(edited(tmp_path / "1.ome.tiff", tmp_path / "2.ome.tiff", 3), validate=True)
    assert one.images[0].description.startswith(f"Edited: 1 region made anew by wsigen. {STATEMENT}")
    assert two.images[0].description.startswith(f"Edited: 3 regions made anew by wsigen. {STATEMENT}")
    made, edit = two.structured_annotations.map_annotations
    assert made.value.ms[0].value == "true"
    assert {m.k: m.value for m in edit.value.ms} == {"synthetic": "true", "regions": "3", "seed": "3"}
    assert [ref.id for ref in two.images[0].annotation_refs] == [made.id, edit.id]
    assert len({from_xml(description_of(path) or "").uuid, one.uuid, two.uuid}) == 3


def test_a_real_ome_tiff_says_that_it_is_partly_synthetic(tmp_path: Path) -> None:
    path = tmp_path / "a.ome.tif"
    write_ome(path, [PICTURE, area_mean(PICTURE, 2)], metadata={"Name": "case 7 µ", "Description": "breast"})
    ome = from_xml(edited(path, tmp_path / "b.ome.tif", 2), validate=True)
    assert ome.images[0].description == "This image is partly synthetic: 2 regions made by wsigen, not for diagnosis. breast"
    assert ome.images[0].name == "case 7 µ"
    (edit,) = ome.structured_annotations.map_annotations
    assert edit.value.ms[0].value == "partly"


def test_annotations_of_ours_are_replaced_and_those_of_others_stay() -> None:
    square = [[0.0, 0.0], [0.0, 80.0], [80.0, 80.0], [80.0, 0.0], [0.0, 0.0]]
    one = Roi("Tumor 1", "Tumor", (200, 0, 0), (square,))
    two = [Roi("Stroma 1", "Stroma & <b>", (0, 90, 0), (square,)), Roi("Tumor 1", "Tumor", (200, 0, 0), (square, square))]
    ours = ome_xml(PyramidSpec(600, 512, 0.5, 20), "x", {}, [one]).decode()
    assert holds_rois(ours)
    ome = from_xml(edited_description(ours, 1, {}, "y.ome.tiff", two), validate=True)
    assert [roi.name for roi in ome.rois] == ["Stroma 1", "Tumor 1"]
    assert [ref.id for ref in ome.images[0].roi_refs] == [roi.id for roi in ome.rois]
    assert len(ome.rois[1].union) == 2
    assert from_xml(edited_description(ours, 1, {}, "y.ome.tiff", ()), validate=True).rois == []
    assert [roi.name for roi in from_xml(edited_description(ours, 1, {}, "y.ome.tiff"), validate=True).rois] == ["Tumor 1"]


def test_annotations_that_another_program_added_to_a_slide_of_ours_stay() -> None:
    square = [[0.0, 0.0], [0.0, 80.0], [80.0, 80.0], [80.0, 0.0], [0.0, 0.0]]
    ours = ome_xml(PyramidSpec(600, 512, 0.5, 20), "x", {}, [Roi("Tumor 1", "Tumor", (200, 0, 0), (square,))]).decode()
    root = ET.fromstring(ours.encode())
    space = root.tag.partition("}")[0] + "}"
    ET.SubElement(ET.SubElement(root, space + "ROI", ID="ROI:0", Name="theirs"), space + "Union").append(
        ET.Element(space + "Rectangle", ID="Shape:0:0", X="1", Y="1", Width="9", Height="9")
    )
    reference = ET.Element(space + "ROIRef", ID="ROI:0")
    image = root.find(space + "Image")
    image.insert([each.tag for each in image].index(space + "ROIRef"), reference)
    both = ET.tostring(root, encoding="unicode")
    new = [Roi("Stroma 1", "Stroma", (0, 90, 0), (square,))]
    ome = from_xml(edited_description(both, 1, {}, "y.ome.tiff", new), validate=True)
    assert {roi.name for roi in ome.rois} == {"theirs", "Stroma 1"}
    assert {ref.id for ref in ome.images[0].roi_refs} == {roi.id for roi in ome.rois}
    theirs = edited_description(both, 1, {}, "y.ome.tiff", ())
    assert not holds_rois(theirs)
    assert [roi.id for roi in from_xml(theirs, validate=True).rois] == ["ROI:0"]


def test_two_edits_of_one_slide_are_two_files() -> None:
    text = ome_xml(PyramidSpec(600, 512, 0.5, 20), "x", {}).decode()
    identities = {from_xml(edited_description(text, 1, {"edit": each}, "y.ome.tiff")).uuid for each in "aab"}
    assert len(identities) == 2
    assert from_xml(text).uuid not in identities


def test_an_svs_says_so_in_an_entry_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "a.svs"
    write_svs(path, [PICTURE, area_mean(PICTURE, 4)], jpeg, "jpeg")
    edited(path, tmp_path / "b.svs", 1)
    text = edited(tmp_path / "b.svs", tmp_path / "c.svs", 4)
    assert text.count("Synthetic") == 1
    properties = openslide.OpenSlide(str(tmp_path / "c.svs")).properties
    assert properties["aperio.Synthetic"] == "partly synthetic: 4 regions by wsigen"
    assert properties["aperio.AppMag"] == "20"


def test_any_other_text_is_kept_behind_the_sentence() -> None:
    one = edited_description("scan of B12, 0.25 um/px", 1, {}, "x.tif")
    assert one == "This image is partly synthetic: 1 region made by wsigen, not for diagnosis. scan of B12, 0.25 um/px"
    two = edited_description(one, 2, {}, "x.tif")
    assert two == "This image is partly synthetic: 2 regions made by wsigen, not for diagnosis. scan of B12, 0.25 um/px"
    assert edited_description("", 2, {}, "x.tif").startswith("This image is partly synthetic: 2 regions")


@pytest.mark.parametrize("text", ["<OME", "<?xml version='1.0'?><OME></OME>", "<a><OME/></b>"])
def test_damaged_xml_is_refused_in_a_line(text: str) -> None:
    with pytest.raises(ImageError, match="save that slide again"):
        edited_description(text, 1, {}, "x.tif")


def test_xml_with_a_prefix_or_odd_names_stays_xml() -> None:
    space = "http://www.openmicroscopy.org/Schemas/OME/2016-06"
    inside = '<o:Image ID="Image:0"><o:Pixels ID="Pixels:0" SizeX="9" SizeY="9"/></o:Image>'  # as ElementTree writes it unasked
    root = ET.fromstring(
        edited_description(f'<o:OME xmlns:o="{space}">{inside}</o:OME>', 1, {"model": "a\x00<b"}, "x.ome.tiff")
    )
    assert {m.get("K"): m.text for m in root.findall(".//{*}M")} == {"synthetic": "partly", "regions": "1", "model": "a<b"}
    assert "partly synthetic: 1 region" in (root.findtext(".//{*}Description") or "")
