"""Options that are made from what they set: fields of `RunConfig`, or parameters of a public function and its docstring."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from types import SimpleNamespace
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

import typer
from rich.markup import escape
from typer.core import TyperCommand

EXTENSION = ("extend", "at", "extend_mpp", "resample")
"""Settings of a slide that is continued, which is none that is drawn again from its grid."""

COLUMN = 16
"""Characters of a choice of values that stand in a column of their own on a help page."""


def examples(*lines: str) -> str:
    """The end of a help page."""
    return "\n".join(["[bold]Example[/bold]" + "s" * (len(lines) > 1), *(f"  {escape(line)}" for line in lines)])


class SettingsCommand(TyperCommand):
    """A command with an option for every setting of a run; those that are given become the context's ``obj``.

    They are made when they are asked for, so that ``wsigen --help`` does not load pydantic.
    """

    resumes = False
    """Whether only those that may change when a run goes on are wanted."""

    @cached_property
    def settings(self) -> list[Any]:
        """The options of the settings."""
        from wsigen.run.config import RunConfig, about
        from wsigen.run.typed_settings import ResumeSettings

        shown = [name for name in RunConfig.model_fields if not about(name)["hidden"]]
        names = ResumeSettings.__annotations__ if self.resumes else shown
        return _options([_setting(name, self.defaults.get(name)) for name in names])

    @property
    def defaults(self) -> Mapping[str, object]:
        """Settings that count in this command if they are not given, where they are others than those of a run."""
        return {}

    def get_params(self, ctx: Any) -> list[Any]:
        """The command's own parameters and those of the settings."""
        return [*super().get_params(ctx), *self.settings]

    def invoke(self, ctx: Any) -> Any:
        """Call the command's function, which finds the settings in the context."""
        given = {option.name: ctx.params.pop(option.name) for option in self.settings}
        ctx.obj = {name: value for name, value in given.items() if value is not None}
        return super().invoke(ctx)


class ResumeCommand(SettingsCommand):
    """The same for the settings that may change when a run goes on."""

    resumes = True


class CohortCommand(ResumeCommand):
    """The same for those of them that say something of a cohort."""

    @cached_property
    def settings(self) -> list[Any]:
        """The options of the settings."""
        from wsigen.cohort.execution import EXECUTION

        return [option for option in super().settings if option.name in EXECUTION]


class DecompressCommand(SettingsCommand):
    """The same; the grid is an argument."""

    @cached_property
    def settings(self) -> list[Any]:
        """The options of the settings."""
        return [option for option in super().settings if option.name not in ("grid", *EXTENSION)]

    @property
    def defaults(self) -> Mapping[str, object]:
        """Those of a decompression."""
        from wsigen.evaluation.decompress import DEFAULTS

        return {**DEFAULTS, "levels": "all"}


class EstimateCommand(SettingsCommand):
    """The same; it takes what ``generate`` takes and shows what decides the cost."""

    @cached_property
    def settings(self) -> list[Any]:
        """The options of the settings."""
        found = super().settings
        for option in found:
            option.hidden = option.name in ("overwrite", "keep_run", "quality")
        return found


def parameters_of(
    function: Callable[..., Any], groups: Mapping[str, str] | None = None, *, like: Callable[..., Any] | None = None
) -> Callable[[Any], Any]:
    """Give a command the parameters of a public function: positional ones as arguments, keywords as options.

    Parameters
    ----------
    function : callable
        Parameters that are no values (``watch``, ``say``) are left out.
    groups : mapping of str to str, optional
        Heading of each option that does not stand under "Options".
    like : callable, optional
        The function that has the parameters and describes them (NumPy style), if it is another one.
    """

    def give(command: Callable[..., Any]) -> Callable[..., Any]:
        source = like or function
        said = _described(source)
        wanted = [each for each in inspect.signature(source).parameters.values() if each.name not in ("watch", "say")]
        annotations = SimpleNamespace(__annotations__={each.name: each.annotation for each in wanted})
        kinds = get_type_hints(annotations, source.__globals__)  # without what it returns, which nobody imported
        found = [_parameter(each, kinds[each.name], said[each.name], (groups or {}).get(each.name)) for each in wanted]
        command.__doc__ = (inspect.getdoc(function) or "").partition("\n")[0]
        return _with(command, found)

    return give


def _described(function: Callable[..., Any]) -> dict[str, str]:
    """Name and description of each parameter in a docstring."""
    lines = (inspect.getdoc(function) or "").partition("Parameters\n----------\n")[2].partition("\n\n")[0].splitlines()
    said: dict[str, str] = {}
    names: list[str] = []
    for line in lines:
        if line.startswith(" "):
            said.update({name: f"{said[name]} {line.strip()}".strip().replace("``", "") for name in names})
        else:
            names = line.partition(" :")[0].split(", ")
            said.update(dict.fromkeys(names, ""))
    return said


