"""`wsigen evaluate` as a person uses it: numbers, report, and one line for whatever is wrong."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from drawing import feature, square, write_layout
from metric_pictures import save, slide_with_tissue, texture

import wsigen
from wsigen.evaluation.evaluate import Settings, evaluate
from wsigen.evaluation.features import TURNS, turned
from wsigen.evaluation.report.report import CLASS_HEAD, class_rows, page, rows, to_json

ROOT = Path(wsigen.__file__).parents[1]
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}


def run(*args, cwd):
    command = [sys.executable, "-m", "wsigen", "evaluate", *(str(a) for a in args)]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=110, env=ENVIRONMENT)


class Colours:
    """An extractor anybody can check: mean, deviation and gradient of the colours."""

    name, version, sha256, dimension = "colours", "1", "ab" * 32, 9

    def features(self, images):
        x = images.astype(np.float64)
        parts = [x.mean((1, 2)) - 170, x.std((1, 2)), np.abs(np.diff(x, axis=2)).mean((1, 2))]
        return (np.concatenate(parts, axis=1) / 10).astype(np.float32)

    def probabilities(self, features):
        raised = np.exp((features - features.mean(0)) / 10)
        return raised / raised.sum(1, keepdims=True)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Real, other real, like and unlike slides, each with a tumour drawn on its left half."""
    root = tmp_path_factory.mktemp("sides")
    for k, (name, how) in enumerate({"real": {}, "training": {}, "like": {}, "unlike": {"sigma": 3.0}}.items()):
        for i in range(2):
            pixels = slide_with_tissue(700, 900, box=(20, 20, 680, 880))
            pixels[20:680, 20:880] = texture(660, 860, 10 * k + i, **how)
            save(root / name / f"s{i}.tiff", pixels, mpp=0.5)
            write_layout(
                root / name / f"s{i}.geojson", feature("Tumor", square(0, 0, 450)), feature("Stroma", square(450, 0, 450))
            )
    return root


def settings(folders, synthetic, **more):
    return Settings(folders / "real", folders / synthetic, **{"crops": 150, "size_px": 48, **more})


def test_unlike_slides_are_farther(folders):
    like, unlike = (evaluate(settings(folders, name), Colours()).numbers for name in ("like", "unlike"))
    assert unlike["fid"] > 5 * like["fid"]
    assert unlike["kid"] > 5 * abs(like["kid"])
    assert like["precision"] > 0.8 > unlike["precision"]
    assert like["recall"] > 0.8
    assert like["inception_score"] >= 1
    assert like["inception_score_of_real"] == unlike["inception_score_of_real"] >= 1


def test_numbers_are_a_function_of_the_seed(folders):
    first, again, other = (evaluate(settings(folders, "like", seed=s), Colours()).numbers for s in (0, 0, 1))
    assert first == again != other


def test_classes_have_their_own_numbers_and_counts(folders):
    found = evaluate(settings(folders, "like", crops=300), Colours())
    assert set(found.by_class) == {"Tumor", "Stroma"}
    for row in found.by_class.values():
        assert row["real_crops"] > 50
        assert row["fid"] >= 0
        assert row["kid_deviation"] > 0
    assert any("class Tumor: FID means little" in w for w in found.warnings)
    for name, cells in zip(("Stroma", "Tumor"), class_rows(found), strict=True):
        row = dict(zip(CLASS_HEAD, cells, strict=True))
        own = found.by_class[name]
        assert row["class"] == name
        assert row["KID x 1000"] == f"{1000 * own['kid']:.4g} ± {1000 * own['kid_deviation']:.3g}"
        assert row["FID"] == f"{own['fid']:.4g}"
        assert row["KID x 1000"] in page(found)
    few = evaluate(settings(folders, "like", crops=60), Colours())
    assert not any("fid" in row for row in few.by_class.values())
    assert any("class Tumor" in w for w in few.warnings)


