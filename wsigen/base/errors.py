"""Every error wsigen raises on purpose.

::

    WsigenError                 what was wrong, where, and what to do
    ├── ConfigError             a setting, a YAML file or a combination of options
    ├── LayoutError             a GeoJSON file or label raster
    ├── ImageError              an image or slide to be read
    ├── GridError               a grid: its file, its encoder, its size
    ├── DatasetError            training data: images, annotations, tables, splits
    ├── BundleError             a model bundle
    ├── ModelOutputError        a network whose output is no picture
    ├── OutputError             where the slide is to be written
    ├── ResourceError           memory, disk, a scheduler that is not there
    ├── EvaluationError         a side, extractor or feature file of an evaluation
    ├── RunError                a run directory: wrong configuration, locked, not a run
    │   └── UnfitWorkerError    a worker that cannot reach the run or its model; others may
    ├── TrainingError           a training recipe, its checkpoint, a loss that is not a number
    └── DamagedChunkError       a stored chunk that is missing, truncated or altered

The command line prints ``str(error)`` as one line and exits with code 2. Messages quote files that come from elsewhere: control
characters are escaped and long words are cut, so that nothing in a file can write to a person's terminal (`one_line`).
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

LONGEST_WORD = 300
"""Characters of a word in a message, or of what a library says; a longer one (a thousand digits) is cut in its middle."""

LONGEST_MESSAGE = 1000


class WsigenError(Exception):
    """An error with a cause a person can act on; its message is one line of printable characters."""

    def __init__(self, message: str = "") -> None:
        super().__init__(one_line(message))


class ConfigError(WsigenError):
    """A setting is unknown, out of range or contradicts another one."""


class LayoutError(WsigenError):
    """A layout (GeoJSON or label raster) cannot be used.

    Attributes
    ----------
    causes : tuple of str
        Each thing that is wrong with the file, without its name and what to do; empty where the message says it all.
    """

    def __init__(self, message: str = "", causes: Iterable[str] = ()) -> None:
        super().__init__(message)
        self.causes = tuple(causes)


class ImageError(WsigenError):
    """An image or slide cannot be read."""


class GridError(WsigenError):
    """A grid cannot be made or used."""


class DatasetError(WsigenError):
    """Training data cannot be used as the dataset's file describes it."""


class BundleError(WsigenError):
    """A model bundle is missing, unsafe or inconsistent."""


class ModelOutputError(WsigenError):
    """A network gives values that are not finite, or a picture of one colour: its weights or its card are wrong."""


class OutputError(WsigenError):
    """The output cannot be written where it was asked for."""


class ResourceError(WsigenError):
    """Memory, disk or a scheduler is missing."""


class EvaluationError(WsigenError):
    """What is to be evaluated cannot be: sides, extractors, feature files."""


class RunError(WsigenError):
    """A run directory cannot be used: not a run, another configuration, or held by another driver."""


class UnfitWorkerError(RunError):
    """A worker cannot open the run or its model; others may.

    Attributes
    ----------
    worker : str
        Its address.
    """

    worker: str = ""


class TrainingError(WsigenError):
    """A training cannot begin, go on or be published: recipe, checkpoint, disk or a loss that is not a number."""


class DamagedChunkError(WsigenError):
    """A stored chunk is missing, truncated or has changed.

    Attributes
    ----------
    key : str
        The zarr key of the chunk, relative to the run's store.
    """

    def __init__(self, message: str, key: str = "") -> None:
        super().__init__(message)
        self.key = key

    def __reduce__(self) -> tuple[type[DamagedChunkError], tuple[str, str]]:
        return (DamagedChunkError, (str(self), self.key))


def suggest(name: str, known: Iterable[str]) -> str:
    """Return ``" (did you mean 'x'?)"`` for the nearest known name, or an empty string."""
    choices = {k.casefold(): k for k in known}
    near = difflib.get_close_matches(name.casefold(), list(choices), n=1, cutoff=0.5)
    return f" (did you mean '{choices[near[0]]}'?)" if near else ""


def one_line(text: str) -> str:
    """Return text as one printable line: white space joined, control characters escaped, long words and long texts cut."""
    words = [shortened(word) for word in re.split(r"\s+", text.strip())]
    return shortened(printable(" ".join(words)), LONGEST_MESSAGE)


def printable(line: str) -> str:
    """Return a line with its control characters escaped, spaces as they are: nothing in it moves a terminal's cursor."""
    return line if line.isprintable() else "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in line)


def shortened(text: str, most: int = LONGEST_WORD) -> str:
    """Return text with its middle cut out if it is longer than ``most`` characters."""
    half = most // 2 - 1
    return text if len(text) <= most else f"{text[:half]}…{text[-half:]}"


@contextmanager
def refusing(
    fault: type[WsigenError], source: object, advice: str, passing: tuple[type[Exception], ...] = ()
) -> Iterator[None]:
    """Turn whatever a foreign parser or library raises into one line; errors of wsigen's own pass as they are.

    Libraries that read files raise what they like (`OverflowError` for a date, `RecursionError` for nesting, `struct.error`):
    a list of expected exceptions is never complete. The original is the error's cause (``__cause__``).

    Parameters
    ----------
    fault : type of WsigenError
        What is raised instead.
    source : object
        The file, and where in it.
    advice : str
        What to do.
    passing : tuple of type
        Exceptions that the caller knows the meaning of; they pass as they are.
    """
    try:
        yield
    except Exception as error:
        if isinstance(error, (WsigenError, *passing)):
            raise
        path = str(source).partition(": ")[0]
        text = str(error) or type(error).__name__
        for mention in (repr(path.encode(errors="replace")), f'"{path}"', path):  # said once is enough
            text = text.replace(mention, "it")
        raise fault(f"{source}: {shortened(text)}; {advice}") from error
