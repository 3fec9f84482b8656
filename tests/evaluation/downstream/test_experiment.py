"""`wsigen evaluate downstream` on data whose answer is known, and everything its sides can be wrong in."""

import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from dataset.dataset_making import CLASSES
from evaluation.downstream.downstream_making import DEEP, slides, tiles
from metric_pictures import save, texture

import wsigen
from wsigen.base.errors import EvaluationError
from wsigen.evaluation.downstream.experiment import _open, run_downstream
from wsigen.evaluation.downstream.label_fidelity import label_fidelity
from wsigen.evaluation.downstream.report import page, to_json, write_downstream
from wsigen.evaluation.downstream.results import ARMS, FOLDS, Settings
from wsigen.layout.class_names import WrittenClasses

ROOT = Path(wsigen.__file__).parents[1]
QUICK = {"folds": 2, "seeds": 1, "epochs": 16, "size_px": 64, "batch": 8}


@pytest.fixture(scope="module")
def sides(tmp_path_factory):
    root = tmp_path_factory.mktemp("sides")
    tiles(root / "real")
    tiles(root / "like", seed=1)
    tiles(root / "swapped", seed=2, swap=1.0)
    return root


@pytest.fixture(scope="module")
def like(sides):
    return run_downstream(Settings(sides / "real", sides / "like", **QUICK))


def accuracy(found, arm, test=FOLDS):
    return found.score(arm, test, "balanced_accuracy").mean


def test_textures_anybody_can_tell_apart_are_told_apart(like):
    assert accuracy(like, "real") > 0.9
    assert accuracy(like, "synthetic") > 0.9
    assert like.score("both", FOLDS, "f1").mean > 0.8


def test_synthetic_crops_with_random_labels_teach_nothing(sides):
    found = run_downstream(Settings(sides / "real", sides / "swapped", **QUICK))
    assert 0.2 < accuracy(found, "synthetic") < 0.8
    assert accuracy(found, "both") <= accuracy(found, "real")
    assert found.gain("synthetic", FOLDS, "balanced_accuracy").mean < -0.2


def test_no_patient_is_on_both_sides_of_a_fold(like):
    assert sorted(g for groups in like.folds for g in groups) == ["P0", "P1", "P2", "P3"]
    tested = [sum(r.confusion.sum() for r in like.of(arm, FOLDS)) for arm in ARMS]
    assert tested == [80, 80, 80]  # each real crop once an arm


def test_every_arm_takes_the_same_steps_and_the_ratio_holds(sides):
    seen = []
    short = {**QUICK, "epochs": 1, "ratio": 0.5}
    found = run_downstream(Settings(sides / "real", sides / "like", **short), lambda *what: seen.append(what))
    assert found.used == (40, 20)
    done = {what: total for what, n, total in seen if what.endswith("steps") and n == total}
    assert set(done.values()) == {found.steps} == {5}
    assert len(done) == 1 + 2 * 2


def test_a_seed_gives_the_same_table_and_another_one_another(sides):
    settings = Settings(sides / "real", sides / "like", **{**QUICK, "epochs": 2})
    tables = [to_json(run_downstream(s))["runs"] for s in (settings, settings, replace(settings, seed=5))]
    assert tables[0] == tables[1] != tables[2]


def test_equal_sides_are_said_to_be_equal(sides):
    found = run_downstream(Settings(sides / "real", sides / "real", tests=(sides / "real",), **{**QUICK, "epochs": 1}))
    text = " ".join(found.warnings)
    assert "real and synthetic are the same in 80 of 80 files" in text
    assert "80 of 80 files are in REAL, too" in text


def test_other_datasets_are_tested_without_training_on_them(sides, tmp_path):
    tiles(tmp_path / "other", patients=1, each=12, seed=7)
    settings = Settings(sides / "real", sides / "like", tests=(tmp_path / "other",), **{**QUICK, "folds": 0})
    found = run_downstream(settings)
    assert found.tests == [str(tmp_path / "other")]
    assert found.used == (80, 80)
    assert accuracy(found, "real", found.tests[0]) > 0.9
    assert found.counts[found.tests[0]] == {"Stroma": 12, "Tumor": 12}


