"""JPEG coefficients read and written: nothing is lost, and damaged streams are refused."""

from __future__ import annotations

from contextlib import suppress
from io import BytesIO

import imagecodecs
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from slide_making import tissue

from wsigen.slide.jpeg_blocks import paste
from wsigen.slide.jpeg_stream import JpegStream

PICTURE = tissue(96, 160)


def encoded(rgb=PICTURE, **options) -> bytes:  # type: ignore[no-untyped-def]
    buffer = BytesIO()
    Image.fromarray(rgb).save(buffer, "JPEG", **{"quality": 90, **options})
    return buffer.getvalue()


KINDS = {
    "4:4:4": {"subsampling": 0},
    "4:2:2": {"subsampling": 1},
    "4:2:0": {"subsampling": 2},
    "tables of its own": {"optimize": True},
    "restart markers": {"restart_marker_blocks": 7},
    "fine": {"quality": 100, "subsampling": 0},
    "coarse": {"quality": 5},
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [(96, 160), (90, 131), (3, 5)])
def test_a_stream_is_read_and_written_byte_for_byte(kind: str, size: tuple[int, int]) -> None:
    data = encoded(np.ascontiguousarray(PICTURE[: size[0], : size[1]]), **KINDS[kind])
    stream = JpegStream.parse(data)
    assert stream.with_planes(stream.planes()) == data


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**32 - 1))
def test_any_picture_comes_back(seed: int) -> None:
    rng = np.random.default_rng(seed)
    rgb = rng.integers(0, 256, (*rng.integers(1, 60, 2), 3), np.uint8)
    data = encoded(rgb, quality=int(rng.integers(1, 101)), subsampling=int(rng.integers(0, 3)))
    stream = JpegStream.parse(data)
    assert stream.with_planes(stream.planes()) == data


@pytest.mark.parametrize("kind", KINDS)
def test_blocks_outside_the_mask_keep_their_coefficients(kind: str) -> None:
    stream = JpegStream.parse(encoded(**KINDS[kind]))
    mask = np.zeros(PICTURE.shape[:2], bool)
    mask[20:50, 30:101] = True
    data, again = paste(stream, 255 - PICTURE, mask, ycbcr=True)
    assert again[mask].all()
    new = JpegStream.parse(data)
    for old, now, part in zip(stream.planes(), new.planes(), stream.components, strict=True):
        step = stream.mcu[0] // part.down, stream.mcu[1] // part.across
        blocks = again[:: step[0], :: step[1]]
        assert (old[~blocks] == now[~blocks]).all()
        assert (old[blocks] != now[blocks]).any()
    error = np.abs(imagecodecs.jpeg8_decode(data).astype(int) - (255 - PICTURE))[24:40, 40:90]
    assert error.mean() < (20 if kind == "coarse" else 4)


def test_planes_of_rgb_are_not_converted() -> None:
    data = bytes(imagecodecs.jpeg8_encode(PICTURE, level=95, colorspace="RGB", outcolorspace="RGB"))
    out, _ = paste(JpegStream.parse(data), 255 - PICTURE, np.ones(PICTURE.shape[:2], bool), ycbcr=False)
    got = imagecodecs.jpeg8_decode(out, colorspace="RGB", outcolorspace="RGB")
    assert np.abs(got.astype(int) - (255 - PICTURE)).mean() < 2


@settings(deadline=None, max_examples=300)
@given(st.data())
def test_damaged_streams_are_refused_or_read(data: st.DataObject) -> None:
    spoilt = bytearray(encoded(np.ascontiguousarray(PICTURE[:40, :40])))
    for _ in range(data.draw(st.integers(1, 4))):
        spoilt[data.draw(st.integers(0, len(spoilt) - 1))] = data.draw(st.integers(0, 255))
    cut = bytes(spoilt[: data.draw(st.integers(0, len(spoilt)))])
    for stream in (bytes(spoilt), cut):
        with suppress(ValueError):
            parsed = JpegStream.parse(stream)
            if parsed.height * parsed.width < 10_000:
                parsed.planes()
