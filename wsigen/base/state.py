"""State in files: frozen, strictly typed models, and one line that names the field where a file does not fit its model."""

from __future__ import annotations

from typing import TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from wsigen.base.errors import WsigenError


class State(BaseModel):
    """Base of everything that is kept as JSON between processes: no coercion, no unknown fields, no NaN."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


S = TypeVar("S", bound=State)


def parse_state(kind: type[S], text: str | bytes, source: str, fault: type[WsigenError]) -> S:
    """Read JSON as a model.

    Parameters
    ----------
    kind : type
        The model.
    text : str or bytes
        JSON.
    source : str
        What the error names.
    fault : type
        The error to raise.

    Raises
    ------
    WsigenError
        One line, a ``fault``: the first field that does not fit, and why.
    """
    try:
        return kind.model_validate_json(text)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        field = ".".join(str(part) for part in first["loc"])
        raise fault(f"{source}: {f'field {field!r}: ' if field else ''}{first['msg'].removeprefix('Value error, ')}") from None
    except WsigenError as error:
        raise fault(f"{source}: {error}") from None
