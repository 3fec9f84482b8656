"""Cohorts made with a tiny model: what lies there, that it goes on, and that pixels depend on nothing but the plan."""

import csv
import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import yaml
from PIL import Image

import wsigen.cohort.make as making
from wsigen.base.errors import ConfigError, RunError, WsigenError
from wsigen.cohort.export.export import export_cohort
from wsigen.cohort.make import make_cohort
from wsigen.cohort.plan import read_plan
from wsigen.cohort.regenerate import regenerate_cohort
from wsigen.cohort.verify import verify_cohort


def digests(folder):
    return {
        path.stem: json.loads(path.read_text())["sha256"]["level0_tiles"] for path in sorted((folder / "slides").glob("*.json"))
    }


@pytest.fixture
def plan(content, write):
    return write(content)


def test_a_cohort_is_complete_and_says_nothing_of_the_machine(plan, tmp_path, monkeypatch):
    out = tmp_path / "cohort"
    cohort = make_cohort(plan, out, workers=2)
    assert cohort.complete
    assert not cohort.failed
    assert verify_cohort(out).good
    _read_as_data(out)
    _read_labels(out)
    _read_croissant(out)
    for path in out.rglob("*"):
        if path.is_file() and path.suffix not in (".png", ".jpg", ".tiff"):
            assert str(tmp_path).encode() not in path.read_bytes(), path
    card = (out / "README.md").read_text()
    front = yaml.safe_load(card.split("---\n")[1])
    assert (front["license"], front["size_categories"]) == ("cc0-1.0", ["n<1K"])
    assert "synthetic" in front["tags"]
    assert card.count("not measured") == 2
    assert "anonymous" not in card.lower()
    assert not (out / ".making").exists()
    _verify_notices(out)
    _make_again_what_is_lost(plan, out)
    _believe_no_names_of_strangers(out)
    _regenerate(plan, out)
    _grow_where_there_is_no_room(plan, out, monkeypatch)
    _grow(plan, out)


def _read_as_data(out):
    from wsigen.dataset.dataset import open_dataset

    dataset = open_dataset(out / "dataset.yaml", out.parent / "cache", False, lambda *_: None)
    rows = list(csv.DictReader((out / "cohort.csv").open()))
    held_out = {row["slide"] for row in rows if row["split"] != "train"}
    assert len(dataset.members) == 4
    assert all(member.labelled for member in dataset.members)
    assert {row["slide"] for row in rows} > {member.name for member in dataset.held_out} == held_out
    assert dataset.table.names == ["Glass", "Tumor", "Stroma"]  # the layouts show no more of the model's classes


