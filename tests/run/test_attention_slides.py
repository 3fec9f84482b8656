"""Slides of bundles whose decoder has attention."""

import shutil

import numpy as np
import pytest

from wsigen.base.geometry import Box
from wsigen.models import attention as lattice
from wsigen.models.layers import share_group_norms
from wsigen.run.generate import generate
from wsigen.run.tasks.context import RunContext
from wsigen.run.tasks.decode import decode_region


@pytest.fixture(scope="module")
def attentive(tmp_path_factory):
    """A tiny bundle with attention where Stable Diffusion's decoder has it: in the middle block."""
    from tiny_bundles import make_class_map_bundle, tiny_kl

    folder = make_class_map_bundle(tmp_path_factory.mktemp("attentive") / "bundle")
    tiny_kl(attention=True).save_pretrained(folder / "vae")
    return folder


def settings_of(bundle, **more):
    return {
        "model": str(bundle),
        "class_name": "Tumor",
        "size": (560, 520),
        "mode": "shifted",
        "steps": 2,
        "keep_run": True,
    } | more


@pytest.fixture
def small_windows(monkeypatch):
    """Three columns and rows of windows on these slides."""
    for name, px in {"SIDE": 32, "OVERLAP": 8, "CELL": 8, "PART": 32}.items():
        monkeypatch.setattr(lattice, name, px)
    monkeypatch.setattr("wsigen.run.tasks.decode.PART", 32)
    monkeypatch.setattr("wsigen.run.tasks.decode.WINDOW", 16)
    lattice._axis.cache_clear()
    yield
    lattice._axis.cache_clear()


def test_any_box_shows_what_the_whole_slide_shows(attentive, tmp_path, small_windows):
    generate(tmp_path / "a.ome.tiff", workers=1, **settings_of(attentive))
    run = RunContext(tmp_path / "a.run")
    pass_ = run.passes[-1]
    assert run.model.autoencoder.splits
    whole = decode_region(pass_, pass_.plan.grid.canvas).astype(int)
    for box in (Box(0, 0, 9, 9), Box(3, 20, 30, 41), Box(31, 15, 33, 49)):
        box = box.intersect(pass_.plan.grid.canvas)
        assert np.abs(decode_region(pass_, box) - whole[box.scale(8).slices]).max() <= 1


def test_same_pixels_for_one_worker_and_two(attentive, tmp_path, small_windows):
    """In threads of this process."""
    settings = settings_of(attentive, size=(2100, 520), steps=1, guidance=0.0, overlap=0, batch=16)
    one, two = (generate(tmp_path / f"{n}.ome.tiff", workers=n, **settings).level0_sha256 for n in (1, 2))
    assert one == two


def test_attention_elsewhere_is_still_blended(attentive, tmp_path):
    from diffusers import AutoencoderKL

    folder = shutil.copytree(attentive, tmp_path / "bundle")
    vae = AutoencoderKL.from_pretrained(folder / "vae")
    blocks = ("AttnUpDecoderBlock2D", *("UpDecoderBlock2D",) * 3)
    AutoencoderKL.from_config(vae.config, up_block_types=blocks).save_pretrained(folder / "vae")
    generate(tmp_path / "a.ome.tiff", **settings_of(folder))
    run = RunContext(tmp_path / "a.run")
    pass_ = run.passes[-1]
    assert not run.model.autoencoder.halo
    whole = decode_region(pass_, pass_.plan.grid.canvas).astype(int)
    box = Box(3, 5, 30, 21)
    assert np.abs(decode_region(pass_, box) - whole[box.scale(8).slices]).max() <= 1


@pytest.mark.parametrize("attention", [True, False])
def test_a_slide_of_quantised_latents_is_what_diffusers_decodes_at_once(tmp_path, monkeypatch, attention):
    """``VQModel``, factor 4; block by block and window by window, against one call on all latents."""
    import torch
    from diffusers import VQModel
    from tiny_bundles import make_vq_bundle

    folder = make_vq_bundle(tmp_path / "bundle", attention=attention)
    generate(tmp_path / "a.ome.tiff", **settings_of(folder, size=(512, 512), workers=1))
    monkeypatch.setattr("wsigen.run.tasks.decode.WINDOW", 48)
    pass_ = RunContext(tmp_path / "a.run").passes[-1]
    canvas = pass_.plan.grid.canvas
    assert canvas.shape == (128, 128)
    latents = pass_.read(pass_.plan.schedule.steps, canvas)[0]
    # a slide's norms have statistics of windows, not of the whole: the reference takes them as well
    vae = VQModel.from_pretrained(folder / "vae").eval()
    ends, statistics = 0, pass_.norm
    for norm in share_group_norms(vae.decoder):
        begin, ends = ends, ends + 2 * norm.norm.num_groups
        norm.freeze(statistics[begin:ends].reshape(-1, 2))
    with torch.inference_mode():
        raw = torch.from_numpy(latents * np.float32(0.9) + np.float32(0.1))[None]
        image = vae.decode(raw).sample[0].permute(1, 2, 0).numpy()
    whole = np.clip(np.rint((image + 1) * 127.5), 0, 255).astype(int)
    assert np.abs(decode_region(pass_, canvas) - whole).max() <= 1
