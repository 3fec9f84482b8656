"""``run.json``: what a run is, in plain values; written once, read by every worker, compared on resume."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import platform
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from wsigen import __version__
from wsigen.errors import RunError
from wsigen.files import write_atomic

DECIDING = ("wsigen", "torch", "diffusers", "numpy", "scipy", "imagecodecs")
"""Packages that decide bits: they must be alike on all workers, and from a run's beginning to its end."""

FORMAT = 1
FILE = "run.json"
LOCK = "driver.lock"


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
        ``PassPlan`` fields, coarse to fine, each with ``timesteps`` and ``abar`` of its schedule.
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

    def save(self, run_dir: Path) -> None:
        """Write ``run.json`` (beside, then renamed)."""
        text = json.dumps({**asdict(self), "hash": self.hash}, indent=2, sort_keys=True)
        write_atomic(run_dir / FILE, text.encode())

    @classmethod
    def load(cls, run_dir: Path) -> Manifest:
        """Read ``run.json``.

        Raises
        ------
        RunError
            If it is missing, unreadable, of another format, or its hash does not fit its content.
        """
        try:
            content = json.loads((run_dir / FILE).read_text())
        except FileNotFoundError:
            raise RunError(f"{run_dir}: not a run directory (there is no {FILE})") from None
        except (OSError, ValueError) as error:
            raise RunError(f"{run_dir / FILE}: unreadable ({error}); start the run anew in another directory") from None
        if not isinstance(content, dict) or content.get("format") != FORMAT:
            raise RunError(f"{run_dir / FILE}: not a run of format {FORMAT}; use the wsigen version that made it")
        expected = content.pop("hash", None)
        try:
            manifest = cls(**{f.name: content[f.name] for f in fields(cls)})
        except KeyError as error:
            raise RunError(f"{run_dir / FILE}: {error} is missing; start the run anew") from None
        if manifest.hash != expected:
            raise RunError(f"{run_dir / FILE}: its hash does not fit its content; it was edited: start the run anew")
        return manifest


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


@contextmanager
def driver_lock(run_dir: Path) -> Iterator[None]:
    """Hold a run for one driver; the operating system releases it with the process, however that ends.

    Raises
    ------
    RunError
        If another driver holds it (the message says who), or the file cannot be locked.
    """
    path = run_dir / LOCK
    try:
        file = path.open("a+")
    except OSError as error:
        raise RunError(f"{path}: cannot be opened ({error.strerror}); the run's directory must be writable") from None
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            holder = file.read().strip() or "another process"
            raise RunError(f"{run_dir}: held by another driver ({holder}); wait for it or stop it") from None
        except OSError as error:
            raise RunError(f"{path}: this file system cannot lock files ({error.strerror}); choose another --run-dir") from None
        file.seek(0)
        file.truncate()
        file.write(f"process {os.getpid()} on {socket.gethostname()}")
        file.flush()
        yield
