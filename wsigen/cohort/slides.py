"""`CohortSlide`: one slide of a plan, a pure function of the plan, the part and the number in it.

Every choice is drawn from the counter-based generator under a key of (the plan's seed, the part's name and, of files, the
file's name), so that more slides, more files or more parts change none of the others. Subtypes of drawn layouts follow a
low-discrepancy sequence instead (multiples of the golden ratio): their shares come out to about a slide, whatever the number.

Splits are stratified by subtype in the same way. All slides from files of one name are in one split, which a hash of the name
decides, whatever their parts: who trains on a drawing knows what is tested.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wsigen.base.errors import ConfigError
from wsigen.base.noise import Stream, uniforms
from wsigen.cohort.plan import CohortPlan, Part, file_id, find_files, find_model, find_stain, parse_size
from wsigen.run.config import RunConfig
from wsigen.run.config_checks import SAMPLE
from wsigen.slide.stain import Stain

GOLDEN = 0.6180339887498949
"""Fractional part of the golden ratio: its multiples, less their whole parts, cover (0, 1) most evenly."""

_SEED, _MODEL, _SIZE, _MODE, _STAIN, _SPREAD = 0, 2, 3, 4, 5, 6
_DRAWS = 8
"""Which number of a slide's stream decides what; the seed and the spread of both stains take two each."""


@dataclass(frozen=True, slots=True)
class CohortSlide:
    """A slide before it is made.

    Attributes
    ----------
    id : str
        Name of its files.
    part : str
        Which part of the plan it is from.
    number : int
        Its number there, or of its file.
    subtype, split : str
        For the table.
    source : Path or None
        The file of its layout or its reference.
    model, mode, stain : str
        As the plan calls them.
    config : RunConfig
        All settings of the run.
    """

    id: str
    part: str
    number: int
    subtype: str
    split: str
    source: Path | None
    model: str
    mode: str
    stain: str
    config: RunConfig

    @property
    def group(self) -> str:
        """What must not be on both sides of a split: the name of its file without suffixes, or itself."""
        return self.id if self.source is None else file_id(self.source)


def slides_of(plan: CohortPlan, source: str = "the plan", absent: bool = False) -> list[CohortSlide]:
    """All slides of a plan, in its order.

    Parameters
    ----------
    source : str
        What errors name.
    absent : bool
        The plan is a recipe's: it names files one by one, and they need not be there.

    Raises
    ------
    ConfigError
        If the settings of a part do not fit each other, two slides would have one id, or a drawing would be in two splits.
    """
    slides: list[CohortSlide] = []
    for position, part in enumerate(plan.parts):
        try:
            slides += _drawn(plan, part) if part.drawn else _of_files(plan, part, absent)
        except ConfigError as error:
            raise ConfigError(f"{source}: part {part.name or position!r}: {error}") from None
    twice = [name for name, count in Counter(slide.id.casefold() for slide in slides).items() if count > 1]
    if twice:
        raise ConfigError(f"{source}: two slides have the id {twice[0]!r}; rename a part or a file")
    _demand_one_split(slides, source)
    return slides


def pick(shares: Mapping[str, float], u: float) -> str:
    """The entry in whose share a number of (0, 1) falls; neither the order as written nor the folder of an entry counts."""
    below = 0.0
    for name in sorted(shares, key=lambda name: Path(name).name):
        below += shares[name]
        if u < below:
            return name
    return max(shares)


# -- inside ------------------------------------------------------------------------------------------------------------


def _drawn(plan: CohortPlan, part: Part) -> Iterator[CohortSlide]:
    key, subtypes = _key(plan, part.name), part.subtypes or {}
    of_subtype: Counter[str] = Counter()
    kinds, splits = _start(key, "subtypes"), {name: _start(key, f"split {name}") for name in subtypes}
    own: dict[str, Any] = {"layout": SAMPLE}
    own |= {"subtypes": plan.place(part.subtypes_file)} if part.subtypes_file else {}
    own |= {"mask_model": plan.place(part.mask_model)} if part.mask_model else {}
    for number in range(part.slides or 0):
        subtype = pick(subtypes, (kinds + number * GOLDEN) % 1)
        split = pick(plan.splits, (splits[subtype] + of_subtype[subtype] * GOLDEN) % 1)
        of_subtype[subtype] += 1
        name = "-".join(filter(None, (plan.name, part.name, f"{number:04d}")))
        yield _slide(plan, part, key, number, name, subtype, split, None, {**own, "subtype": subtype})


