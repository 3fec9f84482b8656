"""Bundles: where a model lies, whether it can be used (safe files, and numbers that agree), and what identifies it."""

from __future__ import annotations

import glob
import re
from collections.abc import Sequence
from pathlib import Path

from wsigen.base.errors import BundleError, suggest
from wsigen.base.json_file import read_json
from wsigen.base.names import unusable_path
from wsigen.models.card import CARD_NAME, BundleCard, GridCondition, read_card
from wsigen.models.config_keys import demand_supported
from wsigen.models.denoisers import PARTS as DENOISERS
from wsigen.models.denoisers import Architecture, attending, find_part, read_architecture
from wsigen.models.derived_card import card_command, latent_scale, vae_channels, vae_factor
from wsigen.models.flow import EULER, is_flow
from wsigen.models.network_config import Config, read_config, read_text_encoder
from wsigen.models.weights import choose_variant
from wsigen.sampling.schedule import PREDICTIONS
from wsigen.storage.files import sha256_of

DEFAULT_FOLDER = Path(__file__).parent / "default"
"""The embedded default model."""

GRID = "grid"
"""Folder of the network that draws grids: ``grid/unet`` and ``grid/scheduler``."""

SUMMARISER = "summariser"
"""Folder of the network that makes tokens of grids (`models.summariser`)."""

TOKEN_MODEL = "token_model"
"""Folder of the network that draws such tokens from noise (`models.token_model`)."""

PARTS = ("vae", *DENOISERS, "scheduler", "text_encoder", "tokenizer", "mask", GRID, SUMMARISER, TOKEN_MODEL)
SUFFIXES = (".safetensors", ".json", ".yaml", ".txt", ".model")
"""What decides what a model computes; other files (README) do not count."""
VAES = ("AutoencoderKL", "AutoencoderTiny", "VQModel")
_IDLE = ("safety_checker", "feature_extractor", "image_encoder")
"""What pipelines of diffusers bring along that draws nothing unless it is asked to."""
_PICKLES = (".bin", ".pt", ".pth", ".ckpt")
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


def find_bundle(name_or_path: str) -> Path:
    """Find the folder of a bundle, downloading it if a hub id is given.

    Parameters
    ----------
    name_or_path : str
        ``"default"`` or the name of an embedded bundle; a folder; or a hub id ``owner/name``, of which only
        safetensors, JSON, YAML and text files are fetched.

    Raises
    ------
    BundleError
        If there is no such bundle (the known names and the nearest one are said), or it cannot be downloaded.
    """
    known = {card.name: DEFAULT_FOLDER for card in list_bundles()}
    if name_or_path == "default" or name_or_path in known:
        if not DEFAULT_FOLDER.is_dir():
            raise BundleError("this installation has no default model; give a bundle folder or a hub id")
        return DEFAULT_FOLDER
    if why := unusable_path(name_or_path):
        raise BundleError(f"{name_or_path}: {why}; give a bundle's folder or name")
    path = Path(name_or_path).expanduser()
    if path.is_dir():
        return path
    if path.is_file():
        raise BundleError(f"{path}: is a file; a bundle is a folder (vae, unet, scheduler, {CARD_NAME})")
    if _HUB_ID.fullmatch(name_or_path) and not name_or_path.startswith("."):
        return _download(name_or_path)
    names = ["default", *known]
    raise BundleError(
        f"no bundle {name_or_path!r}{suggest(name_or_path, names)}; known: {', '.join(names)}; "
        "or give a folder or a hub id owner/name"
    )


def check_bundle(path: Path) -> BundleCard:
    """Check a bundle by its JSON and YAML alone: no weights are read and no code of the bundle is run.

    Returns
    -------
    BundleCard
        The bundle's card, or one derived from the configs of a plain diffusers folder.

    Raises
    ------
    BundleError
        If a part is missing, weights are pickles, or numbers of channels, classes or levels disagree.
    """
    if not path.is_dir():
        raise BundleError(f"{path}: no such folder")
    card = read_card(path)
    check_parts(path, card)
    return card


