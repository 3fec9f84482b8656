"""YAML files of settings: read and validated, and each mistake in one line that names the file and the field."""

from __future__ import annotations

from collections import Counter
from datetime import date
from pathlib import Path
from typing import Any, TypeVar, get_args

import yaml
from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError, model_validator
from pydantic_core import PydanticCustomError

from wsigen.base.errors import WsigenError, refusing, shortened, suggest
from wsigen.base.names import unusable_path

T = TypeVar("T")

MOST_BYTES = 8 * 2**20
"""Of a YAML file: settings take a few kilobytes."""

MOST_DEPTH = 20
"""Levels of nesting; settings need five."""

MOST_VALUES = 200_000
"""Values of a file, those that aliases stand for among them."""

MOST_DIGITS = 400
"""Characters of a number: PyYAML takes hours for one in base 60 with a million digits."""

_Fastest: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""libyaml's parser, which takes a tenth of the time, where PyYAML was built with it."""


class _Loader(_Fastest):
    """Refuses a name that is given twice, of which PyYAML would take the last, and numbers without end."""

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        names = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode) and key.value != "<<"]
        if twice := next((name for name, count in Counter(names).items() if count > 1), None):
            raise ValueError(f"line {node.start_mark.line + 1}: {twice!r} is given twice")
        return super().construct_mapping(node, deep)

    def construct_number(self, node: Any) -> Any:
        if len(node.value) > MOST_DIGITS:
            raise ValueError(f"line {node.start_mark.line + 1}: a number of {len(node.value)} characters")
        whole = node.tag == "tag:yaml.org,2002:int"
        return self.construct_yaml_int(node) if whole else self.construct_yaml_float(node)


for _kind in ("int", "float"):
    _Loader.add_constructor(f"tag:yaml.org,2002:{_kind}", _Loader.construct_number)


_UNKNOWN = "unknown_setting"
"""Type of the error for a name that is none of a model's."""

_UNFIT = "unfit_value"
"""Type of the error for a value that pydantic would convert to something that nobody meant."""


class Settings(BaseModel):
    """A file of settings, or a part of one: no unknown names, no infinite numbers, no truth for a number, never changed."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _know_every_name(cls, values: Any) -> Any:
        """Refuse an unknown name together with the known ones, which pydantic's own error does not say."""
        known = list(cls.model_fields)
        for name in values if isinstance(values, dict) else ():
            if isinstance(name, str) and name not in known:
                raise PydanticCustomError(_UNKNOWN, "unknown setting", {"name": name, "known": known})
        return values

    @model_validator(mode="before")
    @classmethod
    def _mean_what_they_say(cls, values: Any) -> Any:
        """Refuse true and false for numbers, which pydantic takes for 1 and 0, and paths that no system can open."""
        for name, value in values.items() if isinstance(values, dict) else ():
            parts = value if isinstance(value, list | tuple) else (value,)
            field = cls.model_fields.get(name) if isinstance(name, str) else None
            if field is None:
                continue
            if any(isinstance(part, bool) for part in parts) and not _tells_truth_apart(field.annotation):
                raise PydanticCustomError(_UNFIT, "true and false are no values here", {"name": name})
            for part in parts:
                unfit = unusable_path(str(part)) if isinstance(part, str | Path) else ""
                if unfit and ("\0" in str(part) or _mentions(field.annotation, Path)):
                    raise PydanticCustomError(_UNFIT, "{why}", {"name": name, "why": unfit})
        return values


def _tells_truth_apart(annotation: Any) -> bool:
    """Whether true and false are values, or are refused as names by pydantic itself (`_said`)."""
    is_number = _mentions(annotation, int) or _mentions(annotation, float)
    return _mentions(annotation, bool) or (_mentions(annotation, str) and not is_number)


def _mentions(annotation: Any, kind: type) -> bool:
    return annotation is kind or any(_mentions(part, kind) for part in get_args(annotation))


