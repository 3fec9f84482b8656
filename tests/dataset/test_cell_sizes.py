"""Class maps in cells of any size: what a training reads fits its pixels, whatever the factor of the latents."""

import json

import numpy as np
import pytest
from PIL import Image

from wsigen.base.errors import DatasetError
from wsigen.dataset.dataset import open_dataset
from wsigen.dataset.latents import cache_latents
from wsigen.dataset.settings import DatasetSettings

SIDE, PATCH = 360, 128  # the last patches of a side begin at 232, a multiple of 8 and not of 16


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    """A picture of squares of 16 px; those that are drawn as "A" are dark."""
    root = tmp_path_factory.mktemp("cells").resolve()
    dark = np.random.default_rng(0).random((-(-SIDE // 16),) * 2) < 0.5
    pixels = np.where(dark, 60, 180).astype(np.uint8).repeat(16, axis=0).repeat(16, axis=1)[:SIDE, :SIDE]
    Image.fromarray(np.stack([pixels, pixels // 2, pixels], axis=-1)).save(root / "a.png")  # in colour, as tissue is
    features = [_square("A", 16 * x, 16 * y, 16) for y, x in np.argwhere(dark).tolist()]
    features.append(_square("B", 0, 0, SIDE))  # the smaller ones win
    (root / "a.geojson").write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    content = {
        "root": root,
        "classes": [{"name": name, "color": [200, 0, 0]} for name in "AB"],
        "levels": [{"name": "patch", "mpp": 0.5}],
        "patch_px": PATCH,
        "sources": [{"kind": "annotated", "images": "*.png", "mpp": 0.5}],
    }
    return open_dataset(DatasetSettings.model_validate(content), root / "cache")


def _square(name, x, y, side):
    ring = [[x, y], [x + side, y], [x + side, y + side], [x, y + side], [x, y]]
    geometry = {"type": "Polygon", "coordinates": [ring]}
    return {"type": "Feature", "geometry": geometry, "properties": {"classification": {"name": name}}}


def _seen(images, cell):
    """The classes that the middles of cells of the pixels show."""
    return np.where(images[:, cell // 2 :: cell, cell // 2 :: cell, 0] < 120, 0, 1)


def _means(images, cell):
    b, h, w, _ = images.shape
    return images.reshape(b, h // cell, cell, w // cell, cell, 3).astype(np.float32).mean((2, 4)).transpose(0, 3, 1, 2)


@pytest.mark.parametrize("cell", [1, 4, 8, 16])
def test_class_maps_of_crops_fit_their_pixels(dataset, cell):
    batch = dataset.crops("training", 64, 3, cell_px=cell).batch(0, 12)
    assert batch.class_maps.shape == (12, 64 // cell, 64 // cell)
    # half of them are jittered in stain, which keeps dark and light apart
    assert np.array_equal(batch.class_maps, _seen(batch.images, cell))


@pytest.mark.parametrize("cell", [4, 8, 16])
def test_class_maps_of_latents_fit_them(dataset, tmp_path, cell):
    cache = cache_latents(dataset, lambda i: _means(i, cell), tmp_path / "latents", "key", variants=2, cell_px=cell)
    latents, classes = cache.group["latents"][:], cache.group["classes"][:]
    side = PATCH // cell
    assert latents.shape[-2:] == classes.shape[-2:] == (side, side)
    assert np.array_equal(classes, np.where(latents[:, :, 0] < 120, 0, 1))


def test_cells_that_do_not_fit_a_patch_or_a_crop_are_refused(dataset, tmp_path):
    with pytest.raises(DatasetError, match="patch_px 128: latents of 1/12 of the image need a multiple of 12"):
        cache_latents(dataset, lambda i: i, tmp_path / "latents", "key", cell_px=12)
    with pytest.raises(DatasetError, match="crops of 72 px: give a multiple of 16"):
        dataset.crops("training", 72, 0, cell_px=16)
