"""ZoomLDM's released checkpoints (Yellapragada et al. 2025) as bundles.

A checkpoint is a dictionary of tensors: ``model.diffusion_model.*``, the U-Net of the last step; ``model_ema.*``, its running
mean under names without dots; ``first_stage_model.*``, a VQ autoencoder; ``cond_stage_model.*``, the summariser, of which there
is no running mean. Their layout is that of latent diffusion (Rombach et al. 2022), which diffusers converts by its own
functions; the widths are read from the tensors. Nothing but tensors is unpickled.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isqrt
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from wsigen.base.errors import BundleError, refusing
from wsigen.models.bundle import SUMMARISER, TOKEN_MODEL, check_bundle
from wsigen.models.card import CARD_NAME, BundleCard, make_card
from wsigen.models.checkpoint import filled, read_tensors
from wsigen.models.loading import check_network
from wsigen.models.summariser import ViTSummariser, save_summariser
from wsigen.models.token_model import TokenModel, read_release, save_token_model
from wsigen.models.write_card import card_text
from wsigen.storage.files import whole_folder

if TYPE_CHECKING:
    from diffusers import UNet2DConditionModel, VQModel

State = Mapping[str, Tensor]

UNET, EMA, VAE, SUMMARY = "model.diffusion_model.", "model_ema.", "first_stage_model.", "cond_stage_model."
"""How names of the tensors of each part begin."""

UNET_WIDTHS = (1, 2, 3, 5)
"""Channels of the U-Net's blocks over those of its first convolution; all but the first attend to tokens."""

VAE_WIDTHS = (1, 2, 4)

MOST_LAYERS = 64
"""Of the summariser, as a bundle's may have (`network_config`)."""

HEADS = 8
"""Of the summariser; the tensors do not say it."""

BETAS = (0.0015, 0.0195)
"""First and last beta; their square roots are spaced evenly."""

CELL_PX = 256
"""Side of a cell of the grid in px of the finest level: one embedding."""

PARTS = 8
"""Cells a side of a window at most; those of coarser levels are means."""


@dataclass(frozen=True)
class Release:
    """What is known of a released checkpoint that its tensors do not say.

    Attributes
    ----------
    name, title, not_for : str
        As in the card.
    levels : tuple of str
        Names of the magnifications, fine to coarse, each of half the scale of the one before.
    mpp : float
        um/px of the finest.
    encoder : str
        Which embeddings it is told, as ``wsigen compress --encoder`` names them.
    classes : tuple of dict
        Names that layouts use; the model is not told them.
    data : dict
        What it was trained on.
    """

    name: str
    title: str
    not_for: str
    levels: tuple[str, ...]
    mpp: float
    encoder: str
    classes: tuple[dict[str, Any], ...]
    data: dict[str, Any]


RELEASES = {
    8: Release(
        name="zoomldm-brca",
        title="ZoomLDM, breast cancer at eight magnifications, told UNI's embeddings (released weights)",
        not_for="clinical use; pictures of a slide that were drawn from its embeddings are not the patient's tissue",
        levels=("20x", "10x", "5x", "2.5x", "1.25x", "0.625x", "0.3125x", "0.15625x"),
        mpp=0.5,
        encoder="timm:hf-hub:MahmoodLab/uni",
        classes=(
            {"name": "Glass", "color": [243, 243, 245], "background": True},
            {"name": "Tissue", "color": [200, 100, 160]},
        ),
        data={
            "name": "TCGA-BRCA",
            "url": "https://portal.gdc.cancer.gov/projects/TCGA-BRCA",
            "licence": "open access by the terms of the Genomic Data Commons",
            "attribution": (
                "The Cancer Genome Atlas Research Network. Regions, by ZoomLDM's loader: 20x 12,509,760; 10x 3,036,288; "
                "5x 752,000; 2.5x 187,280; 1.25x 57,090; 0.625x 20,679; 0.3125x 7,923; 0.15625x 2,489"
            ),
        },
    ),
    4: Release(
        name="zoomldm-naip",
        title="ZoomLDM, aerial images at four scales, told DINOv2's embeddings (released weights); a px counts as 1 um",
        not_for="anything but experiments: it draws no tissue, and its scale in um is a stand-in for that of the ground",
        levels=("1x", "2x", "3x", "4x"),
        mpp=1.0,
        encoder="timm:vit_large_patch14_reg4_dinov2.lvd142m",
        classes=({"name": "Land", "color": [150, 200, 150]},),
        data={
            "name": "NAIP aerial images",
            "url": "https://github.com/cvlab-stonybrook/ZoomLDM/issues/4",
            "licence": "not stated by ZoomLDM; NAIP is made by the US Department of Agriculture",
            "attribution": "Regions, by ZoomLDM's loader: 1x 365,119; 2x 94,263; 3x 25,690; 4x 8,772",
        },
    ),
}
"""By their number of magnifications."""

LICENCE = "MIT (ZoomLDM's repository; the page of the weights may say otherwise)"


