"""Slides to be edited."""

import numpy as np
import pytest
from editing_making import SIZE, drawing
from slide_making import make_slide, tissue

from wsigen.slide.pyramid import PyramidSpec


@pytest.fixture(scope="session")
def parent(tmp_path_factory):
    """A synthetic slide of tissue without annotations."""
    folder = tmp_path_factory.mktemp("parent")
    spec = PyramidSpec(SIZE[1], SIZE[0], 0.5, 20.0, tile=128, block=1024)
    return make_slide(folder, spec, tissue(*SIZE))


@pytest.fixture(scope="session")
def scanned(tmp_path_factory):
    """The same as a pyramidal TIFF that no program of ours wrote."""
    import tifffile

    path = tmp_path_factory.mktemp("scanned") / "scan.tif"
    rgb = tissue(*SIZE)
    more = {"tile": (256, 256), "photometric": "rgb", "compression": "deflate", "resolutionunit": "CENTIMETER"}
    with tifffile.TiffWriter(path) as tif:
        tif.write(rgb, resolution=(2e4, 2e4), description="a scanner|MPP = 0.5", **more)
        tif.write(np.ascontiguousarray(rgb[::2, ::2]), subfiletype=1, resolution=(1e4, 1e4), **more)
    return path


@pytest.fixture
def settings(bundle, tmp_path):
    regions = drawing(tmp_path / "edit.geojson", (900, 700, 160, 120, "Tumor"))
    base = {"regions": regions, "model": str(bundle), "steps": 2, "margin_um": 20.0, "seed": 3}
    return {**base, "chunk": 64, "workers": 1, "threads": 1, "batch": 2}
