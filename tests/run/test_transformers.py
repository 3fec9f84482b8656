"""Slides of transformers and of flow matching: one window of them is what diffusers draws from the same noise."""

import numpy as np
import pytest
import tiny_bundles
import torch

from wsigen.base.geometry import Box
from wsigen.base.noise import Stream, normal_field
from wsigen.run.generate import generate, resume
from wsigen.run.tasks.context import RunContext
from wsigen.run.tasks.decode import decode_region

WINDOW = Box(0, 0, 64, 64)
SCALED = {"latent": {"channels": 4, "factor": 8, "mean": 0.0, "std": 1 / 0.18215}}  # as diffusers' pipelines do


def drawn(bundle, tmp_path, **settings):
    """The window of a slide: its latents, and its pixels before they are JPEG."""
    wanted = {"class_name": "Tumor", "size": (512, 512), "steps": 4, "seed": 3, "workers": 1, "keep_run": True, "eta": 0.0}
    generate(tmp_path / "slide.ome.tiff", model=str(bundle), **(wanted | settings))
    run = RunContext(tmp_path / "slide.run")
    latents, _ = run.passes[-1].read(4, WINDOW)
    return latents, decode_region(run.passes[-1], WINDOW)


def start():
    return torch.from_numpy(normal_field(3, Stream.START, WINDOW, 4, level=0))[None]


@pytest.fixture(autouse=True)
def one_window(monkeypatch):
    """Slides of one level and, where they are as small as can be, one window."""
    monkeypatch.setattr(tiny_bundles, "LEVELS", [{"name": "patch", "mpp": 0.5}])
    monkeypatch.setattr(tiny_bundles, "CROP", 64)


def test_a_flow_transformer_takes_the_steps_of_diffusers(tmp_path):
    from diffusers import DiTTransformer2DModel, FlowMatchEulerDiscreteScheduler

    bundle = tiny_bundles.make_dit_bundle(tmp_path / "dit")
    latents, _ = drawn(bundle, tmp_path, guidance=0.5)
    network = DiTTransformer2DModel.from_pretrained(bundle / "transformer").eval()
    scheduler = FlowMatchEulerDiscreteScheduler.from_pretrained(bundle / "scheduler")
    scheduler.set_timesteps(sigmas=[1.0, 0.75, 0.5, 0.25])
    u = start()
    with torch.inference_mode():
        for t in scheduler.timesteps:
            both = network(u.expand(2, -1, -1, -1), t.expand(2), class_labels=torch.tensor([1, 3])).sample
            u = scheduler.step(1.5 * both[:1] - 0.5 * both[1:], t, u).prev_sample
    assert np.abs(latents - u[0].numpy()).max() < 1e-3


def test_a_class_transformer_draws_what_the_pipeline_draws(tmp_path):
    from diffusers import AutoencoderKL, DDIMScheduler, DiTPipeline, DiTTransformer2DModel

    bundle = tiny_bundles.make_dit_bundle(tmp_path / "dit", flow=False, **SCALED)
    _, rgb = drawn(bundle, tmp_path, guidance=0.0)
    network = DiTTransformer2DModel.from_pretrained(bundle / "transformer")
    scheduler = DDIMScheduler.from_pretrained(bundle / "scheduler", timestep_spacing="trailing")
    pipeline = DiTPipeline(network, AutoencoderKL.from_pretrained(bundle / "vae"), scheduler)
    pipeline.set_progress_bar_config(disable=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("diffusers.pipelines.dit.pipeline_dit.randn_tensor", lambda **_: start())
        picture = pipeline([1], guidance_scale=1.0, num_inference_steps=4, output_type="np").images[0]
    assert np.abs(rgb - 255 * picture).max() < 1.0


def test_a_prompted_transformer_draws_what_the_pipeline_draws(tmp_path):
    from diffusers import AutoencoderKL, DDIMScheduler, PixArtSigmaPipeline, PixArtTransformer2DModel
    from transformers import T5EncoderModel, T5Tokenizer

    bundle = tiny_bundles.make_pixart_bundle(tmp_path / "pixart", **SCALED)
    _, rgb = drawn(bundle, tmp_path, guidance=0.5)
    parts = {"vae": AutoencoderKL, "transformer": PixArtTransformer2DModel, "scheduler": DDIMScheduler}
    parts |= {"tokenizer": T5Tokenizer, "text_encoder": T5EncoderModel}
    pipeline = PixArtSigmaPipeline(**{name: kind.from_pretrained(bundle / name) for name, kind in parts.items()})
    pipeline.set_progress_bar_config(disable=True)
    picture = pipeline(
        "Tumor, patch",
        guidance_scale=1.5,
        num_inference_steps=4,
        latents=start(),
        clean_caption=False,
        use_resolution_binning=False,
        max_sequence_length=24,
        output_type="np",
    ).images[0]
    assert np.abs(rgb - 255 * picture).max() < 1.0


def test_a_flow_slide_of_many_windows_resumes_to_the_same_pixels(tmp_path):
    bundle = tiny_bundles.make_pixart_bundle(tmp_path / "pixart", flow=True)
    settings = {"model": str(bundle), "class_name": "Stroma", "size": (560, 520), "steps": 3, "workers": 1, "chunk": 64}
    generate(tmp_path / "whole.ome.tiff", **settings)

    def stop(stage, seen=[0]):  # noqa: B006  # counts its calls
        seen[0] += 1
        if seen[0] == 8:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        generate(tmp_path / "killed.ome.tiff", watch=stop, **settings)
    resume(tmp_path / "killed.run")
    whole, killed = (tmp_path / f"{name}.ome.tiff" for name in ("whole", "killed"))
    import tifffile

    assert np.array_equal(tifffile.imread(whole), tifffile.imread(killed))
