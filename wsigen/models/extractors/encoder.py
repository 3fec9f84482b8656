"""``timm:`` and ``transformers:``: any encoder of those libraries (UNI, Phikon, H-optimus, DINOv2 ...)."""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from wsigen.base.errors import EvaluationError
from wsigen.models.extractors.torch_module import TorchExtractor, ready, resized

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of channels in 0 .. 1: what encoders were trained with that do not say it."""

HEADS = ("head", "head_dist", "fc", "classifier", "last_linear")
"""First part of the names of classifiers in timm; features are taken before them."""


def open_timm(text: str, device: str) -> TorchExtractor:
    """Load ``NAME`` (its published weights) or ``NAME@FILE``.

    Raises
    ------
    EvaluationError
        If timm is not installed, or it has no such model or weights.
    """
    name, _, file = text.partition("@")
    refuse_hub_file(name, file, "features")
    timm = _package("timm")
    refuse_pickle(file)
    try:
        network = timm.create_model(name, num_classes=0, **_timm_weights(file))
        settings = timm.data.resolve_model_data_config(network)
        unfit = _unfit(network, file) if file else ""
    except Exception as error:
        raise _unloadable(f"timm:{text}", error) from None
    if unfit:
        raise EvaluationError(
            f"features timm:{text}: the file does not fit {name}: {unfit}; give the model it was trained as, or its folder "
            "with timm's config.json as timm:local-dir:FOLDER"
        )
    side, mean, std = int(settings["input_size"][-1]), settings["mean"], settings["std"]
    return _encoder(f"timm:{name}", f"timm {timm.__version__}", network, network, side, mean, std, device)


def _timm_weights(file: str) -> dict[str, Any]:
    """What ``create_model`` needs for weights of a file, with or without a classifier's head.

    timm's loading of published weights takes the head away (``checkpoint_path`` would refuse it), and gets the file in place
    of its download. Vision transformers with layer scale (UNI, DINOv2) need ``init_values``; its value is overwritten.
    """
    if not file:
        return {"pretrained": True}
    scaled = any(name.endswith("ls1.gamma") for name in _tensors(file))
    overlay = {"pretrained_cfg_overlay": {"file": file}, "pretrained": True}
    return overlay | ({"init_values": 1e-5} if scaled else {})


def _unfit(network: Any, file: str) -> str:
    """Say which tensors of a file a network did not take, or which of its own it did not find; empty if all is well.

    timm says nothing of either once a head is taken away. Only where most names are the network's own: files of other
    libraries are renamed by timm as they are loaded.
    """
    own = {n for n in network.state_dict() if not n.endswith("num_batches_tracked")}
    named = [n for n in _tensors(file) if not n.endswith("num_batches_tracked") and n != "mask_token"]
    given = {n for n in named if n in own or n.split(".")[0] not in HEADS}  # some keep a norm of that name
    if 2 * len(own & given) <= len(given):
        return ""
    strange, missing = sorted(given - own), sorted(own - given)
    problems = [f"no place for {len(strange)} of its tensors ({', '.join(strange[:3])})"] if strange else []
    return " and ".join([*problems, *([f"{len(missing)} tensors are missing ({', '.join(missing[:3])})"] if missing else [])])


def _tensors(file: str) -> list[str]:
    from safetensors import safe_open

    with safe_open(file, "pt") as content:
        return list(content.keys())


def refuse_pickle(file: str) -> None:
    """Let only safetensors in: some versions of timm unpickle other files, which can run any code."""
    if file and not file.endswith(".safetensors"):
        raise EvaluationError(f"{file}: give weights for timm as .safetensors; other files can hold code")


def refuse_hub_file(name: str, file: str, where: str) -> None:
    """Refuse a model of the hub, whose weights are the hub's, with weights of a file: timm would take one of both unsaid."""
    if file and name.replace("_", "-").startswith("hf-hub:"):
        raise EvaluationError(
            f"{where} timm:{name}@{file}: a name on the hub and a file of weights contradict one another; give timm:{name} "
            "for the hub's weights, or timm's own name of the model with @FILE"
        )


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
    given: dict[str, Any] = {"use_safetensors": True, "trust_remote_code": False, "output_loading_info": True}
    try:
        network, loaded = transformers.AutoModel.from_pretrained(name, **given)
        settings = _preparation(transformers, name)
    except Exception as error:
        raise _unloadable(f"transformers:{name}", error) from None
    vision = getattr(network, "vision_model", network)
    pooled = _drop_new_pooler(vision, loaded["missing_keys"], "" if vision is network else "vision_model.", name)

    def run(pictures: Tensor) -> Tensor:
        output = vision(pixel_values=pictures)
        pooler = getattr(output, "pooler_output", None) if pooled else None
        return (output.last_hidden_state[:, 0] if pooler is None else pooler).flatten(1)

    mean, std = settings.get("image_mean") or IMAGENET_MEAN, settings.get("image_std") or IMAGENET_STD
    version = f"transformers {transformers.__version__}, {'its own pooling' if pooled else 'CLS token'}"
    made = _encoder(f"transformers:{name}", version, vision, run, _side(settings, vision.config), mean, std, device)
    try:
        _ = made.dimension
    except (RuntimeError, ValueError, TypeError, AttributeError) as error:
        raise _unloadable(f"transformers:{name}", error) from None
    return made


