"""The networks of a checked bundle and its noise schedule, loaded with diffusers and transformers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wsigen.base.errors import BundleError
from wsigen.models.bundle import weights_variant
from wsigen.models.card import read_config


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


def load_text(folder: Path, device: str) -> tuple[Any, Any]:
    """Load CLIP's tokenizer and text model from a folder that has both (BundleError)."""
    import torch
    from transformers import CLIPTextModel, CLIPTokenizer

    try:
        tokenizer = CLIPTokenizer.from_pretrained(str(folder / "tokenizer"), local_files_only=True)
        encoder = CLIPTextModel.from_pretrained(
            str(folder / "text_encoder"),
            use_safetensors=True,
            variant=weights_variant(folder / "text_encoder"),
            local_files_only=True,
            dtype=torch.float32,
        )
    except (OSError, ValueError, RuntimeError, TypeError, KeyError) as error:
        raise _unloadable(folder / "text_encoder", error) from None
    return tokenizer, encoder.requires_grad_(False).eval().to(device)


def read_schedule(path: Path) -> tuple[NDArray[np.float64], str, float | None]:
    """Training noise levels, prediction type and x0 clamp of ``path/scheduler``, by diffusers' own scheduler.

    Any scheduler's config will do: cosine and scaled linear betas and rescaling to zero terminal SNR mean the same in all.
    """
    from diffusers import DDIMScheduler

    config = read_config(path, "scheduler")
    scheduler = DDIMScheduler.from_pretrained(str(path / "scheduler"), local_files_only=True)
    abar = scheduler.alphas_cumprod.double().numpy().copy()
    # A config silent about clipping belongs to a scheduler without it, unless it is one of these two.
    clips = config.get("clip_sample", config.get("_class_name") in ("DDIMScheduler", "DDPMScheduler"))
    clip = float(config.get("clip_sample_range", 1.0)) if clips else None
    return abar, str(config.get("prediction_type", "epsilon")), clip


def _unloadable(folder: Path, error: Exception) -> BundleError:
    reason = " ".join(str(error).split())[:200]
    return BundleError(f"{folder}: cannot be loaded ({type(error).__name__}: {reason})")