def test_a_test_side_may_be_called_as_another_side_is(monkeypatch, tmp_path):
    """`--test real` is a folder, and the name of the first side."""
    for name in ("real", "synthetic", "other"):
        save(tmp_path / name / "Tumor" / "a.png", texture(64, 64, 0))
    monkeypatch.chdir(tmp_path)
    here = [Path(name) for name in ("real", "synthetic", "other")]
    opened = _open(Settings(here[0], here[2], tests=tuple(here)), WrittenClasses(), None)
    assert {key: side.path for key, side in opened.items()} == {
        "real": here[0],
        "synthetic": here[2],
        "./real": here[0],
        "./synthetic": here[1],
        "other": here[2],
    }
    with pytest.raises(EvaluationError, match="--test real: given twice"):
        _open(Settings(*here[:2], tests=(here[0], here[0])), WrittenClasses(), None)


def test_masks_of_annotated_slides_are_learnt(tmp_path):
    slides(tmp_path / "real", count=3)
    slides(tmp_path / "synthetic", count=2, seed=9)
    settings = Settings(
        tmp_path / "real",
        tmp_path / "synthetic",
        task="segmentation",
        crops=48,
        folds=2,
        seeds=1,
        epochs=24,
        size_px=96,
        batch=8,
        groups=r"(s\d)",
    )
    found = run_downstream(settings)
    assert accuracy(found, "real") > 0.8
    assert found.runs[0].confusion.sum() % 96**2 == 0  # all is labelled: pixels of whole crops
    assert sorted(g for groups in found.folds for g in groups) == ["s0", "s1", "s2"]
    read = label_fidelity(found)
    assert read.mean.dice.mean > 0.7
    assert read.mean.dice_of_real.mean > 0.7
    assert to_json(found)["label_fidelity"]["classes"][0]["name"] == read.classes[0].name
    assert "Label fidelity" in page(found)


def test_a_dataset_tests_on_its_held_out_patients(tmp_path, sides):
    tiles(tmp_path / "tiles", patients=6, seed=3)
    for path in sorted((tmp_path / "tiles").glob("*/*/*.png")):  # a dataset has CLASS/TILE
        path.rename(path.parents[1] / f"{path.parent.name}_{path.name}")
    values = {
        "classes": CLASSES[1:],
        "levels": [{"name": "patch", "mpp": 0.5}],
        "patch_px": 64,
        "overlap_px": 0,
        "sources": [{"kind": "tiles", "folder": "tiles", "mpp": 0.5}],
        "groups": {"pattern": r"(P\d)"},
        "held_out": ["P2", "P3", "P5"],
    }
    for folder in (tmp_path / "tiles").iterdir():
        if not any(folder.iterdir()):
            folder.rmdir()
    for empty in [p for p in (tmp_path / "tiles").glob("*/*") if p.is_dir()]:
        empty.rmdir()
    dataset = tmp_path / "dataset.yaml"
    dataset.write_text(yaml.safe_dump(values))
    found = run_downstream(Settings(dataset, sides / "like", synthetic_mpp=0.5, **{**QUICK, "epochs": 1}))
    assert sorted(g for groups in found.folds for g in groups) == ["P2", "P3", "P5"]