def check_parts(path: Path, card: BundleCard) -> None:
    """Check what lies in a bundle against its card; see `check_bundle`."""
    _check_pipeline(path)
    text = card.conditioning.kind == "text"
    denoiser = find_part(path)
    check_weights(path, ("vae", denoiser, "text_encoder") if text else ("vae", denoiser))
    if text and not (path / "tokenizer").is_dir():
        raise BundleError(f"{path}: no tokenizer folder, which conditioning 'text' needs")
    if card.grid is not None and card.grid.told == "tokens":
        check_weights(path, (SUMMARISER,))
        _check_summariser(path, card.grid, len(card.levels))
        if (path / TOKEN_MODEL).is_dir():
            check_weights(path, (TOKEN_MODEL,))
            _check_token_model(path)
    _check_vae(path, read_config(path, "vae"), card)
    _check_denoiser(path, card)
    if card.drawing is not None:
        check_weights(path / GRID, (find_part(path / GRID),))
        _check_denoiser(path / GRID, card.drawing)


def bundle_hash(path: Path) -> str:
    """SHA-256 (hex) over the sorted names and the contents of weights, configs and ``wsigen.yaml``."""
    files = [path / CARD_NAME]
    files += [f for part in PARTS for f in (path / part).rglob("*") if f.suffix in SUFFIXES]
    return sha256_of({f.relative_to(path).as_posix(): f for f in files if f.is_file()})


def list_bundles() -> list[BundleCard]:
    """The cards of the embedded bundles."""
    return [read_card(DEFAULT_FOLDER)] if (DEFAULT_FOLDER / CARD_NAME).is_file() else []


def _download(hub_id: str) -> Path:
    """Fetch a bundle into the hub's cache."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import DryRunError, HfHubHTTPError, LocalEntryNotFoundError, RepositoryNotFoundError

    folders = [*PARTS, "mask/unet", "mask/scheduler", *(f"{GRID}/{part}" for part in (*DENOISERS, "scheduler"))]
    patterns = [f"{part}/*{suffix}" for part in folders for suffix in SUFFIXES]
    wanted = [CARD_NAME, "model_index.json", *patterns]
    try:
        try:
            listed = snapshot_download(hub_id, allow_patterns=wanted, dry_run=True)
        except DryRunError as error:  # the hub says nothing: what was fetched before, or why there is nothing
            try:
                small = [CARD_NAME, "model_index.json"]
                return Path(snapshot_download(hub_id, allow_patterns=small, local_files_only=True))
            except LocalEntryNotFoundError:
                if isinstance(error.__cause__, HfHubHTTPError):
                    raise error.__cause__ from None
                raise
        needed = _needed(hub_id, [file.filename for file in listed])
        commit = listed[0].commit_hash if listed else None  # what was listed, whatever is pushed meanwhile
        folder = snapshot_download(hub_id, revision=commit, allow_patterns=[glob.escape(name) for name in needed])
    except RepositoryNotFoundError:
        raise BundleError(
            f"{hub_id}: neither a folder here nor a repository on the hub (or it is private: log in first)"
        ) from None
    except LocalEntryNotFoundError:
        raise BundleError(
            f"{hub_id}: no such folder here, and the hub cannot be reached; go online once, or give a bundle folder"
        ) from None
    except (OSError, ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise BundleError(f"{hub_id}: cannot be downloaded ({type(error).__name__}: {reason})") from None
    return Path(folder)


def _needed(hub_id: str, names: Sequence[str]) -> list[str]:
    """Of a bundle's files those that are used: of weights in several variants the chosen one (BundleError)."""
    weights: dict[str, list[str]] = {}
    for name in names:
        if name.endswith(".safetensors"):
            part, _, file = name.rpartition("/")
            weights.setdefault(part, []).append(file)
    chosen = {f"{part}/{file}" for part, files in weights.items() for file in choose_variant(f"{hub_id}/{part}", files)[1]}
    return [name for name in names if not name.endswith(".safetensors") or name in chosen]


