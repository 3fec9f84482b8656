"""The models of this installation, for people who choose one."""

from __future__ import annotations

from dataclasses import dataclass

from wsigen.layout.subtypes import known_subtypes
from wsigen.models.bundle import DEFAULT_FOLDER, list_bundles
from wsigen.models.mask_bundle import find_mask


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """What a model can do.

    Attributes
    ----------
    name, title, licence, not_for : str
        As its card says.
    classes : list of str
        Names for ``class_name`` and for the classes of a layout.
    background : str or None
        The one of them that is bare glass.
    levels : dict of str to (float or None)
        um/px of each magnification level, fine to coarse.
    subtypes : list of str
        Kinds of slide for ``layout="sample"``.
    """

    name: str
    title: str
    licence: str
    not_for: str
    classes: list[str]
    background: str | None
    levels: dict[str, float | None]
    subtypes: list[str]

    def __str__(self) -> str:
        names = ", ".join(f"{name} (background)" if name == self.background else name for name in self.classes)
        levels = ", ".join(f"{name} {mpp} um/px" for name, mpp in self.levels.items())
        lines = [
            f"default  {self.name}: {self.title}",
            f"  classes:  {names}",
            f"  levels:   {levels}",
            f"  subtypes: {', '.join(self.subtypes)}  (--layout sample --subtype NAME)",
            f"  licence:  {self.licence}",
            f"  note:     {self.not_for}",
        ]
        return "\n".join(lines)


def list_models() -> list[ModelInfo]:
    """List the models embedded here: their classes, um/px and subtypes. Any bundle folder or hub id can be used as well."""
    found = []
    for card in list_bundles():
        table, mask = card.table, find_mask(DEFAULT_FOLDER, card.table)
        background = None if table.background is None else table.names[table.background]
        levels = {level.name: level.mpp for level in card.levels}
        subtypes = list(mask.subtypes if mask else known_subtypes(table))
        found.append(ModelInfo(card.name, card.title, card.licence, card.not_for, table.names, background, levels, subtypes))
    return found
