"""The ImageDescription of an edited slide: what it said before, and that some of its regions are synthetic."""

from __future__ import annotations

import re
import uuid
import xml.etree.ElementTree as ET
from collections.abc import Mapping, Sequence

from wsigen.base.errors import ImageError, refusing
from wsigen.slide.marks import PARTLY, is_ome
from wsigen.slide.ome import clean, roi_element
from wsigen.slide.ome_rois import ROI, Roi

EDIT = "wsigen/edit"
"""Namespace of the MapAnnotation that says what was edited."""

_XSI = "http://www.w3.org/2001/XMLSchema-instance"
_IDS = uuid.uuid5(uuid.NAMESPACE_URL, "wsigen:edited")
_SENTENCE = re.compile(rf"(This image is {PARTLY}|Edited): \d+ regions? (made|made anew) by wsigen[^.]*\. ?")
_APERIO = re.compile(r"\|Synthetic = [^|]*")
_BEFORE_DESCRIPTION = ("AcquisitionDate", "ExperimenterRef")


def edited_description(
    text: str, regions: int, details: Mapping[str, str], file_name: str, rois: Sequence[Roi] | None = None
) -> str:
    """Return a description that says what was edited.

    OME-XML gets a sentence in the description of its largest image, and a MapAnnotation for programs; Aperio's text a further
    entry, ``Synthetic``; any other text a sentence in front of it. What said the same of an earlier edit is replaced.

    Parameters
    ----------
    text : str
        The description before; empty if there was none.
    regions : int
        How many regions were made anew, by this edit and those before.
    details : mapping of str to str
        Further keys and values for programs, e.g. model and seed. They and the UUID before decide the UUID of OME-XML: those of
        two edits should differ.
    file_name : str
        Name of the new file, without a folder.
    rois : sequence of Roi or None
        Annotations of the edited slide: they replace those that wsigen wrote into OME-XML (`holds_rois`), while those of other
        programs stay. None: all stay.

    Raises
    ------
    ImageError
        If it is OME-XML that cannot be parsed.
    """
    if is_ome(text):
        with refusing(ImageError, f"{file_name}: the OME-XML of the slide it comes from", "save that slide again, as OME-TIFF"):
            return _edited_xml(text, regions, details, file_name, rois)
    count = f"{regions} region{'s' * (regions != 1)}"
    if text.startswith("Aperio"):
        return f"{_APERIO.sub('', text)}|Synthetic = {PARTLY}: {count} by wsigen"
    return f"{_sentence(regions, False)} {_SENTENCE.sub('', text, count=1)}".strip()


def holds_rois(text: str) -> bool:
    """Whether a description is OME-XML that holds annotations of wsigen: an edit changes them, too."""
    return is_ome(text) and f'ID="{ROI}' in text


def _sentence(regions: int, synthetic: bool) -> str:
    count = f"{regions} region{'s' * (regions != 1)}"
    if synthetic:
        return f"Edited: {count} made anew by wsigen."
    return f"This image is {PARTLY}: {count} made by wsigen, not for diagnosis."


def _edited_xml(text: str, regions: int, details: Mapping[str, str], file_name: str, rois: Sequence[Roi] | None) -> str:
    root = ET.fromstring(text.strip().encode())
    space = root.tag.partition("}")[0].removeprefix("{") if root.tag.startswith("{") else ""
    if space:
        ET.register_namespace("", space)
    ET.register_namespace("xsi", _XSI)
    images = root.findall(_in(space, "Image"))
    if not images:
        raise ValueError("it describes no image")
    image = max(images, key=lambda each: _area(each, space))
    synthetic = any(each.get("K") == "synthetic" and each.text == "true" for each in root.iter(_in(space, "M")))
    _describe(image, space, _sentence(regions, synthetic))
    _annotate(root, image, space, {"synthetic": "true" if synthetic else "partly", "regions": str(regions), **details})
    if rois is not None:
        _replace_rois(root, image, space, rois)
    _rename(root, space, repr((regions, sorted(details.items()))), file_name)
    return '<?xml version="1.0" encoding="UTF-8"?>' + ET.tostring(root, encoding="unicode")


def _in(space: str, name: str) -> str:
    return f"{{{space}}}{name}" if space else name


def _area(image: ET.Element, space: str) -> int:
    pixels = image.find(_in(space, "Pixels"))
    return 0 if pixels is None else int(pixels.get("SizeX", "0")) * int(pixels.get("SizeY", "0"))


def _describe(image: ET.Element, space: str, sentence: str) -> None:
    element = image.find(_in(space, "Description"))
    if element is None:
        element = ET.Element(_in(space, "Description"))
        image.insert(sum(each.tag in {_in(space, name) for name in _BEFORE_DESCRIPTION} for each in image), element)
    element.text = f"{sentence} {_SENTENCE.sub('', element.text or '', count=1)}".strip()


def _annotate(root: ET.Element, image: ET.Element, space: str, pairs: Mapping[str, str]) -> None:
    """Put a MapAnnotation in the place of that of an earlier edit, and let the image refer to it."""
    annotations = root.find(_in(space, "StructuredAnnotations"))
    if annotations is None:
        annotations = ET.Element(_in(space, "StructuredAnnotations"))
        behind = [i for i, each in enumerate(root) if each.tag == _in(space, "Image")]
        root.insert(behind[-1] + 1, annotations)
    mapping = next((each for each in annotations if each.get("Namespace") == EDIT), None)
    if mapping is None:
        mapping = ET.SubElement(annotations, _in(space, "MapAnnotation"), ID="Annotation:wsigen-edit", Namespace=EDIT)
        ET.SubElement(image, _in(space, "AnnotationRef"), ID="Annotation:wsigen-edit")
    for child in list(mapping):
        mapping.remove(child)
    value = ET.SubElement(mapping, _in(space, "Value"))
    for key, content in pairs.items():
        ET.SubElement(value, _in(space, "M"), K=clean(key)).text = clean(content)


def _replace_rois(root: ET.Element, image: ET.Element, space: str, rois: Sequence[Roi]) -> None:
    """Put annotations in the place of those of ours: ROIs of the root, references behind an image's Pixels."""
    for parent, name in ((root, "ROI"), (image, "ROIRef")):
        for element in parent.findall(_in(space, name)):
            if element.get("ID", "").startswith(ROI):
                parent.remove(element)
    behind = 1 + [each.tag for each in image].index(_in(space, "Pixels"))
    for i, roi in enumerate(rois):
        image.insert(behind + i, ET.Element(_in(space, "ROIRef"), ID=f"{ROI}{i}"))
        root.append(element := roi_element(i, roi))
        for each in element.iter():
            each.tag = _in(space, each.tag)


def _rename(root: ET.Element, space: str, edit: str, file_name: str) -> None:
    """Give the file an identifier of its own, also where planes say that they lie in it."""
    old = root.get("UUID")
    if old is None:
        return
    new = f"urn:uuid:{uuid.uuid5(_IDS, old + edit)}"
    root.set("UUID", new)
    for element in root.iter(_in(space, "UUID")):
        if element.text == old:
            element.text = new
            if "FileName" in element.attrib:
                element.set("FileName", clean(file_name))