def _read_labels(out):
    """The label image is what the annotations say: areas agree."""
    table = {row["class"]: int(row["value"]) for row in csv.DictReader((out / "labels/classes.csv").open())}
    for row in csv.DictReader((out / "cohort.csv").open()):
        cells = np.asarray(Image.open(out / row["labels"]))
        assert cells.shape == (-(-int(row["height"]) // 8), -(-int(row["width"]) // 8))
        for name in ("Tumor", "Stroma"):
            assert abs((cells == table[name]).sum() * 64 - float(row[f"area_px_{name}"])) <= 64 * sum(cells.shape)


def _read_croissant(out):
    mlcroissant = pytest.importorskip("mlcroissant")
    dataset = mlcroissant.Dataset(jsonld=str(out / "croissant.json"))
    assert dataset.metadata.ctx.issues.report() == ""
    assert len(list(dataset.records("slides_table"))) == 4
    content = json.loads((out / "croissant.json").read_text())
    assert content["rai:hasSyntheticData"] is True
    assert content["rai:dataCollectionType"] == ["Synthetic"]


def _verify_notices(out):
    slide = next((out / "slides").glob("*.tiff"))
    whole = slide.read_bytes()
    slide.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    manifest = next((out / "slides").glob("demo-drawn*.json"))
    said = manifest.read_text()
    manifest.write_text(said.replace('"seed": ', '"seed": 1'))
    (out / "stranger.txt").write_text("?")
    problems = "\n".join(verify_cohort(out).problems)
    assert f"slides/{slide.name}: is altered" in problems
    assert "seed is 1" in problems
    assert "stranger.txt: is not in SHA256SUMS" in problems
    slide.write_bytes(whole)
    manifest.unlink()
    assert verify_cohort(out).missing == (manifest.stem,)
    manifest.write_text(said)
    (out / "stranger.txt").unlink()
    assert verify_cohort(out).good


def _make_again_what_is_lost(plan, out):
    """A label image that was changed stays a wrong one, whatever is written anew; one that is gone is made again."""
    before = digests(out)
    label = next(path for path in sorted((out / "labels").glob("*.png")))
    whole = label.read_bytes()
    label.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    assert make_cohort(plan, out, workers=1).complete
    problems = "\n".join(verify_cohort(out).problems)
    assert f"labels/{label.name}: is altered" in problems
    label.unlink()
    assert verify_cohort(out).missing == (label.stem,)
    assert make_cohort(plan, out, workers=1).complete
    assert label.read_bytes() == whole
    assert verify_cohort(out).good
    assert digests(out) == before


def _believe_no_names_of_strangers(out):
    """No recipe and no table makes a file outside its folder."""
    recipe, table = (out / "recipe.yaml").read_text(), (out / "cohort.csv").read_text()
    for name in ("../../profile", "/tmp/profile", "C:\\profile"):
        content = yaml.safe_load(recipe)
        content["inputs"][name] = "0" * 64
        (out / "recipe.yaml").write_text(yaml.safe_dump(content))
        with pytest.raises(ConfigError, match="lies outside the cohort"):
            regenerate_cohort(out)
    for key, value in (("root", "/"), ("stain", {"/etc/stain.yaml": 1.0}), ("settings", {"layout_classes": "/etc/passwd"})):
        content = yaml.safe_load(recipe)
        content["plan"][key] = value
        (out / "recipe.yaml").write_text(yaml.safe_dump(content))
        with pytest.raises(ConfigError, match="is none of its 'inputs'"):
            regenerate_cohort(out)
    for key, value in (("layouts", ["/etc/hostname"]), ("references", "../scan.svs"), ("mask_model", "/mask")):
        content = yaml.safe_load(recipe)
        content["plan"]["parts"][0][key] = value
        (out / "recipe.yaml").write_text(yaml.safe_dump(content))
        with pytest.raises(ConfigError, match="is none of its 'inputs'"):
            regenerate_cohort(out)
    (out / "recipe.yaml").write_text(recipe)
    rows = list(csv.DictReader(table.splitlines()))
    for column, name in (("split", "../../escape"), ("id", "a/b"), ("slide", "../x.ome.tiff"), ("labels", "/etc/passwd")):
        with (out / "cohort.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows([{**rows[0], column: name}])
        with pytest.raises(WsigenError, match=f"line 2: '{column}' is '{name}', which names no file"):
            export_cohort(out, out.parent / "tiles", tiles=256)
    (out / "cohort.csv").write_text(table)


def _regenerate(plan, out):
    model = read_plan(plan).model
    place = {name.rpartition("/")[2]: name for name in model}
    again = regenerate_cohort(out, slides=1, places=place, workers=1)
    assert (len(again.same), again.other) == (1, ())
    kept = regenerate_cohort(
        out / "recipe.yaml", slides="demo-drawn-layout-00", out=out.parent / "again", places=place, workers=1
    )
    assert kept.good
    assert digests(out.parent / "again").items() <= digests(out).items()
    with pytest.raises(WsigenError, match="did you mean 'demo-drawn-layout-00'"):
        regenerate_cohort(out, slides="demo-drawn-layuot-00", places=place)
    name = next(iter(place))
    with pytest.raises(WsigenError, match=f"or say with --place {name}=FOLDER"):
        regenerate_cohort(out)
    with pytest.raises(WsigenError, match="is the cohort itself"):
        regenerate_cohort(out, places=place, out=out)
    with pytest.raises(WsigenError, match="nowhere is missing; say where"):
        regenerate_cohort(out, places={name: "nowhere"})
    with pytest.raises(WsigenError, match="no 'modell' in the recipe"):
        regenerate_cohort(out, places={"modell": out})


def _grow_where_there_is_no_room(plan, out, monkeypatch):
    """A plan that is refused leaves the cohort as it was; so does a table that somebody spoilt."""
    small = plan.read_text()
    plan.write_text(small.replace("slides: 3", "slides: 9"))
    with monkeypatch.context() as scarce:
        scarce.setattr("wsigen.cohort.estimate.shutil.disk_usage", lambda path: type("Usage", (), {"free": 1000}))
        with pytest.raises(WsigenError, match=r"projected disk space .* for 6 slides"):
            make_cohort(plan, out, workers=1)
    plan.write_text(small)
    assert verify_cohort(out).good
    assert make_cohort(plan, out, workers=1).complete
    table = (out / "cohort.csv").read_text()
    (out / "cohort.csv").write_text("id,split\nx,y\n")
    with pytest.raises(WsigenError, match=r"cohort.csv, line 2: has no 'subtype'; restore it"):
        regenerate_cohort(out)
    (out / "cohort.csv").write_text(table)


def _grow(plan, out):
    """A plan may grow; all else that decides slides is refused, by name."""
    before = digests(out)
    content = yaml.safe_load(plan.read_text())
    other = content | {"stain": "aged"}
    plan.write_text(yaml.safe_dump(other, sort_keys=False))
    with pytest.raises(RunError, match=r"holds another cohort \(stain\.aged"):
        make_cohort(plan, out, workers=1)
    content["parts"][0]["slides"] = 2
    plan.write_text(yaml.safe_dump(content, sort_keys=False))
    with pytest.raises(RunError, match=r"part 'sampled'\.slides: 2 here, 3 in the folder"):
        make_cohort(plan, out, workers=1)
    content["parts"][0]["slides"] = 4
    content["title"] = "Grown"
    plan.write_text(yaml.safe_dump(content, sort_keys=False))
    assert make_cohort(plan, out, workers=1).complete
    assert before.items() <= digests(out).items()
    assert "# Grown" in (out / "README.md").read_text()
    assert verify_cohort(out).good


def test_pixels_depend_on_no_worker_order_or_interruption(plan, tmp_path, monkeypatch):
    make_cohort(plan, tmp_path / "one", workers=1, runs=1)
    expected = digests(tmp_path / "one")
    assert len(set(expected.values())) == 4

    forwards = making.slides_of
    monkeypatch.setattr(making, "slides_of", lambda *given: forwards(*given)[::-1])
    make_cohort(plan, tmp_path / "reversed", workers=2, runs=3)
    monkeypatch.setattr(making, "slides_of", forwards)
    assert digests(tmp_path / "reversed") == expected

    out, stops = tmp_path / "stopped", 0
    while stops < 4:
        seen = []

        def stop(stage, seen=seen):
            seen.append(stage)
            if stage.done > 30 + len(digests(out)) * 25:
                raise KeyboardInterrupt

        try:
            make_cohort(plan, out, workers=2, watch=stop)
            break
        except KeyboardInterrupt:
            stops += 1
    assert stops > 0
    make_cohort(plan, out, workers=2)
    assert digests(out) == expected
    assert verify_cohort(out).good


@pytest.mark.slow
def test_sigkill_in_the_middle_and_the_same_command_again(content, write, tmp_path):
    """It comes out as if nothing had been, and what was made before is not made again."""
    content["parts"] = [{**content["parts"][0], "slides": 3}]
    plan, out = write(content), tmp_path / "killed"
    make_cohort(plan, tmp_path / "whole", workers=1)
    command = [sys.executable, "-m", "wsigen", "cohort", "make", str(plan), "--out", str(out), "--runs", "1"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True)
    while process.poll() is None and not _under_way(out, 1):
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    _, err = process.communicate()
    assert process.returncode == -signal.SIGKILL, err
    first = {path.name: path.stat().st_mtime_ns for path in (out / "slides").iterdir()}
    assert 0 < len(digests(out)) < 3
    done = subprocess.run(command, capture_output=True, text=True, timeout=400, check=False)
    assert done.returncode == 0, done.stderr
    assert digests(out) == digests(tmp_path / "whole")
    assert first.items() <= {path.name: path.stat().st_mtime_ns for path in (out / "slides").iterdir()}.items()
    assert verify_cohort(out).good
    assert not (out / ".making").exists()


def _under_way(out, slides):
    """Whether some slides are made and the next one's state is there."""
    return len(list(out.glob("slides/*.json"))) >= slides and list(out.glob(".making/*/*/work-*/state.zarr/pass-0/latents/c/*"))


def test_a_slide_that_fails_is_named_and_the_others_are_made(plan, tmp_path, monkeypatch):
    right, tries = making._write_labels, []

    def fail(path, prepared):
        if "sampled-0001" in str(path):
            tries.append(path)
            raise OSError("the disk fails here")
        right(path, prepared)

    monkeypatch.setattr(making, "_write_labels", fail)
    monkeypatch.setattr("wsigen.run.generate.allowed_memory", lambda config: 0)  # slides do not look again
    first = make_cohort(plan, tmp_path / "cohort", workers=2)
    assert list(first.failed) == ["demo-sampled-0001"]
    assert "the disk fails here" in first.failed["demo-sampled-0001"]
    assert (len(first.made), len(tries)) == (3, 3)
    assert "3 of 4 slides are here; 1 are missing" in (tmp_path / "cohort/README.md").read_text()
    assert verify_cohort(tmp_path / "cohort").missing == ("demo-sampled-0001",)
    monkeypatch.setattr(making, "_write_labels", right)
    assert make_cohort(plan, tmp_path / "cohort", workers=2).complete


def test_what_is_not_measured_is_not_published(content, write, tmp_path):
    """It is made all the same: the report needs the slides."""
    content["parts"] = [content["parts"][1]]
    with pytest.raises(WsigenError, match="is made, but cannot be published: privacy was not measured"):
        make_cohort(write(content), tmp_path / "cohort", workers=1, publish=True)
    assert verify_cohort(tmp_path / "cohort").good
    (tmp_path / "cohort/figures.json").write_text('{"private": true, "slides": 1}')
    assert make_cohort(write(content), tmp_path / "cohort", workers=1, publish=True).complete


def test_too_little_disk_and_foreign_folders_are_refused_before_work(plan, tmp_path, monkeypatch):
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign/thesis.txt").write_text("mine")
    with pytest.raises(RunError, match=r"no cohort \(it holds 'thesis.txt'\)"):
        make_cohort(plan, tmp_path / "foreign", workers=1)
    with pytest.raises(ConfigError, match="setting 'device': 'cuda:99' cannot be used here"):
        make_cohort(plan, tmp_path / "cohort", device="cuda:99")
    monkeypatch.setattr("wsigen.cohort.estimate.shutil.disk_usage", lambda path: type("Usage", (), {"free": 1000}))
    with pytest.raises(WsigenError, match=r"projected disk space .* for 4 slides, and .* for 2 on their way, exceeds"):
        make_cohort(plan, tmp_path / "cohort", workers=1)
    monkeypatch.setattr("wsigen.cohort.estimate.allowed_memory", lambda config: 1000)
    with pytest.raises(WsigenError, match=r"projected memory .* exceeds the allowed"):
        make_cohort(plan, tmp_path / "cohort", workers=1)
    with pytest.raises(WsigenError, match="'steps' decides what is made: it belongs into the plan"):
        make_cohort(plan, tmp_path / "cohort", steps=3)
