from __future__ import annotations

from importlib.util import find_spec

import pytest
from ome_types import OME, from_xml

from wsigen.slide.marks import STATEMENT
from wsigen.slide.ome import ome_xml
from wsigen.slide.pyramid import PyramidSpec

SPEC = PyramidSpec(5000, 3000, 0.4237, 23.6)
CAN_VALIDATE = any(find_spec(name) for name in ("lxml", "xmlschema"))
NOTES = {"model": "<dé&mo>", "model_sha256": "ab12", "seed": "7"}


def read(xml: bytes) -> OME:
    """Parse, against the schema where a validator is installed (ome-types uses lxml or xmlschema)."""
    return from_xml(xml, validate=CAN_VALIDATE)


@pytest.mark.skipif(not CAN_VALIDATE, reason="needs lxml or xmlschema")
@pytest.mark.parametrize("notes", [{}, NOTES])
def test_the_schema_holds(notes: dict[str, str]) -> None:
    from_xml(ome_xml(SPEC, "x", notes), validate=True)


@pytest.mark.parametrize("notes", [{}, NOTES])
def test_what_viewers_look_for(notes: dict[str, str]) -> None:
    ome = read(ome_xml(SPEC, 'a "slide" & more', notes))
    (image,) = ome.images
    pixels = image.pixels
    assert image.name == 'a "slide" & more'
    assert (pixels.size_x, pixels.size_y, pixels.size_c) == (5000, 3000, 3)
    assert (pixels.physical_size_x, pixels.physical_size_x_unit.value) == (0.4237, "µm")
    assert (pixels.physical_size_y, pixels.physical_size_y_unit.value) == (0.4237, "µm")
    assert pixels.dimension_order.value == "XYCZT"
    assert [c.samples_per_pixel for c in pixels.channels] == [3]
    objective = ome.instruments[0].objectives[0]
    assert image.objective_settings.id == objective.id
    assert objective.nominal_magnification == 23.6


def test_the_slide_says_that_it_is_synthetic() -> None:
    ome = read(ome_xml(SPEC, "x", {**NOTES, "synthetic": "false"}))
    assert ome.images[0].description.startswith(STATEMENT)
    assert "not a real patient" in STATEMENT
    (mapping,) = ome.structured_annotations.map_annotations
    assert {m.k: m.value for m in mapping.value.ms} == {"synthetic": "true", **NOTES}
    assert ome.images[0].annotation_refs[0].id == mapping.id


def test_the_same_slide_has_the_same_xml() -> None:
    assert ome_xml(SPEC, "x", NOTES) == ome_xml(SPEC, "x", dict(NOTES))
    one, two = (read(ome_xml(SPEC, "x", {"seed": s})).uuid for s in ("1", "2"))
    assert one != two


def test_the_unit_is_utf8_micrometres() -> None:
    assert 'PhysicalSizeXUnit="µm"'.encode() in ome_xml(SPEC, "x", {})


def test_characters_that_xml_cannot_hold_are_dropped() -> None:
    ome = read(ome_xml(SPEC, "a\x00b", {"note": "c\x1bd\ufffe😀"}))
    assert ome.images[0].name == "ab"
    assert ome.structured_annotations.map_annotations[0].value.ms[1].value == "cd😀"
