"""A decoder cut at the attention of its middle block: what diffusers decodes, for any block of a slide."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import tiny_bundles
import torch
from diffusers import AutoencoderKL
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.flop_counter import FlopCounterMode

from wsigen.geometry import Box
from wsigen.models.attention import SplitDecoder, can_split
from wsigen.models.attention_windows import PART, SIDE, attended_redundancy, attention_windows
from wsigen.models.model import Model, load_model
from wsigen.models.receptive import BEFORE_ATTENTION, attended_radius, decoder_radius, upsamplings
from wsigen.models.shrinking import ShrinkingHalo

HEIGHT, WIDTH = 130, 250
CANVAS = Box(0, 0, HEIGHT, WIDTH)


def latents(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(4, height, width)).astype(np.float32)


@pytest.fixture
def model(text_model: Model) -> Iterator[Model]:
    text_model.freeze_norm(text_model.norm_statistics([latents(24, 24)]))
    yield text_model
    text_model.freeze_norm(None)


def decode(model: Model, z: np.ndarray, box: Box, *others: Box) -> np.ndarray:
    """Decode a box of a canvas as a task does that has others to decode as well."""
    canvas = Box(0, 0, *z.shape[1:])
    around, *rest = (b.dilate(model.halo).intersect(canvas) for b in (box, *others))
    features = model.features(lambda b: z[:, b.y0 : b.y1, b.x0 : b.x1], canvas, [around, *rest])
    halo = (box.y0 - around.y0, around.y1 - box.y1, box.x0 - around.x0, around.x1 - box.x1)
    return model.decode_features(features, around, halo)


@pytest.mark.parametrize("shape", [(24, 40), (33, 7), (16, 128)])
def test_a_slide_of_one_window_is_decoded_as_diffusers_decodes_it(
    model: Model, text_bundle: Path, shape: tuple[int, int]
) -> None:
    vae = AutoencoderKL.from_pretrained(text_bundle / "vae").eval()
    z = latents(*shape)
    mean, std = (np.array(v, np.float32)[:, None, None] for v in (model.card.latent.mean, model.card.latent.std))
    with torch.inference_mode():
        raw = vae.decode(torch.from_numpy(z * std + mean)[None]).sample[0].permute(1, 2, 0).numpy()
    model.freeze_norm(model.norm_statistics([z]))
    found = decode(model, z, Box(0, 0, *shape))
    assert np.abs(found - np.clip((raw + 1.0) * 127.5, 0, 255)).max() < 255 * 1e-4


@pytest.fixture(scope="module")
def slide(text_model: Model) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Latents of six windows, and what they decode to as one box."""
    z = latents(HEIGHT, WIDTH)
    text_model.freeze_norm(text_model.norm_statistics([latents(24, 24)]))
    yield z, decode(text_model, z, CANVAS)
    text_model.freeze_norm(None)


@given(y=st.integers(0, HEIGHT - 1), x=st.integers(0, WIDTH - 1), side=st.integers(1, 40))
@settings(max_examples=8, deadline=None)
def test_a_block_is_the_same_box_cut_out_of_a_larger_one(
    y: int, x: int, side: int, slide: tuple[np.ndarray, np.ndarray], text_model: Model
) -> None:
    z, whole = slide
    box = Box(y, x, y + side, x + side).intersect(CANVAS)
    text_model.freeze_norm(text_model.norm_statistics([latents(24, 24)]))
    found = decode(text_model, z, box)
    assert np.abs(found - whole[box.scale(8).slices]).max() < 255 * 1e-4


@given(corners=st.lists(st.tuples(st.integers(0, HEIGHT - 1), st.integers(0, WIDTH - 1), st.integers(1, 60)), min_size=1))
@settings(max_examples=8, deadline=None)
def test_features_have_the_same_bits_whoever_asks(corners: list[tuple[int, int, int]], text_model: Model) -> None:
    z = latents(HEIGHT, WIDTH)
    text_model.freeze_norm(text_model.norm_statistics([latents(24, 24)]))
    boxes = [Box(y, x, y + side, x + side).intersect(CANVAS) for y, x, side in corners]
    together, alone = (
        text_model.features(lambda b: z[:, b.y0 : b.y1, b.x0 : b.x1], CANVAS, needed) for needed in (boxes, boxes[:1])
    )
    assert torch.equal(together.part(boxes[0]), alone.part(boxes[0]))


