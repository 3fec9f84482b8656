"""Networks that see squares of latent px as one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny_bundles import make_class_map_bundle

from wsigen.base.errors import BundleError
from wsigen.models.bundle import check_bundle
from wsigen.models.denoisers import call, folded, unfolded


@given(st.integers(1, 4), st.integers(1, 3), st.integers(1, 5))
def test_unfolding_undoes_folding(patch: int, channels: int, squares: int) -> None:
    sample = torch.arange(2 * channels * (patch * squares) ** 2, dtype=torch.float32).view(2, channels, patch * squares, -1)
    small = folded(sample, patch)
    assert small.shape == (2, channels * patch**2, squares, squares)
    assert torch.equal(unfolded(small, patch), sample)
    # one px of the small sample holds one square of the large one
    square = sample[0, :, :patch, :patch].flatten().sort().values
    assert torch.equal(small[0, :, 0, 0].sort().values, square)


def test_a_network_is_called_on_squares_and_gives_pixels() -> None:
    from diffusers import UNet2DModel

    torch.manual_seed(0)
    blocks = {"down_block_types": ("DownBlock2D",) * 2, "up_block_types": ("UpBlock2D",) * 2, "norm_num_groups": 4}
    unet = UNet2DModel(in_channels=20, out_channels=8, block_out_channels=(8, 8), layers_per_block=1, **blocks).eval()
    sample = torch.randn(2, 5, 16, 16)
    with torch.no_grad():
        prediction = call(unet, sample, 7, {}, 2, patch=2)
        by_hand = unet(torch.nn.functional.pixel_unshuffle(sample, 2), 7).sample
    assert prediction.shape == (2, 2, 16, 16)
    np.testing.assert_array_equal(prediction[:, 0, ::2, ::2], by_hand[:, 0])


def test_a_card_that_says_other_squares_than_the_network_is_refused(tmp_path: Path) -> None:
    folder = make_class_map_bundle(tmp_path / "bundle", patch=2)
    with pytest.raises(BundleError, match="in_channels"):
        check_bundle(folder)
