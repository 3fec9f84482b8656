"""A tiny training on label images."""

import csv

import numpy as np
import torch
import yaml
from dataset.dataset_making import CLASSES, settings
from PIL import Image
from train_tiny import make_denoiser

from wsigen.base.geometry import Box
from wsigen.dataset import open_dataset
from wsigen.dataset.latents import LatentBatch
from wsigen.evaluation.sides.sides import open_side


def masked(folder, noise=12):
    """An image of two stains in squares, and its mask at an eighth of its size."""
    rng = np.random.default_rng(0)
    mask = np.kron(rng.integers(1, 3, (8, 8)), np.ones((8, 8), int)).astype(np.uint8)
    stains = np.array([[0, 0, 0], [150, 60, 150], [225, 130, 190]])
    image = stains[np.kron(mask, np.ones((8, 8), int))] + rng.normal(0, noise, (512, 512, 3))
    for name, pixels in (("images/a.png", image.clip(0, 255).astype(np.uint8)), ("labels/a.png", mask)):
        (folder / name).parent.mkdir()
        Image.fromarray(pixels).save(folder / name)
    return {"kind": "masks", "images": "images", "mpp": 0.5, "masks": "labels", "values": {1: "Tumor", 2: "Stroma"}}


class Pooled:
    """Crops of a dataset, with the means of their cells as latents."""

    def __init__(self, crops):
        self.crops = crops

    def batch(self, step, count):
        b = self.crops.batch(step, count)
        cells = b.images.reshape(count, 8, 8, 8, 8, 3).mean((2, 4)) / 127.5 - 1
        latents = np.concatenate([cells, cells[..., :1]], -1).transpose(0, 3, 1, 2).astype(np.float32)
        return LatentBatch(3 * latents, b.class_maps, b.levels, b.labelled)


def test_a_denoiser_learns_from_masks(tmp_path):
    torch.set_num_threads(1)
    config = settings(tmp_path, masked(tmp_path), classes=CLASSES[1:], levels=[{"name": "patch", "mpp": 0.5}])
    crops = open_dataset(config, tmp_path / "cache").crops("training", 64, 0, augment=False)
    batch = crops.batch(0, 8)
    means = [batch.images.reshape(8, 8, 8, 8, 8, 3).mean((2, 4))[batch.class_maps == k].mean(0) for k in (0, 1)]
    np.testing.assert_allclose(means, [[150, 60, 150], [225, 130, 190]], atol=2)  # what is labelled is what was stained
    make_denoiser(
        tmp_path / "out", stream=Pooled(crops), conditioning={"kind": "class-map"}, loop={"steps": 60, "learning_rate": 5e-3}
    )
    with (tmp_path / "out" / "losses.csv").open() as file:
        losses = [float(row["loss"]) for row in csv.DictReader(file)]
    assert np.mean(losses[-15:]) < 0.8 * np.mean(losses[:5])


def test_evaluation_reads_the_masks_of_a_dataset(tmp_path):
    values = {"classes": CLASSES[1:], "levels": [{"name": "patch", "mpp": 0.5}], "patch_px": 128, "sources": [masked(tmp_path)]}
    (tmp_path / "set.yaml").write_text(yaml.safe_dump(values))
    side = open_side("real", tmp_path / "set.yaml#all")
    mask = np.asarray(Image.open(tmp_path / "labels" / "a.png"))
    layout = side.layout(0)
    assert layout is not None
    np.testing.assert_array_equal(layout.class_map(Box(0, 0, 64, 64), 8), mask - 1)
