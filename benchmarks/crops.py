"""Crops per step of each mode over the fewest tiles that cover the canvas: arithmetic of the plans, no model."""

from __future__ import annotations

import math
from statistics import mean

from benchmarks.figure import Figure, Options
from wsigen.base.geometry import Box
from wsigen.sampling.pathup import PathUpPlan
from wsigen.sampling.plan import CropPlan
from wsigen.sampling.random_patch import RandomPatchPlan
from wsigen.sampling.shifted import ShiftedPlan

SIZE_PX, FACTOR, SIDE = 8192, 8, 64
TARGET = 2.3


def measure(options: Options) -> Figure:
    extent = SIZE_PX // FACTOR
    steps = 8 if options.quick else 40
    plans: dict[str, CropPlan] = {
        "random-patch": RandomPatchPlan(extent, extent, options.seed, side=SIDE, steps=steps),
        "shifted": ShiftedPlan(extent, extent, options.seed, side=SIDE),
        "pathup": PathUpPlan(extent, extent, SIDE),
    }
    ratios = {name: crops_per_step(plan, extent, SIDE, steps) for name, plan in plans.items()}
    others = ", ".join(f"{name} {ratio:.2f}" for name, ratio in ratios.items() if name != "random-patch")
    return Figure(
        "crops",
        f"crops per step, random-patch, over the fewest tiles ({SIZE_PX} px)",
        ratios["random-patch"],
        TARGET,
        f"{others}; mean of {steps} steps",
    )


def crops_per_step(plan: CropPlan, extent: int, side: int, steps: int) -> float:
    """Crops of ``side`` latent px over the fewest tiles that cover a square canvas of ``extent``, mean over the steps."""
    canvas = Box(0, 0, extent, extent)
    return mean(len(plan.crops(step, canvas)) for step in range(steps)) / math.ceil(extent / side) ** 2
