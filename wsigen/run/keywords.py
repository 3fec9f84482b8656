"""The settings as keywords of a function: editors and notebooks complete what they see in a signature."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Container
from typing import Any, TypeVar, get_type_hints

from wsigen.run.config import RunConfig
from wsigen.run.typed_settings import RunSettings

F = TypeVar("F", bound=Callable[..., Any])


def with_settings(names: Container[str]) -> Callable[[F], F]:
    """Spell out ``**settings`` in a function's signature: notebooks and ``help`` complete what they see there."""

    def spell_out(function: F) -> F:
        signature = inspect.signature(function)
        own = [p for p in signature.parameters.values() if p.kind is not p.VAR_KEYWORD]
        kinds = get_type_hints(RunSettings)
        added = [
            inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=field.default, annotation=kinds[name])
            for name, field in RunConfig.model_fields.items()
            if name in names
        ]
        function.__signature__ = signature.replace(parameters=[*own, *added])  # type: ignore[attr-defined]
        return function

    return spell_out
