"""The networks of a checked bundle and its noise schedule, loaded with diffusers and transformers."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wsigen.base.errors import BundleError, refusing
from wsigen.models.flow import flow_of, is_flow
from wsigen.models.network_config import read_config, read_text_encoder
from wsigen.models.weights import choose_weights, demand_fit

_ADVICE = "copy the bundle again"


def check_network(folder: Path) -> Any:
    """Return diffusers' class of a network whose weights are there, in the shapes that its config says.

    Parameters
    ----------
    folder : Path
        ``unet``, ``transformer`` or ``vae`` of a bundle that was checked.

    Raises
    ------
    BundleError
        If they are not.
    """
    import diffusers

    config = read_config(folder.parent, folder.name)
    kind = getattr(diffusers, config["_class_name"])
    with _keys_are_checked():
        demand_fit(lambda: kind.from_config(config), folder)
    return kind


@contextmanager
def _keys_are_checked() -> Iterator[None]:
    """Keep diffusers from telling people of keys that it does not take: `config_keys` has looked at every one of them.

    It writes such keys itself, ``block_out_channels`` of an ``AutoencoderTiny`` for one.
    """
    log = logging.getLogger("diffusers.configuration_utils")
    before = log.level
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.setLevel(before)


def load_network(folder: Path, device: str) -> Any:
    """Load one network for inference; safetensors only (`check_network`: BundleError)."""
    import torch

    from wsigen.models.layers import replace_pointwise

    kind = check_network(folder)
    with refusing(BundleError, f"{folder}: cannot be loaded", _ADVICE), _keys_are_checked():
        network, info = kind.from_pretrained(
            str(folder),
            output_loading_info=True,
            use_safetensors=True,
            variant=choose_weights(folder).variant,
            local_files_only=True,
            torch_dtype=torch.float32,
            low_cpu_mem_usage=False,
        )
    _demand_complete(folder, info, ("missing_keys", "mismatched_keys", "unexpected_keys"))
    network.requires_grad_(False)
    if device == "cpu":
        replace_pointwise(network)
    return network.eval().to(device=device, memory_format=torch.channels_last)


def load_text(folder: Path, device: str) -> tuple[Any, Any]:
    """Load the tokenizer and the text model, CLIP's or T5's, from a folder that has both (BundleError)."""
    import torch
    import transformers

    encoder_folder = folder / "text_encoder"
    config, classes = read_text_encoder(folder)
    kind, tokens, settings = (getattr(transformers, name) for name in (classes.model, classes.tokenizer, classes.config))
    demand_fit(lambda: kind(settings(**config)), encoder_folder)
    with refusing(BundleError, f"{folder / 'tokenizer'}: cannot be loaded", _ADVICE):
        tokenizer = tokens.from_pretrained(str(folder / "tokenizer"), local_files_only=True)
    with refusing(BundleError, f"{encoder_folder}: cannot be loaded", _ADVICE):
        encoder, info = kind.from_pretrained(
            str(encoder_folder),
            output_loading_info=True,
            use_safetensors=True,
            variant=choose_weights(encoder_folder).variant,
            local_files_only=True,
            dtype=torch.float32,
        )
    _demand_complete(encoder_folder, info, ("missing_keys", "mismatched_keys"))
    return tokenizer, encoder.requires_grad_(False).eval().to(device)


def _demand_complete(folder: Path, info: dict[str, Any], wrong: tuple[str, ...]) -> None:
    """Refuse weights of which some are not there, or not of the network (BundleError)."""
    for what in wrong:
        if found := sorted(map(str, info.get(what) or ())):
            faults = f"{len(found)} {what.replace('_', ' ')}, e.g. {found[0]}"
            raise BundleError(f"{folder}: the weights do not fit the config ({faults}); copy the bundle again")


def read_schedule(path: Path) -> tuple[NDArray[np.float64], str, float | None]:
    """Training noise levels, prediction type and x0 clamp of ``path/scheduler``, by diffusers' own scheduler.

    Any scheduler's config will do: cosine and scaled linear betas and rescaling to zero terminal SNR mean the same in all.
    A flow's prediction counts as x0 (`flow`).

    Raises
    ------
    BundleError
        If they are no noise levels: numbers from 1 down to 0.
    """
    from diffusers import DDIMScheduler

    config = read_config(path, "scheduler")
    if is_flow(config):
        return flow_of(config).abar, "sample", None
    with refusing(BundleError, f"{path / 'scheduler'}: cannot be loaded", _ADVICE):
        scheduler = DDIMScheduler.from_pretrained(str(path / "scheduler"), local_files_only=True)
        abar = scheduler.alphas_cumprod.double().numpy().copy()
        if not (np.isfinite(abar).all() and abar.min() >= 0 and abar.max() <= 1 and (np.diff(abar) <= 0).all()):
            raise ValueError("its betas give no noise levels that fall from 1 to 0")
    # A config silent about clipping belongs to a scheduler without it, unless it is one of these two.
    clips = config.get("clip_sample", config.get("_class_name") in ("DDIMScheduler", "DDPMScheduler"))
    clip = float(config.get("clip_sample_range") or 1.0) if clips else None
    return abar, str(config.get("prediction_type", "epsilon")), clip
