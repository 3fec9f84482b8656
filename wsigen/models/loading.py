"""Loads the parts of a checked bundle with diffusers and transformers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from wsigen.base.errors import BundleError
from wsigen.models.bundle import check_bundle, weights_variant
from wsigen.models.card import BundleCard, Config, read_config

if TYPE_CHECKING:
    from torch import Tensor

    from wsigen.models.attention import SplitDecoder
    from wsigen.models.halo import ShrinkingHalo
    from wsigen.models.inputs import Inputs
    from wsigen.models.layers import SharedGroupNorm


@dataclass(frozen=True)
class Parts:
    """The networks of a bundle on their device, and what its configs say.

    ``mean`` and ``std`` are float32 ``[1, C, 1, 1]``; ``norms`` are the decoder's, in the order of
    its modules; ``halo`` cuts off what the decoder needs no more of a window's context; ``split`` is the decoder cut at its one
    attention, if it has one and can be cut there.
    """

    card: BundleCard
    vae: Any
    unet: Any
    inputs: Inputs
    vae_config: Config
    mean: Tensor
    std: Tensor
    norms: list[SharedGroupNorm]
    halo: ShrinkingHalo
    decoder_is_local: bool
    split: SplitDecoder | None
    abar: NDArray[np.float64]
    prediction_type: str
    clip: float | None


def load_parts(path: Path, device: str) -> Parts:
    """Check the bundle in ``path`` and load it onto ``device``.

    Raises
    ------
    BundleError
        If the bundle cannot be used, or its weights do not fit their config.
    """
    import diffusers
    import torch

    from wsigen.models.attention import SplitDecoder, attentions, can_split
    from wsigen.models.halo import ShrinkingHalo
    from wsigen.models.layers import activate_in_place, share_group_norms

    card = check_bundle(path)
    vae_config, unet_config = read_config(path, "vae"), read_config(path, "unet")
    vae = load_network(getattr(diffusers, vae_config["_class_name"]), path / "vae", device)
    unet = load_network(getattr(diffusers, unet_config["_class_name"]), path / "unet", device)
    activate_in_place(vae)
    abar, prediction_type, clip = read_schedule(path)
    shape = (1, -1, 1, 1)
    return Parts(
        card=card,
        vae=vae,
        unet=unet,
        inputs=_make_inputs(path, card, unet_config, device),
        vae_config=vae_config,
        mean=torch.tensor(card.latent.mean, device=device).view(shape),
        std=torch.tensor(card.latent.std, device=device).view(shape),
        norms=share_group_norms(vae.decoder),
        halo=ShrinkingHalo(vae.decoder, vae_config),
        decoder_is_local=not attentions(vae.decoder),
        split=SplitDecoder(vae) if can_split(vae) else None,
        abar=abar,
        prediction_type=prediction_type,
        clip=clip,
    )


def load_network(kind: Any, folder: Path, device: str) -> Any:
    """Load one network for inference; safetensors only (BundleError if they do not fit the config)."""
    import torch

    from wsigen.models.layers import replace_pointwise

    try:
        network, info = kind.from_pretrained(
            str(folder),
            output_loading_info=True,
            use_safetensors=True,
            variant=weights_variant(folder),
            local_files_only=True,
            torch_dtype=torch.float32,
            low_cpu_mem_usage=False,
        )
    except (OSError, ValueError, RuntimeError, TypeError, KeyError) as error:
        raise _unloadable(folder, error) from None
    for what in ("missing_keys", "mismatched_keys", "unexpected_keys"):
        if found := sorted(map(str, info.get(what) or ())):
            faults = f"{len(found)} {what.replace('_', ' ')}, e.g. {found[0]}"
            raise BundleError(f"{folder}: the weights do not fit the config ({faults}); copy the bundle again")
    network.requires_grad_(False)
    if device == "cpu":
        replace_pointwise(network)
    return network.eval().to(device=device, memory_format=torch.channels_last)


def _unloadable(folder: Path, error: Exception) -> BundleError:
    reason = " ".join(str(error).split())[:200]
    return BundleError(f"{folder}: cannot be loaded ({type(error).__name__}: {reason})")


def _make_inputs(path: Path, card: BundleCard, unet: Config, device: str) -> Inputs:
    """Choose how conditions reach the network."""
    from wsigen.models import inputs

    knows_levels = unet.get("num_class_embeds") is not None
    kind = card.conditioning.kind
    if kind == "class-map":
        return inputs.ClassMapInputs(card, knows_levels)
    if kind == "class-tokens":
        return inputs.TokenInputs(card)
    if kind == "text":
        tokenizer, encoder = _load_text(path, device)
        return inputs.TextInputs(card, tokenizer, encoder, knows_levels)
    return inputs.PlainInputs(card, knows_levels)


def _load_text(path: Path, device: str) -> tuple[Any, Any]:
    """Load CLIP's tokenizer and text model."""
    import torch
    from transformers import CLIPTextModel, CLIPTokenizer

    try:
        tokenizer = CLIPTokenizer.from_pretrained(str(path / "tokenizer"), local_files_only=True)
        encoder = CLIPTextModel.from_pretrained(
            str(path / "text_encoder"),
            use_safetensors=True,
            variant=weights_variant(path / "text_encoder"),
            local_files_only=True,
            dtype=torch.float32,
        )
    except (OSError, ValueError, RuntimeError, TypeError, KeyError) as error:
        raise _unloadable(path / "text_encoder", error) from None
    return tokenizer, encoder.requires_grad_(False).eval().to(device)


def read_schedule(path: Path) -> tuple[NDArray[np.float64], str, float | None]:
    """Training noise levels, prediction type and x0 clamp of ``path/scheduler``, by diffusers' own scheduler.

    Any scheduler's config will do: cosine and scaled linear betas and rescaling to zero terminal SNR mean the
    same in all.
    """
    from diffusers import DDIMScheduler

    config = read_config(path, "scheduler")
    scheduler = DDIMScheduler.from_pretrained(str(path / "scheduler"), local_files_only=True)
    abar = scheduler.alphas_cumprod.double().numpy().copy()
    # A config silent about clipping belongs to a scheduler without it, unless it is one of these two.
    clips = config.get("clip_sample", config.get("_class_name") in ("DDIMScheduler", "DDPMScheduler"))
    clip = float(config.get("clip_sample_range", 1.0)) if clips else None
    return abar, str(config.get("prediction_type", "epsilon")), clip
