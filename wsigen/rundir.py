"""The directory of a run: claimed by one configuration, checked on resume, cleared without touching anything else."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from wsigen.config import SAMPLE, RunConfig
from wsigen.errors import OutputError, RunError
from wsigen.files import atomic_path, remove_leftovers, remove_tree, sha256, target_of_leftover, write_atomic
from wsigen.manifest import DECIDING, FILE, LOCK, Manifest, first_difference, package_versions
from wsigen.outputs import files_of
from wsigen.preparation import Prepared

INPUTS = "wsigen-inputs"
"""Folder of kept copies of the layout, its class table and the user's subtypes."""

_KEPT = ("layout", "layout_classes", "subtypes")
"""The settings that name the files which are kept there."""

BEGUN = "outputs-begun"
"""A file that says: what lies at the output is this run's, perhaps half of it."""

FINISHED = "finished.json"
"""A file that says: the slide is complete, what is still here is to be cleared. It holds what the run came to."""

_OWN = ("state.zarr", "spool", INPUTS, "timesteps.png", BEGUN, FILE, LOCK, FINISHED)
"""All a run makes in its directory; the mark of a finished one goes last, so that it is known as one however little is left."""


def run_dir_of(config: RunConfig, output: Path) -> Path:
    """Where the state of a run lies: as set, or ``NAME.run`` beside the slide."""
    return config.run_dir or output.absolute().with_name(files_of(output).base + ".run")


def make_run_dir(run_dir: Path, output: Path) -> None:
    """Make the directory; the slide must not lie in it (OutputError), nor anything that is no run's (RunError)."""
    if run_dir.absolute() in output.absolute().parents:
        raise OutputError(f"{output}: lies inside its run directory {run_dir}; choose another --run-dir")
    try:
        run_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{run_dir}: cannot be made ({error.strerror}); choose another --run-dir") from None
    foreign = [] if (run_dir / FILE).exists() else sorted(p.name for p in run_dir.iterdir() if not _own(p.name))
    if foreign:
        raise RunError(f"{run_dir}: is not empty and not a run (it holds {foreign[0]!r}); choose another --run-dir")


def claim(run_dir: Path, prepared: Prepared) -> None:
    """Make a new run, or make sure that the one there is this one.

    Raises
    ------
    RunError
        If the directory holds another run (the message names the first setting that differs).
    """
    if finished(run_dir) is not None or ((run_dir / FINISHED).exists() and not (run_dir / FILE).exists()):
        _remove(run_dir, (name for name in _OWN if name != LOCK))
    if (run_dir / FILE).exists():
        there = Manifest.load(run_dir)
        difference = first_difference(prepared.manifest.identity, there.identity)
        if difference:
            raise RunError(f"{run_dir}: holds another run ({difference}); resume it, delete it, or choose another --run-dir")
        _check_versions(run_dir, there)
        if there.output != prepared.manifest.output:
            prepared.manifest.save(run_dir)
        return
    _keep_inputs(prepared.config, run_dir)
    prepared.manifest.save(run_dir)


def clear(run_dir: Path, outcome: dict[str, Any]) -> None:
    """Remove what the run made, and the directory if nothing else lies in it.

    Parameters
    ----------
    outcome:
        What the run came to, in plain values: if clearing is cut short, ``finished`` gives it back.
    """
    write_atomic(run_dir / FINISHED, json.dumps(outcome).encode())
    _remove(run_dir, _OWN)
    with suppress(OSError):
        run_dir.rmdir()  # unless something else lies in it


def _remove(run_dir: Path, names: Iterable[str]) -> None:
    for name in names:
        path = run_dir / name
        if path.is_dir():
            remove_tree(path)
        else:
            path.unlink(missing_ok=True)
        remove_leftovers(path)


def finished(run_dir: Path) -> dict[str, Any] | None:
    """The outcome of a run that was killed while it was cleared; None for any other."""
    try:
        found = json.loads((run_dir / FINISHED).read_text())
    except (OSError, ValueError):
        return None
    there = isinstance(found, dict) and all(Path(str(path)).exists() for path in found.get("files", []))
    return found if there else None


def kept_inputs(run_dir: Path, settings: dict[str, object]) -> dict[str, str]:
    """The kept copies of the layout, its class table and the user's subtypes, as settings."""
    return {
        key: str(run_dir / INPUTS / (key + Path(str(settings[key])).suffix))
        for key in _KEPT
        if settings.get(key) not in (None, SAMPLE)
    }


def check_unchanged(run_dir: Path, manifest: Manifest, config: RunConfig, model_hash: str) -> None:
    """Refuse to go on with other inputs, another model or other package versions than the run began with (RunError)."""
    now = {"model": model_hash}
    for key in (*_KEPT, "reference"):
        path = getattr(config, key)
        if isinstance(path, Path):
            now[key] = sha256(path) if path.exists() else "missing"
    for key, digest in now.items():
        if digest == "missing":
            raise RunError(f"{run_dir}: the {key} at {getattr(config, key)} is missing; put it back or start anew")
        if digest != manifest.identity[key]:
            where = manifest.model if key == "model" else getattr(config, key)
            raise RunError(f"{run_dir}: the {key} at {where} has changed since the run began; restore it or start anew")
    _check_versions(run_dir, manifest)


def _check_versions(run_dir: Path, manifest: Manifest) -> None:
    versions = package_versions()
    for name in DECIDING:
        if versions[name] != manifest.versions.get(name):
            raise RunError(
                f"{run_dir}: began with {name} {manifest.versions.get(name)}, here is {versions[name]}, which may change "
                "pixels in the middle of a slide; install the old version or start anew"
            )


def begin_outputs(run_dir: Path, manifest: Manifest, overwrite: bool) -> None:
    """Refuse to replace files that appeared since the run began (OutputError); from then on those there are the run's."""
    mark = run_dir / BEGUN
    if not mark.exists() and not overwrite:
        for path in files_of(Path(manifest.output)).all:
            if path.exists():
                raise OutputError(f"{path}: was put there since the run began; move it away, then resume")
    mark.touch()


def _own(name: str) -> bool:
    """Whether a run makes files of this name, or a writer of one of them that was killed."""
    return name in _OWN or target_of_leftover(name) in _OWN


def _keep_inputs(config: RunConfig, run_dir: Path) -> None:
    """Copy what describes the layout, so that a run can be resumed after the drawing was edited or moved."""
    for key in _KEPT:
        path = getattr(config, key)
        if isinstance(path, Path):
            (run_dir / INPUTS).mkdir(exist_ok=True)
            with atomic_path(run_dir / INPUTS / (key + path.suffix)) as beside:
                shutil.copyfile(path, beside)
