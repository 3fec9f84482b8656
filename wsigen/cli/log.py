"""``--log``: what a command says on stderr, in words for people or as lines of JSON for programs."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from itertools import pairwise
from typing import TYPE_CHECKING, TextIO

from wsigen.base.errors import ConfigError

if TYPE_CHECKING:
    from wsigen.run.engine.stage import Watcher

_run = ""


def asks_for_json(arguments: Sequence[str]) -> bool:
    """Whether a command line wants lines of JSON; known before it is read, as it may be wrong."""
    return "--log=json" in arguments or ("--log", "json") in pairwise(arguments)


class JsonLines(io.TextIOBase):
    """Text that becomes lines of JSON: objects stay as they are, any other line is put into one as its ``message``.

    Usage errors, warnings of libraries and tracebacks are not ours to write, but to be read by the same program.

    Parameters
    ----------
    target : text file
        Where the lines go.
    """

    def __init__(self, target: TextIO) -> None:
        self._target, self._begun = target, ""

    def writable(self) -> bool:
        """Yes."""
        return True

    def fileno(self) -> int:
        """The target's, for whom writes past Python."""
        return self._target.fileno()

    def write(self, text: str) -> int:
        """Write; a line goes out when it is whole."""
        *lines, self._begun = (self._begun + text).split("\n")
        self._target.write("".join(f"{_as_object(line)}\n" for line in lines if line.strip()))
        return len(text)

    def flush(self) -> None:
        """Let out what was written, a line without its end as well."""
        if self._begun.strip():
            self.write("\n")
        self._target.flush()


@contextmanager
def progress(log: str | None) -> Iterator[Watcher]:
    """A watcher that writes as ``--log`` says: by default what fits the terminal, with "text" lines, with "json" objects.

    Raises
    ------
    ConfigError
        For any other word.
    """
    from wsigen.run.display import Lines, describe, display

    if log is None:
        with display() as watch:
            yield watch
    elif log == "text":
        yield Lines(lambda stage: f"{stage.run}  {describe(stage)}")
    elif log == "json":
        yield Lines(lambda stage: json.dumps({"time": _now(), **asdict(stage)}))
    else:
        raise ConfigError(f"--log: {log!r} is no form of log; choose text or json")


def belongs_to(run: str) -> None:
    """Whatever is said from now on, also by others, is about this run (its id)."""
    global _run  # a process drives one run at a time, and its stderr is one as well
    _run = run


def tell(plain: str, **fields: str) -> None:
    """Say something on stderr: in words, or its fields as an object if the command line asked for those; with the run's id."""
    said = _object(**fields) if isinstance(sys.stderr, JsonLines) else f"{plain}{f' [run {_run}]' if _run else ''}"
    print(said, file=sys.stderr, flush=True)


def _now() -> str:
    """The time in UTC, to the millisecond."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def _as_object(line: str) -> str:
    try:
        if isinstance(json.loads(line), dict):
            return line
    except ValueError:
        pass
    return _object(message=line.strip())


def _object(**fields: str) -> str:
    return json.dumps({"time": _now(), **({"run": _run} if _run else {}), **fields})