def import_zoomldm(
    file: Path,
    folder: Path,
    name: str | None = None,
    licence: str | None = None,
    tokens: Path | None = None,
    overwrite: bool = False,
) -> tuple[BundleCard, list[str]]:
    """Write the bundle of a released ``weights.ckpt``.

    Parameters
    ----------
    file : Path
        The checkpoint, of histology (eight magnifications) or aerial images (four).
    folder : Path
        The bundle, which appears whole or not at all.
    name, licence : str, optional
        For the card.
    tokens : Path, optional
        The conditioning diffusion model, which draws tokens (`token_model`).
    overwrite : bool
        Take the place of a bundle that is there.

    Returns
    -------
    card, notes
        The card, and lines for people: which weights were taken.

    Raises
    ------
    BundleError
        If the file holds anything but tensors, or not those of a ZoomLDM; if the bundle cannot be written.
    """
    _check_place(folder, overwrite, [given for given in (file, tokens) if given is not None])
    state = read_tensors(file)
    with refusing(BundleError, file, "it is no checkpoint of ZoomLDM: take weights.ckpt as it was released"):
        unet_state, averaged = _unet_state(state)
        unet, vae, summariser = _unet(unet_state), _vae(_part(state, VAE)), _summariser(_part(state, SUMMARY))
        _check_betas(state)
    drawing = None if tokens is None else _token_model(tokens, summariser)
    card = _card(summariser, unet, name, licence)
    with (
        refusing(BundleError, f"{folder}: cannot be written", "see whether there is space, and whether you may write there"),
        whole_folder(folder) as beside,
    ):
        unet.save_pretrained(beside / "unet")
        vae.save_pretrained(beside / "vae")
        _scheduler().save_pretrained(beside / "scheduler")
        save_summariser(summariser, beside / SUMMARISER)
        if drawing is not None:
            save_token_model(drawing, beside / TOKEN_MODEL)
        (beside / CARD_NAME).write_text(card_text(card), encoding="utf-8")
        check_bundle(beside)
        for part in ("unet", "vae"):
            check_network(beside / part)
    return card, [
        "the U-Net's running mean is used, as ZoomLDM's own sampling does"
        if averaged
        else "the file has no running mean: the U-Net of the last step is used",
        "the summariser is that of the last step: the file holds no running mean of it",
    ]


def _check_place(folder: Path, overwrite: bool, given: Sequence[Path]) -> None:
    """Refuse a place where the bundle would delete anything but another bundle (BundleError)."""
    if not folder.exists():
        return
    if not overwrite:
        raise BundleError(f"{folder}: exists already; name another folder, or add --overwrite")
    if not folder.is_dir() or (any(folder.iterdir()) and not (folder / CARD_NAME).is_file()):
        raise BundleError(f"{folder}: is no bundle (no {CARD_NAME}), so that it is not overwritten; name another folder")
    for file in given:
        if file.resolve().is_relative_to(folder.resolve()):
            raise BundleError(f"{folder}: holds {file}, which --overwrite would delete; name another folder")


def _part(state: State, prefix: str) -> dict[str, Tensor]:
    """The tensors of a part, by their names in it (ValueError if there are none)."""
    found = {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}
    if not found:
        raise ValueError(f"no tensors {prefix}*")
    return found


def _unet_state(state: State) -> tuple[dict[str, Tensor], bool]:
    """The U-Net's tensors, of its running mean if there is one, and whether there is.

    Names without dots cannot be read back; those of the mean are made from the others.
    """
    online = _part(state, UNET)
    averaged = {name: EMA + f"diffusion_model.{name}".replace(".", "") for name in online}
    found = {name: state[key] for name, key in averaged.items() if key in state}
    if found and len(found) < len(online):
        lacking = next(key for key in averaged.values() if key not in state)
        raise ValueError(f"its running mean lacks {len(online) - len(found)} tensors, e.g. {lacking}")
    return (found, True) if found else (online, False)


def _unet(state: State) -> UNet2DConditionModel:
    from diffusers import UNet2DConditionModel
    from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint

    stem = state["input_blocks.0.0.weight"]
    context = state["middle_block.1.transformer_blocks.0.attn2.to_k.weight"].shape[1]
    attending = len(UNET_WIDTHS) - 1
    config = {
        "sample_size": 64,
        "in_channels": stem.shape[1],
        "out_channels": stem.shape[1],
        "block_out_channels": tuple(stem.shape[0] * factor for factor in UNET_WIDTHS),
        "layers_per_block": 2,
        "down_block_types": ("DownBlock2D",) + ("CrossAttnDownBlock2D",) * attending,
        "up_block_types": ("CrossAttnUpBlock2D",) * attending + ("UpBlock2D",),
        "cross_attention_dim": context,
        "attention_head_dim": 1,  # diffusers' name for the number of heads
    }
    converted = convert_ldm_unet_checkpoint({UNET + name: tensor for name, tensor in state.items()}, config)
    network: UNet2DConditionModel = filled(lambda: UNet2DConditionModel(**config), converted, "U-Net")
    return network


