"""The directory of a run: claimed by one configuration, checked on resume, cleared without touching anything else.

A run directory may be a stranger's. So nothing in it says where else to write or delete: the slide lies beside the run
directory, or where the user says; and a file there is the run's own if it is the very one that the run wrote.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable
from pathlib import Path

from wsigen.base.errors import OutputError, RunError
from wsigen.base.state import State, parse_state
from wsigen.grids.wsz import SUFFIX
from wsigen.run.config import RunConfig
from wsigen.run.given_grid import KEPT_GRID, grid_of_reference, kept_grid
from wsigen.run.manifest import Manifest
from wsigen.run.outputs import Files, files_of
from wsigen.run.prepare import Prepared
from wsigen.run.spec import FAILURES, LOCK, WORK, RunSpec, package_versions, version_differences
from wsigen.run.tasks.context import RunContext
from wsigen.storage.files import sha256_of_input, target_of_leftover
from wsigen.storage.folder import RUN_SPEC, Folder
from wsigen.storage.opening import is_url, open_folder, why_not_usable

INPUTS = "wsigen-inputs"
"""Folder of kept copies of the layout, its class table, the user's subtypes, and the grid."""

_KEPT = ("layout", "layout_classes", "subtypes", "grid", "regions")
"""The settings that name the files which are kept there."""

_BESIDE_PIXELS = ("rois", "drawn")
"""Settings of the recipe that decide no pixel: what is asked for last counts."""

BEGUN = "outputs-begun"
"""A file that names the files at the output that this run may replace (`Begun`)."""

FINISHED = "finished.json"
"""A file that says: the slide is complete, what is still here is to be cleared. It holds what the run came to (`Outcome`)."""

STATE_BYTES = 8 * 2**20
"""Most bytes of a file that says how a run stands; it takes kilobytes."""

CHUNK_BYTES = 2**30
"""Most bytes of a chunk or block of any run; what this one makes is known when its specification is (`demand_sizes`)."""

_OWN = (INPUTS, "timesteps.png", FAILURES, BEGUN, RUN_SPEC, LOCK, FINISHED)
"""All a run makes in its directory besides its work folder."""

_LAST = {LOCK: 1, FINISHED: 2}
"""What is cleared after all else, in this order: a run that is finished is known as one however little is left of it."""


def run_dir_of(config: RunConfig, output: Path) -> str | Path:
    """Where the state of a run lies: as set, or ``NAME.run`` beside the slide."""
    return config.run_dir or files_of(output.absolute()).manifest.with_suffix(".run")


def output_of(folder: Folder, output: str | Path | None = None) -> Path:
    """Where the slide of an existing run lies: as given, or beside the run directory that has its name.

    Raises
    ------
    RunError
        If it is not given, and the run directory is another one than ``NAME.run``; or if there is no run.
    """
    if output is not None:
        return Path(output).absolute()
    name = _slide_name(folder)
    if not is_url(folder.name):
        place = Path(folder.name)
        beside = place.with_name(name)
        if files_of(beside).manifest.with_suffix(".run") == place:
            return beside
    raise RunError(f"{folder.name}: where its slide goes is not kept there; say it with --output, e.g. --output {name}")


def demand_plain(folder: Folder) -> None:
    """Refuse what no run makes (RunError): links, through which files elsewhere would be written or deleted, and huge files."""
    if links := folder.links():
        raise RunError(f"{folder.name}: holds {links[0]!r}, a link or special file, which no run makes; remove it")
    for name, size in folder.sizes():
        if size > _most_bytes(name):
            raise RunError(f"{folder.name}: holds {name!r} of {size >> 20} MiB, larger than any run makes it; remove it")


def _most_bytes(name: str) -> float:
    """Of a file in a run directory; kept inputs and tracebacks may be of any size, for they are not read whole."""
    if name.startswith(f"{INPUTS}/") or name == FAILURES:
        return math.inf
    return STATE_BYTES if "/" not in name or name.endswith("zarr.json") else CHUNK_BYTES


def demand_sizes(run: RunContext) -> None:
    """Refuse chunks and blocks larger than this run makes them (RunError), for they are read whole."""
    work, passes = f"{run.spec.work}/", {f"state.zarr/pass-{pass_.plan.index}": pass_.arrays for pass_ in run.passes}
    block = 8 * run.slide.block**2 + STATE_BYTES  # twice the pixels of its levels
    for name, size in run.folder.sizes():
        pass_name, _, rest = name.removeprefix(work).partition("/c/")[0].rpartition("/")
        most = passes[pass_name].most_bytes(rest) if pass_name in passes else block
        if name.startswith(work) and size > most:
            raise RunError(f"{run.folder.name}: holds {name!r} of {size >> 20} MiB, larger than this run makes it; remove it")


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
    demand_plain(folder)
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
    if finished(folder, prepared.output) is not None or not folder.has(RUN_SPEC):
        _discard_all(folder, keep=LOCK)  # also what was written late, by workers of a run that is over
    if folder.has(RUN_SPEC):
        there = RunSpec.load(folder)
        difference = prepared.spec.difference(there)
        if difference:
            advice = "resume it, delete it, or choose another --run-dir"
            raise RunError(f"{folder.name}: holds another run ({difference}); {advice}")
        _check_versions(folder, there)
        mine = prepared.spec
        beside = {name: getattr(mine.settings, name) for name in _BESIDE_PIXELS}
        there.changed(
            output=mine.output,
            device=mine.device,
            keep_run=mine.keep_run,
            began=mine.began,
            settings=there.settings.model_copy(update=beside),
        ).save(folder)
        return
    _keep_inputs(prepared, folder)
    prepared.spec.changed(reference_grid=_keep_grid_of_reference(prepared, folder)).save(folder)


