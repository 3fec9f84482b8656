"""The directory of a run: claimed by one configuration, checked on resume, cleared without touching anything else."""

from __future__ import annotations

from pathlib import Path

from wsigen.base.errors import OutputError, RunError
from wsigen.base.state import State, parse_state
from wsigen.run.config import RunConfig
from wsigen.run.given_grid import KEPT_GRID, grid_of_reference
from wsigen.run.manifest import Manifest
from wsigen.run.outputs import files_of
from wsigen.run.prepare import Prepared
from wsigen.run.spec import FAILURES, LOCK, WORK, RunSpec, package_versions, version_differences
from wsigen.storage.files import sha256, target_of_leftover
from wsigen.storage.folder import RUN_SPEC, Folder
from wsigen.storage.opening import is_url, open_folder, why_not_usable

INPUTS = "wsigen-inputs"
"""Folder of kept copies of the layout, its class table, the user's subtypes, and the grid."""

_KEPT = ("layout", "layout_classes", "subtypes", "grid")
"""The settings that name the files which are kept there."""

BEGUN = "outputs-begun"
"""A file that says: what lies at the output is this run's, perhaps half of it."""

FINISHED = "finished.json"
"""A file that says: the slide is complete, what is still here is to be cleared. It holds what the run came to."""

_OWN = (INPUTS, "timesteps.png", FAILURES, BEGUN, RUN_SPEC, LOCK, FINISHED)
"""All a run makes in its directory besides its work folder."""

_LAST = {LOCK: 1, FINISHED: 2}
"""What is cleared after all else, in this order: a run that is finished is known as one however little is left of it."""


def run_dir_of(config: RunConfig, output: Path) -> str | Path:
    """Where the state of a run lies: as set, or ``NAME.run`` beside the slide."""
    return config.run_dir or files_of(output.absolute()).manifest.with_suffix(".run")


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
    foreign = [] if folder.has(RUN_SPEC) else sorted(name for name in folder.top() if not _own(name))
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
    if finished(folder) is not None or not folder.has(RUN_SPEC):
        _discard_all(folder, keep=LOCK)  # also what was written late, by workers of a run that is over
    if folder.has(RUN_SPEC):
        there = RunSpec.load(folder)
        difference = prepared.spec.difference(there)
        if difference:
            advice = "resume it, delete it, or choose another --run-dir"
            raise RunError(f"{folder.name}: holds another run ({difference}); {advice}")
        _check_versions(folder, there)
        if there.output != prepared.spec.output:
            prepared.spec.save(folder)
        return
    _keep_inputs(prepared, folder)
    prepared.spec.save(folder)


class Outcome(State):
    """What a run came to (``finished.json``): its files, the SHA-256 of level 0, the areas of classes, its layout in words."""

    files: tuple[str, str, str, str, str]
    level0_sha256: str
    area_px: dict[str, float]
    layout: str | None


def clear(folder: Folder, outcome: Outcome) -> None:
    """Remove what the run made, and the directory if nothing else lies in it.

    Parameters
    ----------
    outcome : Outcome
        What the run came to: if clearing is cut short, `finished` gives it back.
    """
    folder.write(FINISHED, outcome.model_dump_json().encode())
    _discard_all(folder)
    folder.leave()


def finished(folder: Folder) -> Outcome | None:
    """The outcome of a run that was killed while it was cleared; None for any other, and if its slide is not there.

    What is said in a file is believed if the slide's own manifest says the same: the rest of the run is deleted then.
    """
    try:
        outcome = parse_state(Outcome, folder.read(FINISHED), FINISHED, RunError)
        files = files_of(Path(outcome.files[0]))
        manifest = parse_state(Manifest, files.manifest.read_bytes(), str(files.manifest), RunError)
    except (OSError, RunError, OutputError, ValueError):
        return None
    complete = tuple(map(str, files)) == outcome.files and all(path.is_file() for path in files)
    return outcome if complete and manifest.sha256.get("level0_tiles") == outcome.level0_sha256 else None


def kept_inputs(folder: Folder, settings: RunConfig) -> dict[str, str]:
    """The kept copies of the layout, its class table and the user's subtypes, as settings (RunError if one is missing)."""
    copies = {}
    for key in _KEPT:
        path = getattr(settings, key)
        if not isinstance(path, Path):
            continue
        name = f"{INPUTS}/{key}{path.suffix}"
        if not folder.has(name):
            raise RunError(f"{folder.name}: the {key} kept as {name} is missing; put it back or start anew")
        copies[key] = str(folder.local(name))
    return copies


def check_unchanged(folder: Folder, spec: RunSpec, config: RunConfig, model_sha256: str) -> None:
    """Refuse to go on with other inputs, another model or other package versions than the run began with (RunError)."""
    if model_sha256 != spec.model_sha256:
        raise RunError(f"{folder.name}: the model at {spec.model} has changed since the run began; restore it or start anew")
    for key, digest in spec.inputs:
        path = getattr(config, key)
        if not isinstance(path, Path):
            continue
        if not path.exists():
            raise RunError(f"{folder.name}: the {key} at {path} is missing; put it back or start anew")
        if sha256(path) != digest:
            raise RunError(f"{folder.name}: the {key} at {path} has changed since the run began; restore it or start anew")
    _check_versions(folder, spec)


def _check_versions(folder: Folder, spec: RunSpec) -> None:
    differences = version_differences(spec, package_versions())
    if differences and not spec.mixed:
        raise RunError(
            f"{folder.name}: here is {', '.join(differences)}, which may change pixels in the middle of a slide; "
            "install the old version or start anew"
        )


def begin_outputs(folder: Folder, spec: RunSpec, overwrite: bool) -> None:
    """Refuse to replace files that appeared since the run began (OutputError); from then on those there are the run's."""
    if not folder.has(BEGUN) and not overwrite:
        for path in files_of(Path(spec.output)):
            if path.exists():
                raise OutputError(f"{path}: was put there since the run began; move it away, then resume")
    folder.write(BEGUN, b"")


def _own(name: str) -> bool:
    """Whether a run makes files or folders of this name, or a writer of one of them that was killed."""
    target = target_of_leftover(name) or name
    return target in _OWN or WORK.fullmatch(target) is not None


def _discard_all(folder: Folder, keep: str = "") -> None:
    """Remove all that runs made here; ``run.json`` first, without which nobody writes into an object store any more."""
    if folder.has(RUN_SPEC):
        folder.discard(RUN_SPEC)
    own = {target_of_leftover(name) or name for name in folder.top() if _own(name)} - {keep}
    for name in sorted(own, key=lambda name: (_LAST.get(name, 0), name)):
        folder.discard(name)


def _keep_inputs(prepared: Prepared, folder: Folder) -> None:
    """Copy what describes the layout and the grid, so that a run can be resumed after they were edited or moved."""
    for key in _KEPT:
        path = getattr(prepared.config, key)
        if isinstance(path, Path):
            folder.write(f"{INPUTS}/{key}{path.suffix}", path.read_bytes())
    plan, slide = prepared.spec.passes[-1], prepared.spec.slide
    if plan.grid_from == "given" and prepared.config.grid is None:
        folder.write(KEPT_GRID, grid_of_reference(prepared.config, slide, plan.cell_px * slide.mpp))
