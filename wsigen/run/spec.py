"""``run.json``, the specification of a run: every choice in typed values, written once and read by every worker.

What decides the pixels is the run's `RunSpec.identity`: two runs of equal identity and versions write equal bytes.
"""

from __future__ import annotations

import hashlib
import json
import platform
import re
from collections.abc import Mapping
from functools import cache, cached_property
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final, Literal, Self

from pydantic import JsonValue, field_serializer, field_validator, model_validator

from wsigen.base.errors import RunError
from wsigen.base.names import unusable_path
from wsigen.base.state import State, parse_state
from wsigen.base.version import __version__
from wsigen.run.config import EXECUTION, RunConfig
from wsigen.sampling.passes import PassPlan
from wsigen.slide.pyramid import PyramidSpec
from wsigen.storage.folder import RUN_SPEC, Folder

DECIDING = ("wsigen", "torch", "diffusers", "numpy", "scipy", "imagecodecs")
"""Packages that decide bits: they must be alike on all workers, and from a run's beginning to its end."""

FORMAT: Final = 11
LOCK = "driver.lock"

WORK = re.compile(r"work-[0-9a-f]{12}")
"""Names of folders with the state and the spool of a run (`RunSpec.work`)."""

FAILURES = "failures.txt"
"""The workers' tracebacks of tasks that were given up."""


class Sampling(State):
    """How the model is sampled.

    Attributes
    ----------
    guidance : float
        w of ``(1 + w) eps(c) - w eps(null)``.
    sampler : {"ddim", "dpm++"}
        The solver.
    eta : float
        Noise of each step, 0 (DDIM) to 1 (DDPM).
    batch : int
        Crops per model call.
    seed : int
        0 .. 2**64 - 1.
    """

    guidance: float
    sampler: Literal["ddim", "dpm++"]
    eta: float
    batch: int
    seed: int

    @property
    def looks_back(self) -> bool:
        """Whether a step needs the estimate of the step before."""
        return self.sampler == "dpm++"


class Glass(State):
    """Bare glass, whose pixels are held and never denoised.

    Attributes
    ----------
    index : int or None
        Its class; None where the model knows none.
    rgb : tuple of int
        Its colour.
    latent : tuple of float
        Its latent, ``(C,)``.
    cell : tuple of float
        Its cell in a grid, standardised, ``(D,)``; empty where the model draws no grids.
    """

    index: int | None
    rgb: tuple[int, int, int]
    latent: tuple[float, ...]
    cell: tuple[float, ...] = ()


class InputHashes(State):
    """SHA-256 of the files a run was given; None where there is none."""

    layout: str | None
    layout_classes: str | None
    subtypes: str | None
    reference: str | None
    grid: str | None
    extend: str | None = None
    regions: str | None = None