def _parameter(parameter: inspect.Parameter, annotation: Any, said: str, group: str | None) -> inspect.Parameter:
    """The argument or option of a function's parameter."""
    said = (said if said[1].isupper() else said[0].lower() + said[1:]).rstrip(".")
    if parameter.kind is parameter.KEYWORD_ONLY:
        words = "|".join(map(str, get_args(annotation))) if get_origin(annotation) is Literal else ""
        form = "<path>" if get_origin(annotation) is Sequence else parameter.name.upper() if len(words) > COLUMN else None
        said += f", {words}" if words and form else ""
        flag = "--" + parameter.name.replace("_", "-")
        about: Any = typer.Option(flag, help=escape(said), metavar=form, rich_help_panel=group)
    else:
        about = typer.Argument(help=escape(said), metavar=parameter.name.upper(), show_default=False)
    return parameter.replace(annotation=Annotated[_kind(annotation), about], kind=parameter.KEYWORD_ONLY)


def _kind(annotation: Any) -> Any:
    """The type that typer reads: of several the path, so that shells complete files."""
    choices = get_args(annotation)
    if get_origin(annotation) is Sequence:
        return list[_kind(choices[0])]  # type: ignore[misc]
    if str in choices and any(get_origin(choice) is Mapping for choice in choices):
        return str | None  # a mapping may be written as text
    if Path in choices:
        return Path | None if type(None) in choices else Path
    return annotation


def allowed(setting: str) -> str:
    """The values that a field of `RunConfig` takes, in words; nothing where its type says it all."""
    from wsigen.run.config import RunConfig, about

    limits = RunConfig.model_fields[setting].metadata
    found = {name: getattr(limit, name) for limit in limits for name in ("ge", "gt", "le") if hasattr(limit, name)}
    if "le" in found:
        return f"above {found['gt']} to {found['le']}" if "gt" in found else f"{found['ge']} to {found['le']}"
    least = f"at least {found['ge']}" if found.get("ge", 0) > 1 else ""
    return about(setting)["form"] or "|".join(_choices(setting)) or least


def default_of(setting: str) -> str:
    """What counts where a field of `RunConfig` is not given, in words."""
    from wsigen.run.config import RunConfig, about

    default = RunConfig.model_fields[setting].default
    return about(setting)["otherwise"] or ("" if default is None or default is False else str(default))


def _choices(setting: str) -> list[str]:
    """The words that a field takes, if it takes no others."""
    from wsigen.run.config import RunConfig

    annotation = RunConfig.model_fields[setting].annotation
    kinds = (annotation, *get_args(annotation))
    return [] if Path in kinds else [word for kind in kinds for word in get_args(kind) if isinstance(word, str)]


def _setting(name: str, default: object = None) -> inspect.Parameter:
    """The option of a field of `RunConfig`, which checks its value; None if it is not given.

    Its help says what counts then: ``default``, or else that of the field.
    """
    from wsigen.run.config import RunConfig, about

    field, extra = RunConfig.model_fields[name], about(name)
    flag = "--class" if name == "class_name" else "--" + name.replace("_", "-")
    kinds = (field.annotation, *get_args(field.annotation))
    words, number = "|".join(_choices(name)), next((f"<{kind.__name__}>" for kind in (int, float) if kind in kinds), None)
    form = extra["form"] or (words if len(words) <= COLUMN else name.upper()) or number
    limits, counts = allowed(name), default_of(name) if default is None else str(default)
    said = f"{field.description}" + (f", {limits}" if limits and limits != form else "")
    only_path = set(kinds[1:]) - {type(None)} == {Path}  # what may also be a word or a URL must stay as it is written
    kind: Any = bool if bool in kinds else Path if only_path else str
    option = typer.Option(
        f"{flag}/--no-{flag[2:]}" if kind is bool else flag,
        help=escape(said) + (f" [dim]\\[default: {escape(counts)}][/dim]" if counts else ""),
        metavar=form,
        rich_help_panel=extra["group"],
        autocompletion=(lambda incomplete: _choices(name)) if _choices(name) else None,
    )
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Annotated[kind | None, option])


def _options(parameters: Sequence[inspect.Parameter]) -> list[Any]:
    """What typer makes of the parameters of a function."""
    app = typer.Typer(add_completion=False)
    app.command()(_with(lambda **given: None, parameters))
    return list(typer.main.get_command(app).params)


def _with(function: Callable[..., Any], parameters: Sequence[inspect.Parameter]) -> Callable[..., Any]:
    """Let a function of ``**given`` say which parameters it takes, as typer reads them."""
    function.__signature__ = inspect.Signature(list(parameters))  # type: ignore[attr-defined]
    function.__annotations__ = {each.name: each.annotation for each in parameters}
    return function
