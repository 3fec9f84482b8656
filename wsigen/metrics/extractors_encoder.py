"""``timm:`` and ``transformers:``: any encoder of those libraries (UNI, Phikon, H-optimus, DINOv2 ...)."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from wsigen.errors import EvaluationError
from wsigen.metrics.extractors_torch import TorchExtractor, ready, resized


def open_timm(text: str, device: str) -> TorchExtractor:
    """Load ``NAME`` (its published weights) or ``NAME@FILE``.

    Raises
    ------
    EvaluationError
        If timm is not installed, or it has no such model or weights.
    """
    timm = _package("timm")
    name, _, file = text.partition("@")
    refuse_pickle(file)
    try:
        network = timm.create_model(name, pretrained=not file, num_classes=0, checkpoint_path=file)
        settings = timm.data.resolve_model_data_config(network)
    except Exception as error:
        raise _unloadable(f"timm:{text}", error) from None
    side, mean, std = int(settings["input_size"][-1]), settings["mean"], settings["std"]
    return _encoder(f"timm:{name}", f"timm {timm.__version__}", network, network, side, mean, std, device)


def refuse_pickle(file: str) -> None:
    """Let only safetensors in: some versions of timm unpickle other files, which can run any code."""
    if file and not file.endswith(".safetensors"):
        raise EvaluationError(f"{file}: give weights for timm as .safetensors; other files can hold code")


def open_transformers(name: str, device: str) -> TorchExtractor:
    """Load an encoder from the hub or a folder; code of the repository is never run.

    Raises
    ------
    EvaluationError
        If it cannot be found or loaded.
    """
    transformers = _package("transformers")
    if name.startswith(("/", ".")) and not Path(name).is_dir():
        raise EvaluationError(f"transformers:{name}: no such folder")
    try:
        network = transformers.AutoModel.from_pretrained(name, use_safetensors=True, trust_remote_code=False)
        prepare = _preparation(transformers, name)
    except Exception as error:
        raise _unloadable(f"transformers:{name}", error) from None
    vision = getattr(network, "vision_model", network)

    def run(pictures: Tensor) -> Tensor:
        found = vision(pixel_values=pictures)
        pooled = getattr(found, "pooler_output", None)
        return (found.last_hidden_state[:, 0] if pooled is None else pooled).flatten(1)

    side = int(getattr(vision.config, "image_size", 224) or 224)
    version = f"transformers {transformers.__version__}"
    return _encoder(f"transformers:{name}", version, vision, run, side, *prepare, device)


def _preparation(transformers: Any, name: str) -> tuple[list[float], list[float]]:
    """Mean and deviation the encoder was trained with; those of ImageNet where it does not say."""
    try:
        settings = transformers.image_processing_utils.BaseImageProcessor.get_image_processor_dict(name)[0]
    except (OSError, ValueError):
        settings = {}
    return settings.get("image_mean") or [0.485, 0.456, 0.406], settings.get("image_std") or [0.229, 0.224, 0.225]


def _encoder(name: str, version: str, network: Any, call: Any, side: int, mean: Any, std: Any, device: str) -> TorchExtractor:
    centre, spread = (torch.tensor(v, device=device).view(1, 3, 1, 1) for v in (mean, std))
    ready(network, device)

    def run(pictures: Tensor) -> Tensor:
        found: Tensor = call((resized(pictures, side, antialias=True) - centre) / spread)
        return found

    return TorchExtractor(name, f"{version}, bilinear to {side} px", network, run, device)


def _package(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise EvaluationError(f"features {name}: the package is not usable here ({error}); pip install {name}") from None


def _unloadable(name: str, error: Exception) -> EvaluationError:
    reason = " ".join(str(error).split())[:160]
    return EvaluationError(f"features {name}: cannot be loaded ({type(error).__name__}: {reason})")
