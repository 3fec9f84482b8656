"""Tiny random bundles, saved by diffusers itself: what every test that needs a model loads.

Each maker fills ``folder`` with a complete bundle (crop side 16, four latent channels, factor 8; two levels;
the classes Glass, Tumor and Stroma), writes its ``wsigen.yaml`` and returns the folder. Top-level entries of
the card can be replaced by keyword: ``make_class_map_bundle(folder, guidance=0.0)``. Weights depend on
``seed`` only. A test file imports this module as ``tiny_bundles``, with ``tests/`` on ``sys.path``.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

CLASSES = [
    {"name": "Glass", "color": [235, 235, 240], "background": True},
    {"name": "Tumor", "color": [200, 0, 0]},
    {"name": "Stroma", "color": [150, 200, 150]},
]
LEVELS = [{"name": "patch", "mpp": 0.5}, {"name": "overview", "mpp": 2.0}]
CROP, LATENT_CHANNELS, FACTOR = 16, 4, 8


def tiny_card(kind: str, **changes: Any) -> dict[str, Any]:
    """The content of a tiny bundle's ``wsigen.yaml``."""
    card: dict[str, Any] = {
        "format": 1,
        "name": f"tiny-{kind}",
        "title": f"Tiny random bundle ({kind})",
        "licence": "CC0-1.0",
        "not_for": "Anything but tests: its weights are random.",
        "training_data": [{"name": "nothing", "url": "https://example.org", "licence": "CC0-1.0", "attribution": "-"}],
        "classes": CLASSES,
        "levels": LEVELS,
        "conditioning": {"kind": kind},
        "latent": {
            "channels": LATENT_CHANNELS,
            "factor": FACTOR,
            "mean": [0.1, -0.1, 0.0, 0.2],
            "std": [0.5, 0.6, 0.7, 0.8],
            "image_range": [-1.0, 1.0],
        },
        "crop_latent": CROP,
        "guidance": 0.5,
        "steps": 4,
        "glass_rgb": [235, 235, 240],
    }
    return card | changes


def write_card(folder: Path, card: dict[str, Any]) -> None:
    """Write ``wsigen.yaml``."""
    (folder / "wsigen.yaml").write_text(yaml.safe_dump(card, sort_keys=False), encoding="utf-8")


def tiny_kl(channels: tuple[int, ...] = (8, 8, 8, 8), attention: bool = False, layers: int = 1) -> Any:
    """A small ``AutoencoderKL``, factor ``2 ** (len(channels) - 1)``."""
    from diffusers import AutoencoderKL

    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * len(channels),
        up_block_types=("UpDecoderBlock2D",) * len(channels),
        block_out_channels=channels,
        layers_per_block=layers,
        latent_channels=LATENT_CHANNELS,
        norm_num_groups=4,
        sample_size=CROP * FACTOR,
        mid_block_add_attention=attention,
    ).eval()


def tiny_vq(attention: bool = True) -> Any:
    """A small ``VQModel``, factor 4, three latent channels; attention in the middle, as the usual ones have."""
    from diffusers import VQModel

    return VQModel(
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=(8, 8, 8),
        latent_channels=3,
        num_vq_embeddings=64,
        vq_embed_dim=3,
        norm_num_groups=4,
        scaling_factor=1.0,
        mid_block_add_attention=attention,
    ).eval()


def tiny_autoencoder_tiny() -> Any:
    """A small ``AutoencoderTiny``, factor 8."""
    from diffusers import AutoencoderTiny

    return AutoencoderTiny(
        encoder_block_out_channels=(8, 8, 8, 8),
        decoder_block_out_channels=(8, 8, 8, 8),
        num_encoder_blocks=(1, 1, 1, 1),
        num_decoder_blocks=(1, 1, 1, 1),
        latent_channels=LATENT_CHANNELS,
    ).eval()


