"""The directory of a run: claimed by one configuration, checked on resume, cleared without touching anything else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from wsigen.base.errors import OutputError, RunError
from wsigen.run.config import SAMPLE, RunConfig
from wsigen.run.manifest import FAILURES, FILE, LOCK, WORK, Manifest, first_difference, package_versions, version_differences
from wsigen.run.outputs import files_of
from wsigen.run.prepare import Prepared
from wsigen.storage.files import sha256, target_of_leftover
from wsigen.storage.folder import Folder
from wsigen.storage.opening import is_url, open_folder, why_not_usable

INPUTS = "wsigen-inputs"
"""Folder of kept copies of the layout, its class table and the user's subtypes."""

_KEPT = ("layout", "layout_classes", "subtypes")
"""The settings that name the files which are kept there."""

BEGUN = "outputs-begun"
"""A file that says: what lies at the output is this run's, perhaps half of it."""

FINISHED = "finished.json"
"""A file that says: the slide is complete, what is still here is to be cleared. It holds what the run came to."""

_OWN = (INPUTS, "timesteps.png", FAILURES, BEGUN, FILE, LOCK, FINISHED)
"""All a run makes in its directory besides its work folder."""

_LAST = {LOCK: 1, FINISHED: 2}
"""What is cleared after all else, in this order: a run that is finished is known as one however little is left of it."""


def run_dir_of(config: RunConfig, output: Path) -> str | Path:
    """Where the state of a run lies: as set, or ``NAME.run`` beside the slide."""
    return config.run_dir or output.absolute().with_name(files_of(output).base + ".run")


def make_run_dir(place: str | Path, output: Path) -> Folder:
    """Make the directory; the slide must not lie in it (OutputError), nor anything that is no run's (RunError)."""
    if isinstance(place, Path) and place.absolute() in output.absolute().parents:
        raise OutputError(f"{output}: lies inside its run directory {place}; choose another --run-dir")
    folder = open_folder(place)
    try:
        folder.make()
    except OSError as error:
        raise OutputError(f"{place}: cannot be made ({error.strerror}); choose another --run-dir") from None
    demand_usable(folder)
    foreign = [] if folder.has(FILE) else sorted(name for name in folder.top() if not _own(name))
    if foreign:
        raise RunError(f"{place}: is not empty and not a run (it holds {foreign[0]!r}); choose another --run-dir")
    return folder


def demand_usable(folder: Folder) -> None:
    """Refuse a place that does not take and give back values (OutputError)."""
    problem = why_not_usable(folder)
    if problem:
        advice = (
            "check the bucket's name, the endpoint and the credentials" if is_url(folder.name) else "choose another --run-dir"
        )
        raise OutputError(f"{folder.name}: {problem}; {advice}")


def claim(folder: Folder, prepared: Prepared) -> None:
    """Make a new run, or make sure that the one there is this one.

    Raises
    ------
    RunError
        If the directory holds another run (the message names the first setting that differs).
    """
    if finished(folder) is not None or not folder.has(FILE):
        _discard_all(folder, keep=LOCK)  # also what was written late, by workers of a run that is over
    if folder.has(FILE):
        there = Manifest.load(folder)
        difference = first_difference(prepared.manifest.identity, there.identity)
        if difference:
            advice = "resume it, delete it, or choose another --run-dir"
            raise RunError(f"{folder.name}: holds another run ({difference}); {advice}")
        _check_versions(folder, there)
        if there.output != prepared.manifest.output:
            prepared.manifest.save(folder)
        return
    _keep_inputs(prepared.config, folder)
    prepared.manifest.save(folder)


def clear(folder: Folder, outcome: dict[str, Any]) -> None:
    """Remove what the run made, and the directory if nothing else lies in it.

    Parameters
    ----------
    outcome:
        What the run came to, in plain values: if clearing is cut short, ``finished`` gives it back.
    """
    folder.write(FINISHED, json.dumps(outcome).encode())
    _discard_all(folder)
    folder.leave()


def finished(folder: Folder) -> dict[str, Any] | None:
    """The outcome of a run that was killed while it was cleared; None for any other."""
    try:
        found = json.loads(folder.read(FINISHED))
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None
    there = isinstance(found, dict) and all(Path(str(path)).exists() for path in found.get("files", []))
    return found if there else None


def kept_inputs(folder: Folder, settings: dict[str, object]) -> dict[str, str]:
    """The kept copies of the layout, its class table and the user's subtypes, as settings (RunError if one is missing)."""
    found = {}
    for key in _KEPT:
        if settings.get(key) in (None, SAMPLE):
            continue
        name = f"{INPUTS}/{key}{Path(str(settings[key])).suffix}"
        if not folder.has(name):
            raise RunError(f"{folder.name}: the {key} kept as {name} is missing; put it back or start anew")
        found[key] = str(folder.local(name))
    return found


def check_unchanged(folder: Folder, manifest: Manifest, config: RunConfig, model_hash: str) -> None:
    """Refuse to go on with other inputs, another model or other package versions than the run began with (RunError)."""
    now = {"model": model_hash}
    for key in (*_KEPT, "reference"):
        path = getattr(config, key)
        if isinstance(path, Path):
            now[key] = sha256(path) if path.exists() else "missing"
    for key, digest in now.items():
        if digest == "missing":
            raise RunError(f"{folder.name}: the {key} at {getattr(config, key)} is missing; put it back or start anew")
        if digest != manifest.identity[key]:
            where = manifest.model if key == "model" else getattr(config, key)
            raise RunError(f"{folder.name}: the {key} at {where} has changed since the run began; restore it or start anew")
    _check_versions(folder, manifest)


def _check_versions(folder: Folder, manifest: Manifest) -> None:
    differences = version_differences(manifest, package_versions())
    if differences and not manifest.mixed:
        raise RunError(
            f"{folder.name}: here is {', '.join(differences)}, which may change pixels in the middle of a slide; "
            "install the old version or start anew"
        )


def begin_outputs(folder: Folder, manifest: Manifest, overwrite: bool) -> None:
    """Refuse to replace files that appeared since the run began (OutputError); from then on those there are the run's."""
    if not folder.has(BEGUN) and not overwrite:
        for path in files_of(Path(manifest.output)).all:
            if path.exists():
                raise OutputError(f"{path}: was put there since the run began; move it away, then resume")
    folder.write(BEGUN, b"")


def _own(name: str) -> bool:
    """Whether a run makes files or folders of this name, or a writer of one of them that was killed."""
    target = target_of_leftover(name) or name
    return target in _OWN or WORK.fullmatch(target) is not None


def _discard_all(folder: Folder, keep: str = "") -> None:
    """Remove all that runs made here; the manifest first, without which nobody writes into an object store any more."""
    if folder.has(FILE):
        folder.discard(FILE)
    found = {target_of_leftover(name) or name for name in folder.top() if _own(name)} - {keep}
    for name in sorted(found, key=lambda name: (_LAST.get(name, 0), name)):
        folder.discard(name)


def _keep_inputs(config: RunConfig, folder: Folder) -> None:
    """Copy what describes the layout, so that a run can be resumed after the drawing was edited or moved."""
    for key in _KEPT:
        path = getattr(config, key)
        if isinstance(path, Path):
            folder.write(f"{INPUTS}/{key}{path.suffix}", path.read_bytes())