def test_copies_are_found(folders):
    """The synthetic slides are the training slides; unseen ones are not."""
    training = folders / "training"
    fresh = evaluate(settings(folders, "like", training=training), Colours())
    assert abs(fresh.numbers["c_t"]) < 3
    assert fresh.numbers["authenticity"] == pytest.approx(fresh.numbers["authenticity_of_held_out"], abs=0.15)
    copied = evaluate(Settings(folders / "real", training, training, crops=150, size_px=48), Colours())
    assert any("synthetic and training are the same in 2 of 2 files" in w for w in copied.warnings)


def test_warnings_say_when_a_number_means_nothing(folders):
    found = evaluate(settings(folders, "like"), Colours())
    text = " ".join(found.warnings)
    assert "FID means little: 150 real crops" in text
    assert "give --training" in text
    same = evaluate(settings(folders, "real"), Colours())
    assert any("real and synthetic are the same in 2 of 2 files" in w for w in same.warnings)


def test_report(folders, tmp_path):
    (tmp_path / "syn").mkdir()
    for name in ("s0.tiff", "s1.tiff", "s0.geojson", "s1.geojson"):
        (tmp_path / "syn" / name).write_bytes((folders / "like" / name).read_bytes())
    (tmp_path / "syn" / "bad.tiff").write_bytes(b"II*\0nothing")
    done = run(folders / "real", "syn", "--crops", 60, "--size", 48, "--report", "out", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    for word in ("FID", "KID", "precision", "authenticity", "embedded", "60 crops of 2 images", "bad.tiff"):
        assert word in done.stdout
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["counts"]["synthetic"] == {"images": 2, "skipped": 1, "crops": 60}
    assert len(report["extractor"]["sha256"]) == 64
    assert len(report["nearest_training"]) == 60
    assert report["numbers"]["fid"] > 0
    html = (tmp_path / "out" / "report.html").read_text()
    assert html.count("data:image/jpeg;base64,") == 2 * 24 + 2 * 16
    assert not re.search(r"(src|href)=\"(?!data:)", html)
    for title in (
        "Numbers",
        "Random crops",
        "Nearest neighbours",
        "Precision and recall",
        "By class",
        "Distance to the nearest",
    ):
        assert title in html
    assert report["extractor"]["sha256"][:12] in html
    assert len(list((tmp_path / "out" / "features").glob("*.npz"))) == 2


def test_bad_input_is_one_line(folders, tmp_path):
    real = folders / "real"
    save(tmp_path / "glass.tiff", np.full((400, 400, 3), 243, np.uint8), 0.5)
    save(tmp_path / "coarse.tiff", slide_with_tissue(), 2.0)
    cases = [
        ((real, "nowhere"), "no such slide"),
        ((real, real, "--crops", 3), "too few"),
        ((real, real, "--features", "resnet"), "no such extractor"),
        ((real, "glass.tiff"), "no crop can be taken"),
        ((real, real, "--training-crops", 500), "--training-crops: there is no --training"),
        ((real, "coarse.tiff"), "different um/px"),
    ]
    for args, message in cases:
        done = run("--size", 64, *args, cwd=tmp_path)
        assert done.returncode == 2, args
        assert message in done.stderr
        assert done.stderr.strip().count("\n") == 0
        assert "Traceback" not in done.stderr


def test_a_cached_file_of_another_extractor_is_refused(folders, tmp_path):
    """Somebody exchanged a file in the cache."""
    from wsigen.base.errors import EvaluationError
    from wsigen.evaluation.features import FeatureSet, save_features

    class Other(Colours):
        sha256 = "cd" * 32

    evaluate(settings(folders, "like", cache=tmp_path), Colours())
    for file in tmp_path.glob("real-*.npz"):
        save_features(file, FeatureSet(np.ones((150, 9), np.float32), [], [None] * 150), Other())
    with pytest.raises(EvaluationError, match="another extractor"):
        evaluate(settings(folders, "like", cache=tmp_path), Colours())


_MEASURE = """
import resource, sys
from pathlib import Path
from test_evaluation import Colours
from wsigen.evaluation.evaluate import evaluate
from wsigen.evaluation.evaluate import Settings
import sklearn.cluster, scipy.ndimage, tiffslide
side = Path(sys.argv[1])
evaluate(Settings(side, side, crops=60, size_px=128), Colours())
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


@pytest.mark.slow
def test_twenty_slides_take_the_memory_of_two(tmp_path):
    peaks = []
    for n in (2, 20):
        first = save(tmp_path / str(n) / "s0.tiff", texture(2048, 2048, 0), mpp=0.5)
        for i in range(1, n):
            (first.parent / f"s{i}.tiff").write_bytes(first.read_bytes())
        paths = {**ENVIRONMENT, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests"), str(Path(__file__).parent)])}
        command = [sys.executable, "-c", _MEASURE, str(first.parent)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=110, env=paths)
        assert done.returncode == 0, done.stderr
        peaks.append(int(done.stdout))
    assert peaks[1] <= 1.1 * peaks[0]


def patchwork(height, width, seed, patch=96):
    """Tissue whose colour, contrast and grain change from place to place, as a slide's do: no two places look alike."""
    rng = np.random.default_rng(seed)
    out = np.empty((height, width, 3), np.uint8)
    for y in range(0, height, patch):
        for x in range(0, width, patch):
            part = out[y : y + patch, x : x + patch]
            own = texture(*part.shape[:2], int(rng.integers(1 << 30)), rng.uniform(0.6, 3), rng.uniform(6, 25))
            part[:] = np.clip(own + rng.uniform(-45, 30, 3), 0, 255)
    return out


@pytest.fixture(scope="module")
def copied(tmp_path_factory):
    """Training and held-out slides, and synthetic ones that are training slides in every pixel but in no byte."""
    root = tmp_path_factory.mktemp("copied")
    for k, name in enumerate(("training", "held_out", "fresh")):
        for i in range(2):
            save(root / name / f"s{i}.tiff", patchwork(576, 768, 10 * k + i), mpp=0.5)
    for i in range(2):
        save(root / "copies" / f"s{i}.png", patchwork(576, 768, i))
    return root


def test_copied_slides_are_found_whatever_their_bytes(copied):
    """Verbatim copies of training slides, stored otherwise: no file is the same, every crop is."""
    how = {"training": copied / "training", "crops": 150, "size_px": 48, "synthetic_mpp": 0.5}
    found = evaluate(Settings(copied / "held_out", copied / "copies", **how), Colours())
    assert found.numbers["training_coverage"] > 0.95
    assert found.numbers["c_t"] < -3
    assert found.numbers["share_too_near"] > 0.3
    assert not any("the same" in w or "cover" in w for w in found.warnings)
    fresh = evaluate(Settings(copied / "held_out", copied / "fresh", **how), Colours())
    assert abs(fresh.numbers["c_t"]) < 3


def test_copies_that_cannot_be_seen_are_warned_of(copied):
    """Fifty training crops cover a small part of two slides."""
    how = {"training": copied / "training", "crops": 150, "size_px": 48, "synthetic_mpp": 0.5, "training_crops": 50}
    found = evaluate(Settings(copied / "held_out", copied / "copies", **how), Colours())
    covered = found.numbers["training_coverage"]
    assert covered < 0.1
    assert any(f"training crops cover {covered:.0%} of the training tissue; copies of the rest" in w for w in found.warnings)
    readings = {row.key: row.reading for row in rows(found)}
    assert f"sees {covered:.0%} of the training tissue" in readings["c_t"]
    assert "of the training tissue" in readings["authenticity"]


def test_nearest_crops_can_be_visible_on_their_slides(copied):
    """File and box at level 0, of crops that were compared at half the resolution; copies lie where their originals do."""
    how = {"training": copied / "training", "crops": 100, "size_px": 48, "synthetic_mpp": 0.5, "mpp": 1.0}
    how["seam_period"] = 96  # the side of the patches, whose borders anybody can find
    found = evaluate(Settings(copied / "held_out", copied / "copies", **how), Colours())
    report = json.loads(json.dumps(to_json(found), allow_nan=False))
    (seams,) = report["seams"]
    assert (seams["name"], seams["slides"], seams["visible_on"]) == ("every 96 px", 2, 2)
    assert len(report["nearest_training"]) == 100
    near = 0
    for pair in report["nearest_training"]:
        ours, theirs = pair["synthetic"], pair["training"]
        assert (ours["width"], theirs["height"]) == (96, 96)
        assert Path(ours["file"]).parent == copied / "copies"
        same = Path(ours["file"]).stem == Path(theirs["file"]).stem
        near += same and max(abs(ours["x"] - theirs["x"]), abs(ours["y"] - theirs["y"])) <= 72
    assert near > 50
    first, crop = report["nearest_training"][0]["synthetic"], found.sets["synthetic"].crops[0]
    assert (first["x"], first["y"]) == (2 * crop.box.x0, 2 * crop.box.y0)
    hits = {Path(h["file"]).name: h for h in report["nearest_by_slide"]}
    assert sum(h["hits"] for h in hits.values()) == 100
    assert sum(h["crops"] for h in hits.values()) == len(found.sets["training"].crops)
    html = page(found)
    assert re.search(r"<figcaption>[\d.e-]+<br>s\d.png @ \d+,\d+<br>s\d.tiff @ \d+,\d+<", html)


class Places(Colours):
    """An extractor to which a turned crop is another crop: brightness of 4 x 4 places."""

    name, dimension = "places", 16

    def features(self, images):
        n, side = len(images), images.shape[1] // 4
        return images.reshape(n, 4, side, 4, side, 3).mean((2, 4, 5)).reshape(n, 16).astype(np.float32)


def test_turned_copies_are_found_in_every_orientation(tmp_path):
    """Each of the eight; numbers of fidelity stay as they are."""
    for k, name in enumerate(("training", "held_out")):
        for i in range(50):
            pixels = texture(64, 64, 100 * k + i, sigma=6.0)
            save(tmp_path / name / "Tumor" / f"{i}.png", pixels)
            if name == "training":
                save(tmp_path / "copies" / "Tumor" / f"{i}.png", turned(pixels, i % TURNS))
    how = {"training": tmp_path / "training", "crops": 50, "size_px": 64}
    upright, both = (
        evaluate(Settings(tmp_path / "held_out", tmp_path / "copies", turned=asked, **how), Places()) for asked in (False, True)
    )
    assert upright.numbers["authenticity"] > 0.3
    assert both.numbers["authenticity"] == 0
    assert both.numbers["share_too_near"] == 1
    assert both.numbers["c_t"] < -3
    files = [Path(pair[side]["file"]).name for pair in to_json(both)["nearest_training"] for side in ("synthetic", "training")]
    assert files[::2] == files[1::2]
    assert both.numbers["authenticity_of_held_out"] > 0.1
    assert upright.numbers["fid"] == both.numbers["fid"]
    assert "in eight orientations" in page(both)
    assert "only with --turned" in page(upright)


def test_an_unreadable_slide_is_named_once(folders, tmp_path):
    for i in range(2):
        (tmp_path / f"s{i}.tiff").write_bytes((folders / "like" / f"s{i}.tiff").read_bytes())
    (tmp_path / "broken.tiff").write_bytes(b"II*\0" + bytes(range(200)))
    found = evaluate(
        Settings(folders / "real", tmp_path, training=tmp_path, training_crops=60, crops=60, size_px=48), Colours()
    )
    assert "\n".join(found.warnings).count("broken.tiff") == 1


def test_a_bad_geojson_is_a_warning(folders, tmp_path):
    for i in range(2):
        (tmp_path / f"s{i}.tiff").write_bytes((folders / "like" / f"s{i}.tiff").read_bytes())
    (tmp_path / "s0.geojson").write_text("{")
    found = evaluate(Settings(folders / "real", tmp_path, crops=60, size_px=48), Colours())
    assert sum("s0.geojson" in w for w in found.warnings) == 1
    assert found.counts["synthetic"] == {"images": 2, "skipped": 0, "crops": 60}