class RunSpec(State):
    """Everything a worker needs besides the store, and nothing that says where to work: a run directory may be a stranger's.

    Attributes
    ----------
    sampling, grid_sampling, passes, slide, glass, precision
        How the pixels are made: how latents are sampled and, if they are drawn, grids; the passes coarse to fine; the levels
        and tiles of the slide.
    model_sha256, inputs : str, InputHashes
        What they are made from.
    drawn_layout : dict or None
        What a drawn layout depends on besides seed, size and um/px (`ChosenLayout.source`).
    settings : RunConfig
        The recipe as given, with absolute paths: for ``resume``. It holds no execution settings.
    output : str
        Name of the slide, without a folder.
    model : str
        Path of the bundle.
    device : str
        Where the model runs: its kind decides the last bits.
    keep_run : bool
        Whether the run directory stays when the slide is there.
    reference_grid : str or None
        SHA-256 of the grid that was made of the reference, if the slide follows one.
    began : {"here", "scheduler", "queue"}
        On which kind of workers, for people.
    layout_title : str or None
        The layout for people: how it was drawn, or its file.
    versions : dict
        Of wsigen and the packages that may decide bits.
    """

    format: Literal[11] = FORMAT
    sampling: Sampling
    grid_sampling: Sampling | None = None
    passes: tuple[PassPlan, ...]
    slide: PyramidSpec
    glass: Glass
    precision: Literal["fp32", "bf16"]
    model_sha256: str
    inputs: InputHashes
    drawn_layout: dict[str, JsonValue] | None
    settings: RunConfig
    output: str
    model: str
    device: str
    keep_run: bool
    reference_grid: str | None = None
    began: Literal["here", "scheduler", "queue"]
    layout_title: str | None
    versions: dict[str, str]

    @field_validator("passes")
    @classmethod
    def _grids_before_they_are_told(cls, value: tuple[PassPlan, ...]) -> tuple[PassPlan, ...]:
        for number, plan in enumerate(value):
            if plan.grid_from == "previous" and not any(before.network == "grid" for before in value[:number]):
                raise ValueError(f"pass {number} is told a grid that no pass before it draws")
        return value

    @model_validator(mode="after")
    def _no_grid_that_nobody_follows(self) -> Self:
        if self.reference_grid is not None and all(plan.grid_from != "given" for plan in self.passes):
            raise ValueError("reference_grid: no pass follows a grid that is given")
        return self

    @field_validator("settings", mode="before")
    @classmethod
    def _recipe(cls, value: object) -> object:
        if isinstance(value, RunConfig):
            return value.recipe
        if not isinstance(value, dict):
            raise ValueError("Input should be a mapping")
        if names := sorted(EXECUTION & value.keys()):
            raise ValueError(f"'{names[0]}' says where a run is done, which no run directory may")
        return value

    @field_serializer("settings")
    def _without_execution(self, value: RunConfig) -> dict[str, Any]:
        return value.identity()

    @field_validator("output", "model")
    @classmethod
    def _usable(cls, value: str) -> str:
        if why := unusable_path(value):
            raise ValueError(why)
        return value

    @field_validator("output")
    @classmethod
    def _name(cls, value: str) -> str:
        if value != Path(value).name or not value.lower().endswith((".ome.tiff", ".ome.tif")):
            raise ValueError("should be the name of a slide, without a folder")
        return value

    @field_validator("versions")
    @classmethod
    def _knows_wsigen(cls, value: dict[str, str]) -> dict[str, str]:
        if "wsigen" not in value:
            raise ValueError("does not name the version of wsigen")
        return value

    @cached_property
    def identity(self) -> dict[str, Any]:
        """What decides the pixels, with every default filled in, as plain JSON values."""
        chosen = {"sampling", "grid_sampling", "passes", "slide", "precision", "model_sha256", "inputs", "drawn_layout"}
        given = {"class_name", "background", "layout_mpp", "layout_names", "nuclei", "mixed_workers", "stain"}
        given |= {"at", "extend_mpp", "resample", "margin_um", "edit_strength"} if self.settings.extend else set()
        given |= {"region"} if self.settings.region else set()
        return {
            **self.model_dump(mode="json", include=chosen),
            **self.settings.model_dump(mode="json", include=given),
            "device": self.device.split(":")[0],
            "wsigen": self.versions["wsigen"],
        }

    @cached_property
    def run_id(self) -> str:
        """A short name of the run, the same for equal slides."""
        return json_hash(self.identity)[:12]

    @cached_property
    def hash(self) -> str:
        """SHA-256 of everything in the specification."""
        return json_hash(self.model_dump(mode="json"))

    @cached_property
    def work(self) -> str:
        """The folder of the run's state and spool.

        Its name tells this run from all others at the same place: what a worker of one that is over writes late never becomes
        part of this slide. Runs that share the name write equal bytes.
        """
        deciding = {name: self.versions.get(name) for name in DECIDING}
        return f"work-{json_hash({'identity': self.identity, 'versions': deciding})[:12]}"

    @property
    def given_grid(self) -> str | None:
        """SHA-256 of the grid that the slide follows: the user's, or that of the reference."""
        return self.inputs.grid or self.reference_grid

    @property
    def mixed(self) -> bool:
        """Whether workers of other versions or without the run's device may help."""
        return self.settings.mixed_workers == "warn"

    def changed(self, **values: Any) -> RunSpec:
        """A copy with other values (``model_copy`` would keep the hashes of the old ones)."""
        return RunSpec(**{**{name: getattr(self, name) for name in RunSpec.model_fields}, **values})

    def save(self, folder: Folder) -> None:
        """Write ``run.json``, whole or not at all."""
        content = {**self.model_dump(mode="json"), "run_id": self.run_id, "hash": self.hash}
        folder.write(RUN_SPEC, json.dumps(content, indent=2, sort_keys=True).encode())

    @classmethod
    def load(cls, folder: Folder) -> RunSpec:
        """Read ``run.json``.

        Raises
        ------
        RunError
            If it is missing, no JSON, of another format, a field is missing or of another type, or its hash does not fit.
        OSError
            If the place cannot be reached for now.
        """
        where = f"{folder.name}/{RUN_SPEC}"
        try:
            content = json.loads(folder.read(RUN_SPEC))
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            raise RunError(f"{folder.name}: not a run directory (there is no {RUN_SPEC})") from None
        except (ValueError, RecursionError) as error:
            raise RunError(f"{where}: unreadable ({error}); start the run anew in another directory") from None
        if not isinstance(content, dict) or content.get("format") != FORMAT:
            raise RunError(f"{where}: field 'format' is not {FORMAT}; use the wsigen version that made the run")
        run_id, expected = content.pop("run_id", None), content.pop("hash", None)
        spec = parse_state(cls, json.dumps(content), where, RunError)
        if coerced := first_difference(content, spec.model_dump(mode="json")):  # settings are read as a person writes them
            raise RunError(f"{where}: field '{coerced.partition(':')[0]}': of another type or missing; start the run anew")
        if (spec.run_id, spec.hash) != (run_id, expected):
            raise RunError(f"{where}: its hash does not fit its content; it was edited: start the run anew")
        return spec

    def difference(self, other: RunSpec) -> str | None:
        """The first setting, or else the first choice, in which two runs differ, e.g. ``"seed: 1 here, 2 in the run"``."""
        choice = first_difference(self.identity, other.identity)
        settings = [spec.settings.identity().items() for spec in (self, other)]
        mine, theirs = ({name: value for name, value in pairs if name not in _PLACES} for pairs in settings)
        return choice and (first_difference(mine, theirs) or choice)


