"""YAML files of settings: read and validated, and each mistake in one line that names the file and the field."""

from __future__ import annotations

import types
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, TypeAdapter, ValidationError

from wsigen.base.errors import WsigenError, suggest

T = TypeVar("T")


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
    fault:
        The error to raise.
    missing, expected:
        What to say of a file that is not there, and of one that holds something else.
    may_be_empty:
        Whether a file without content is a mapping without entries.

    Raises
    ------
    WsigenError
        One line, ``fault``.
    """
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise fault(f"{file}: {missing}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise fault(f"{file}: cannot be read ({error}); give a YAML file") from None
    except (yaml.YAMLError, RecursionError) as error:
        raise fault(f"{file}: not valid YAML ({' '.join(str(error).split())}); mend it") from None
    if content is None and may_be_empty:
        return {}
    if not isinstance(content, dict):
        raise fault(f"{file}: expected {expected}, found {'nothing' if content is None else type(content).__name__}")
    return content


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
        raise fault(f"{source}: {first_fault(kind, error)}") from None


def first_fault(kind: Any, error: ValidationError) -> str:
    """Say the first fault, and for an unknown key the nearest known one.

    An unknown key goes before all others: a misspelt field is also a missing one.
    """
    first = min(error.errors(), key=lambda e: e["type"] != "extra_forbidden")
    where, text = ".".join(str(part) for part in first["loc"]), str(first["msg"]).removeprefix("Value error, ")
    if first["type"] == "extra_forbidden":
        known = fields_beside(kind, first["loc"])
        return f"unknown setting '{where}'{suggest(str(first['loc'][-1]), known)}; known: {', '.join(known)}"
    return f"setting '{where}': {text}" if where else text


def fields_beside(kind: Any, loc: tuple[int | str, ...]) -> list[str]:
    """Names of the fields of the model in which the last part of ``loc``, pydantic's way to a value, lies."""
    here = _choices(kind)
    for part in loc[:-1]:
        here = [choice for type_ in here for choice in _step(type_, part)]
    return list(dict.fromkeys(name for model in here if _is_model(model) for name in model.model_fields))


def _choices(annotation: Any) -> list[Any]:
    """The types a value may have: members of unions, without what annotates them."""
    origin = get_origin(annotation)
    if origin is Annotated:
        return _choices(get_args(annotation)[0])
    if origin in (Union, types.UnionType):
        return [choice for member in get_args(annotation) for choice in _choices(member)]
    return [annotation]


def _step(type_: Any, part: int | str) -> Iterable[Any]:
    """The types one part of a location further: a field, an item, an entry, or the tag of a discriminated union."""
    if _is_model(type_):
        if part in type_.model_fields:
            return _choices(type_.model_fields[part].annotation)
        tags = [get_args(f.annotation) for f in type_.model_fields.values() if get_origin(f.annotation) is Literal]
        return [type_] if any(part in values for values in tags) else []
    origin, arguments = get_origin(type_), [a for a in get_args(type_) if a is not Ellipsis]
    if origin is dict:
        return _choices(arguments[1])
    if origin in (tuple, list) and isinstance(part, int):
        return [choice for argument in dict.fromkeys(arguments) for choice in _choices(argument)]
    return []


def _is_model(type_: Any) -> bool:
    return isinstance(type_, type) and issubclass(type_, BaseModel)