def _drop_new_pooler(vision: Any, missing: Iterable[str], prefix: str, name: str) -> bool:
    """Take away a pooling layer that the weights lack: transformers makes one of random numbers on each load.

    Returns
    -------
    bool
        Whether the encoder keeps a pooling of its own.

    Raises
    ------
    EvaluationError
        If the weights lack anything else of the picture's encoder.
    """
    lacking = sorted(k.removeprefix(prefix) for k in missing if k.startswith(prefix))
    others = [k for k in lacking if not k.startswith("pooler.")]
    if others:
        raise EvaluationError(
            f"features transformers:{name}: its weights lack {len(others)} tensors ({', '.join(others[:3])}), which would be "
            "random; the file is of another model, or incomplete"
        )
    if lacking:
        vision.pooler = None
    return not lacking


def _preparation(transformers: Any, name: str) -> dict[str, Any]:
    """What the encoder's image processor says; empty where it has none."""
    try:
        return dict(transformers.image_processing_utils.BaseImageProcessor.get_image_processor_dict(name)[0])
    except (OSError, ValueError):
        return {}


def _side(settings: Mapping[str, Any], config: Any) -> int:
    """Side of the pictures the encoder was trained with (px): what its processor crops to, else that of its configuration.

    DINOv2, for one, has positions for 518 px and is used at 224.
    """
    cropped = settings.get("crop_size") if settings.get("do_center_crop") else None
    for said in (cropped, settings.get("size"), getattr(config, "image_size", None)):
        side = said.get("height") or said.get("shortest_edge") if isinstance(said, Mapping) else said
        side = side[0] if isinstance(side, list | tuple) else side
        if isinstance(side, int) and side > 0:
            return side
    return 224


def _encoder(name: str, version: str, network: Any, call: Any, side: int, mean: Any, std: Any, device: str) -> TorchExtractor:
    centre, spread = (torch.tensor(v, device=device).view(1, 3, 1, 1) for v in (mean, std))
    ready(network, device)

    def run(pictures: Tensor) -> Tensor:
        return call((resized(pictures, side, antialias=True) - centre) / spread)

    numbers = " ".join(f"{v:g}" for v in (*mean, *std))
    return TorchExtractor(name, f"{version}, bilinear to {side} px, mean and deviation {numbers}", network, run, device, side)


def _package(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise EvaluationError(f"features {name}: the package is not usable here ({error}); pip install {name}") from None


def _unloadable(name: str, error: Exception) -> EvaluationError:
    reason = " ".join(str(error).split())[:160]
    return EvaluationError(f"features {name}: cannot be loaded ({type(error).__name__}: {reason})")
