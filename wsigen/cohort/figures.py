"""`Figures`: what was measured of a cohort, kept beside it (``figures.json``) and shown in its card."""

from __future__ import annotations

from pathlib import Path

from wsigen.base.errors import OutputError
from wsigen.base.state import State, parse_state

FIGURES = "figures.json"


class Figure(State):
    """One number: what it is, its value as text, and what it means or how it was measured."""

    name: str
    value: str
    meaning: str = ""


class Figures(State):
    """What was measured; an empty list was not.

    Attributes
    ----------
    evaluation, privacy : tuple of Figure
        How good the slides are; how near they are to the training data.
    private : bool
        Whether the privacy figures are complete and within their bounds, so that the cohort may be published.
    why_not : str
        What is missing or out of bounds otherwise.
    """

    evaluation: tuple[Figure, ...] = ()
    privacy: tuple[Figure, ...] = ()
    private: bool = False
    why_not: str = "privacy was not measured"


def read_figures(folder: Path) -> Figures:
    """The figures of a cohort; none if nothing was measured (OutputError if the file cannot be read)."""
    path = folder / FIGURES
    return parse_state(Figures, path.read_bytes(), str(path), OutputError) if path.is_file() else Figures()
