"""A finer level kept true to the coarser one: ``x + up(G - down(x))``, with x its pixels and G the coarser picture.

``down`` is the area mean over each whole px of the coarser level, ``up`` cubic interpolation. What differs smoothly is
corrected whole; of what changes from one coarser px to the next, a part is left. An enlargement that keeps all means was tried:
it shows the coarser px as a pattern, and KID is worse than without a correction (docs/grids.md). It costs no model call: x and
G are decoded from latents that are there.

Where the coarser level holds bare glass, its px are too large to show what tissue lies there, and nothing is corrected.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from wsigen.base.geometry import Box
from wsigen.sampling.passes import PassPlan
from wsigen.slide.resample import taps, weighted


class Agreement:
    """What the pixels of a window depend on, so that they are the same in whatever window they are computed.

    Parameters
    ----------
    fine, coarse : PassPlan
        A pass, and the one before that it starts from.
    window : Box
        Latent px of the finer pass.

    Attributes
    ----------
    below : Box
        The px of the coarser level, cut at the finer one's canvas.
    around : Box
        The latent px of the finer one.
    """

    def __init__(self, fine: PassPlan, coarse: PassPlan, window: Box) -> None:
        self._ratio, self._factor, self._window = coarse.scale // fine.scale, fine.factor, window
        ratio, px, canvas = self._ratio, window.scale(fine.factor), fine.grid.canvas.scale(fine.factor)
        height, width = (-(-extent // ratio) for extent in canvas.shape)
        self._rows = taps(px.y0, px.y1, height * ratio, height)
        self._columns = taps(px.x0, px.x1, width * ratio, width)
        (top, bottom), (left, right) = self._rows.span, self._columns.span
        self.below = Box(top, left, bottom, right)
        self.around = self.below.scale(ratio).cover(fine.factor).intersect(fine.grid.canvas)

    def corrected(
        self, rgb: NDArray[np.float32], box: Box, coarse: NDArray[np.float32], shown: NDArray[np.bool_]
    ) -> NDArray[np.float32]:
        """The pixels of the window, float32 ``(h f, w f, 3)`` in 0 .. 255.

        Parameters
        ----------
        rgb : ndarray
            Pixels of ``box``, float32, in 0 .. 255.
        box : Box
            Latent px of the finer pass: the window and of `around` as much as there is.
        coarse : ndarray
            The coarser picture on `below`, float32 ``(h, w, 3)``; rounded, it would be another one in another window.
        shown : ndarray
            Which of its px are corrected to, bool ``(h, w)``.
        """
        apart = np.where(shown[..., None], coarse - self._means(rgb, box.scale(self._factor)), np.float32(0))
        made = rgb[self._window.relative_to(box).scale(self._factor).slices] + weighted(apart, self._rows, self._columns)
        return np.asarray(np.clip(made, 0, 255, out=made))

    def _means(self, rgb: NDArray[np.float32], px: Box) -> NDArray[np.float32]:
        """The area means on `below` of pixels of ``px``; those beyond repeat the last one."""
        whole = self.below.scale(self._ratio)
        inside = whole.intersect(px)
        beyond = ((inside.y0 - whole.y0, whole.y1 - inside.y1), (inside.x0 - whole.x0, whole.x1 - inside.x1), (0, 0))
        padded = np.pad(rgb[inside.relative_to(px).slices], beyond, mode="edge")
        squares = padded.reshape(self.below.height, self._ratio, self.below.width, self._ratio, 3)
        return np.asarray(squares.mean(axis=(1, 3)))