def tiny_unet(in_channels: int, num_class_embeds: int | None, out_channels: int = LATENT_CHANNELS) -> Any:
    """A small ``UNet2DModel`` with attention at its coarsest level."""
    from diffusers import UNet2DModel

    return UNet2DModel(
        sample_size=CROP,
        in_channels=in_channels,
        out_channels=out_channels,
        block_out_channels=(8, 16),
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
        layers_per_block=1,
        attention_head_dim=8,
        norm_num_groups=4,
        num_class_embeds=num_class_embeds,
    ).eval()


def make_class_map_bundle(folder: Path, seed: int = 0, **card: Any) -> Path:
    """``UNet2DModel`` fed the class map as channels, ``AutoencoderKL``; cosine schedule, v-prediction."""
    import torch
    from diffusers import DDIMScheduler

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        tiny_unet(LATENT_CHANNELS + len(card.get("classes", CLASSES)) + 1, len(LEVELS)).save_pretrained(folder / "unet")
        tiny_kl().save_pretrained(folder / "vae")
    DDIMScheduler(beta_schedule="squaredcos_cap_v2", prediction_type="v_prediction", clip_sample=False).save_pretrained(
        folder / "scheduler"
    )
    write_card(folder, tiny_card("class-map", **card))
    return folder


def make_mask_model(folder: Path, seed: int = 0, subtypes: tuple[str, ...] = ("half", "more")) -> Path:
    """An untrained mask model of the tiny bundles' classes, as it stands alone."""
    import torch
    from diffusers import DDIMScheduler, UNet2DModel

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        UNet2DModel(
            sample_size=16,
            in_channels=len(CLASSES),
            out_channels=len(CLASSES),
            block_out_channels=(8, 16),
            down_block_types=("DownBlock2D",) * 2,
            up_block_types=("UpBlock2D",) * 2,
            layers_per_block=1,
            attention_head_dim=8,
            norm_num_groups=4,
            num_class_embeds=len(subtypes) + 1,
        ).eval().save_pretrained(folder / "unet")
    DDIMScheduler(
        beta_schedule="squaredcos_cap_v2", prediction_type="v_prediction", timestep_spacing="trailing"
    ).save_pretrained(folder / "scheduler")
    names = [c["name"] for c in CLASSES]
    card = {
        "classes": names,
        "subtypes": list(subtypes),
        "side": 16,
        "cell_um": 16.0,
        "smallest": 1,
        "steps": 2,
        "guidance": 0.0,
    }
    (folder / "mask.yaml").write_text(yaml.safe_dump(card, sort_keys=False), encoding="utf-8")
    return folder


def make_grid_bundle(
    folder: Path, seed: int = 0, draws: bool = True, levels: Sequence[dict[str, Any]] = LEVELS, **card: Any
) -> Path:
    """The class-map bundle, told a grid of mean colours besides, which its own network draws (if ``draws``) on ``levels``."""
    import torch
    from diffusers import DDIMScheduler

    cells, mapped = 3, len(CLASSES) + 1
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        tiny_unet(LATENT_CHANNELS + mapped + cells + 1, len(LEVELS)).save_pretrained(folder / "unet")
        tiny_kl().save_pretrained(folder / "vae")
        if draws:
            tiny_unet(cells + mapped + cells + 1, len(levels), cells).save_pretrained(folder / "grid" / "unet")
    for part in (folder, folder / "grid") if draws else (folder,):
        DDIMScheduler(beta_schedule="squaredcos_cap_v2", prediction_type="v_prediction", clip_sample=False).save_pretrained(
            part / "scheduler"
        )
    grid: dict[str, Any] = {"mean": [0.2, 0.0, 0.3], "std": [0.4, 0.3, 0.3]}
    if draws:
        grid["network"] = {"levels": list(levels), "crops": [16, 8], "steps": 3}
    write_card(folder, tiny_card("class-map", **({"grid": grid} | card)))
    return folder


