"""What must hold before a bundle's weights are read: safe files, and numbers that agree."""

from __future__ import annotations

from pathlib import Path

from wsigen.base.errors import BundleError
from wsigen.models.card import BundleCard, Config, read_config, vae_factor

VAES = ("AutoencoderKL", "AutoencoderTiny")
UNETS = ("UNet2DModel", "UNet2DConditionModel")
PREDICTIONS = ("epsilon", "v_prediction", "sample")
_PICKLES = (".bin", ".pt", ".pth", ".ckpt")


def weighted_parts(card: BundleCard) -> tuple[str, ...]:
    """The parts of a bundle that hold weights."""
    return ("vae", "unet", "text_encoder") if card.conditioning.kind == "text" else ("vae", "unet")


def weights_variant(folder: Path) -> str | None:
    """The variant (e.g. ``fp16``) under which a part's weights are stored, None for plain ones."""
    names = sorted(f.name for f in folder.glob("*.safetensors"))
    # "diffusion_pytorch_model.fp16.safetensors"; shards are "model-00001-of-00002.safetensors".
    variants = [name.split(".")[1].split("-")[0] if name.count(".") > 1 else None for name in names]
    return None if None in variants or not variants else variants[0]


def check_weights(folder: Path, card: BundleCard) -> None:
    """Refuse weights that are missing or stored as pickles (which can run code when loaded)."""
    for part in weighted_parts(card):
        read_config(folder, part)
        if any((folder / part).glob("*.safetensors")):
            continue
        pickles = [f.name for f in sorted((folder / part).iterdir()) if f.suffix in _PICKLES]
        if pickles:
            raise BundleError(
                f"{folder / part}: {pickles[0]} is a pickle, which can run code when read; if you trust it, "
                "convert it: from_pretrained(FOLDER), then save_pretrained(FOLDER, safe_serialization=True)"
            )
        raise BundleError(f"{folder / part}: no *.safetensors weights")
    if card.conditioning.kind == "text" and not (folder / "tokenizer").is_dir():
        raise BundleError(f"{folder}: no tokenizer folder, which conditioning 'text' needs")


def check_channels(folder: Path, card: BundleCard) -> None:
    """Compare the card with the configs of autoencoder, network and scheduler.

    Raises
    ------
    BundleError
        Names both sides of the first disagreement.
    """
    _check_vae(folder, read_config(folder, "vae"), card)
    unet = read_config(folder, "unet")
    _check_unet(folder, unet, card)
    _check_embeddings(folder, unet, card)
    _check_scheduler(folder, read_config(folder, "scheduler"))


def _agree(folder: Path, what: str, found: object, why: str, expected: object) -> None:
    if found != expected:
        raise BundleError(f"{folder}: {what} is {found}, but {why} {expected}")


def _check_vae(folder: Path, vae: Config, card: BundleCard) -> None:
    if vae.get("_class_name") not in VAES:
        raise BundleError(f"{folder}: the vae is a {vae.get('_class_name')}; possible: {', '.join(VAES)}")
    latent = card.latent
    channels, why = vae.get("latent_channels", 4), "the card's latent.channels is"
    _agree(folder, "vae latent_channels", channels, why, latent.channels)
    _agree(folder, "the vae's factor", vae_factor(vae), "the card's latent.factor is", latent.factor)
    for side in ("in_channels", "out_channels"):
        _agree(folder, f"vae {side}", vae.get(side, 3), "an RGB image has", 3)


def _check_unet(folder: Path, unet: Config, card: BundleCard) -> None:
    kind, name = card.conditioning.kind, unet.get("_class_name")
    if name not in UNETS:
        raise BundleError(f"{folder}: the unet is a {name}; possible: {', '.join(UNETS)}")
    wanted = UNETS[kind == "text"]
    _agree(folder, "the unet", name, f"conditioning '{kind}' needs a", wanted)
    channels, classes = card.latent.channels, len(card.classes)
    given, why = channels, f"latents of {channels} channels need"
    if kind == "class-map":
        given = channels + classes + 1
        why = f"{channels} latent channels and a class map of {classes} classes and 'unknown' need"
    _agree(folder, "unet in_channels", unet.get("in_channels"), why, given)
    _agree(folder, "unet out_channels", unet.get("out_channels"), "the card's latent.channels is", channels)
    step = 2 ** (len(unet.get("block_out_channels", (1,))) - 1)
    if card.crop_latent % step:
        raise BundleError(f"{folder}: crop_latent is {card.crop_latent}, the unet needs a multiple of {step}")


def _check_embeddings(folder: Path, unet: Config, card: BundleCard) -> None:
    kind, levels, classes = card.conditioning.kind, len(card.levels), len(card.classes)
    embeds = unet.get("num_class_embeds")
    for unknown in ("class_embed_type", "addition_embed_type"):
        if unet.get(unknown):
            raise BundleError(f"{folder}: unet {unknown} {unet[unknown]!r} is not supported")
    if kind == "class-tokens":
        why = f"{levels} levels of {classes} classes and the null token need"
        _agree(folder, "unet num_class_embeds", embeds, why, levels * classes + 1)
    elif embeds is not None:
        _agree(folder, "unet num_class_embeds", embeds, "the card's number of levels is", levels)
    if kind == "text":
        width = read_config(folder, "text_encoder").get("hidden_size")
        why = "the text encoder's hidden_size is"
        _agree(folder, "unet cross_attention_dim", unet.get("cross_attention_dim", 1280), why, width)


def _check_scheduler(folder: Path, scheduler: Config) -> None:
    name = str(scheduler.get("_class_name", ""))
    if "Flow" in name or not ("beta_schedule" in scheduler or scheduler.get("trained_betas")):
        raise BundleError(f"{folder}: scheduler {name} has no beta schedule (flow matching is not supported)")
    kind = scheduler.get("prediction_type", "epsilon")
    if kind not in PREDICTIONS:
        raise BundleError(f"{folder}: scheduler prediction_type {kind!r}; possible: {', '.join(PREDICTIONS)}")
    if kind == "epsilon" and scheduler.get("rescale_betas_zero_snr"):
        raise BundleError(
            f"{folder}: the scheduler ends in pure noise (rescale_betas_zero_snr), of which an epsilon prediction says "
            "nothing; such a model predicts 'v_prediction' or 'sample': mend scheduler/scheduler_config.json"
        )