_PLACES = {"layout", "layout_classes", "subtypes", "mask_model", "reference", "grid", "model", "extend", "regions"}
"""Settings that name where something lies."""


def version_differences(spec: RunSpec, here: Mapping[str, str]) -> list[str]:
    """What of `DECIDING` has another version here than in a run, e.g. ``"torch 2.12.0 (2.13.0 in the run)"``."""
    there = spec.versions
    return [f"{name} {here[name]} ({there.get(name)} in the run)" for name in DECIDING if here[name] != there.get(name)]


def package_versions() -> dict[str, str]:
    """Versions of wsigen and of the packages that may decide bits; ``"missing"`` where one is."""
    return dict(_installed())


@cache
def _installed() -> dict[str, str]:
    """The same, read once: a process keeps what it has imported, and reading takes 0.05 s, for every slide of a cohort."""
    versions = {"wsigen": __version__, "python": platform.python_version()}
    for name in ("torch", "diffusers", "transformers", "numpy", "scipy", "zarr", "dask", "imagecodecs", "tifffile"):
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = "missing"
    return versions


def json_hash(content: dict[str, Any]) -> str:
    """SHA-256 over canonical JSON."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def first_difference(mine: Any, theirs: Any, path: str = "") -> str | None:
    """Name the first value in which two nested mappings and lists differ, e.g. ``"sampling.seed: 1 here, 2 in the run"``."""
    if isinstance(mine, dict) and isinstance(theirs, dict):
        pairs = {key: (mine.get(key), theirs.get(key)) for key in sorted({*mine, *theirs})}
    elif isinstance(mine, list) and isinstance(theirs, list) and len(mine) == len(theirs):
        pairs = {str(index): pair for index, pair in enumerate(zip(mine, theirs, strict=True))}
    elif isinstance(mine, list) and isinstance(theirs, list):
        return f"{path}: {len(mine)} here, {len(theirs)} in the run"
    else:
        return None if mine == theirs else f"{path}: {mine!r} here, {theirs!r} in the run"
    differences = (first_difference(*pair, f"{path}.{key}" if path else key) for key, pair in pairs.items())
    return next(filter(None, differences), None)