def make_grid_token_bundle(folder: Path, seed: int = 0, kind: str = "class-map", vq: bool = False, **card: Any) -> Path:
    """Told a grid of six numbers a cell, of 16 um, by tokens besides class maps (or nothing, or prompts); two levels.

    A crop covers 64 um at the first level and 256 at the second: windows of 4 x 4 parts of a cell, and of 4 x 4 cells each.
    """
    import torch
    from diffusers import DDIMScheduler, UNet2DConditionModel

    from wsigen.models.summariser import ViTSummariser, save_summariser

    latents = 3 if vq else LATENT_CHANNELS
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        UNet2DConditionModel(
            sample_size=CROP,
            in_channels=latents + (len(CLASSES) + 1 if kind == "class-map" else 0),
            out_channels=latents,
            block_out_channels=(8, 16),
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
            layers_per_block=1,
            cross_attention_dim=16,
            attention_head_dim=2,
            norm_num_groups=4,
            num_class_embeds=None if kind == "text" else len(LEVELS),
        ).save_pretrained(folder / "unet")
        vae = tiny_vq() if vq else tiny_kl()
        if vq:
            vae.quantize.embedding.weight.data.normal_()
        vae.save_pretrained(folder / "vae")
        save_summariser(ViTSummariser(6, len(LEVELS), side=4, width=16, layers=1, heads=2, mlp=16), folder / "summariser")
        if kind == "text":
            _save_text_encoder(folder)
    DDIMScheduler(beta_schedule="squaredcos_cap_v2", prediction_type="v_prediction", clip_sample=False).save_pretrained(
        folder / "scheduler"
    )
    grid = {"told": "tokens", "encoder": "means", "cell_um": 16.0, "dimension": 6, "parts": [4, 4], "required": True}
    latent = {"latent": {"channels": 3, "factor": 4, "mean": 0.1, "std": 0.9}} if vq else {}
    write_card(folder, tiny_card(kind, **({"grid": grid} | latent | card)))
    return folder


def make_vq_bundle(folder: Path, seed: int = 0, attention: bool = True, **card: Any) -> Path:
    """The class-map bundle with latents of a ``VQModel``: three channels, factor 4."""
    import torch
    from diffusers import DDIMScheduler

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        tiny_unet(3 + len(CLASSES) + 1, len(LEVELS), 3).save_pretrained(folder / "unet")
        vae = tiny_vq(attention)
        vae.quantize.embedding.weight.data.normal_()  # diffusers begins with codes that lie much nearer to each other
        vae.save_pretrained(folder / "vae")
    DDIMScheduler(beta_schedule="squaredcos_cap_v2", prediction_type="v_prediction", clip_sample=False).save_pretrained(
        folder / "scheduler"
    )
    latent = {"channels": 3, "factor": 4, "mean": 0.1, "std": 0.9}
    write_card(folder, tiny_card("class-map", **({"latent": latent} | card)))
    return folder


def make_token_bundle(folder: Path, seed: int = 0, **card: Any) -> Path:
    """``UNet2DModel`` with a token per (level, class) and a null one, ``AutoencoderTiny``; DDPM, clipped."""
    import torch
    from diffusers import DDPMScheduler

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        tiny_unet(LATENT_CHANNELS, len(LEVELS) * len(CLASSES) + 1).save_pretrained(folder / "unet")
        tiny_autoencoder_tiny().save_pretrained(folder / "vae")
    DDPMScheduler(beta_schedule="linear", clip_sample=True, clip_sample_range=3.0).save_pretrained(folder / "scheduler")
    write_card(folder, tiny_card("class-tokens", **card))
    return folder


def make_text_bundle(folder: Path, seed: int = 0, with_card: bool = True, **card: Any) -> Path:
    """Stable Diffusion's layout: ``UNet2DConditionModel``, ``AutoencoderKL`` with attention, CLIP."""
    import torch
    from diffusers import PNDMScheduler, UNet2DConditionModel

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        UNet2DConditionModel(
            sample_size=CROP,
            in_channels=LATENT_CHANNELS,
            out_channels=LATENT_CHANNELS,
            block_out_channels=(8, 16),
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
            layers_per_block=1,
            cross_attention_dim=16,
            attention_head_dim=2,
            norm_num_groups=4,
        ).save_pretrained(folder / "unet")
        tiny_kl(attention=True).save_pretrained(folder / "vae")
        _save_text_encoder(folder)
    PNDMScheduler(
        beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012, skip_prk_steps=True, steps_offset=1
    ).save_pretrained(folder / "scheduler")
    index = {
        "_class_name": "StableDiffusionPipeline",
        "_diffusers_version": "0.34.0",
        "scheduler": ["diffusers", "PNDMScheduler"],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
    }
    (folder / "model_index.json").write_text(json.dumps(index, indent=2), encoding="utf-8")
    if with_card:
        write_card(folder, tiny_card("text", **card))
    return folder


