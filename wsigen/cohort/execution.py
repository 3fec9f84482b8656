"""Where and how a cohort is made: the execution settings of its slides' runs."""

from __future__ import annotations

from pathlib import Path

from wsigen.base.errors import ConfigError
from wsigen.run.config import RunConfig
from wsigen.run.machine_file import with_machine
from wsigen.run.typed_settings import ResumeSettings

NOT_HERE = frozenset({"overwrite", "keep_run"})
"""Execution settings of a slide that say nothing of a cohort."""

EXECUTION = frozenset(ResumeSettings.__annotations__) - NOT_HERE


def execution_of(settings: ResumeSettings, machine: str | Path | None) -> RunConfig:
    """Execution settings, those of the user's files among them (ConfigError); the rest of the configuration does not count."""
    for name in sorted(settings.keys() & NOT_HERE):
        raise ConfigError(f"setting '{name}' says nothing of a cohort: a folder that holds it is gone on with")
    for name in sorted(settings.keys() - EXECUTION):
        raise ConfigError(f"setting '{name}' decides what is made: it belongs into the plan")
    return with_machine(RunConfig(size=(512, 512), **settings), machine)


def with_execution(config: RunConfig, execution: RunConfig) -> RunConfig:
    """The settings of a slide, done where and how the cohort is; what lies where it is made is its own."""
    given = {name: getattr(execution, name) for name in EXECUTION & execution.model_fields_set}
    return config.merged(**given, overwrite=True)
