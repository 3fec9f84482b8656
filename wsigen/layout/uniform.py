"""`UniformLayout`: one class for the whole slide."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from wsigen.base.geometry import Box


@dataclass(frozen=True, slots=True)
class UniformLayout:
    """A slide of ``height x width`` pixels that is class ``class_index`` everywhere."""

    height: int
    width: int
    class_index: int

    def class_map(self, box: Box, cell_px: int) -> np.ndarray:
        """Return uint8 ``[box.height, box.width]``, all ``class_index``; see `Layout.class_map`."""
        return np.full(box.shape, self.class_index, np.uint8)
