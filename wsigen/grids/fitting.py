"""Whether a grid is of the kind that a model was told in training."""

from __future__ import annotations

from wsigen.grids.grid import EncoderId
from wsigen.models.card import GridCondition

OTHER_CELL = 0.05
"""Relative difference of the sides of cells that is let pass: they are written with few digits."""


def misfit(made_by: EncoderId, cell_um: float, told: GridCondition, latent_um: float | None = None) -> str:
    """Say what of a grid is not as a model was told, for people; nothing if it fits.

    Parameters
    ----------
    made_by, cell_um : EncoderId, float
        The grid's encoder, and the side of its cells, um.
    told : GridCondition
        What the model's card says.
    latent_um : float, optional
        Side of a latent px of the finest magnification, um: what cells of mean colours are measured by. They may be finer than
        those of training, not coarser: the squares would be drawn.
    """
    wanted = EncoderId(told.encoder, told.encoder_sha256)
    if not made_by.agrees(wanted):
        return f"is of encoder {made_by}; the model follows {wanted}"
    if told.cell_um is not None and abs(cell_um - told.cell_um) > OTHER_CELL * told.cell_um:
        return (
            f"has cells of {cell_um:g} um; the model follows cells of {told.cell_um:g} um: "
            f"'wsigen compress SLIDE OUT.wsz --encoder {told.encoder} --cell-um {told.cell_um:g}'"
        )
    largest = None if told.cell_um is not None or latent_um is None else max(told.cell_sides) * latent_um
    if largest is not None and cell_um > largest * (1 + OTHER_CELL):
        return (
            f"has cells of {cell_um:g} um; the model was told cells of {largest:g} um at most, and would draw their squares: "
            f"'wsigen compress SLIDE OUT.wsz --cell-um {largest:g}'"
        )
    return ""
