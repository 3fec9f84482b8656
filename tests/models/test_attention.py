"""A decoder cut at the attention of its middle block: what diffusers decodes, for any block of a slide."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import tiny_bundles
import torch
from diffusers import AutoencoderKL
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch.utils.flop_counter import FlopCounterMode

from wsigen.base.geometry import Box
from wsigen.models import attention as lattice
from wsigen.models.attention import PART, SIDE, SplitDecoder, attention_windows, can_split
from wsigen.models.autoencoder import Autoencoder
from wsigen.models.halo import BEFORE_ATTENTION, ShrinkingHalo, attended_radius, decoder_radius, sides
from wsigen.models.model import Model, load_model

HEIGHT, WIDTH = 40, 70
CANVAS = Box(0, 0, HEIGHT, WIDTH)


def latents(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(4, height, width)).astype(np.float32)


@pytest.fixture
def model(text_model: Model) -> Iterator[Autoencoder]:
    autoencoder = text_model.autoencoder
    autoencoder.freeze_norm(autoencoder.norm_statistics([latents(24, 24)]))
    yield autoencoder
    autoencoder.freeze_norm(None)


def decode(model: Autoencoder, z: np.ndarray, box: Box, *others: Box) -> np.ndarray:
    """Decode a box of a canvas as a task does that has others to decode as well."""
    canvas = Box(0, 0, *z.shape[1:])
    around, *rest = (b.dilate(model.halo).intersect(canvas) for b in (box, *others))
    features = model.features(lambda b: z[:, b.y0 : b.y1, b.x0 : b.x1], canvas, [around, *rest])
    return model.decode_features(features, around, sides(box, around))


@pytest.mark.parametrize("shape", [(24, 40), (33, 7), (16, 128)])
def test_a_slide_of_one_window_is_decoded_as_diffusers_decodes_it(
    model: Autoencoder, text_bundle: Path, shape: tuple[int, int]
) -> None:
    vae = AutoencoderKL.from_pretrained(text_bundle / "vae").eval()
    z = latents(*shape)
    mean, std = (np.array(v, np.float32)[:, None, None] for v in (model.latent.mean, model.latent.std))
    with torch.inference_mode():
        raw = vae.decode(torch.from_numpy(z * std + mean)[None]).sample[0].permute(1, 2, 0).numpy()
    model.freeze_norm(model.norm_statistics([z]))
    found = decode(model, z, Box(0, 0, *shape))
    assert np.abs(found - np.clip((raw + 1.0) * 127.5, 0, 255)).max() < 255 * 1e-4


@pytest.fixture
def small_windows(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A lattice of two rows and three columns of windows on a canvas that takes no seconds to decode."""
    for name, px in {"SIDE": 32, "OVERLAP": 8, "CELL": 8}.items():
        monkeypatch.setattr(lattice, name, px)
    lattice._axis.cache_clear()
    yield
    lattice._axis.cache_clear()


few = settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
places = st.tuples(st.integers(0, HEIGHT - 1), st.integers(0, WIDTH - 1), st.integers(1, 30))


def square(place: tuple[int, int, int]) -> Box:
    y, x, side = place
    return Box(y, x, y + side, x + side).intersect(CANVAS)


@given(place=places)
@few
def test_a_block_is_the_same_box_cut_out_of_a_larger_one(
    place: tuple[int, int, int], small_windows: None, model: Autoencoder
) -> None:
    z, box = latents(HEIGHT, WIDTH), square(place)
    whole = decode(model, z, CANVAS)
    assert np.abs(decode(model, z, box) - whole[box.scale(8).slices]).max() < 255 * 1e-4


@given(asked=st.lists(places, min_size=1, max_size=4))
@few
def test_features_have_the_same_bits_whoever_asks(
    asked: list[tuple[int, int, int]], small_windows: None, model: Autoencoder
) -> None:
    z, boxes = latents(HEIGHT, WIDTH), [square(place) for place in asked]
    together, alone = (
        model.features(lambda b: z[:, b.y0 : b.y1, b.x0 : b.x1], CANVAS, needed) for needed in (boxes, boxes[:1])
    )
    assert torch.equal(together.part(boxes[0]), alone.part(boxes[0]))


def with_attention_times(text_bundle: Path, folder: Path, factor: float) -> Autoencoder:
    """The bundle, of whose attention so much comes through."""
    shutil.copytree(text_bundle, folder)
    vae = AutoencoderKL.from_pretrained(folder / "vae")
    for parameter in vae.decoder.mid_block.attentions[0].to_out.parameters():
        parameter.data *= factor
    vae.save_pretrained(folder / "vae")
    return load_model(folder).autoencoder


