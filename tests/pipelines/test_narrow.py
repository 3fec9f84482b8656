"""A narrowed U-Net is the wide one where nothing is left out, and keeps the strongest channels where something is."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pipelines.narrow import narrowed, strongest


def _unet(channels: tuple[int, ...]):
    from diffusers import UNet2DModel

    torch.manual_seed(0)
    plain = len(channels) - 1
    return UNet2DModel(
        sample_size=16, in_channels=5, out_channels=3, block_out_channels=channels, layers_per_block=1, norm_num_groups=4,
        down_block_types=("DownBlock2D",) * plain + ("AttnDownBlock2D",),
        up_block_types=("AttnUpBlock2D",) + ("UpBlock2D",) * plain, attention_head_dim=8, num_class_embeds=2,
    )  # fmt: skip


@torch.inference_mode()
def _answer(unet) -> torch.Tensor:
    torch.manual_seed(1)
    return unet(torch.randn(2, 5, 16, 16), torch.tensor([3, 800]), class_labels=torch.tensor([0, 1])).sample


def test_of_the_same_width_it_is_the_same_network():
    unet = _unet((16, 24, 32))
    assert torch.allclose(_answer(narrowed(unet, (16, 24, 32))), _answer(unet), atol=2e-3)  # the fit of the timestep's waves


def test_channels_that_carry_nothing_are_those_left_out():
    """A wide network whose further channels are dead answers as the narrow one that it is in truth."""
    unet = _unet((16, 32))
    dead = {0: np.arange(16).reshape(4, 4)[:, 2:].ravel(), 1: np.arange(32).reshape(4, 8)[:, 4:].ravel()}
    width = {16: dead[0], 32: dead[1]}
    with torch.no_grad():
        for name, weight in unet.named_parameters():
            if name.endswith(("conv2.weight", "conv_shortcut.weight", "conv.weight", "conv_in.weight", "to_out.0.weight")):
                weight[width[len(weight)]] = 0
            if name.endswith(("conv2.weight", "to_out.0.weight")):
                weight[:, width[weight.shape[1]]] = 0
    weights = narrowed(unet, (8, 16)).state_dict()
    for name in ("conv_in.weight", "down_blocks.0.resnets.0.conv2.weight", "mid_block.resnets.0.conv2.weight"):
        assert (weights[name].flatten(1).abs().sum(1) > 0).all(), name


@given(st.integers(1, 4), st.integers(1, 6), st.data())
def test_the_strongest_of_each_run_are_kept(groups, run, data):
    kept = data.draw(st.integers(1, run))
    power = np.array(data.draw(st.permutations(range(groups * run))), dtype=float)
    chosen = strongest(power, kept * groups, groups)
    assert (np.diff(chosen) > 0).all()
    for group in range(groups):
        of_group = power[group * run : (group + 1) * run]
        assert set(power[chosen[chosen // run == group]]) == set(np.sort(of_group)[run - kept :])


def test_a_wider_network_is_no_narrower_one():
    with pytest.raises(SystemExit, match="none of them larger"):
        narrowed(_unet((16, 32)), (16, 40))