def read_mapping(
    file: Path,
    fault: type[WsigenError],
    missing: str = "no such file; check its path",
    expected: str = "'setting: value' lines",
    *,
    may_be_empty: bool = False,
) -> dict[Any, Any]:
    """Read a YAML file that holds a mapping.

    Parameters
    ----------
    fault : type of WsigenError
        The error to raise.
    missing, expected : str
        What to say of a file that is not there, and of one that holds something else.
    may_be_empty : bool
        Whether a file without content is a mapping without entries.

    Raises
    ------
    WsigenError
        One line, ``fault``.
    """
    with refusing(fault, f"{file}: cannot be read", "give a YAML file"):
        if not file.exists():
            raise fault(f"{file}: {missing}")
        if file.stat().st_size > MOST_BYTES:
            raise fault(f"{file}: more than {MOST_BYTES >> 20} MiB; settings take a few kilobytes: give another file")
        text = file.read_text(encoding="utf-8-sig")
    with refusing(fault, f"{file}: not valid YAML", "mend it"):
        content = parse_yaml(text)
    if content is None and may_be_empty:
        return {}
    if not isinstance(content, dict):
        raise fault(f"{file}: expected {expected}, got {'nothing' if content is None else type(content).__name__}")
    return content


def parse_yaml(text: str) -> Any:
    """Return the value of a YAML text that neither nests deeply nor, by a few lines of aliases, stands for gigabytes.

    Raises
    ------
    ValueError
        If it does, or an alias refers to what it is part of.
    Exception
        Whatever PyYAML raises for text that is no YAML.
    """
    _demand_small(text)
    loader = _Loader(text)
    try:
        return loader.get_single_data()
    finally:
        loader.dispose()


def _demand_small(text: str) -> None:
    """Count values with aliases written out, and levels of nesting, without making any (ValueError)."""
    sizes: dict[str, int] = {}
    open_: list[tuple[str | None, int]] = []  # anchor, values counted before it
    count = 0
    for event in yaml.parse(text, Loader=_Loader):
        line = event.start_mark.line + 1 if event.start_mark else 0
        if isinstance(event, yaml.AliasEvent):
            if event.anchor not in sizes:
                raise ValueError(f"line {line}: *{event.anchor} refers to nothing that is complete")
            count += sizes[event.anchor]
        elif isinstance(event, yaml.CollectionEndEvent):
            anchor, before = open_.pop()
            sizes |= {anchor: count - before} if anchor else {}
        elif isinstance(event, yaml.NodeEvent):
            if isinstance(event, yaml.CollectionStartEvent):
                open_.append((event.anchor, count))
            elif event.anchor:
                sizes[event.anchor] = 1
            count += 1
        if len(open_) > MOST_DEPTH:
            raise ValueError(f"line {line}: nested more than {MOST_DEPTH} levels deep")
        if count > MOST_VALUES:
            raise ValueError(f"line {line}: stands for more than {MOST_VALUES:,} values")


def validated(kind: type[T], content: Any, source: str, fault: type[WsigenError]) -> T:
    """Validate plain values as a pydantic model, or as any type made of such.

    Raises
    ------
    WsigenError
        One line that begins with ``source`` and is a ``fault``; see `first_fault`.
    """
    try:
        return TypeAdapter(kind).validate_python(content)
    except ValidationError as error:
        raise fault(f"{source}: {first_fault(error)}") from None


def first_fault(error: ValidationError) -> str:
    """Say the first fault; an unknown name goes before all others, for a misspelt setting is also a missing one."""
    first = min(error.errors(), key=lambda e: e["type"] != _UNKNOWN)
    if first["type"] == _UNKNOWN:
        context = first["ctx"]
        name = ".".join(str(part) for part in (*first["loc"], context["name"]))
        return f"unknown setting '{name}'{suggest(context['name'], context['known'])}; known: {', '.join(context['known'])}"
    path = (*first["loc"], first["ctx"]["name"]) if first["type"] == _UNFIT else first["loc"]
    parts = [part for part in map(str, path) if "[" not in part]  # not the member of a union that did not fit either
    where, text = ".".join(parts), shortened(_said(first))
    return f"setting '{where}': {text}" if where else text


def _said(fault: Any) -> str:
    """A fault in words.

    YAML reads a name such as 007, no or 2024-01-31 as a number, false or a day, unless it is in quotes. The value may look
    otherwise than what is written (7, False), so it is not repeated.
    """
    value = fault["input"]
    if fault["type"] == "string_type" and isinstance(value, bool | int | float | date):
        kind = "false or true" if isinstance(value, bool) else "a day" if isinstance(value, date) else "a number"
        return f"a name is expected here, and what stands there is read as {kind}; put it in quotes, as it stands in the file"
    return str(fault["msg"]).removeprefix("Value error, ")
