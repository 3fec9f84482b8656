"""The manifest of an edited slide: its parent's, with the edit at the end of its history."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from wsigen.base.errors import RunError
from wsigen.base.json_file import read_json
from wsigen.base.state import parse_state
from wsigen.base.version import __version__
from wsigen.models.card import BundleCard
from wsigen.run.manifest import EditRecord, Manifest
from wsigen.slide.marks import PARTLY


def manifest_beside(slide: Path, base: str) -> dict[str, Any] | None:
    """The content of ``SLIDE.json``, if it is a manifest of ours."""
    path = slide.with_name(f"{base}.json")
    if not path.is_file():
        return None
    try:
        content = read_json(path, RunError, "a slide's manifest lies there")
    except RunError:
        return None
    return content if isinstance(content, dict) and ("history" in content or "passes" in content) else None


def edited_manifest(
    parent: dict[str, Any] | None, record: EditRecord, mark: str | None, card: BundleCard, area_px: dict[str, float],
    hashes: dict[str, str],
) -> dict[str, Any]:  # fmt: skip
    """The manifest of an edited slide: its parent's with the edit at the end of its history.

    Parameters
    ----------
    mark : str or None
        Of the parent (`synthetic_mark`).
    hashes : dict
        SHA-256 of the files beside the manifest and of level 0.
    """
    before = (parent or {}).get("history") or []
    history = [*before, record.model_dump(mode="json", by_alias=True)]
    places = sum(len(each.get("regions", [])) for each in history)
    what = "Synthetic slide" if mark == "true" else f"A real slide, {PARTLY}"
    statement = f"{what}: {places} region{'s' * (places != 1)} made anew by wsigen {__version__}. {card.not_for}"
    synthetic = True if mark == "true" else "partly"
    changed = {
        "synthetic": synthetic,
        "statement": statement,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "area_px": area_px,
        "history": history,
        "sha256": hashes,
    }
    content = {**(parent or {"versions": {"wsigen": __version__}}), **changed}
    if "passes" in content:
        parse_state(Manifest, json.dumps(content), "the edited slide's manifest", RunError)
    return content
