"""What a browser shows of the small slide, as pixels."""

from __future__ import annotations

import os
from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image


def pane_pixels(page: Any, number: int = 0) -> tuple[NDArray[np.int16], int, int]:
    """What a pane shows, and which px of the slide lies at its corner, at scale 1."""
    page.wait_for_timeout(300)
    page.wait_for_load_state("networkidle")
    page.wait_for_timeout(700)
    # of the page, not of the element: on a busy machine the page may put a new pane in its place meanwhile
    place = page.locator(".pane").nth(number).bounding_box()
    shot = np.asarray(Image.open(BytesIO(page.screenshot(clip=place))).convert("RGB"), np.int16)
    return shot, 550 - shot.shape[0] // 2, 750 - shot.shape[1] // 2


def inner(pixels: NDArray[Any]) -> NDArray[Any]:
    """Without what lies over the picture at its edges: mark, map, bars."""
    return pixels[190:-70, 20:-20]


def of_slide(pixels: NDArray[Any], y: int, x: int, shot: NDArray[Any]) -> NDArray[Any]:
    return inner(pixels[y : y + shot.shape[0], x : x + shot.shape[1]])


def keep(page: Any, name: str) -> None:
    """Keep a picture for the documentation, if it is asked for."""
    if folder := os.environ.get("WSIGEN_SCREENSHOTS"):
        page.wait_for_load_state("networkidle")
        page.wait_for_timeout(1000)
        page.screenshot(path=f"{folder}/{name}.jpg", type="jpeg", quality=82)
