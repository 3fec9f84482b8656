"""Other pixels in a part of a JPEG: blocks that the part does not touch keep their coefficients."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from wsigen.slide.jpeg_headers import Component
from wsigen.slide.jpeg_huffman import BLOCK
from wsigen.slide.jpeg_stream import JpegStream

RGB = NDArray[np.uint8]
Mask = NDArray[np.bool_]

_TO_YCBCR = np.array([[0.299, 0.587, 0.114], [-0.168735892, -0.331264108, 0.5], [0.5, -0.418687589, -0.081312411]], np.float32)
"""JFIF, of full range."""

_LARGEST = 1023
"""Of a quantised coefficient (T.81, table F.2); the first may be twice as large."""


def paste(stream: JpegStream, pixels: RGB, mask: Mask, ycbcr: bool, blank: bool = False) -> tuple[bytes, Mask]:
    """Return a JPEG with other pixels under a mask, and which pixels were encoded anew.

    What is encoded anew are the MCUs that the mask touches: 16 x 16 px of YCbCr 4:2:0, 8 x 8 px without subsampling. In them
    pixels outside the mask change by what quantisation makes of their neighbours. All other coefficients stay. (Decoders that
    smooth colours of 4:2:0 look one pixel across the border of an MCU.)

    Parameters
    ----------
    pixels, mask : ndarray
        uint8 ``(h, w, 3)`` and bool ``(h, w)``, of the whole picture.
    ycbcr : bool
        Whether its planes are YCbCr and not RGB.
    blank : bool
        Take the stream's settings alone; ``pixels`` is all of the picture.

    Raises
    ------
    ValueError
        If the stream is damaged or of another size.
    """
    if pixels.shape[:2] != (stream.height, stream.width):
        raise ValueError(f"a JPEG of {stream.width} x {stream.height} px in a tile of {pixels.shape[1]} x {pixels.shape[0]} px")
    (high, wide), (rows, columns) = stream.mcu, stream.mcus
    edge = ((0, rows * high - stream.height), (0, columns * wide - stream.width))
    mask = np.pad(mask | blank, edge, mode="edge")
    touched = mask.reshape(rows, high, columns, wide).any((1, 3))
    old = _no_coefficients(stream) if mask.all() else stream.planes()
    colours = np.pad(pixels, (*edge, (0, 0)), mode="edge").astype(np.float32)
    colours = colours @ _TO_YCBCR.T - np.array([128, 0, 0], np.float32) if ycbcr else colours - np.float32(128)
    for i, (part, planes) in enumerate(zip(stream.components, old, strict=True)):
        here = touched.repeat(part.down, 0).repeat(part.across, 1)
        by = high // 8 // part.down, wide // 8 // part.across
        planes[here] = _mixed(planes[here], _cells(colours[..., i], by)[here], _cells(mask, by)[here], part)
    again = touched.repeat(high, 0).repeat(wide, 1)[: stream.height, : stream.width]
    return stream.with_planes(old), again


def _mixed(old: NDArray[np.int32], new: NDArray[np.float32], mask: Mask, part: Component) -> NDArray[np.int32]:
    """Coefficients ``(n, 64)`` of blocks in which some pixels are new.

    Parameters
    ----------
    new, mask : ndarray
        ``(n, 8, 8, cell)``: a sample of a subsampled plane is the mean of a cell of pixels, each of which is old or new.
    """
    from scipy.fft import dctn, idctn

    quanta = part.quanta.astype(np.float32)
    before = np.zeros((len(old), BLOCK), np.float32)
    before[:, _ZIGZAG] = old * quanta
    samples = idctn(before.reshape(-1, 8, 8), axes=(1, 2), norm="ortho")
    samples = np.where(mask, new, samples[..., None]).mean(-1)
    after = dctn(samples, axes=(1, 2), norm="ortho").reshape(-1, BLOCK)[:, _ZIGZAG]
    levels = np.rint(after / quanta).astype(np.int32)
    levels[:, 1:] = np.clip(levels[:, 1:], -_LARGEST, _LARGEST)
    return levels


def _cells(plane: NDArray[Any], by: tuple[int, int]) -> NDArray[Any]:
    """Cut a plane ``(h, w)`` into blocks of 8 x 8 cells of ``by`` pixels: ``(rows, columns, 8, 8, cell)``."""
    down, across = by
    rows, columns = plane.shape[0] // (8 * down), plane.shape[1] // (8 * across)
    parts = plane.reshape(rows, 8, down, columns, 8, across).transpose(0, 3, 1, 4, 2, 5)
    return parts.reshape(rows, columns, 8, 8, down * across)


def _no_coefficients(stream: JpegStream) -> list[NDArray[np.int32]]:
    rows, columns = stream.mcus
    return [np.zeros((rows * c.down, columns * c.across, BLOCK), np.int32) for c in stream.components]


def _zigzag() -> NDArray[np.int64]:
    """Index into a block, row by row, of each coefficient in their order in the stream (T.81, figure A.6)."""
    places = sorted(np.ndindex(8, 8), key=lambda p: (sum(p), p[0] if sum(p) % 2 else p[1]))
    return np.array([8 * y + x for y, x in places])


_ZIGZAG = _zigzag()