def test_the_report_and_the_command(like, sides, tmp_path):
    numbers, html = write_downstream(like, tmp_path / "out")
    report = json.loads(numbers.read_text())
    assert {m["arm"] for m in report["means"]} == set(ARMS)
    assert len(report["runs"]) == 2 * 3
    page = html.read_text()
    for title in ("Scores", "Over seeds and folds", "Confusions", "Crops by class", "Folds"):
        assert title in page
    assert not re.search(r"(src|href)=\"(?!data:)", page)
    assert page.count("data:image/jpeg") == 2 * 2 * 8
    options = ["--folds", "2", "--seeds", "1", "--epochs", "1", "--size", "64", "--batch", "8", "--out", "cli"]
    done = run(sides / "real", sides / "like", *options, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    for word in ("balanced accuracy", "recall Tumor", "both", "the same 5 steps"):
        assert word in done.stdout
    assert "seed 1 of 1, fold 2 of 2, trained on both: steps 5 of 5" in done.stderr
    assert sorted(p.name for p in (tmp_path / "cli").iterdir()) == ["downstream.html", "downstream.json"]


def run(*args, cwd):
    command = [sys.executable, "-m", "wsigen", "evaluate", "downstream", *(str(a) for a in args)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=110, env=environment)


def test_bad_input_is_one_line(sides, tmp_path):
    done = run(sides / "real", "nowhere", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.strip().count("\n") == 0
    assert "no such slide" in done.stderr


def refused(match, real, synthetic, **more):
    with pytest.raises(EvaluationError, match=match):
        run_downstream(Settings(real, synthetic, **{**QUICK, "epochs": 1, **more}))


def test_what_is_refused(sides, tmp_path):
    real, like = sides / "real", sides / "like"
    refused(r"--folds 1: give 2 or more", real, like, folds=1)
    refused(r"give --test, or --folds 5", real, like, folds=0)
    refused("folds are impossible: 9 of them and 4 patients", real, like, folds=9)
    refused("no masks|none of 80 crops has a mask", real, like, task="segmentation")
    refused("not known; give small or timm", real, like, network="resnet")
    refused("contradict one another", real, like, network="timm:hf-hub:timm/resnet18.a1_in1k@w.safetensors")
    refused("not usable here", real, like, device="cuda:99")
    refused("--groups", tiles_without_patients(tmp_path / "flat"), like)
    refused("nobody says of which patient", slides(tmp_path / "annotated"), slides(tmp_path / "other", seed=1))
    refused("in one patient or slide only|folds are impossible", tiles(tmp_path / "one", patients=1, each=25), like)
    refused("--crops 3: too few", real, like, crops=3)
    save(tmp_path / "a.tiff", texture(300, 300, 0), 0.5)
    refused("has a class", tmp_path / "a.tiff", like, synthetic_mpp=0.5)


def test_groups_are_found_in_names(sides, tmp_path):
    flat = tiles_without_patients(tmp_path / "flat")
    settings = Settings(flat, sides / "like", groups=r"(P\d)_", **{**QUICK, "epochs": 1})
    assert sorted(g for groups in run_downstream(settings).folds for g in groups) == ["P0", "P1", "P2"]


def tiles_without_patients(folder):
    tiles(folder, patients=3, seed=5)
    for path in sorted(folder.glob("*/*/*.png")):
        path.rename(path.parents[1] / f"{path.parent.name}_{path.name}")
    return folder


def test_classes_of_one_side_are_left_out_and_said(sides, tmp_path):
    tiles(tmp_path / "real", seed=4)
    for i in range(25):
        save(tmp_path / "real" / "Fat" / f"P{i % 3}" / f"{i}.png", texture(64, 64, [9, i], **DEEP))
    found = run_downstream(Settings(tmp_path / "real", sides / "like", **{**QUICK, "epochs": 1}))
    assert found.classes == ["Stroma", "Tumor"]
    assert any("class Fat is left out: 25 real and 0 synthetic crops" in w for w in found.warnings)
    for i in range(25):
        save(tmp_path / "fat" / "Fat" / "P0" / f"{i}.png", texture(64, 64, [9, i], **DEEP))
    refused(r"no two classes .*real has .*Tumor \(40\).*synthetic has Fat \(25\)", sides / "real", tmp_path / "fat")


def test_sides_of_different_um_per_px_must_be_said(tmp_path):
    slides(tmp_path / "real")
    slides(tmp_path / "coarse", mpp=1.0)
    refused(r"different um/px .*--mpp 1", tmp_path / "real", tmp_path / "coarse")


def test_damaged_tiles_are_named_and_the_rest_goes_on(sides, tmp_path):
    tiles(tmp_path / "like", seed=6)
    (tmp_path / "like" / "Tumor" / "P0" / "bad.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    found = run_downstream(Settings(sides / "real", tmp_path / "like", **{**QUICK, "epochs": 1}))
    assert any("bad.png" in w for w in found.warnings)
