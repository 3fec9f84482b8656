"""``wsigen train autoencoder``: cohort and recipe -> a diffusers folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from wsigen.training.autoencoder_model import AutoencoderTask
from wsigen.training.loop import Outcome, train
from wsigen.training.publish import save_autoencoder
from wsigen.training.recipes import AutoencoderRecipe
from wsigen.training.snapshot import identity_of


def make_autoencoder(recipe: AutoencoderRecipe, cohort: Any, out: Path, *, resume: bool = False) -> Outcome:
    """Train on the training split of an opened cohort; when all steps are done, write ``out/vae``.

    Parameters
    ----------
    cohort:
        What ``wsigen.cohort.open_cohort`` returns.
    out:
        Gets the checkpoint, the losses, sample grids and the result.
    """
    stream = cohort.crops("training", recipe.crop_px, recipe.seed, recipe.level_shares)
    task = AutoencoderTask(recipe, stream)
    settings = recipe.model_dump(mode="json", exclude={"loop", "cohort"})
    identity = identity_of(settings | {"loop": recipe.loop.identity(), "data": str(getattr(cohort, "key", ""))})
    outcome = train(task, recipe.loop, out, identity, seed=recipe.seed, resume=resume)
    if outcome.finished and is_main():
        save_autoencoder(task.vae, out / "vae")
    return outcome


def is_main() -> bool:
    """Whether this process writes the files (of several that ``accelerate launch`` started)."""
    from accelerate import PartialState

    return bool(PartialState().is_main_process)
