"""`Stain`: how a slide is stained; pixels of one stain to those of another, in optical density.

By Beer and Lambert's law light falls exponentially in a stain: with I0 the colour of bare glass, the optical density
``OD = -ln(I / I0)`` of a pixel is a sum ``M c`` of stain vectors (the columns of M), each times its amount c (Macenko et al.
2009, A method for normalizing histology slides for quantitative analysis, eqs. 1-3). Another stain has other vectors N and
other amounts D c, so a pixel becomes::

    I' = I0' exp(-A OD),   A = N D M^-1

The third column of M and of N is what neither stain explains: at right angles to both of M, and kept as it is. So A of a stain
that changes nothing is the identity, and pixels are left untouched then.

The transform is a function of a pixel alone: blocks that are made apart agree at their borders. It is computed without a
transcendental function of an array, whose last bit differs between processors: logarithms and exponentials are looked up in
tables, between which there are multiplications and additions of float32.
"""

from __future__ import annotations

from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import yaml
from numpy.typing import NDArray
from pydantic import Field, field_validator

from wsigen.base.errors import ConfigError, suggest
from wsigen.base.yaml_file import Settings, read_mapping, validated

HAEMATOXYLIN = (0.744, 0.589, 0.316)
EOSIN = (0.492, 0.727, 0.479)
"""Optical densities (red, green, blue) of what a model paints: of the embedded one, measured by Macenko's method on a slide of
2048 x 1024 px (densities above 0.15, percentiles 1 and 99 of the angles)."""

DENSITY_STEP = 1 / 2048
"""Of the table of exponentials: 0.12 grey values at most."""

LEAST_DENSITY, MOST_DENSITY = -1.0, 7.0
"""What the table of exponentials holds: from e times as bright as glass to below one grey value."""

Density = Annotated[float, Field(ge=0, le=4)]
Vector = tuple[Density, Density, Density]
Byte = Annotated[int, Field(ge=1, le=255)]
Intensity = Annotated[float, Field(ge=0.1, le=4)]
Matrix = NDArray[np.float64]


class Stain(Settings):
    """What a slide is stained with. The defaults change nothing.

    Attributes
    ----------
    haematoxylin, eosin : tuple of float
        Optical densities of the stains in red, green and blue; their lengths do not count.
    haematoxylin_intensity, eosin_intensity : float
        How much of each there is, 1 being what the model paints.
    glass : tuple of int or None
        RGB of bare glass; None is the model's.
    """

    haematoxylin: Vector = HAEMATOXYLIN
    eosin: Vector = EOSIN
    haematoxylin_intensity: Intensity = 1.0
    eosin_intensity: Intensity = 1.0
    glass: tuple[Byte, Byte, Byte] | None = None

    @field_validator("eosin")
    @classmethod
    def _two_stains(cls, value: Vector, info: Any) -> Vector:
        """Vectors that are nearly parallel cannot be told apart."""
        other = info.data.get("haematoxylin")
        if other is not None and min(sum(value), sum(other)) <= 0.1:
            raise ValueError("a stain that takes no light away: give optical densities of red, green and blue")
        if other is not None and np.linalg.norm(np.cross(_unit(value), _unit(other))) < 0.1:
            raise ValueError("points where haematoxylin does: the two cannot be told apart")
        return value

    @property
    def changes_nothing(self) -> bool:
        """Whether pixels stay as they are."""
        return self == Stain()

    def apply(self, rgb: NDArray[np.uint8], glass: tuple[int, int, int]) -> NDArray[np.uint8]:
        """Stain pixels.

        Parameters
        ----------
        rgb : ndarray
            uint8 ``(h, w, 3)``.
        glass : tuple of int
            The colour of bare glass in them.

        Returns
        -------
        ndarray
            uint8 ``(h, w, 3)``; the same object if nothing changes.
        """
        if self.changes_nothing:
            return rgb
        mixing, densities, colours = _tables(self, glass)
        found = [densities[channel][rgb[..., channel]] for channel in range(3)]
        out = np.empty_like(rgb)
        last = np.float32(len(colours[0]) - 1)
        for channel in range(3):
            red, green, blue = mixing[channel]
            place = found[0] * red
            place += found[1] * green
            place += found[2] * blue
            place -= np.float32(LEAST_DENSITY / DENSITY_STEP)
            np.clip(np.rint(place, out=place), 0, last, out=place)
            out[..., channel] = colours[channel][place.astype(np.int32)]
        return out


def parse_stain(value: object) -> object:
    """What `Stain` is made from: a known name or a YAML file becomes its settings, anything else stays (ConfigError)."""
    if isinstance(value, Path) or (isinstance(value, str) and value.endswith((".yaml", ".yml"))):
        content = read_mapping(Path(value), ConfigError, "no such file of a stain; check the path given to --stain")
        return validated(Stain, content, str(value), ConfigError)
    if not isinstance(value, str):
        return value
    known = known_stains()
    if value.strip().casefold() not in known:
        raise ValueError(f"no stain {value!r}{suggest(value, known)}; known: {', '.join(known)}; or give a YAML file of one")
    return known[value.strip().casefold()]


@lru_cache(maxsize=1)
def known_stains() -> dict[str, Stain]:
    """The stains of the package by name, those that laboratories differ by."""
    text = files("wsigen.slide").joinpath("stains.yaml").read_text(encoding="utf-8")
    return {name: Stain(**content) for name, content in yaml.safe_load(text).items()}


# -- inside ------------------------------------------------------------------------------------------------------------


def _unit(vector: Vector) -> NDArray[np.float64]:
    values = np.asarray(vector, dtype=np.float64)
    return values / max(float(np.linalg.norm(values)), 1e-9)


def mixing_matrix(stain: Stain) -> Matrix:
    """A, float64 ``(3, 3)``: optical densities of the model's slides to those of a stain."""
    source = [_unit(HAEMATOXYLIN), _unit(EOSIN)]
    rest = np.cross(source[0], source[1])
    rest /= np.linalg.norm(rest)
    target = [_unit(stain.haematoxylin) * stain.haematoxylin_intensity, _unit(stain.eosin) * stain.eosin_intensity]
    return np.asarray(np.stack([*target, rest], axis=1) @ np.linalg.inv(np.stack([*source, rest], axis=1)))


@lru_cache(maxsize=16)
def _tables(stain: Stain, glass: tuple[int, int, int]) -> tuple[NDArray[np.float32], list[Any], list[Any]]:
    """A; for each channel the density of each of 256 values, in steps; for each the colour of each density."""
    mixing = mixing_matrix(stain).astype(np.float32)
    values = np.maximum(np.arange(256, dtype=np.float64), 1.0)
    densities = [(-np.log(values / white) / DENSITY_STEP).astype(np.float32) for white in glass]
    steps = np.arange(LEAST_DENSITY, MOST_DENSITY, DENSITY_STEP)
    colours = [np.clip(np.rint(white * np.exp(-steps)), 0, 255).astype(np.uint8) for white in stain.glass or glass]
    return mixing, densities, colours
