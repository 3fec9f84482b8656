"""Textures of two classes on tiles and slides, of several patients: sides of downstream evaluations whose answer is known."""

import numpy as np
import yaml
from drawing import feature, square, write_layout
from metric_pictures import save, texture

SIGMAS = {"Tumor": 0.7, "Stroma": 3.0}
"""Fine and coarse noise: no colour tells them apart, no turn or stain changes them."""

DEEP = {"contrast": 30.0, "colour": (170, 80, 150)}
"""Deeply stained: no place of the coarse noise is as bright and grey as glass."""


def tiles(folder, patients=4, each=10, seed=0, swap=0.0, side=64, classes=("Tumor", "Stroma")):
    """``CLASS/PATIENT/TILE.png``; a share ``swap`` of the tiles lies in a random class's folder."""
    rng = np.random.default_rng(seed)
    for k, name in enumerate(classes):
        for patient in range(patients):
            for i in range(each):
                place = classes[int(rng.integers(len(classes)))] if rng.random() < swap else name
                pixels = texture(side, side, [seed, k, patient, i], sigma=SIGMAS[name], **DEEP)
                save(folder / place / f"P{patient}" / f"{k}_{i}.png", pixels)
    return folder


def slides(folder, count=3, seed=0, side=512, mpp=0.5):
    """Slides whose left half is tumour and whose right half is stroma, with their annotations."""
    for i in range(count):
        halves = [texture(side, side // 2, [seed, i, k], sigma=s, **DEEP) for k, s in enumerate(SIGMAS.values())]
        save(folder / f"s{i}.tiff", np.concatenate(halves, axis=1), mpp)
        tumour = feature("Tumor", [[0, 0], [side // 2, 0], [side // 2, side], [0, side]])
        write_layout(folder / f"s{i}.geojson", tumour, feature("Stroma", square(0, 0, side)))  # the smaller one wins
    return folder


def dataset_of_slides(folder, count=4):
    """A dataset of `slides`, the last two held out: the path of its settings, ``folder/real.yaml``."""
    slides(folder / "real", count)
    settings = {
        "classes": [{"name": "Tumor", "color": [200, 0, 0]}, {"name": "Stroma", "color": [0, 200, 0]}],
        "levels": [{"name": "patch", "mpp": 0.5}],
        "patch_px": 64,
        "overlap_px": 0,
        "sources": [{"kind": "annotated", "images": "real/*.tiff"}],
        "held_out": [f"s{i}" for i in range(count - 2, count)],
    }
    path = folder / "real.yaml"
    path.write_text(yaml.safe_dump(settings))
    return path