def test_without_attention_windows_cannot_be_told(small_windows: None, text_bundle: Path, tmp_path: Path) -> None:
    model, z = with_attention_times(text_bundle, tmp_path / "bundle", 0.0), latents(HEIGHT, WIDTH)
    model.freeze_norm(model.norm_statistics([z]))
    assert np.abs(decode(model, z, CANVAS) - model.decode(z)).max() < 255 * 1e-4


def test_no_seam_where_windows_see_different_pictures(small_windows: None, text_bundle: Path, tmp_path: Path) -> None:
    """Latents that change slowly give features that do, although attention makes most of them."""
    model = with_attention_times(text_bundle, tmp_path / "bundle", 100.0)
    z = np.broadcast_to(np.linspace(-2, 2, WIDTH, dtype=np.float32), (4, HEIGHT, WIDTH))
    model.freeze_norm(model.norm_statistics([z]))
    found = model.features(lambda b: z[:, b.y0 : b.y1, b.x0 : b.x1], CANVAS, [CANVAS]).values[0, :, 8:-8, 4:-4]
    steps, span = found.diff(dim=2).abs().mean(dim=(0, 1)), found.amax(dim=2) - found.amin(dim=2)
    assert steps.max() < span.mean() / 6  # a quarter where windows end without weights


@given(st.integers(1, 500), st.integers(1, 500), st.data())
@settings(max_examples=30, deadline=None)
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


def test_a_decoder_without_attention_is_not_cut(class_map_model: Model) -> None:
    local = class_map_model.autoencoder
    assert local.is_local
    assert not local.splits
    with pytest.raises(ValueError, match="cannot be cut"):
        local.features(lambda b: latents(*b.shape), Box(0, 0, 8, 8), [Box(0, 0, 8, 8)])


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
    folder = shutil.copytree(text_bundle, tmp_path / "bundle")
    vae = AutoencoderKL.from_pretrained(folder / "vae")
    AutoencoderKL.from_config(vae.config, up_block_types=("UpDecoderBlock2D",) * 3 + ("AttnUpDecoderBlock2D",)).save_pretrained(
        folder / "vae"
    )
    model = load_model(folder).autoencoder
    assert (model.is_local, model.splits, model.halo) == (False, False, 0)


@pytest.mark.parametrize("layers", [1, 2])
def test_the_radius_after_the_attention(layers: int) -> None:
    vae = tiny_bundles.tiny_kl((8, 8, 8, 8), attention=True, layers=layers)
    assert attended_radius(vae.config) == decoder_radius(vae.config) - BEFORE_ATTENTION


def test_a_block_costs_less_than_a_third_more() -> None:
    """Operations of inner blocks of Stable Diffusion's own decoder over those of their area decoded without any context.

    Counted, without a number computed: 1.17 to 1.21 for convolutions, 1.26 to 1.32 with attention.
    """
    with torch.device("meta"):
        vae = tiny_bundles.tiny_kl((128, 256, 512, 512), attention=True, layers=2)
        shrinking, split = ShrinkingHalo(vae.decoder, vae.config), SplitDecoder(vae)
        halo, canvas = attended_radius(vae.config), Box(0, 0, 1280, 1280)

        def decode(block: Box) -> None:
            features = split.features(lambda box: torch.zeros(1, 4, *box.shape), canvas, [block.dilate(halo)])
            for y in (block.y0, block.y0 + SIDE):
                for x in (block.x0, block.x0 + SIDE):
                    with shrinking.around((halo,) * 4):
                        part = features.part(Box(y, x, y + SIDE, x + SIDE).dilate(halo))
                        assert shrinking.core(split.decode(part)).shape[-1] == 8 * SIDE

        once = operations(lambda: vae.decode(torch.zeros(1, 4, SIDE, SIDE))) * (PART / SIDE) ** 2
        # The lattice of windows meets that of blocks anew every third block.
        found = [operations(lambda at=at: decode(Box(at, at, at + PART, at + PART))) for at in (256, 512, 768)]
    convolutions, everything = np.transpose(found / once)
    assert convolutions.max() <= 1.25
    assert everything.mean() <= 1.3


def operations(work: Callable[[], object]) -> np.ndarray:
    """Of convolutions, and all."""
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        work()
    counts = {str(kind): count for kind, count in counter.get_flop_counts()["Global"].items()}
    return np.array([counts["aten.convolution"], sum(counts.values())], dtype=float)
