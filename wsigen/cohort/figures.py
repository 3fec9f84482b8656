"""`Figures`: what was measured of a cohort, kept beside it (``figures.json``) and shown in its card."""

from __future__ import annotations

from pathlib import Path

from wsigen.base.errors import OutputError
from wsigen.base.state import State, parse_state
from wsigen.storage.files import write_atomic

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
    slides : int
        How many slides there were: a cohort grows, and its slides do not change.
    """

    evaluation: tuple[Figure, ...] = ()
    privacy: tuple[Figure, ...] = ()
    private: bool = False
    why_not: str = "privacy was not measured"
    slides: int = 0


def read_figures(folder: Path) -> Figures:
    """The figures of a cohort; none if nothing was measured (OutputError if the file cannot be read)."""
    path = folder / FIGURES
    if not path.is_file():
        return Figures()
    try:
        return parse_state(Figures, path.read_bytes(), str(path), OutputError)
    except OutputError as error:
        raise OutputError(f"{error}; delete it, and measure again with 'wsigen cohort report'") from None


def write_figures(folder: Path, figures: Figures) -> None:
    """Keep what was measured."""
    write_atomic(folder / FIGURES, (figures.model_dump_json(indent=1) + "\n").encode())


def why_private_is_unknown(figures: Figures, slides: int) -> str | None:
    """Why a cohort of so many slides may not be published; None: it may."""
    if not figures.private:
        return figures.why_not
    if figures.slides < slides:
        return f"privacy was measured when {figures.slides} of its {slides} slides were there"
    return None
