"""Augmentation keeps glass and loses nothing."""

from __future__ import annotations

import numpy as np

from wsigen.dataset.augment import dihedral, jitter_stain


def test_jitter_leaves_glass_alone_and_changes_tissue() -> None:
    rng = np.random.default_rng(0)
    glass = np.full((4, 4, 3), 244, dtype=np.uint8)
    assert np.abs(jitter_stain(glass, rng).astype(int) - glass).max() <= 1
    tissue = np.full((4, 4, 3), (180, 90, 150), dtype=np.uint8)
    assert np.abs(jitter_stain(tissue, rng).astype(int) - tissue).max() > 1


def test_variants_are_the_eight_turns_and_flips() -> None:
    rgb = np.random.default_rng(0).integers(0, 255, (6, 6, 3)).astype(np.uint8)
    assert np.array_equal(dihedral(rgb, 0), rgb)
    variants = [dihedral(rgb, variant) for variant in range(8)]
    assert len({v.tobytes() for v in variants}) == 8
    assert all(sorted(v.reshape(-1, 3).tolist()) == sorted(rgb.reshape(-1, 3).tolist()) for v in variants)
