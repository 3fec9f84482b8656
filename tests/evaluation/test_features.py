"""Features of crops: cached on disk, refused if another extractor made them or they are damaged."""

import json

import numpy as np
import pytest
from metric_pictures import save, slide_with_tissue

from wsigen.base.errors import EvaluationError
from wsigen.evaluation.features import extract, load_features, save_features
from wsigen.evaluation.report.page import check_folder
from wsigen.evaluation.sides.places import place_crops
from wsigen.evaluation.sides.sides import open_side
from wsigen.models.extractors.extractors import identity


class Mean:
    """An extractor of three numbers."""

    name, version, sha256, dimension = "mean", "1", "ab" * 32, 3
    calls = 0

    def features(self, images):
        self.calls += 1
        return images.mean((1, 2)).astype(np.float32)

    def probabilities(self, features):
        return None


class Other(Mean):
    sha256 = "cd" * 32


class Broken(Mean):
    def features(self, images):
        return np.full((len(images), 3), np.nan, np.float32)


@pytest.fixture
def side(tmp_path):
    return open_side("real", save(tmp_path / "s.tiff", slide_with_tissue(), mpp=0.5))


def test_features_are_cached(side, tmp_path):
    crops, extractor = place_crops(side, 20, 64, None, 0), Mean()
    first = extract(side, crops, extractor, tmp_path / "cache")
    calls = extractor.calls
    again = extract(side, crops, extractor, tmp_path / "cache")
    assert extractor.calls == calls == 2
    assert (again.features == first.features).all()
    extract(side, crops[:10], extractor, tmp_path / "cache")
    assert extractor.calls == calls + 1


def test_a_feature_file_of_another_extractor_is_refused(side, tmp_path):
    found = extract(side, place_crops(side, 5, 64, None, 0), Mean(), None)
    save_features(tmp_path / "f.npz", found, Mean())
    assert (load_features(tmp_path / "f.npz", Mean())[0] == found.features).all()
    with pytest.raises(EvaluationError, match="another extractor"):
        load_features(tmp_path / "f.npz", Other())
    (tmp_path / "g.npz").write_bytes(b"nothing")
    with pytest.raises(EvaluationError, match="not a feature file"):
        load_features(tmp_path / "g.npz", Mean())


@pytest.mark.parametrize(
    "what",
    ["empty", "bare", "extractor", "no json", "strings", "scalar", "wide", "cut", "pickled", "swapped"],
)
def test_whatever_lies_in_a_feature_file_is_one_line(what, tmp_path):
    file = tmp_path / "f.npz"
    good = {"features": np.ones((4, 3), np.float32), "classes": np.array(["a"] * 4), "extractor": json.dumps(identity(Mean()))}
    changed = {
        "extractor": {"extractor": "[1, 2]"},
        "no json": {"extractor": "{"},
        "strings": {"features": np.array([["a"] * 3] * 4)},
        "scalar": {"classes": np.array("a")},
        "wide": {"features": np.ones((4, 5), np.float32)},
        "pickled": {"classes": np.array([None] * 4)},
        "swapped": {"features": np.ones((4, 3), np.complex64)},
    }
    if what == "bare":
        with file.open("wb") as stream:
            np.save(stream, np.ones(3))
    else:
        np.savez_compressed(file, **{**good, **changed.get(what, {})})
    if what == "empty":
        file.write_bytes(b"")
    if what == "cut":  # a bit within the deflated stream of an array
        data = bytearray(file.read_bytes())
        data[60:90] = bytes(30)
        file.write_bytes(data)
    with pytest.raises(EvaluationError, match=r"f\.npz: (not a feature file|features of shape)"):
        load_features(file, Mean())


def test_a_report_that_cannot_be_written_is_found_at_once(tmp_path):
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(EvaluationError, match=r"--report .* cannot be written"):
            check_folder(path, "--report")
    check_folder(tmp_path / "new" / "folder", "--report")
    assert list((tmp_path / "new" / "folder").iterdir()) == []


def test_nan_is_refused(side, tmp_path):
    with pytest.raises(EvaluationError, match="not finite"):
        extract(side, place_crops(side, 5, 64, None, 0), Broken(), tmp_path)
    assert not list(tmp_path.glob("*.npz"))
    assert identity(Mean())["name"] == "mean"
