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

FITTED_LATENT_PX = 64
"""Side of the picture that is encoded: 4096 points for some dozen unknowns."""

RIDGE = 1e-3
"""Keeps the map small along what does not occur in the picture."""

HAEMATOXYLIN, EOSIN = (0.650, 0.704, 0.286), (0.072, 0.990, 0.105)
"""Optical density of the two stains in R, G and B (Ruifrok and Johnston 2001)."""

_OCTAVES = (4, 8, 16, 32)


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

    return _kept(cache_folder() / "latent-colours" / f"{digest}.json", fit)


def cache_folder() -> Path:
    """Where what can be made again is kept for this user (``XDG_CACHE_HOME``)."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "wsigen"


def fitted(autoencoder: Autoencoder) -> LatentColours:
    """Fit the map by least squares on the encoding of a picture in colours of H&E."""
    factor = autoencoder.latent.factor
    picture = stained_picture(FITTED_LATENT_PX * factor)
    latents = autoencoder.encode(picture)
    side = latents.shape[-1]
    means = picture.reshape(side, factor, side, factor, 3).mean((1, 3)).reshape(-1, 3)
    z = np.concatenate([latents.reshape(len(latents), -1), np.ones((1, side * side), np.float32)]).T.astype(np.float64)
    normal = z.T @ z + RIDGE * side * side * np.diag([*([1.0] * len(latents)), 0.0])
    solution = np.linalg.solve(normal, z.T @ means)
    return LatentColours(tuple(tuple(map(float, row)) for row in solution[:-1].T), tuple(map(float, solution[-1])))


def stained_picture(side: int) -> NDArray[np.uint8]:
    """Smooth blots of both stains at several scales, glass included; always the same, uint8 ``(side, side, 3)``."""
    from PIL import Image

    rng = np.random.default_rng(0)

    def blots(mean: float) -> NDArray[np.float64]:
        field = np.zeros((side, side))
        for cells in _OCTAVES:
            coarse = Image.fromarray(rng.standard_normal((cells, cells)).astype(np.float32))
            field += np.asarray(coarse.resize((side, side), Image.Resampling.BICUBIC), np.float64) * 2.0 / cells**0.5
        return np.clip(mean + 0.35 * field, 0.0, None)

    # a third of it is glass, which no blot leaves bare
    density = blots(0.35)[..., None] * np.array(HAEMATOXYLIN) + blots(0.3)[..., None] * np.array(EOSIN)
    density[:, : side // 3] = 0.0
    return np.rint(245 * np.exp(-density)).astype(np.uint8)


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
