"""Execution settings from files that their user trusts: ``machine.yaml`` of their own, and one named with ``--machine``.

What is given as an option or keyword goes before the file that is named, and that before the user's own.
"""

from __future__ import annotations

import os
from pathlib import Path

from wsigen.base.errors import ConfigError, suggest
from wsigen.run.config import EXECUTION, RunConfig, read_settings

TRUSTED = EXECUTION - {"overwrite"}
"""What such a file may hold. Whether an existing slide is replaced is said with each command."""


def user_file() -> Path | None:
    """The user's own file, ``$XDG_CONFIG_HOME/wsigen/machine.yaml``; None if there is none.

    A relative ``XDG_CONFIG_HOME`` does not count (the XDG specification says so): it would lead into any folder one is in.
    """
    folder = Path(os.environ.get("XDG_CONFIG_HOME", ""))
    try:
        folder = folder if folder.is_absolute() else Path.home() / ".config"
    except RuntimeError:  # a user without a home
        return None
    file = folder / "wsigen" / "machine.yaml"
    return file if file.is_file() else None


def with_machine(config: RunConfig, machine: str | Path | None = None) -> RunConfig:
    """The same settings; execution settings that were not given are those of the files.

    Parameters
    ----------
    machine : str or Path, optional
        A file that the user names.

    Raises
    ------
    ConfigError
        One line that names the file: it cannot be read, or holds something else.
    """
    for file in (None if machine is None else Path(machine), user_file()):
        if file is not None:
            config = _filled(config, file)
    return config


def _filled(config: RunConfig, file: Path) -> RunConfig:
    """The settings with those of a file for all that were not given."""
    found = read_settings(file)
    for name in found:
        if name not in TRUSTED:
            raise ConfigError(f"{file}: {_why_not(name)}")
    given = {name: getattr(config, name) for name in config.model_fields_set}
    return RunConfig.model_validate({**found, **given}, context={"file": file, "given": given})


def _why_not(name: str) -> str:
    if name == "overwrite":
        return "setting 'overwrite' is given with each command (--overwrite); leave it out"
    if name in RunConfig.model_fields:
        return f"setting '{name}' decides what is made: give it as an option, or in a recipe (--config FILE)"
    return f"unknown setting '{name}'{suggest(name, TRUSTED)}; known: {', '.join(sorted(TRUSTED))}"