def make_dit_bundle(folder: Path, seed: int = 0, flow: bool = True, **card: Any) -> Path:
    """``DiTTransformer2DModel`` with a token per (level, class); flow matching with a shift, or a learned variance."""
    import torch
    from diffusers import DDIMScheduler, DiTTransformer2DModel, FlowMatchEulerDiscreteScheduler

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = DiTTransformer2DModel(
            num_attention_heads=2,
            attention_head_dim=8,
            num_layers=2,
            sample_size=CROP,
            out_channels=(1 if flow else 2) * LATENT_CHANNELS,
            num_embeds_ada_norm=len(LEVELS) * len(CLASSES),
        )
        network.eval().save_pretrained(folder / "transformer")
        tiny_kl().save_pretrained(folder / "vae")
    scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0) if flow else DDIMScheduler(clip_sample=False)
    scheduler.save_pretrained(folder / "scheduler")
    write_card(folder, tiny_card("class-tokens", **card))
    return folder


def make_pixart_bundle(folder: Path, seed: int = 0, flow: bool = False, **card: Any) -> Path:
    """``PixArtTransformer2DModel``, told prompts by a two-layer T5 whose words are letters; DDIM or flow sigmas."""
    import torch
    from diffusers import DDIMScheduler, DPMSolverMultistepScheduler, PixArtTransformer2DModel
    from transformers import T5Config, T5EncoderModel, T5Tokenizer

    letters = [(chr(c), -1.0) for c in range(33, 127)]
    words = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("\u2581", -2.0), *letters]
    tokenizer = T5Tokenizer(vocab=words, extra_ids=0, model_max_length=24)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = PixArtTransformer2DModel(
            num_attention_heads=2,
            attention_head_dim=8,
            num_layers=2,
            sample_size=CROP,
            out_channels=2 * LATENT_CHANNELS,
            cross_attention_dim=16,
            caption_channels=12,
        )
        network.eval().save_pretrained(folder / "transformer")
        tiny_kl().save_pretrained(folder / "vae")
        small = {"d_model": 12, "d_kv": 6, "d_ff": 16, "num_layers": 2, "num_heads": 2, "vocab_size": len(words)}
        T5EncoderModel(T5Config(**small)).eval().save_pretrained(folder / "text_encoder")
    tokenizer.save_pretrained(folder / "tokenizer")
    scheduler = (
        DPMSolverMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=2.0)
        if flow
        else DDIMScheduler(clip_sample=False, timestep_spacing="trailing")
    )
    scheduler.save_pretrained(folder / "scheduler")
    write_card(folder, tiny_card("text", **card))
    return folder


def _save_text_encoder(folder: Path) -> None:
    """A two-layer CLIP text model and a tokenizer without merges: every letter is a token."""
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

    letters = [chr(c) for c in range(33, 127)]
    tokens = [*letters, *(c + "</w>" for c in letters), "<|startoftext|>", "<|endoftext|>"]
    source = folder / "tokenizer"
    source.mkdir(parents=True, exist_ok=True)
    (source / "vocab.json").write_text(json.dumps({t: i for i, t in enumerate(tokens)}), encoding="utf-8")
    (source / "merges.txt").write_text("#version: 0.2\n", encoding="utf-8")
    tokenizer = CLIPTokenizer.from_pretrained(str(source), model_max_length=32)
    tokenizer.save_pretrained(source)
    config = CLIPTextConfig(
        vocab_size=len(tokens),
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=32,
        bos_token_id=len(tokens) - 2,
        eos_token_id=len(tokens) - 1,
        pad_token_id=len(tokens) - 1,
    )
    CLIPTextModel(config).eval().save_pretrained(folder / "text_encoder")
