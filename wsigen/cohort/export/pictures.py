"""Tiles and masks as files: JPEG or PNG, marked as synthetic as the press and the EU's code of practice do (IPTC)."""

from __future__ import annotations

import io
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from wsigen.base.classes import UNKNOWN, ClassTable
from wsigen.base.version import __version__

Kind = Literal["jpg", "png"]

QUALITY = 92
"""Of JPEG. Slides hold JPEG, too, and tiles on its lattice of 8 px lose little the second time."""

XMP = f"""<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>
<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
<rdf:Description rdf:about="" xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/"
 xmlns:xmp="http://ns.adobe.com/xap/1.0/" xmp:CreatorTool="wsigen {__version__}"
 Iptc4xmpExt:DigitalSourceType="http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"/>
</rdf:RDF></x:xmpmeta>
<?xpacket end="r"?>"""
"""https://cv.iptc.org/newscodes/digitalsourcetype/: "created using a model derived from sampled content"."""


def encode_tile(pixels: NDArray[np.uint8], kind: Kind) -> bytes:
    """Encode uint8 ``(h, w, 3)`` RGB; the same bytes every time."""
    file = io.BytesIO()
    image = Image.fromarray(pixels)
    if kind == "jpg":
        image.save(file, "JPEG", quality=QUALITY, subsampling=0, xmp=XMP.encode())
    else:
        image.save(file, "PNG", pnginfo=_png_marks())
    return file.getvalue()


def encode_mask(mask: NDArray[np.uint8], table: ClassTable) -> bytes:
    """Encode uint8 ``(h, w)`` as PNG with the classes' colours as its palette."""
    palette = np.zeros((256, 3), np.uint8)
    palette[: len(table)] = [kind.color for kind in table]
    palette[UNKNOWN] = 0
    image = Image.fromarray(mask).convert("P")
    image.putpalette(palette.tobytes())
    file = io.BytesIO()
    image.save(file, "PNG", pnginfo=_png_marks())
    return file.getvalue()


def _png_marks() -> PngInfo:
    marks = PngInfo()
    marks.add_itxt("XML:com.adobe.xmp", XMP)
    return marks
