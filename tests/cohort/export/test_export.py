"""Tiles of a cohort: they are the slides, their masks the class maps; they train, go on, and are the same every time."""

import csv
import hashlib
import io
import json
import tarfile
from collections import Counter

import numpy as np
import pytest
from PIL import Image

from wsigen.base.errors import WsigenError
from wsigen.base.geometry import Box
from wsigen.cohort.export.export import export_cohort
from wsigen.slide.reading import open_image

SIDE = 128


def rows(folder):
    return list(csv.DictReader((folder / "tiles.csv").open()))


def digests(folder):
    return {
        path.relative_to(folder): hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.rglob("*") if path.is_file()
    }


def test_tiles_are_the_slides_and_masks_the_class_maps(cohort, tmp_path):
    made = export_cohort(cohort, tmp_path / "tiles", tiles=SIDE, masks=True, image="png", min_tissue=0.6)
    index = rows(tmp_path / "tiles")
    assert made.tiles == Counter(row["split"] for row in index)
    assert {row["slide"] for row in index} == {path.name.partition(".")[0] for path in cohort.glob("slides/*.tiff")}
    table = {row["value"]: row["class"] for row in csv.DictReader((tmp_path / "tiles/classes.csv").open())}
    for row in index:
        x, y = int(row["x"]), int(row["y"])
        assert row["image"] == f"{row['split']}/images/{row['slide']}_x{x}_y{y}.png"
        tile = Image.open(tmp_path / "tiles" / row["image"])
        assert "trainedAlgorithmicMedia" in tile.info["XML:com.adobe.xmp"]
        slide = open_image(cohort / f"slides/{row['slide']}.ome.tiff")
        whole = slide.region(Box(y, x, y + SIDE, x + SIDE), (slide.height, slide.width))
        assert np.array_equal(np.asarray(tile), whole)
        cells = np.asarray(Image.open(cohort / f"labels/{row['slide']}.png")).repeat(8, 0).repeat(8, 1)
        mask = np.asarray(Image.open(tmp_path / "tiles" / row["mask"]))
        assert np.array_equal(mask, cells[y : y + SIDE, x : x + SIDE])
        for value, name in table.items():
            if name:
                assert float(row[f"share_{name}"]) == pytest.approx((mask == int(value)).mean(), abs=1e-4)
        assert float(row["tissue"]) >= 0.6
    everything = export_cohort(cohort, tmp_path / "all", tiles=SIDE, min_tissue=0.0)
    assert sum(everything.tiles.values()) == 2 * 25 + 2 * 16 > len(index)


@pytest.mark.parametrize("masks", [True, False])
def test_a_folder_of_tiles_is_training_data(cohort, tmp_path, masks):
    from wsigen.dataset.dataset import open_dataset

    out = tmp_path / "tiles"
    export_cohort(cohort, out, tiles=SIDE, masks=masks)
    dataset = open_dataset(out / "dataset.yaml", tmp_path / "cache", False, lambda *_: None)
    assert len(dataset.members) == len(rows(out))
    assert all(member.labels.any == masks for member in dataset.members)
    assert {member.group for member in dataset.held_out} == {"c", "d"}
    assert {member.group for member in dataset.training} == {"a", "b"}


def test_an_export_goes_on_and_writes_the_same_bytes(cohort, tmp_path):
    for to in ("folder", "webdataset"):
        one, two = tmp_path / f"one-{to}", tmp_path / f"two-{to}"
        export_cohort(cohort, one, tiles=SIDE, to=to, masks=True)

        def stop(done, total):
            if done == 2:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            export_cohort(cohort, two, tiles=SIDE, to=to, masks=True, watch=stop)
        assert not (two / "tiles.csv").exists()
        export_cohort(cohort, two, tiles=SIDE, to=to, masks=True)
        assert digests(one) == digests(two)
        written = {path: path.stat().st_mtime_ns for path in (*two.rglob("*.jpg"), *two.rglob("*.tar"))}
        export_cohort(cohort, two, tiles=SIDE, to=to, masks=True)
        assert written == {path: path.stat().st_mtime_ns for path in written}


def test_shards_hold_samples_of_one_key(cohort, tmp_path, monkeypatch):
    monkeypatch.setattr("wsigen.cohort.export.targets.SHARD_TILES", 7)
    out = tmp_path / "shards"
    export_cohort(cohort, out, tiles=SIDE, to="webdataset", masks=True)
    index = rows(out)
    samples = {}
    for path in sorted(out.glob("*.tar")):
        with tarfile.open(path) as tar:
            for entry in tar.getmembers():
                assert (entry.mtime, entry.uid, entry.uname) == (0, 0, "")
                key, _, end = entry.name.partition(".")
                samples.setdefault((path.name, key), {})[end] = tar.extractfile(entry).read()
    assert list(samples) == sorted(((row["shard"], row["key"]) for row in index), key=lambda each: each[0])
    assert max(Counter(shard for shard, _ in samples).values()) == 7
    for row in index:
        sample = samples[row["shard"], row["key"]]
        assert set(sample) == {"jpg", "mask.png", "json"}
        said = json.loads(sample["json"])
        assert (said["slide"], said["x"], said["synthetic"]) == (row["slide"], int(row["x"]), True)
        assert Image.open(io.BytesIO(sample["jpg"])).size == Image.open(io.BytesIO(sample["mask.png"])).size == (SIDE, SIDE)


def test_tiles_at_coarser_resolution(cohort, tmp_path):
    export_cohort(cohort, tmp_path / "tiles", tiles=100, mpp=2.0, masks=True, image="png")
    for row in rows(tmp_path / "tiles"):
        assert np.asarray(Image.open(tmp_path / "tiles" / row["mask"])).shape == (100, 100)
        assert float(row["um_per_px"]) == 2.0


def test_what_cannot_be_is_refused_in_one_line(cohort, tmp_path):
    export_cohort(cohort, tmp_path / "tiles", tiles=SIDE)
    (tmp_path / "other").mkdir()
    (tmp_path / "other/thesis.txt").write_text("mine")
    for message, given in (
        (r"holds other tiles \(tiles 256 here, 128 there\)", {"out": tmp_path / "tiles", "tiles": 256}),
        ("holds no tiles of a cohort, but thesis.txt", {"out": tmp_path / "other"}),
        ("enlarged tiles show no more", {"out": tmp_path / "new", "mpp": 0.01}),
        ("64 to 8192 px", {"tiles": 8}),
        ("a share is 0 to 1", {"min_tissue": 2}),
        ("known are folder and webdataset", {"to": "zip"}),
    ):
        with pytest.raises(WsigenError, match=message):
            export_cohort(cohort, **given)
    with pytest.raises(WsigenError, match="no cohort with slides in it"):
        export_cohort(tmp_path)