def _vae(state: State) -> VQModel:
    from diffusers import VQModel
    from diffusers.loaders.single_file_utils import convert_ldm_vae_checkpoint

    width, codes = state["encoder.conv_in.weight"].shape[0], state["quantize.embedding.weight"]
    config = {
        "block_out_channels": tuple(width * factor for factor in VAE_WIDTHS),
        "down_block_types": ("DownEncoderBlock2D",) * len(VAE_WIDTHS),
        "up_block_types": ("UpDecoderBlock2D",) * len(VAE_WIDTHS),
        "layers_per_block": 2,
        "latent_channels": state["quant_conv.weight"].shape[1],
        "num_vq_embeddings": codes.shape[0],
        "vq_embed_dim": codes.shape[1],
        "sample_size": 256,
        "scaling_factor": 1.0,
    }
    converted = convert_ldm_vae_checkpoint({VAE + name: tensor for name, tensor in state.items()}, config)
    converted["quantize.embedding.weight"] = codes  # which diffusers' function leaves out
    network: VQModel = filled(lambda: VQModel(**config), converted, "autoencoder")
    return network


def _summariser(state: dict[str, Tensor]) -> ViTSummariser:
    state = {_torchvision_name(name): tensor for name, tensor in state.items()}
    width, dimension = state["dim_reduce.weight"].shape
    levels, slots = state["mag_embedding.weight"].shape[0], state["encoder.pos_embedding"].shape[1] - 1
    if levels not in RELEASES:
        raise ValueError(f"it knows {levels} magnifications; {' and '.join(map(str, RELEASES))} are known")
    if isqrt(slots) != PARTS:
        raise ValueError(f"its summariser has {slots} slots for cells; {PARTS**2} are known")
    layers = 1 + max(int(name.split(".")[2].rpartition("_")[2]) for name in state if name.startswith("encoder.layers."))
    if layers > MOST_LAYERS:  # a name alone would have as many built
        raise ValueError(f"its summariser has {layers} layers; at most {MOST_LAYERS} are taken")
    mlp = state["encoder.layers.encoder_layer_0.mlp.0.weight"].shape[0]
    build = lambda: ViTSummariser(dimension, levels, PARTS, width, layers, HEADS, mlp)  # noqa: E731  # built once, below
    network: ViTSummariser = filled(build, state, "summariser")
    return network


def _torchvision_name(name: str) -> str:
    """Torchvision below 0.13 numbered the layers of an MLP otherwise."""
    return name.replace(".mlp.linear_1.", ".mlp.0.").replace(".mlp.linear_2.", ".mlp.3.")


def _token_model(file: Path, summariser: ViTSummariser) -> TokenModel:
    """The network that draws tokens, which must be those of the summariser (BundleError)."""
    network = read_release(file)
    mine = (network.config.tokens, network.config.width, network.config.levels)
    its = (summariser.tokens, summariser.width, summariser.config["levels"])
    if mine != its:
        draws, gives = ("{} tokens of {} numbers for {} magnifications".format(*sizes) for sizes in (mine, its))
        raise BundleError(f"{file}: draws {draws}, but the summariser gives {gives}; take the two of one release")
    return network


def _scheduler() -> Any:
    from diffusers import DDIMScheduler

    return DDIMScheduler(
        beta_schedule="scaled_linear",
        beta_start=BETAS[0],
        beta_end=BETAS[1],
        prediction_type="epsilon",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
    )


def _check_betas(state: State) -> None:
    """Compare the checkpoint's noise levels, if it holds them, with those of the release (ValueError)."""
    expected = _scheduler().alphas_cumprod
    held = state.get("alphas_cumprod")
    if held is not None and (held.shape != expected.shape or (held.float() - expected).abs().max() > 1e-4):
        raise ValueError(f"its noise levels are not those of {len(expected)} betas from {BETAS[0]} to {BETAS[1]}")


def _card(summariser: ViTSummariser, unet: UNet2DConditionModel, name: str | None, licence: str | None) -> BundleCard:
    config = summariser.config
    release = RELEASES[config["levels"]]
    levels = [{"name": level, "mpp": release.mpp * 2**k} for k, level in enumerate(release.levels)]
    content = {
        "format": 1,
        "name": name or release.name,
        "title": release.title,
        "licence": licence or LICENCE,
        "not_for": release.not_for,
        "training_data": [release.data],
        "classes": list(release.classes),
        "levels": levels,
        "conditioning": {"kind": "none"},
        "grid": {
            "told": "tokens",
            "encoder": release.encoder,
            "cell_um": CELL_PX * release.mpp,  # the encoder sees all of a cell, at whatever size it takes
            "dimension": config["dimension"],
            "parts": [min(2**k, PARTS) for k in range(len(levels))],
            "required": True,  # without a grid it does not know its magnification either
        },
        "latent": {"channels": unet.config["in_channels"], "factor": 2 ** (len(VAE_WIDTHS) - 1)},
        "crop_latent": 64,
        "guidance": 1.0,  # what LDM calls 2
        "steps": 50,
    }
    return make_card(content, "the card of ZoomLDM")
