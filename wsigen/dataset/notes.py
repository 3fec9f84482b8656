"""What a person should know about a dataset that is no error."""

from __future__ import annotations

from collections.abc import Sequence

from wsigen.dataset.members import Member
from wsigen.dataset.settings import DatasetSettings
from wsigen.dataset.tables import few


def coarse_images(settings: DatasetSettings, members: Sequence[Member]) -> list[str]:
    """Say on which levels which images are left out, as they would have to be enlarged too much."""
    notes = []
    for level in settings.levels:
        coarse = [m for m in members if settings.too_coarse(m.mpp, level)]
        if coarse:
            notes.append(
                f"level {level.name!r} ({level.mpp} um/px): {len(coarse)} of {len(members)} images are left out there, as they "
                f"would be enlarged more than {settings.most_upsampling:g} times ({few([m.name for m in coarse])}; the first "
                f"has {coarse[0].mpp:g} um/px); raise most_upsampling to use them all the same"
            )
    return notes