def _of_files(plan: CohortPlan, part: Part, absent: bool) -> Iterator[CohortSlide]:
    subtype = next(iter(part.subtypes or {}), part.name or plan.name)
    setting = "layout" if part.layouts else "reference"
    for path in find_files(plan, part, absent):
        key = _key(plan, f"{part.name}/{path.name}")
        split = pick(plan.splits, _start(_key(plan, file_id(path)), "split"))  # whichever part it is in
        for number in range(part.times):
            name = "-".join(filter(None, (plan.name, part.name, file_id(path), f"{number:02d}")))
            yield _slide(plan, part, key, number, name, subtype, split, path, {setting: path})


def _demand_one_split(slides: list[CohortSlide], source: str) -> None:
    """Refuse parts that put files of one name into different splits (ConfigError)."""
    first: dict[str, CohortSlide] = {}
    for slide in slides:
        other = first.setdefault(slide.group, slide)
        if slide.split != other.split and slide.source is not None:
            raise ConfigError(
                f"{source}: {slide.source.name} is in part {other.part!r} (split {other.split}) and in part {slide.part!r} "
                f"(split {slide.split}): a test would know what was trained on; give both the same 'split', or rename the file"
            )


def _slide(
    plan: CohortPlan, part: Part, key: int, number: int, name: str, subtype: str, split: str, source: Path | None, own: Any
) -> CohortSlide:
    """Draw what is left to draw, and check all settings of the slide."""
    u = uniforms(key, Stream.COHORT, _DRAWS, step=number).tolist()
    model, mode, stain = (
        pick(plan.choices(part, choice) or {}, u[place])
        for choice, place in (("model", _MODEL), ("mode", _MODE), ("stain", _STAIN))
    )
    sizes = plan.choices(part, "size") if part.drawn else part.size  # a drawing has a size of its own
    settings = {**plan.settings, **part.settings, **own}
    if isinstance(table := settings.get("layout_classes"), str):
        settings["layout_classes"] = plan.place(table)
    if sizes is not None:
        settings["size"] = parse_size(pick(sizes, u[_SIZE]))
    stained = _spread(plan, part, find_stain(plan, stain), u[_SPREAD:])
    if not stained.changes_nothing:
        settings["stain"] = stained
    settings |= {"seed": _seed(u), "model": find_model(plan, model), "mode": mode}
    config = RunConfig(**settings)
    return CohortSlide(name, part.name, number, subtype, part.split or split, source, model, mode, stain, config)


def _spread(plan: CohortPlan, part: Part, stain: Stain, u: list[float]) -> Stain:
    """The same with intensities that vary from slide to slide."""
    spread = plan.stain_spread if part.stain_spread is None else part.stain_spread
    if not spread:
        return stain
    names = ("haematoxylin_intensity", "eosin_intensity")
    changed = {
        name: round(getattr(stain, name) * (1 + spread * (2 * each - 1)), 6) for name, each in zip(names, u[:2], strict=True)
    }
    return Stain(**{**stain.model_dump(), **changed})


def _seed(u: list[float]) -> int:
    """A seed of 53 bits, which every reader of JSON keeps exactly."""
    return int(u[_SEED] * 2**32) << 21 | int(u[_SEED + 1] * 2**21)


def _key(plan: CohortPlan, what: str) -> int:
    """The key of a stream, 64 bits."""
    return int.from_bytes(hashlib.sha256(f"{plan.seed}:{what}".encode()).digest()[:8])


def _start(key: int, what: str) -> float:
    """A number of [0, 1) by hash."""
    return int.from_bytes(hashlib.sha256(f"{key}:{what}".encode()).digest()[:6]) / 2**48