@given(st.integers(1, 500), st.integers(1, 500), st.data())
@settings(max_examples=30)
def test_weights_add_up_to_one_wherever_somebody_asks(height: int, width: int, data: st.DataObject) -> None:
    y, x = data.draw(st.integers(0, height - 1)), data.draw(st.integers(0, width - 1))
    canvas = Box(0, 0, height, width)
    box = Box(y, x, y + data.draw(st.integers(1, 300)), x + data.draw(st.integers(1, 300))).intersect(canvas)
    total = np.zeros(canvas.shape)
    for window in attention_windows(canvas, [box]):
        assert window.around == window.box.dilate(BEFORE_ATTENTION).intersect(canvas)
        assert max(window.box.shape) <= SIDE
        for cell in window.cells:
            assert cell.intersect(window.box) == cell
            total[cell.slices] += window.weight[cell.relative_to(window.box).slices]
    assert np.allclose(total[box.slices], 1.0, atol=1e-6)


def test_without_its_own_statistics_a_slide_is_refused_nothing_else(kl_without_attention: Model) -> None:
    with pytest.raises(ValueError, match="cannot be cut"):
        kl_without_attention.features(lambda b: latents(*b.shape), Box(0, 0, 8, 8), [Box(0, 0, 8, 8)])


@pytest.fixture
def kl_without_attention(class_map_model: Model) -> Model:
    assert not class_map_model.decoder_splits
    return class_map_model


def test_only_a_plain_attention_in_the_middle_is_cut() -> None:
    plain = tiny_bundles.tiny_kl((8, 8), attention=True)
    assert can_split(plain)
    assert not can_split(tiny_bundles.tiny_kl((8, 8)))
    assert not can_split(tiny_bundles.tiny_autoencoder_tiny())
    elsewhere = AutoencoderKL.from_config(plain.config, up_block_types=("AttnUpDecoderBlock2D", "UpDecoderBlock2D"))
    assert not can_split(elsewhere)
    other = type("Other", (AutoencoderKL,), {}).from_config(plain.config)
    assert not can_split(other)


def test_a_decoder_with_attention_elsewhere_has_no_halo(text_bundle: Path, tmp_path: Path) -> None:
    import shutil

    folder = shutil.copytree(text_bundle, tmp_path / "bundle")
    vae = AutoencoderKL.from_pretrained(folder / "vae")
    AutoencoderKL.from_config(vae.config, up_block_types=("UpDecoderBlock2D",) * 3 + ("AttnUpDecoderBlock2D",)).save_pretrained(
        folder / "vae"
    )
    model = load_model(folder)
    assert (model.decoder_is_local, model.decoder_splits, model.halo) == (False, False, 0)


@pytest.mark.parametrize("layers", [1, 2])
def test_the_radius_after_the_attention(layers: int) -> None:
    vae = tiny_bundles.tiny_kl((8, 8, 8, 8), attention=True, layers=layers)
    assert attended_radius(vae.config) == decoder_radius(vae.config) - BEFORE_ATTENTION


@pytest.mark.parametrize(("layers", "most"), [(1, 1.3), (2, 1.3)])
def test_a_block_costs_less_than_a_third_more(layers: int, most: float) -> None:
    """Operations of an inner block of 256 latent px, in the proportions of Stable Diffusion's decoder, over those of its area
    decoded without any context; and as estimated."""
    vae = tiny_bundles.tiny_kl((4, 8, 16, 16), attention=True, layers=layers)
    shrinking, split = ShrinkingHalo(vae.decoder, upsamplings(vae.config), 2), SplitDecoder(vae)
    halo, canvas = attended_radius(vae.config), Box(0, 0, 1024, 1024)
    block = Box(384, 384, 384 + PART, 384 + PART)

    def work() -> None:
        features = split.features(lambda box: torch.zeros(1, 4, *box.shape), canvas, [block.dilate(halo)])
        for y in (block.y0, block.y0 + SIDE):
            for x in (block.x0, block.x0 + SIDE):
                with shrinking.around((halo,) * 4):
                    part = features.part(Box(y, x, y + SIDE, x + SIDE).dilate(halo))
                    assert shrinking.core(split.decode(part)).shape[-1] == 8 * SIDE

    done = operations(work)
    once = (PART / SIDE) ** 2 * operations(lambda: vae.decode(torch.zeros(1, 4, SIDE, SIDE)))
    assert done["convolution"] <= most * once["convolution"]
    print(done, once, {k: done[k] / once[k] for k in once})


def operations(work):
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        work()
    print({str(k): v for k, v in counter.get_flop_counts()["Global"].items()})
    counts = counter.get_flop_counts()["Global"]
    return {name: sum(v for k, v in counts.items() if name in str(k)) for name in ("convolution", "mm", "attention")}
