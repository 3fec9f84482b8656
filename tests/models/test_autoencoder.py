"""Encoding, decoding, and the decoder as a local function."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_bundles
import torch
from diffusers import AutoencoderKL
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from wsigen.models.autoencoder import PIECE, Autoencoder
from wsigen.models.model import Model, load_model


def latents(height: int, width: int, seed: int = 0, channels: int = 4) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(channels, height, width)).astype(np.float32)


def picture(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (height, width, 3)).astype(np.uint8)


@pytest.fixture
def kl(class_map_model: Model) -> Iterator[Autoencoder]:
    yield class_map_model.autoencoder
    class_map_model.autoencoder.freeze_norm(None)


@pytest.fixture
def tiny(token_model: Model) -> Autoencoder:
    return token_model.autoencoder


def test_encode_is_the_standardised_mode(kl: Autoencoder, class_map_bundle: Path) -> None:
    vae = AutoencoderKL.from_pretrained(class_map_bundle / "vae").eval()
    rgb = picture(64, 96)
    x = torch.from_numpy(rgb.astype(np.float32) / 127.5 - 1.0).permute(2, 0, 1)[None]
    with torch.inference_mode():
        raw = vae.encode(x).latent_dist.mode()[0].numpy()
    mean, std = (np.array(v)[:, None, None] for v in (kl.latent.mean, kl.latent.std))
    z = kl.encode(rgb)
    assert z.shape == (4, 8, 12)
    assert z.dtype == np.float32
    assert np.allclose(z, (raw - mean) / std, atol=1e-4)


def test_decode_undoes_what_encode_standardises(kl: Autoencoder, class_map_bundle: Path) -> None:
    vae = AutoencoderKL.from_pretrained(class_map_bundle / "vae").eval()
    z = latents(8, 12)
    mean, std = (np.array(v, np.float32)[:, None, None] for v in (kl.latent.mean, kl.latent.std))
    with torch.inference_mode():
        raw = vae.decode(torch.from_numpy(z * std + mean)[None]).sample[0].permute(1, 2, 0).numpy()
    rgb = kl.decode(z)
    assert rgb.shape == (64, 96, 3)
    assert rgb.dtype == np.float32
    assert np.allclose(rgb, np.clip((raw + 1.0) * 127.5, 0, 255), atol=1e-2)


def test_image_range_is_the_cards(tmp_path: Path) -> None:
    latent: dict[str, object] = {"channels": 4, "factor": 8}
    signed = load_model(tiny_bundles.make_class_map_bundle(tmp_path / "a", latent=latent)).autoencoder
    latent = {**latent, "image_range": [0.0, 1.0]}
    unit = load_model(tiny_bundles.make_class_map_bundle(tmp_path / "b", latent=latent)).autoencoder
    z = latents(8, 8) * 0.1
    a, b = signed.decode(z), unit.decode(z)
    inside = (a > 128) & (a < 254)
    assert np.allclose((a / 127.5 - 1.0)[inside], (b / 255.0)[inside], atol=1e-4)
    white = np.full((64, 64, 3), 255, np.uint8)
    assert np.allclose(signed.encode(white), unit.encode(white), atol=1e-4)


def test_sides_must_be_multiples_of_the_factor(kl: Autoencoder) -> None:
    with pytest.raises(ValueError, match="100x64 px: sides must be multiples of 8"):
        kl.encode(picture(64, 100))


def test_tiny_autoencoder_round_trip_shapes(tiny: Autoencoder) -> None:
    z = tiny.encode(picture(64, 96))
    assert z.shape == (4, 8, 12)
    rgb = tiny.decode(z)
    assert rgb.shape == (64, 96, 3)
    assert rgb.min() >= 0
    assert rgb.max() <= 255


def test_frozen_statistics_of_the_same_picture_change_nothing(kl: Autoencoder) -> None:
    z = latents(24, 20)
    ordinary = kl.decode(z)
    kl.freeze_norm(kl.norm_statistics([z]))
    assert np.abs(kl.decode(z) - ordinary).max() < 255 * 1e-4


def test_windows_of_one_shape_are_pooled_like_one_picture(kl: Autoencoder) -> None:
    z = latents(16, 16)
    assert np.allclose(kl.norm_statistics([z, z, z]), kl.norm_statistics([z]), rtol=1e-4, atol=1e-5)


def test_pools_of_several_shapes_are_averaged_by_area(kl: Autoencoder) -> None:
    a, b = latents(16, 16), latents(8, 16, seed=1)
    first, second, both = (kl.norm_statistics(w) for w in ([a], [b], [a, b]))
    means = [s.reshape(-1, 2)[:, 0] for s in (first, second, both)]
    assert np.allclose(means[2], (2 * means[0] + means[1]) / 3)


def test_one_picture_can_be_thawed_again(kl: Autoencoder) -> None:
    z = latents(12, 12)
    ordinary = kl.decode(z)
    kl.freeze_norm(kl.norm_statistics([3 * latents(12, 12, seed=5)]))
    assert np.abs(kl.decode(z) - ordinary).max() > 1.0
    kl.freeze_norm(None)
    assert np.array_equal(kl.decode(z), ordinary)


def test_statistics_of_another_decoder_are_refused(kl: Autoencoder) -> None:
    with pytest.raises(ValueError, match="10 norm statistics; this decoder has"):
        kl.freeze_norm(np.zeros(10))


def test_a_decoder_without_norms(tiny: Autoencoder) -> None:
    stats = tiny.norm_statistics([latents(8, 8)])
    assert stats.shape == (0,)
    tiny.freeze_norm(stats)


@pytest.mark.parametrize("name", ["kl", "tiny"])
def test_a_window_with_its_halo_equals_the_whole(name: str, request: pytest.FixtureRequest) -> None:
    model: Autoencoder = request.getfixturevalue(name)
    assert model.is_local
    z, radius = latents(48, 40), model.radius
    model.freeze_norm(model.norm_statistics([z[:, :16, :16], z[:, 16:32, 16:32]]))
    whole = model.decode(z)
    y0, y1, x0, x1 = 20, 28, 0, 8  # in the middle, and at the canvas edge
    top, bottom, right = y0 - radius, y1 + radius, x1 + radius
    window = model.decode(z[:, top:bottom, 0:right])
    core = window[8 * (y0 - top) : 8 * (y1 - top), : 8 * (x1 - x0)]
    assert np.abs(core - whole[8 * y0 : 8 * y1, 8 * x0 : 8 * x1]).max() < 255 * 1e-4
    model.freeze_norm(None)


@pytest.mark.parametrize("name", ["kl", "tiny"])
@given(size=st.tuples(*[st.integers(1, 40)] * 2), sides=st.tuples(*[st.integers(0, 9)] * 4), piece=st.integers(5, 20))
@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_window_in_pieces_is_the_window_at_once(
    name: str, size: tuple[int, int], sides: tuple[int, int, int, int], piece: int, both: dict[str, Autoencoder]
) -> None:
    """With its halo and where the slide ends, however it is cut; without frozen norms nothing is cut."""
    (height, width), (top, bottom, left, right) = size, sides
    model, z = both[name], latents(top + height + bottom, left + width + right)
    ordinary = model.decode(z, sides)
    statistics = model.norm_statistics([latents(16, 16)])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("wsigen.models.autoencoder.PIECE", 10**6)
        model.freeze_norm(statistics)
        whole = model.decode(z, sides)
        patch.setattr("wsigen.models.autoencoder.PIECE", piece)
        pieces = model.decode(z, sides)
        model.freeze_norm(None)
        again = model.decode(z, sides)
    assert pieces.shape == whole.shape == (8 * height, 8 * width, 3)
    assert np.abs(pieces - whole).max() < 255 * 1e-4
    if statistics.size:
        assert np.array_equal(ordinary, again)


def test_ordinary_decoding_is_not_local(kl: Autoencoder) -> None:
    """What freezing is for: without it the same window drifts."""
    z = latents(48, 40)
    whole, radius = kl.decode(z), kl.radius
    window = kl.decode(z[:, 20 - radius : 28 + radius, : 8 + radius])
    assert np.abs(window[8 * radius : 8 * (radius + 8), :64] - whole[160:224, :64]).max() > 0.5


@pytest.mark.parametrize("blocks", [(8,), (8, 8), (8, 8, 8)])
@pytest.mark.parametrize("layers", [1, 2])
def test_radius_bounds_what_a_pixel_sees(blocks: tuple[int, ...], layers: int) -> None:
    """With all weights positive a gradient reaches exactly the latents a pixel depends on."""
    from wsigen.models.halo import decoder_radius

    vae = tiny_bundles.tiny_kl(blocks, layers=layers)
    for module in vae.decoder.modules():
        if isinstance(module, (torch.nn.GroupNorm, torch.nn.SiLU)):
            module.forward = lambda x: x
    for parameter in vae.decoder.parameters():
        parameter.data = torch.full_like(parameter, 1e-2)
    radius, factor = decoder_radius(vae.config), 2 ** (len(blocks) - 1)
    side = 2 * radius + 5
    z = torch.zeros(1, 4, side, side, requires_grad=True, dtype=torch.float64)
    middle = (side // 2) * factor
    vae.double().decoder(z)[0, 0, middle : middle + factor, middle].sum().backward()
    assert z.grad is not None
    rows = torch.nonzero(z.grad.abs().sum(dim=(0, 1, 3))).ravel()
    reach = max(side // 2 - int(rows.min()), int(rows.max()) - side // 2)
    assert reach == radius


def test_attention_in_the_decoder_is_seen(text_model: Model) -> None:
    attended = text_model.autoencoder
    assert not attended.is_local
    z = latents(12, 12)
    ordinary = attended.decode(z)
    attended.freeze_norm(attended.norm_statistics([z]))
    assert np.abs(attended.decode(z) - ordinary).max() < 255 * 1e-4
    attended.freeze_norm(None)


def test_threads_share_a_decoder_each_with_its_own_statistics(kl: Autoencoder) -> None:
    windows = [latents(10, 10, seed=s) for s in range(6)]
    stats = [kl.norm_statistics(windows), kl.norm_statistics([3 * z for z in windows])]

    def decode(job: tuple[int, np.ndarray]) -> np.ndarray:
        kl.freeze_norm(stats[job[0]])
        return kl.decode(job[1])

    jobs = [(k % 2, z) for k, z in enumerate(windows)]
    alone = [decode(job) for job in jobs]
    kl.freeze_norm(None)
    with ThreadPoolExecutor(3) as pool:
        measured = pool.submit(kl.norm_statistics, windows)
        together = list(pool.map(decode, jobs))
    assert all(np.array_equal(a, b) for a, b in zip(alone, together, strict=True))
    assert np.array_equal(measured.result(), stats[0])


@pytest.mark.parametrize("name", ["kl", "tiny"])
@given(sides=st.tuples(*[st.integers(0, 18)] * 4), seed=st.integers(0, 9))
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_halo_that_shrinks_leaves_the_window_as_it_was(
    name: str, sides: tuple[int, int, int, int], seed: int, both: dict[str, Autoencoder]
) -> None:
    """Whether it ends where the slide does or where its context was cut off."""
    top, bottom, left, right = sides
    z = latents(top + 5 + bottom, left + 7 + right, seed)
    both[name].freeze_norm(both[name].norm_statistics([latents(16, 16)]))
    whole, window = both[name].decode(z), both[name].decode(z, sides)
    both[name].freeze_norm(None)
    assert window.shape == (8 * 5, 8 * 7, 3)
    assert np.abs(window - whole[8 * top : 8 * (top + 5), 8 * left : 8 * (left + 7)]).max() < 255 * 1e-4


@pytest.fixture
def both(kl: Autoencoder, tiny: Autoencoder) -> dict[str, Autoencoder]:
    return {"kl": kl, "tiny": tiny}


def multiplications(vae: Any, work: Callable[[], object]) -> int:
    """Of the decoder's 3x3 convolutions while ``work`` is done."""
    total = 0

    def count(layer: torch.nn.Conv2d, _: object, out: torch.Tensor) -> None:
        nonlocal total
        total += out.numel() * layer.in_channels * 9

    threes = [m for m in vae.decoder.modules() if isinstance(m, torch.nn.Conv2d) and m.kernel_size == (3, 3)]
    hooks = [layer.register_forward_hook(count) for layer in threes]
    work()
    for hook in hooks:
        hook.remove()
    return total


@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize(("window", "most"), [(128, 1.15), (PIECE, 1.3)])
def test_context_costs_less_than_a_third(layers: int, window: int, most: float) -> None:
    """Convolved elements of an inner window, or piece, with its whole halo over those of its own pixels."""
    from wsigen.models.halo import EFFECTIVE_HALO, ShrinkingHalo, decoder_radius

    vae = tiny_bundles.tiny_kl((4, 8, 16, 16), layers=layers)
    halo = min(decoder_radius(vae.config), EFFECTIVE_HALO)
    shrinking = ShrinkingHalo(vae.decoder, vae.config)

    def decode(side: int, halo: int) -> None:
        with torch.inference_mode(), shrinking.around((halo,) * 4):
            assert shrinking.core(vae.decoder(torch.zeros(1, 4, side + 2 * halo, side + 2 * halo))).shape[-1] == 8 * side

    done, wanted = (multiplications(vae, lambda h=h: decode(window, h)) for h in (halo, 0))
    assert done <= most * wanted
