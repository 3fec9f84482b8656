"""`LatentColours`: latents to colours without the decoder, by a linear map that is fitted once for a bundle.

An autoencoder's latents are, to a good part, its picture at 1/f, rotated: RGB = A z + b explains most of the variance, as is
known of Stable Diffusion's. That is enough to watch a slide grow.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from wsigen.models.bundle import bundle_hash, check_bundle
from wsigen.storage.files import write_atomic

if TYPE_CHECKING:
    from wsigen.models.autoencoder import Autoencoder

Array = NDArray[np.float32]

NOISE_PX, GLASS_PX = 40, 16
"""Sides of what the map is fitted on, latent px: 1600 points of noise and 256 of glass for some dozen unknowns."""

GLASS = 245
"""Grey level of glass."""

RIDGE = 1e-3
"""Keeps the map small along what makes no difference to colours."""


@dataclass(frozen=True, slots=True)
class LatentColours:
    """RGB (0 to 255) = ``matrix`` z + ``offset`` for a standardised latent z.

    Attributes
    ----------
    matrix : tuple of tuple of float
        3 rows of C numbers.
    offset : tuple of float
        Three numbers.
    """

    matrix: tuple[tuple[float, ...], ...]
    offset: tuple[float, ...]

    def rgb(self, latents: Array) -> NDArray[np.uint8]:
        """Colours of latents ``(C, h, w)``, uint8 ``(h, w, 3)``."""
        matrix, offset = np.asarray(self.matrix, np.float32), np.asarray(self.offset, np.float32)
        values = np.tensordot(latents, matrix, axes=(0, 1)) + offset
        return np.clip(np.rint(values), 0, 255).astype(np.uint8)


def latent_colours(bundle: Path, sha256: str | None = None) -> LatentColours:
    """Return the map of a bundle; it is fitted the first time and kept in the user's cache.

    Parameters
    ----------
    bundle : Path
        Its folder.
    sha256 : str, optional
        The bundle that it has to be.

    Raises
    ------
    BundleError
        If there is none.
    ValueError
        If it is another one.
    """
    card, digest = check_bundle(bundle), bundle_hash(bundle)
    if sha256 not in (None, digest):
        raise ValueError(f"{bundle} is not the model of the run")

    def fit() -> LatentColours:
        from wsigen.models.autoencoder import load_autoencoder

        return fitted(load_autoencoder(bundle, card.latent, "cpu"))

    return _kept(cache_folder() / "latent-rgb" / f"{digest}.json", fit)


def cache_folder() -> Path:
    """Where what can be made again is kept for this user (``XDG_CACHE_HOME``)."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "wsigen"


def fitted(autoencoder: Autoencoder) -> LatentColours:
    """Fit the map by least squares on a window of noise that is decoded, and one of glass that is encoded.

    Latents are standardised, so white noise covers all that occurs: for the embedded model a map fitted on it explains nine
    tenths of the variance of a slide's colours, and one fitted on encodings of drawn blots of H&E four to eight tenths.
    """
    factor, channels = autoencoder.latent.factor, len(autoencoder.latent.mean)
    noise = np.random.default_rng(0).standard_normal((channels, NOISE_PX, NOISE_PX)).astype(np.float32)
    decoded = autoencoder.decode(noise).reshape(NOISE_PX, factor, NOISE_PX, factor, 3).mean((1, 3))
    glass = autoencoder.encode(np.full((GLASS_PX * factor, GLASS_PX * factor, 3), GLASS, np.uint8))
    z = np.concatenate([noise.reshape(channels, -1), glass.reshape(channels, -1)], axis=1).T.astype(np.float64)
    z = np.column_stack([z, np.ones(len(z))])
    colours = np.concatenate([decoded.reshape(-1, 3), np.full((GLASS_PX**2, 3), float(GLASS))])
    normal = z.T @ z + RIDGE * len(z) * np.diag([*([1.0] * channels), 0.0])
    solution = np.linalg.solve(normal, z.T @ colours)
    return LatentColours(tuple(tuple(map(float, row)) for row in solution[:-1].T), tuple(map(float, solution[-1])))


def _kept(file: Path, fit: Callable[[], LatentColours]) -> LatentColours:
    """What a file of the cache says; made and kept if there is none, or it cannot be used."""
    try:
        said = json.loads(file.read_text())
        return LatentColours(tuple(map(tuple, said["matrix"])), tuple(said["offset"]))
    except (OSError, ValueError, KeyError, TypeError):
        colours = fit()
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(file, json.dumps({"matrix": colours.matrix, "offset": colours.offset}).encode())
    except OSError:  # no home, a full disk: fitted again next time
        pass
    return colours
