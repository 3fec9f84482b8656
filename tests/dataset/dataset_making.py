"""Small datasets for tests: stained noise on glass, tiles, annotations and spots."""

import csv

import numpy as np
from drawing import feature, square, write_layout
from PIL import Image

from wsigen.dataset.settings import DatasetSettings

GLASS = (225, 215, 232)
CLASSES = [
    {"name": "Glass", "color": [235, 235, 235], "background": True},
    {"name": "Tumor", "color": [200, 0, 0]},
    {"name": "Stroma", "color": [150, 200, 150]},
]


def stained(height, width, seed=0):
    """H&E-like noise: uint8 [height, width, 3]."""
    rng = np.random.default_rng(seed)
    coarse = rng.random((-(-height // 16), -(-width // 16)))
    amount = np.kron(coarse, np.ones((16, 16)))[:height, :width, None] * 0.8 + 0.3 + 0.1 * rng.random((height, width, 1))
    return np.rint(255 * np.exp(-amount * np.array([0.5, 1.0, 0.4]))).clip(0, 255).astype(np.uint8)


def slide(path, height=640, width=768, tissue=(64, 64, 576, 704), seed=0):
    """Lilac glass with a rectangle (y0, x0, y1, x1) of tissue on it."""
    image = np.broadcast_to(np.array(GLASS, np.uint8), (height, width, 3)).copy()
    y0, x0, y1, x1 = tissue
    image[y0:y1, x0:x1] = stained(y1 - y0, x1 - x0, seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path)
    return path


def tiles(folder, patients=4, each=2, side=160):
    """``folder/CLASS/P1_0.png``."""
    for k, name in enumerate(("Tumor", "Stroma")):
        (folder / name).mkdir(parents=True)
        for patient in range(patients):
            for i in range(each):
                Image.fromarray(stained(side, side, 100 * k + 10 * patient + i)).save(folder / name / f"P{patient}_{i}.png")
    return folder


def annotated(folder):
    """A slide with a Tumor and a Stroma square."""
    slide(folder / "s1.png")
    write_layout(folder / "s1.geojson", feature("Tumor", square(100, 100, 200)), feature("Stroma", square(360, 200, 240)))
    return folder


def spots(path, rows):
    """CSV with columns image, x, y, class."""
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([("image", "x", "y", "class"), *rows])
    return path


def settings(root, *sources, **more):
    """Settings with levels of 0.5 and 2 um/px and patches of 128 px."""
    values = {
        "root": root,
        "classes": CLASSES[1:],
        "levels": [{"name": "patch", "mpp": 0.5}, {"name": "overview", "mpp": 2.0}],
        "patch_px": 128,
        "overlap_px": 32,
        "sources": sources,
    }
    return DatasetSettings(**(values | more))
