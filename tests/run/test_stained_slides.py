import json

import numpy as np
import tifffile
from runs import settings_of

from wsigen.run.generate import generate
from wsigen.slide.stain import Stain, known_stains


def test_a_stain_is_applied_where_pixels_are_decoded(bundle, tmp_path):
    """The same slide, stained after it was made, is the stained slide; the manifest says which stain it was."""
    settings = settings_of(bundle, tmp_path, compression="deflate", steps=1, keep_run=False)
    plain = generate(tmp_path / "plain.ome.tiff", **settings)
    stained = generate(tmp_path / "stained.ome.tiff", stain="aged", **settings)
    glass = (235, 235, 240)
    expected = known_stains()["aged"].apply(tifffile.imread(plain.slide), glass)
    assert np.array_equal(tifffile.imread(stained.slide), expected)
    assert Stain(**json.loads(stained.manifest.read_text())["stain"]) == known_stains()["aged"]
    assert plain.level0_sha256 != stained.level0_sha256