def check_weights(folder: Path, parts: Sequence[str]) -> None:
    """Refuse weights that are missing or stored as pickles, which can run code when loaded (BundleError)."""
    for part in parts:
        read_config(folder, part)
        if any((folder / part).glob("*.safetensors")):
            continue
        pickles = [f.name for f in sorted((folder / part).iterdir()) if f.suffix in _PICKLES]
        if pickles:
            raise BundleError(
                f"{folder / part}: {pickles[0]} is a pickle, which can run code when read; if you trust it, "
                "convert it: from_pretrained(FOLDER), then save_pretrained(FOLDER, safe_serialization=True)"
            )
        raise BundleError(
            f"{folder / part}: no *.safetensors weights (a hub's pickles, *.bin, are not fetched); save the model with "
            "save_pretrained(FOLDER, safe_serialization=True)"
        )


def _agree(folder: Path, what: str, actual: object, why: str, expected: object) -> None:
    if actual != expected:
        described = folder.name == GRID or (folder / CARD_NAME).is_file()
        remedy = "" if described else f"; if that was wrongly guessed, say it with {card_command(folder)}"
        raise BundleError(f"{folder}: {what} is {actual}, but {why} {expected}{remedy}")


def _check_pipeline(folder: Path) -> None:
    """Refuse a pipeline with more networks than are used here, such as a ControlNet, which would be left out silently."""
    file = folder / "model_index.json"
    if not file.is_file():
        return
    index = read_json(file, BundleError, "copy the bundle again")
    for part, kind in index.items() if isinstance(index, dict) else ():
        # [library, class]; both null: not there
        if isinstance(kind, list) and any(kind) and part not in (*PARTS, *_IDLE):
            raise BundleError(f"{file}: its pipeline has a {part} ({kind[-1]}), which is not supported: use a model without it")


def _check_vae(folder: Path, vae: Config, card: BundleCard) -> None:
    if vae.get("_class_name") not in VAES:
        raise BundleError(f"{folder}: the vae is a {vae.get('_class_name')}; possible: {', '.join(VAES)}")
    demand_supported(vae, "vae", folder)
    latent = card.latent
    channels, why = vae_channels(vae), "the card's latent.channels is"
    _agree(folder, "vae latent_channels", channels, why, latent.channels)
    _agree(folder, "the vae's factor", vae_factor(vae), "the card's latent.factor is", latent.factor)
    if (vae.get("latents_mean") or vae.get("latents_std")) and not {"mean", "std"} <= latent.model_fields_set:
        mean, std = latent_scale(vae)
        raise BundleError(
            f"{folder}: the vae's config scales latents, the card does not say latent.mean and latent.std; "
            f"write them into it: mean: {mean}, std: {std}"
        )
    for side in ("in_channels", "out_channels"):
        _agree(folder, f"vae {side}", vae.get(side, 3), "an RGB image has", 3)


def _check_summariser(folder: Path, grid: GridCondition, levels: int) -> None:
    config = read_config(folder, SUMMARISER)
    _agree(folder, "summariser dimension", config["dimension"], "the card's grid.dimension is", grid.dimension)
    _agree(folder, "summariser levels", config["levels"], "the card's number of levels is", levels)
    side = config["side"]
    for parts in grid.parts:
        if parts > side or side % parts:
            raise BundleError(f"{folder}: grid.parts of the card has {parts}, no divisor of the summariser's side {side}")


def _check_token_model(folder: Path) -> None:
    drawn, made = read_config(folder, TOKEN_MODEL), read_config(folder, SUMMARISER)
    tokens = made["out_side"] ** 2 if "out_side" in made else made["side"] ** 2 + 1
    for what, wanted in (("tokens", tokens), ("width", made["width"]), ("levels", made["levels"])):
        _agree(folder, f"{TOKEN_MODEL} {what}", drawn[what], "of the summariser it is", wanted)


def _check_denoiser(folder: Path, card: BundleCard) -> None:
    config, network = read_architecture(folder)
    _check_network(folder, network, card)
    demand_supported(config, network.part, folder)
    _check_channels(folder, network, card)
    _check_embeddings(folder, network, card)
    check_scheduler(folder)


def _check_network(folder: Path, network: Architecture, card: BundleCard) -> None:
    kind = card.conditioning.kind
    why = f"conditioning '{kind}'" if kind == "text" or not card.attends else "a grid told by tokens"
    wanted = attending(tokens=card.attends)
    if network.name not in wanted:
        _agree(folder, f"the {network.part}", network.name, f"{why} needs a", " or ".join(wanted))


