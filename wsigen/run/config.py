"""Every setting of a run: its meaning, default, range and group, said once.

A setting comes from a YAML file, from the command line or from Python; all three fill one `RunConfig`, which refuses what is
wrong in one line. The command line makes its options from the fields. *Execution* settings say where and how fast; all others
decide the pixels and belong to a run's identity. Those are a *recipe*, which may come from anybody; execution settings come
from the user alone (`wsigen.run.machine_file`), for a scheduler runs what code it likes in whoever connects to it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal, Self, Unpack, get_args

from pydantic import (
    Field,
    ModelWrapValidatorHandler,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from wsigen.base.errors import ConfigError
from wsigen.base.yaml_file import Settings, first_fault, read_mapping
from wsigen.layout.class_names import parse_names
from wsigen.run.config_checks import CHECKS, SAMPLE
from wsigen.run.typed_settings import Mode, RunSettings, Taper
from wsigen.sampling.passes import Consistency
from wsigen.slide.stain import Stain, parse_stain
from wsigen.storage.opening import as_place, is_url

MAX_SIDE_PX = 1_000_000
MIN_SIDE_PX = 512
LOCAL = "local"  # the word that stands for no scheduler

_DEVICE = re.compile(r"cpu|mps|(cuda|xpu)(:\d{1,3})?")
"""torch knows more names; on most of them (``meta``, ``mkldnn``) nothing is computed."""

Group = Literal["Slide", "Layout", "Model", "Sampling", "Output", "Machine"]


def _setting(
    group: Group,
    description: str,
    default: Any = None,
    *,
    otherwise: str = "",
    form: str = "",
    execution: bool = False,
    hidden: bool = False,
    **limits: Any,
) -> Any:
    """A field of `RunConfig`.

    Parameters
    ----------
    group : str
        Under which heading it is shown.
    otherwise : str
        What counts if it is not given, where the default is None.
    form : str
        How its value is written, where the type does not say it.
    execution : bool
        Whether it says only where and how fast; then it is no part of a recipe, and may change when a run is resumed.
    hidden : bool
        Whether another command than ``generate`` sets it.
    """
    about: dict[str, Any] = {
        "group": group, "otherwise": otherwise, "form": form, "execution": execution, "hidden": hidden
    }  # fmt: skip
    return Field(default, description=description, json_schema_extra=about, **limits)


class RunConfig(Settings):
    """Settings of one slide.

    Raises
    ------
    ConfigError
        One line: which setting is wrong and what is possible, or which two exclude each other.

    Examples
    --------
    >>> RunConfig(layout="regions.geojson", mode="pathup", seed=1)
    >>> RunConfig.read("settings.yaml", seed=2)
    """

    size: tuple[int, int] | None = _setting(
        "Slide",
        "width and height, px; 512 to 1,000,000 each",
        otherwise="those of the layout, the reference or the grid",
        form="WxH",
    )
    seed: int = _setting("Slide", "equal seeds give equal slides", 0, ge=0, lt=2**64)
    reference: Path | None = _setting("Slide", "image or slide whose coarse structure the slide follows")
    grid: Path | None = _setting(
        "Slide", "grid that the slide follows (*.wsz of 'wsigen compress', or *.h5)", otherwise="one that the model draws"
    )
    region: tuple[int, int, int, int] | None = _setting(
        "Slide", "part of the grid's slide that is made: left, top, width, height in px of the model",
        otherwise="all of it", form="X,Y,W,H",
    )  # fmt: skip
    mpp: float | None = _setting(
        "Slide", "um/px, for a model that does not know its own", otherwise="the model's", ge=0.001, le=1000
    )

    extend: Path | None = _setting("Slide", "slide that is continued beyond its edges; its own pixels stay")
    at: tuple[int, int] | None = _setting(
        "Slide", "where the left top corner of the slide that is continued lies, px", otherwise="0,0", form="X,Y"
    )
    extend_mpp: float | None = _setting(
        "Slide", "um/px of the slide that is continued", otherwise="what its file says", ge=0.001, le=1000
    )
    resample: bool = _setting("Slide", "resample a slide that is continued to the model's um/px", False)
    regions: Path | None = _setting("Slide", "places of that slide that are made anew ('wsigen edit')", hidden=True)
    margin_um: float = _setting("Slide", "how far around them it changes, um", 100.0, ge=0, le=10_000, hidden=True)
    edit_strength: float = _setting("Slide", "re-noising of what lies there: 1 replaces it", 1.0, gt=0, le=1, hidden=True)

    layout: Literal["sample"] | Path | None = _setting(
        "Layout", "QuPath GeoJSON or label image; 'sample' draws one", form="FILE|sample"
    )
    layout_mpp: float | None = _setting(
        "Layout", "um/px of the image that the layout was drawn on", otherwise="the slide's", gt=0
    )
    layout_classes: Path | None = _setting("Layout", "table 'value: class' of a label image (YAML, JSON, CSV)")
    layout_names: dict[str, str | None] | None = _setting(
        "Layout", "renames classes of the layout; 'NAME=' leaves NAME out, '=CLASS' is for what has no class",
        form="NAME=CLASS,...",
    )  # fmt: skip
    nuclei: str | None = _setting(
        "Layout", "class of the nuclei of QuPath's cells", otherwise="they are not drawn", form="NAME", min_length=1
    )
    class_name: str | None = _setting("Layout", "one class for the whole slide, instead of a layout", form="NAME", min_length=1)
    background: str | None = _setting(
        "Layout", "class outside every polygon", otherwise="the model's glass", form="NAME", min_length=1
    )
    subtype: str | None = _setting(
        "Layout", "kind of slide of a layout that is drawn ('wsigen models' lists them)", form="NAME", min_length=1
    )
    subtypes: Path | None = _setting("Layout", "YAML file with subtypes of your own")
    mask_model: Path | None = _setting(
        "Layout", "mask model that draws the layout (what 'wsigen train mask' wrote)", otherwise="the model's, or rules"
    )

    model: str = _setting("Model", "name, bundle folder, or hub id owner/name", "default")
    levels: int | None = _setting(
        "Model", "magnification levels of the cascade, coarse to fine", otherwise="all for pathup, 1 for other modes", ge=1
    )
    precision: Literal["fp32", "bf16"] = _setting("Model", "numbers that the model computes in", "fp32")

    mode: Mode = _setting("Sampling", "which crops are denoised, and how they are merged", "shifted")
    steps: int | None = _setting("Sampling", "denoising steps (at strength 1)", otherwise="the model's", ge=1, le=1000)
    guidance: float | None = _setting("Sampling", "w of (1 + w) eps(class) - w eps(null)", otherwise="the model's", ge=0, le=50)
    sampler: Literal["ddim", "dpm++"] | None = _setting(
        "Sampling", "solver; dpm++ (DPM-Solver++ 2M, second order) is for few steps", otherwise="the model's"
    )
    eta: float | None = _setting(
        "Sampling", "noise of each ddim step: 0 deterministic, 1 DDPM (forgives the model's errors, needs more steps)",
        otherwise="the model's", ge=0, le=1,
    )  # fmt: skip
    strength: float = _setting("Sampling", "re-noising of a reference or of a coarser level", 0.7, gt=0, le=1)
    consistency: Consistency = _setting(
        "Sampling", "how a finer level keeps to the coarser one: picture corrects its pixels towards the other's", "none"
    )
    overlap: int | None = _setting("Sampling", "overlap of crops, latent px", otherwise="the mode's", ge=0)
    taper: Taper | None = _setting("Sampling", "weights of a crop's pixels", otherwise="the mode's")
    weighted_last: int = _setting(
        "Sampling", "last steps of random-patch whose pixels are weighted, not owned", 0, ge=0, le=1000
    )
    chunk: int | None = _setting(
        "Sampling", "side of a chunk, latent px", otherwise="by the slide's size", ge=16, le=MAX_SIDE_PX
    )
    batch: int | None = _setting("Sampling", "crops per model call", otherwise="4 on a CPU, else 16", ge=1)

    compression: Literal["jpeg", "deflate"] = _setting("Output", "how the slide's tiles are compressed", "jpeg")
    quality: int = _setting("Output", "quality of JPEG tiles", 90, ge=1, le=100)
    stain: Stain | None = _setting(
        "Output", "stain of the slide: a name, or a YAML file of stain vectors, intensities and glass",
        otherwise="the model's", form="NAME|FILE",
    )  # fmt: skip
    drawn: bool = _setting(
        "Output", "also write OUT.drawn.geojson: the polygons as they were drawn, with their names and ids", False
    )
    rois: bool = _setting(
        "Output", "also write the annotations into the slide's OME-XML, as ROIs for QuPath 0.6+ and OMERO", False
    )
    overwrite: bool = _setting("Output", "replace an existing slide", False, execution=True)
    run_dir: str | Path | None = _setting(
        "Output", "state of the run, a folder or s3://bucket/prefix", otherwise="OUT.run", form="DIR|URL", execution=True
    )
    keep_run: bool = _setting("Output", "keep the run directory after success", False, execution=True)

    device: str = _setting("Machine", "where the model runs: cpu, cuda, cuda:1, mps ...", "cpu", form="NAME", execution=True)
    workers: int | None = _setting(
        "Machine", "local workers", otherwise="one per core, or one per accelerator", execution=True, ge=1
    )
    processes: bool = _setting("Machine", "workers are processes instead of threads", False, execution=True)
    threads: int | None = _setting("Machine", "model threads of each worker: 1, 2 or 4", otherwise="1", execution=True)
    tasks_at_once: int | None = _setting(
        "Machine", "tasks of each worker: one calls the model, others read and write",
        otherwise="1 on a CPU, else 2", execution=True, ge=1, le=8,
    )  # fmt: skip
    window: int = _setting("Machine", "tasks in flight for each that a worker has at once", 2, execution=True, ge=1)
    memory_gb: float | None = _setting(
        "Machine", "memory that all local workers may use, GiB", otherwise="what is free", execution=True, gt=0
    )
    scheduler: str | None = _setting(
        "Machine", "address of a dask scheduler, or a queue's YAML file; 'local' for workers of this machine",
        otherwise="local", form="ADDRESS|FILE|local", execution=True,
    )  # fmt: skip
    mixed_workers: Literal["refuse", "warn"] = _setting(
        "Machine",
        "workers of other versions or without the device; with them, no promise that a slide comes out again",
        "refuse",
    )

    @classmethod
    def read(cls, file: str | Path, **settings: Unpack[RunSettings]) -> RunConfig:
        """Read a recipe from YAML; settings given as keywords override it.

        Parameters
        ----------
        file : str or Path
            The same names, spelt with ``-`` or ``_`` (``class`` for ``class_name``). Relative paths count from its folder.
            Execution settings are refused there: give them as keywords.

        Raises
        ------
        ConfigError
            One line that names the file.
        """
        recipe = read_settings(Path(file))
        refuse_execution(recipe, str(file))
        return cls.model_validate(recipe | settings, context={"file": file, "given": settings})

    def merged(self, **settings: Unpack[RunSettings]) -> RunConfig:
        """The same settings with some replaced; all are checked again (ConfigError)."""
        return RunConfig(**{**{name: getattr(self, name) for name in self.model_fields_set}, **settings})

    @property
    def sampled(self) -> bool:
        """Whether wsigen draws the layout. A file called ``sample`` is ``./sample``."""
        return self.layout == SAMPLE

    @property
    def layout_file(self) -> Path | None:
        """The file of the layout, None if it is drawn or there is none."""
        return self.layout if isinstance(self.layout, Path) else None

    @property
    def recipe(self) -> RunConfig:
        """The settings that decide the pixels; those of execution as if not given."""
        return RunConfig(**{name: getattr(self, name) for name in self.model_fields_set - EXECUTION})

    def identity(self) -> dict[str, Any]:
        """The settings that decide the pixels, as plain JSON values."""
        return self.model_dump(mode="json", exclude=set(EXECUTION))

    # -- checks --------------------------------------------------------------------------------------------------------

    @field_validator("size", mode="before")
    @classmethod
    def _parse_size(cls, value: object) -> object:
        if not isinstance(value, str):
            if value is not None and not (isinstance(value, tuple | list) and len(value) == 2):
                raise ValueError(f"{value!r} is not WIDTHxHEIGHT in pixels, e.g. 4096x4096")
            return value
        parts = value.lower().replace("×", "x").split("x")
        if len(parts) != 2 or not all(p.strip().isdigit() for p in parts):
            raise ValueError(f"{value!r} is not WIDTHxHEIGHT in pixels, e.g. 4096x4096")
        return tuple(int(p) for p in parts)

    @field_validator("size")
    @classmethod
    def _check_size(cls, value: tuple[int, int] | None) -> tuple[int, int] | None:
        if value is not None:
            check_size(*value)
        return value

    @field_validator("region", mode="before")
    @classmethod
    def _parse_region(cls, value: object) -> object:
        parts = value.split(",") if isinstance(value, str) else value
        if parts is None or (
            isinstance(parts, tuple | list) and len(parts) == 4 and all(str(p).strip().isdigit() for p in parts)
        ):
            return parts if parts is None else tuple(int(part) for part in parts)
        raise ValueError(f"{value!r} is not X,Y,WIDTH,HEIGHT in pixels, e.g. 0,0,4096,4096")

    @field_validator("at", mode="before")
    @classmethod
    def _parse_at(cls, value: object) -> object:
        parts = value.split(",") if isinstance(value, str) else value
        if parts is None or (isinstance(parts, tuple | list) and len(parts) == 2 and all(map(_is_whole, parts))):
            return parts if parts is None else tuple(int(part) for part in parts)
        raise ValueError(f"{value!r} is not X,Y in pixels, e.g. 2048,0")

    @field_validator("layout_names", mode="before")
    @classmethod
    def _parse_layout_names(cls, value: object) -> object:
        return parse_names(value)

    @field_validator("stain", mode="before")
    @classmethod
    def _parse_stain(cls, value: object) -> object:
        return parse_stain(value)

    @field_validator("threads")
    @classmethod
    def _check_threads(cls, value: int | None) -> int | None:
        if value not in (None, 1, 2, 4):
            raise ValueError(f"{value}: 1, 2 or 4; other numbers of model threads change the last bits of a CPU's results")
        return value

    @field_validator("device")
    @classmethod
    def _check_device(cls, value: str) -> str:
        if not _DEVICE.fullmatch(value):
            raise ValueError(f"{value!r} is no device; possible: cpu, cuda, cuda:1, mps, xpu")
        return value

    @field_validator("scheduler")
    @classmethod
    def _parse_scheduler(cls, value: str | None) -> str | None:
        return None if value == LOCAL else value

    @field_validator("run_dir")
    @classmethod
    def _parse_run_dir(cls, value: str | Path | None) -> str | Path | None:
        if value is not None and not str(value).strip():
            raise ValueError("an empty path; leave it out for OUT.run beside the slide")
        return None if value is None else as_place(value)

    @model_validator(mode="after")
    def _check_together(self) -> Self:
        for check in CHECKS:
            check(self)
        return self

    @model_validator(mode="wrap")
    @classmethod
    def _in_one_line(cls, values: Any, handler: ModelWrapValidatorHandler[Self], info: ValidationInfo) -> Self:
        """The first fault of all checks above (the last of them wraps the others) as a `ConfigError`."""
        try:
            return handler(values)
        except ValidationError as error:
            text, source = first_fault(error), info.context or {}
            of_file = source and not any(text.startswith(f"setting '{name}'") for name in source["given"])
            raise ConfigError(f"{source['file']}: {text}" if of_file else text) from None


def _is_whole(part: object) -> bool:
    return str(part).strip().removeprefix("-").isdigit()


def about(name: str) -> dict[str, Any]:
    """What `_setting` says of a field beside its description: group, otherwise, form, execution."""
    extra = RunConfig.model_fields[name].json_schema_extra
    return extra if isinstance(extra, dict) else {}


EXECUTION = frozenset(name for name in RunConfig.model_fields if about(name)["execution"])
"""The settings that say only where and how fast."""


def refuse_execution(names: Iterable[str], source: str) -> None:
    """Refuse execution settings in a file that may come from anybody (ConfigError)."""
    for name in sorted(EXECUTION & set(names)):
        flag = name.replace("_", "-")
        way = "" if name == "overwrite" else ", or put it into a file of your own: --machine FILE"
        raise ConfigError(f"{source}: setting '{name}' says where or how a run is done, not what is made: give --{flag}{way}")


_PATHS = frozenset(name for name, field in RunConfig.model_fields.items() if Path in get_args(field.annotation))


def check_size(width: int, height: int) -> None:
    """Refuse a slide size outside 512 .. 1,000,000 px a side (ValueError)."""
    if min(width, height) < MIN_SIDE_PX or max(width, height) > MAX_SIDE_PX:
        raise ValueError(
            f"{width}x{height} px: a slide has {MIN_SIDE_PX} to {MAX_SIDE_PX:,} px a side (the model's crop is the least)"
        )


def make_config(settings: Mapping[str, Any], file: Path | None = None) -> RunConfig:
    """Settings of which those that are None were not given, over those of a YAML file (see `RunConfig.read`)."""
    given: Any = {name: value for name, value in settings.items() if value is not None}
    return RunConfig.read(file, **given) if file else RunConfig(**given)


def config_of(config: RunConfig | None, settings: Mapping[str, Any]) -> RunConfig:
    """A configuration with settings over it; without one, the settings alone (ConfigError)."""
    if config is None:
        return RunConfig.model_validate(settings)
    if not isinstance(config, RunConfig):
        raise ConfigError(f"config is a {type(config).__name__}: give a RunConfig, of a file RunConfig.read(FILE)")
    return config.merged(**settings)


def read_settings(file: Path) -> dict[str, Any]:
    """Read settings from YAML, unchecked, with field names as Python spells them and paths that count from its folder.

    Raises
    ------
    ConfigError
        If it is no flat mapping, or a setting is given twice.
    """
    content = read_mapping(file, ConfigError, "no such configuration file", may_be_empty=True)
    found = {}
    for key, value in content.items():
        name = str(key).replace("-", "_")
        name = "class_name" if name == "class" else name
        if name in found:
            raise ConfigError(f"{file}: setting '{key}' is given twice, in two spellings; leave one")
        word = name == "layout" and value == SAMPLE
        if name in _PATHS and isinstance(value, str) and not word and not is_url(value):
            value = file.parent / value
        if name in ("model", "scheduler", "stain") and isinstance(value, str):
            with suppress(OSError, ValueError):  # what can be no path is a name or an address, or refused later
                value = str(file.parent / value) if (file.parent / value).exists() else value
        found[name] = value
    return found
