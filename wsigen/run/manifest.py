"""``run.json``: what a run is, in plain values; written once, read by every worker, compared on resume."""

from __future__ import annotations

import hashlib
import json
import platform
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from wsigen.base.errors import RunError
from wsigen.base.version import __version__
from wsigen.storage.folder import MANIFEST, Folder

DECIDING = ("wsigen", "torch", "diffusers", "numpy", "scipy", "imagecodecs")
"""Packages that decide bits: they must be alike on all workers, and from a run's beginning to its end."""

FORMAT = 4
FILE = MANIFEST
LOCK = "driver.lock"

WORK = re.compile(r"work-[0-9a-f]{12}")
"""Names of folders with the state and the spool of a run (``Manifest.work``)."""


FAILURES = "failures.txt"
"""The workers' tracebacks of tasks that were given up."""


@dataclass(frozen=True)
class Manifest:
    """Everything a worker needs besides the store.

    Attributes
    ----------
    identity:
        What decides the pixels: settings, model and input hashes, chunk and batch size, device type.
    output:
        Path of the slide.
    model, model_hash:
        Folder of the bundle and the SHA-256 of its contents.
    passes:
        ``PassPlan.to_json``, coarse to fine.
    slide:
        ``PyramidSpec`` fields.
    sampling:
        guidance, eta, batch, seed.
    glass:
        ``index`` of the background class or None, its ``latent`` [C] and ``rgb``.
    inputs:
        File names of layout and reference.
    versions:
        Of wsigen and the packages that decide bits.
    settings:
        The full ``RunConfig`` as given, for the record and for ``resume``.
    """

    identity: dict[str, Any]
    output: str
    model: str
    model_hash: str
    device: str
    precision: str
    passes: list[dict[str, Any]]
    slide: dict[str, Any]
    sampling: dict[str, Any]
    glass: dict[str, Any]
    inputs: dict[str, str | None]
    versions: dict[str, str]
    settings: dict[str, Any]
    format: int = FORMAT
    run_id: str = field(default="")

    @property
    def hash(self) -> str:
        """SHA-256 of everything in the manifest."""
        return json_hash(asdict(self))

    @property
    def work(self) -> str:
        """The folder of the run's state and spool.

        Its name tells this run from all others at the same place: what a worker of one that is over writes late never becomes
        part of this slide. Runs that share the name write equal bytes.
        """
        deciding = {name: self.versions.get(name) for name in DECIDING}
        return f"work-{json_hash({'identity': self.identity, 'versions': deciding})[:12]}"

    @property
    def mixed(self) -> bool:
        """Whether workers of other versions or without the run's device may help."""
        return self.settings.get("mixed_workers") == "warn"

    def save(self, folder: Folder) -> None:
        """Write ``run.json``, whole or not at all."""
        text = json.dumps({**asdict(self), "hash": self.hash}, indent=2, sort_keys=True)
        folder.write(FILE, text.encode())

    @classmethod
    def load(cls, folder: Folder) -> Manifest:
        """Read ``run.json``.

        Raises
        ------
        RunError
            If it is missing, no JSON, of another format, or its hash does not fit its content.
        OSError
            If the place cannot be reached for now.
        """
        where = f"{folder.name}/{FILE}"
        try:
            content = json.loads(folder.read(FILE))
        except (FileNotFoundError, NotADirectoryError):
            raise RunError(f"{folder.name}: not a run directory (there is no {FILE})") from None
        except ValueError as error:
            raise RunError(f"{where}: unreadable ({error}); start the run anew in another directory") from None
        if not isinstance(content, dict) or content.get("format") != FORMAT:
            raise RunError(f"{where}: not a run of format {FORMAT}; use the wsigen version that made it")
        expected = content.pop("hash", None)
        try:
            manifest = cls(**{f.name: content[f.name] for f in fields(cls)})
        except KeyError as error:
            raise RunError(f"{where}: {error} is missing; start the run anew") from None
        if manifest.hash != expected:
            raise RunError(f"{where}: its hash does not fit its content; it was edited: start the run anew")
        return manifest


def version_differences(manifest: Manifest, here: Mapping[str, str]) -> list[str]:
    """What of `DECIDING` has another version here than in a run, e.g. ``"torch 2.12.0 (2.13.0 in the run)"``."""
    there = manifest.versions
    return [f"{name} {here[name]} ({there.get(name)} in the run)" for name in DECIDING if here[name] != there.get(name)]


def package_versions() -> dict[str, str]:
    """Versions of wsigen and of the packages that may decide bits."""
    found = {"wsigen": __version__, "python": platform.python_version()}
    for name in ("torch", "diffusers", "transformers", "numpy", "scipy", "zarr", "dask", "imagecodecs", "tifffile"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "missing"
    return found


def json_hash(content: dict[str, Any]) -> str:
    """SHA-256 over canonical JSON."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def first_difference(mine: Any, theirs: Any, path: str = "") -> str | None:
    """Name the first field in which two identities differ, e.g. ``"settings.seed: 1 here, 2 in the run"``."""
    if isinstance(mine, dict) and isinstance(theirs, dict):
        for key in sorted({*mine, *theirs}):
            found = first_difference(mine.get(key), theirs.get(key), f"{path}.{key}" if path else key)
            if found:
                return found
        return None
    return None if mine == theirs else f"{path}: {mine!r} here, {theirs!r} in the run"