Stamp = tuple[int, int, int]
"""Bytes, time of the last change (ns) and inode of a file: they stay when it is renamed, and a stranger cannot know them."""


class Begun(State):
    """What a run may replace at its output (``outputs-begun``): what it put there itself, or the user has said so.

    Attributes
    ----------
    run_id, output : str
        Of which run, and the slide's name.
    files : dict
        Stamps of files by name; of a file that is just being replaced both.
    """

    run_id: str
    output: str
    files: dict[str, tuple[Stamp, ...]]


class Outcome(State):
    """What a run came to (``finished.json``).

    Attributes
    ----------
    run_id, output : str
        Of which run, and the slide's name.
    files : dict
        Stamps of its files by name.
    level0_sha256, area_px, layout
        As in `wsigen.run.result.Result`.
    """

    run_id: str
    output: str
    files: dict[str, Stamp]
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


def finished(folder: Folder, output: Path) -> Outcome | None:
    """The outcome of a run that was killed while it was cleared; None for any other, and if its slide is not there.

    What is said in a file is believed if the slide's own manifest says the same, and all its files are those that the run
    wrote: the rest of the run is deleted then.
    """
    try:
        outcome = parse_state(Outcome, folder.read(FINISHED), FINISHED, RunError)
        files = files_of(output)
        manifest = parse_state(Manifest, files.manifest.read_bytes(), str(files.manifest), RunError)
        same_run = not folder.has(RUN_SPEC) or RunSpec.load(folder).run_id == outcome.run_id
        complete = outcome.output == output.name and {path.name: stamp(path) for path in files} == outcome.files
    except (OSError, RunError, OutputError, ValueError):
        return None
    said = (manifest.run_id, manifest.sha256.get("level0_tiles"))
    return outcome if same_run and complete and said == (outcome.run_id, outcome.level0_sha256) else None


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
            if digest is not None:
                raise RunError(f"{folder.name}: the run knows the hash of a {key} that its settings do not name; start anew")
            continue
        if not path.exists():
            raise RunError(f"{folder.name}: the {key} at {path} is missing; put it back or start anew")
        if sha256_of_input(path) != digest:
            raise RunError(f"{folder.name}: the {key} at {path} has changed since the run began; restore it or start anew")
    if any(plan.grid_from == "given" for plan in spec.passes):
        kept_grid(folder, spec.given_grid)
    _check_versions(folder, spec)


def _check_versions(folder: Folder, spec: RunSpec) -> None:
    differences = version_differences(spec, package_versions())
    if differences and not spec.mixed:
        raise RunError(
            f"{folder.name}: here is {', '.join(differences)}, which may change pixels in the middle of a slide; "
            "install the old version or start anew"
        )


def demand_free(folder: Folder, spec: RunSpec, files: Files, overwrite: bool) -> None:
    """Refuse to replace a file that this run did not write (OutputError), unless the user says so."""
    known = _replaceable(folder, spec, files)
    for path in () if overwrite else files:
        if path.exists() and stamp(path) not in known.get(path.name, ()):
            raise OutputError(
                f"{path}: exists already and is not of this run; move it away, or resume with --overwrite to replace it or "
                "--output for another place"
            )


def begin_outputs(folder: Folder, spec: RunSpec, files: Files, made: Iterable[Path] = ()) -> None:
    """Keep what the run may replace, should it be killed: what lies there now, and what it is about to put there."""
    stamps: dict[str, tuple[Stamp, ...]] = {path.name: () for path in files}
    for path in (*files, *made):
        if path.exists():
            stamps[path.name] += (stamp(path),)
    folder.write(BEGUN, Begun(run_id=spec.run_id, output=files.slide.name, files=stamps).model_dump_json().encode())


def stamp(path: Path) -> Stamp:
    """The stamp of a file; a link is not followed."""
    now = path.lstat()
    return now.st_size, now.st_mtime_ns, now.st_ino


def _replaceable(folder: Folder, spec: RunSpec, files: Files) -> dict[str, tuple[Stamp, ...]]:
    """Stamps of what this run may replace."""
    try:
        begun = parse_state(Begun, folder.read(BEGUN), BEGUN, RunError)
    except (FileNotFoundError, RunError):
        return {}
    return begun.files if (begun.run_id, begun.output) == (spec.run_id, files.slide.name) else {}


def _slide_name(folder: Folder) -> str:
    """What the run directory calls its slide (RunError if it is no run)."""
    if not folder.has(RUN_SPEC) and folder.has(FINISHED):
        name = parse_state(Outcome, folder.read(FINISHED), f"{folder.name}/{FINISHED}", RunError).output
        if name == Path(name).name:
            return name
    return RunSpec.load(folder).output


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


def _keep_grid_of_reference(prepared: Prepared, folder: Folder) -> str | None:
    """Make and keep the grid of the reference, if the slide follows it; its SHA-256."""
    plan, slide = prepared.spec.passes[-1], prepared.spec.slide
    if plan.grid_from != "given" or prepared.config.grid is not None:
        return None
    content = grid_of_reference(prepared.config, prepared.card, slide, plan.cell_px * slide.mpp)
    folder.write(f"{KEPT_GRID}{SUFFIX}", content)
    return hashlib.sha256(content).hexdigest()
