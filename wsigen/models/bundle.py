"""Bundles: where a model lies, whether it can be used, and what identifies it."""

from __future__ import annotations

import re
from pathlib import Path

from wsigen.base.errors import BundleError, suggest
from wsigen.models.bundle_checks import check_channels, check_weights
from wsigen.models.card import CARD_NAME, BundleCard, read_card
from wsigen.storage.files import sha256_of

DEFAULT_FOLDER = Path(__file__).parent / "default"
"""The embedded default model."""

PARTS = ("vae", "unet", "scheduler", "text_encoder", "tokenizer", "mask")
SUFFIXES = (".safetensors", ".json", ".yaml", ".txt")
"""What decides what a model computes; other files (README) do not count."""
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


def find_bundle(name_or_path: str) -> Path:
    """Find the folder of a bundle, downloading it if a hub id is given.

    Parameters
    ----------
    name_or_path:
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


def _download(hub_id: str) -> Path:
    """Fetch a bundle into the hub's cache."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError, RepositoryNotFoundError

    folders = [*PARTS, "mask/unet", "mask/scheduler"]
    patterns = [f"{part}/*{suffix}" for part in folders for suffix in SUFFIXES]
    try:
        found = snapshot_download(
            hub_id, allow_patterns=[CARD_NAME, "model_index.json", *patterns], ignore_patterns=["*non_ema*"]
        )
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
    return Path(found)


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
    check_weights(path, card)
    check_channels(path, card)
    return card


def bundle_hash(path: Path) -> str:
    """SHA-256 (hex) over the sorted names and the contents of weights, configs and ``wsigen.yaml``."""
    return sha256_of(_identity(path))


def _identity(path: Path) -> dict[str, Path]:
    """The files that decide what a bundle computes, by their names relative to it."""
    files = [path / CARD_NAME]
    files += [f for part in PARTS for f in (path / part).rglob("*") if f.suffix in SUFFIXES]
    return {f.relative_to(path).as_posix(): f for f in files if f.is_file()}


def list_bundles() -> list[BundleCard]:
    """The cards of the embedded bundles."""
    return [read_card(DEFAULT_FOLDER)] if (DEFAULT_FOLDER / CARD_NAME).is_file() else []