def _check_channels(folder: Path, network: Architecture, card: BundleCard) -> None:
    part, channels, classes = network.part, card.latent.channels, len(card.classes)
    told = [f"{channels} latent channels"]
    told += [f"a class map of {classes} classes and 'unknown'"] if card.conditioning.kind == "class-map" else []
    told += [f"a grid of {card.grid.channels - 1} numbers and 'known'"] if card.grid and card.grid.channels else []
    square = card.patch**2
    told += [f"patches of {square} px"] if square > 1 else []
    _agree(folder, f"{part} in_channels", network.channels, f"{' and '.join(told)} need", card.input_channels * square)
    if not (network.learns_variance and network.outputs == 2 * channels * square):
        why = "the card's latent.channels is" if square == 1 else "the card's latent.channels and patch need"
        _agree(folder, f"{part} out_channels", network.outputs, why, channels * square)
    multiple = network.multiple * card.patch
    if card.crop_latent % multiple:
        raise BundleError(f"{folder}: crop_latent is {card.crop_latent}, the {part} needs a multiple of {multiple}")


def _check_embeddings(folder: Path, network: Architecture, card: BundleCard) -> None:
    kind, levels, classes = card.conditioning.kind, len(card.levels), len(card.classes)
    what, embeds = f"{network.part} {network.embeds_key}", network.embeds
    if kind == "class-tokens":
        null = " and the null token" if network.counts_null else ""
        why = f"{levels} levels of {classes} classes{null} need"
        _agree(folder, what, embeds, why, levels * classes + network.counts_null)
    elif embeds is not None:
        _agree(folder, what, embeds, "the card's number of levels is", levels)
    if kind == "text":
        encoder, known = read_text_encoder(folder)
        _check_width(folder, network, f"the text encoder's {known.width} is", encoder.get(known.width, 512))
    if card.grid is not None and card.grid.told == "tokens":
        _check_width(folder, network, "the summariser's width is", read_config(folder, SUMMARISER)["width"])


def _check_width(folder: Path, network: Architecture, why: str, width: int) -> None:
    """Compare the width of the tokens that a network attends to with theirs (BundleError)."""
    listens = network.tokens
    if isinstance(listens, list) and set(listens) == {width}:  # said block by block
        listens = width
    _agree(folder, f"{network.part} {network.tokens_key}", listens, why, width)


def check_scheduler(folder: Path) -> None:
    """Refuse a noise schedule that no sampler here can follow (BundleError)."""
    scheduler = read_config(folder, "scheduler")
    name, kind = str(scheduler.get("_class_name", "")), scheduler.get("prediction_type", "epsilon")
    if is_flow(scheduler):
        _check_flow(folder, scheduler)
        return
    if not ("beta_schedule" in scheduler or scheduler.get("trained_betas")):
        raise BundleError(f"{folder}: scheduler {name} has no beta schedule, and is none of flow matching")
    demand_supported(scheduler, "scheduler", folder)
    if kind not in PREDICTIONS:
        raise BundleError(f"{folder}: scheduler prediction_type {kind!r}; possible: {', '.join(PREDICTIONS)}")
    if kind == "epsilon" and scheduler.get("rescale_betas_zero_snr"):
        raise BundleError(
            f"{folder}: the scheduler ends in pure noise (rescale_betas_zero_snr), of which an epsilon prediction says "
            "nothing; such a model predicts 'v_prediction' or 'sample': correct scheduler/scheduler_config.json"
        )


def _check_flow(folder: Path, scheduler: Config) -> None:
    name, kind = scheduler.get("_class_name"), scheduler.get("prediction_type", "epsilon")
    if "FlowMatch" in str(name) and name != EULER:
        raise BundleError(f"{folder}: scheduler {name} is not known; of flow matching {EULER} is")
    if name != EULER and kind != "flow_prediction":
        raise BundleError(
            f"{folder}: scheduler use_flow_sigmas true goes with prediction_type 'flow_prediction' alone, not {kind!r}: "
            "correct scheduler/scheduler_config.json"
        )
    demand_supported(scheduler, "flow", folder)
