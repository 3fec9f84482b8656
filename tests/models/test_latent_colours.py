"""Latents to colours by a linear map: it finds a linear autoencoder's, and is kept."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from wsigen.models import latent_colours as colours_of


class Linear:
    """An autoencoder whose decoder is a linear map of each latent, and whose encoder is its inverse."""

    def __init__(self, factor: int) -> None:
        self.latent = SimpleNamespace(factor=factor, mean=(0.0,) * 4)
        self.matrix = np.array([[20.0, 5, 0, 1], [0, 25, 4, -3], [7, 0, 18, 2]])
        self.offset = np.array([150.0, 110, 160])

    def decode(self, latents: NDArray[np.float32]) -> NDArray[np.float32]:
        rgb = np.moveaxis(latents, 0, -1) @ self.matrix.T + self.offset
        return np.asarray(rgb.repeat(self.latent.factor, 0).repeat(self.latent.factor, 1), np.float32)

    def encode(self, rgb: NDArray[np.uint8]) -> NDArray[np.float32]:
        small = rgb[:: self.latent.factor, :: self.latent.factor] - self.offset
        return np.moveaxis(small @ np.linalg.pinv(self.matrix).T, -1, 0).astype(np.float32)


@pytest.mark.parametrize("factor", [4, 8])
def test_a_linear_autoencoder_is_found(factor: int) -> None:
    model: Any = Linear(factor)
    found = colours_of.fitted(model)
    assert np.asarray(found.matrix) == pytest.approx(model.matrix, abs=0.2)
    latents = np.random.default_rng(1).standard_normal((4, 5, 6)).astype(np.float32)
    wanted = np.clip(model.decode(latents)[::factor, ::factor], 0, 255)
    assert np.abs(found.rgb(latents) - wanted).max() < 2
    glass = found.rgb(model.encode(np.full((factor, factor, 3), 245, np.uint8)))
    assert np.abs(glass.astype(int) - 245).max() <= 2


def test_it_is_fitted_once_and_kept(bundle: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    first = colours_of.latent_colours(bundle)
    (kept,) = tmp_path.rglob("*.json")
    assert set(json.loads(kept.read_text())) == {"matrix", "offset"}
    with monkeypatch.context() as patched:
        patched.setattr(colours_of, "fitted", None)
        assert colours_of.latent_colours(bundle) == first
    kept.write_text("{")
    assert colours_of.latent_colours(bundle) == first
    with pytest.raises(ValueError, match="not the model of the run"):
        colours_of.latent_colours(bundle, "0" * 64)
