"""OME-XML: what viewers read about the slide."""

from __future__ import annotations

import re
import uuid
import xml.etree.ElementTree as ET
from collections.abc import Mapping, Sequence

from wsigen.slide.marks import PARTLY, STATEMENT
from wsigen.slide.ome_rois import ROI, SHAPE, Roi
from wsigen.slide.pyramid import PyramidSpec

NAMESPACE = "http://www.openmicroscopy.org/Schemas/OME/2016-06"
_SCHEMA = f"{NAMESPACE} {NAMESPACE}/ome.xsd"
_XSI = "http://www.w3.org/2001/XMLSchema-instance"
_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_IDS = uuid.uuid5(uuid.NAMESPACE_URL, "wsigen:ome-xml")

PROVENANCE, COPY = "wsigen/provenance", "wsigen/copy"
"""Namespaces of MapAnnotations: how a synthetic slide was made; of what a slide is a copy."""


def ome_xml(
    spec: PyramidSpec, name: str, annotations: Mapping[str, str], rois: Sequence[Roi] = (), synthetic: bool = True
) -> bytes:
    """Return the OME-XML (schema 2016-06, UTF-8) of a slide.

    The slide is marked as synthetic twice, where a person and where a program looks: in the image's
    description, and as ``synthetic: true`` in a MapAnnotation together with ``annotations``. The same
    arguments give the same bytes.

    Parameters
    ----------
    name : str
        Name of the image.
    annotations : mapping of str to str
        Further keys and values, e.g. model, model hash and seed. A key ``synthetic`` can say ``partly``, and nothing else.
    rois : sequence of Roi
        Annotations to be written into it (`wsigen.slide.ome_rois.read_rois`).
    synthetic : bool
        False for a copy of a real slide alone, which gets neither mark.
    """
    mark = {"synthetic": "partly" if annotations.get("synthetic") == "partly" else "true"} if synthetic else {}
    pairs = {**mark, **{k: clean(v) for k, v in annotations.items() if k != "synthetic"}}
    root = _root(_identity(spec, name, pairs))
    instrument = ET.SubElement(root, "Instrument", ID="Instrument:0")
    ET.SubElement(instrument, "Objective", ID="Objective:0", NominalMagnification=_number(spec.magnification))
    _image(root, spec, clean(name), pairs, len(rois))
    structured = ET.SubElement(root, "StructuredAnnotations")
    mapping = ET.SubElement(structured, "MapAnnotation", ID="Annotation:0", Namespace=PROVENANCE if synthetic else COPY)
    value = ET.SubElement(mapping, "Value")
    for key, text in pairs.items():
        ET.SubElement(value, "M", K=clean(key)).text = text
    root.extend(roi_element(i, roi) for i, roi in enumerate(rois))
    return b'<?xml version="1.0" encoding="UTF-8"?>' + ET.tostring(root, encoding="utf-8")


def _root(identity: uuid.UUID) -> ET.Element:
    return ET.Element(
        "OME",
        {
            "xmlns": NAMESPACE,
            "xmlns:xsi": _XSI,
            "xsi:schemaLocation": _SCHEMA,
            "UUID": f"urn:uuid:{identity}",
            "Creator": "wsigen",
        },
    )


def _image(root: ET.Element, spec: PyramidSpec, name: str, pairs: Mapping[str, str], rois: int) -> None:
    """Add the Image: its children in the schema's order, else the file is invalid."""
    image = ET.SubElement(root, "Image", ID="Image:0", Name=name)
    details = "; ".join(f"{k}: {v}" for k, v in pairs.items())
    statement = {"true": STATEMENT, "partly": f"This image is {PARTLY}, by wsigen: not for diagnosis."}.get(
        pairs.get("synthetic", "")
    )
    ET.SubElement(image, "Description").text = f"{statement} {details}" if statement else details
    ET.SubElement(image, "InstrumentRef", ID="Instrument:0")
    ET.SubElement(image, "ObjectiveSettings", ID="Objective:0")  # QuPath finds the magnification by this ID
    size = _number(spec.mpp)
    pixels = ET.SubElement(
        image,
        "Pixels",
        ID="Pixels:0",
        DimensionOrder="XYCZT",  # another order loses the pyramid in three viewers
        Type="uint8",
        SizeX=str(spec.width),
        SizeY=str(spec.height),
        SizeZ="1",
        SizeC="3",
        SizeT="1",
        Interleaved="true",
        PhysicalSizeX=size,
        PhysicalSizeXUnit="µm",
        PhysicalSizeY=size,
        PhysicalSizeYUnit="µm",
    )
    ET.SubElement(pixels, "Channel", ID="Channel:0:0", SamplesPerPixel="3")
    ET.SubElement(pixels, "TiffData", IFD="0", PlaneCount="1")
    for i in range(rois):
        ET.SubElement(image, "ROIRef", ID=f"{ROI}{i}")
    ET.SubElement(image, "AnnotationRef", ID="Annotation:0")


def roi_element(i: int, roi: Roi) -> ET.Element:
    """The ROI with the number ``i``, to which its image refers by the same identifier."""
    element = ET.Element("ROI", ID=f"{ROI}{i}", Name=clean(roi.name))
    union = ET.SubElement(element, "Union")
    for j, ring in enumerate(roi.outlines):
        ET.SubElement(
            union,
            "Polygon",
            ID=f"{SHAPE}{i}:{j}",
            StrokeColor=str(_rgba(roi.color)),
            Text=clean(roi.class_name),
            Locked="true",
            Points=" ".join(f"{_number(x)},{_number(y)}" for x, y in ring[:-1]),  # the last is the first again
        )
    return element


def _rgba(color: tuple[int, int, int]) -> int:
    """A colour as OME-XML has it, RGBA in a signed integer of 32 bits."""
    return int.from_bytes(bytes((*color, 255)), "big", signed=True)


def _identity(spec: PyramidSpec, name: str, pairs: Mapping[str, str]) -> uuid.UUID:
    return uuid.uuid5(_IDS, repr((spec, name, sorted(pairs.items()))))


def _number(value: float) -> str:
    return f"{value:.10g}"


def clean(text: str) -> str:
    """Drop the control characters that XML cannot hold."""
    return _NOT_XML.sub("", text)
