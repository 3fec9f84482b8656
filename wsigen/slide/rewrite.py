"""A slide of any kind that is read here, written as an OME-TIFF of ours: for kinds in which pixels cannot be replaced."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path

from wsigen.base.errors import ConfigError, ImageError, OutputError, refusing
from wsigen.slide.marks import synthetic_mark
from wsigen.slide.ome import ome_xml
from wsigen.slide.pyramid import Compression, PyramidSpec
from wsigen.slide.reading import open_image
from wsigen.slide.resolution import SAME
from wsigen.slide.spool import Spool
from wsigen.slide.tiles import encode_block
from wsigen.slide.writer import write_slide

MAGNIFICATION_UM = 10.0
"""um/px of a slide at 1x, as it is mostly reckoned."""


def write_ome_tiff(
    source: str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    mpp: float | None = None,
    compression: Compression = "jpeg",
    quality: int = 90,
    note: Callable[[int, int], None] = lambda done, of: None,
) -> PyramidSpec:
    """Write the pixels of a slide as an OME-TIFF.

    Nothing else of it (label, macro, scanner's notes) goes along, but that it is synthetic, or in part.
    All pixels are encoded anew: with JPEG they change by a few grey levels.

    Parameters
    ----------
    source : path
        Any slide or picture that `wsigen.slide.reading.open_image` reads.
    mpp : float or None
        um/px, where the source does not say them.
    note : callable
        Called after every block with how many of how many are done.

    Raises
    ------
    ImageError
        If the source cannot be read, its um/px are not known, or its pixels are not square.
    ConfigError
        If it is smaller than 512 px or larger than 1,000,000 px a side, or the output is the source.
    OutputError
        If the output cannot be written.

    Notes
    -----
    **Memory bound.** A block, and what `write_slide` takes. Encoded blocks lie in a folder beside the output meanwhile.
    """
    output, image = Path(output), open_image(source).stated(mpp)
    if output.exists() and output.samefile(source):
        raise ConfigError(f"{output}: is the slide itself, which is never changed; give another name")
    if not output.parent.is_dir():
        raise OutputError(f"{output}: no such folder; make it")
    if image.mpp is None:
        raise ImageError(f"{source}: does not say its um/px; state them")
    if abs(image.aspect - 1) > SAME:
        raise ImageError(f"{source}: pixels {image.aspect:.3g} times as high as wide; export it with square pixels")
    magnification = round(MAGNIFICATION_UM / image.mpp, 2)
    spec = PyramidSpec(image.width, image.height, image.mpp, magnification, compression, quality)
    with (
        refusing(OutputError, output, "free disk space, or choose another place"),
        tempfile.TemporaryDirectory(dir=output.parent, prefix=".wsigen-") as folder,
    ):
        spool = Spool(Path(folder))
        for done, ij in enumerate(spec.grid, 1):
            spool.write(ij, encode_block(spec, ij, image.read(0, spec.grid.box(ij))))
            note(done, len(spec.grid))
        mark = synthetic_mark(source)
        pairs = {"copy_of": Path(source).name, **({"synthetic": mark} if mark else {})}
        write_slide(output, spec, spool, ome_xml(spec, output.name, pairs, synthetic=mark is not None))
    return spec
