"""Edited slides: only what is asked for changes, they say so, go on after a kill, and can be undone."""

import hashlib
import json
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import tifffile
from editing_making import drawing, pixels, tiles_of
from scanner_files import write_mrxs
from slide_making import tissue

from wsigen.base.errors import ImageError, OutputError, WsigenError
from wsigen.editing.edit import edit, undo_edit
from wsigen.editing.names import EditFiles
from wsigen.editing.task import _on_glass, _shows_tissue
from wsigen.models.bundle import check_bundle
from wsigen.run.engine.stage import Stage
from wsigen.run.output_check import held_output
from wsigen.slide.marks import description_of, synthetic_mark
from wsigen.slide.placed import PlacedImage
from wsigen.slide.reading import open_image
from wsigen.storage.files import move_all


def digest(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture(scope="module")
def edited(parent, bundle, tmp_path_factory):
    folder = tmp_path_factory.mktemp("edited")
    regions = drawing(folder / "edit.geojson", (900, 700, 160, 120, "Tumor"))
    base = {"regions": regions, "model": str(bundle), "steps": 2, "margin_um": 20.0, "seed": 3, "chunk": 64}
    return edit(parent, folder / "edited.ome.tiff", **base, workers=1, threads=1, batch=2)


def test_tiles_outside_are_the_parents_and_those_inside_change(parent, edited):
    before, after = tiles_of(parent), tiles_of(edited.slide)
    assert before.keys() == after.keys()
    changed = {key for key in before if before[key] != after[key]}
    assert sorted({level for level, _ in changed}) == list(range(len(edited.tiles)))
    for level, (count, of) in enumerate(edited.tiles):
        assert sum(key[0] == level for key in changed) <= count
        assert sum(key[0] == level for key in before) == of
    was, now = pixels(parent), pixels(edited.slide)
    different = (was != now).any(-1)
    ys, xs = np.nonzero(different)
    reach = 20 / 0.5 + 8 + 16  # the margin, a latent px, a block of the JPEG
    assert 900 - reach <= xs.min() <= 900
    assert 1060 <= xs.max() <= 1060 + reach
    assert 700 - reach <= ys.min() <= 700
    assert 820 <= ys.max() <= 820 + reach
    assert different[710:810, 910:1050].mean() > 0.9


def test_the_slide_says_what_was_made(parent, edited):
    manifest = json.loads(edited.manifest.read_text())
    assert manifest["synthetic"] is True
    (record,) = manifest["history"]
    assert record["parent_sha256"] == digest(parent)
    assert record["regions"][0]["class"] == "Tumor"
    assert record["seed"] == 3
    assert manifest["sha256"]["level0_tiles"] == edited.level0_sha256
    assert "Edited: 1 region made anew" in description_of(edited.slide)
    (feature,) = json.loads(edited.annotations.read_text())["features"]
    assert feature["properties"]["classification"]["name"] == "Tumor"


def test_undo_gives_the_parents_bytes(parent, edited, tmp_path):
    for path in EditFiles(edited.slide).all:
        shutil.copy(path, tmp_path)
    output = undo_edit(tmp_path / edited.slide.name).slide
    assert digest(output) == digest(parent)
    assert [path.name for path in tmp_path.iterdir()] == [output.name]
    with pytest.raises(WsigenError, match="take the parent itself"):
        undo_edit(output)


def test_undo_leaves_what_was_changed_since(parent, edited, tmp_path):
    for path in EditFiles(edited.slide).all:
        shutil.copy(path, tmp_path)
    names = EditFiles(tmp_path / edited.slide.name)
    names.annotations.write_bytes(b"drawn since")
    undone = undo_edit(names.slide)
    assert digest(names.slide) == digest(parent)
    assert names.annotations.read_bytes() == b"drawn since"
    assert "edited.geojson was changed since" in undone.notes[0]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["edited.geojson", "edited.groovy", "edited.ome.tiff"]


def test_undo_of_an_edit_of_an_edit_gives_its_annotations_and_manifest_back(edited, settings, tmp_path):
    regions = drawing(tmp_path / "drawn.geojson", (1000, 740, 200, 100, "Stroma"))
    again = edit(edited.slide, tmp_path / "again.ome.tiff", **{**settings, "regions": regions, "steps": 1})
    assert again.annotations.read_bytes() != edited.annotations.read_bytes()
    undo_edit(again.slide)
    for kind in ("slide", "annotations", "manifest"):
        assert getattr(again, kind).read_bytes() == getattr(edited, kind).read_bytes()
    assert again.script.exists()
    assert not any(path.exists() for path in (again.undo, again.thumbnail, again.overlay))


def test_a_chain_of_edits_tells_all_of_them(edited, settings, tmp_path):
    regions = drawing(tmp_path / "drawn.geojson", (1000, 740, 200, 100, "Stroma"))
    again = edit(edited.slide, tmp_path / "again.ome.tiff", **{**settings, "regions": regions, "steps": 1})
    manifest = json.loads(again.manifest.read_text())
    assert len(manifest["history"]) == 2
    assert manifest["history"][1]["parent_sha256"] == digest(edited.slide)
    names = [f["properties"]["classification"]["name"] for f in json.loads(again.annotations.read_text())["features"]]
    assert sorted(names) == ["Stroma", "Tumor"]
    assert description_of(again.slide).count("Edited: 2 regions made anew") == 1
    assert manifest["area_px"]["Tumor"] == pytest.approx(160 * 120 - 60 * 80)


def test_a_real_slide_is_partly_synthetic(scanned, settings, tmp_path):
    before = digest(scanned)
    made = edit(scanned, tmp_path / "scan.tif", **settings)
    assert digest(scanned) == before
    assert "partly synthetic: 1 region" in description_of(made.slide)
    assert "a scanner|MPP = 0.5" in description_of(made.slide)
    assert synthetic_mark(made.slide) == "partly"
    assert json.loads(made.manifest.read_text())["synthetic"] == "partly"
    was, now = pixels(scanned), pixels(made.slide)
    far = np.ones(was.shape[:2], bool)
    far[644:876, 844:1116] = False
    np.testing.assert_array_equal(was[far], now[far])  # deflate loses nothing


@pytest.mark.parametrize("after", [3, 30])
def test_an_edit_that_was_stopped_goes_on(parent, edited, settings, tmp_path, after):
    seen = []

    def watch(stage: Stage) -> None:
        seen.append(stage.name)
        if len(seen) == after:
            raise KeyboardInterrupt

    out = tmp_path / "edited.ome.tiff"
    with pytest.raises(KeyboardInterrupt):
        edit(parent, out, watch=watch, **settings)
    assert not out.exists()
    assert (tmp_path / "edited.edit").is_dir()
    assert edit(parent, out, **settings).level0_sha256 == edited.level0_sha256
    assert not (tmp_path / "edited.edit").exists()


def test_another_edit_does_not_go_on_with_it(parent, settings, tmp_path):
    def watch(stage: Stage) -> None:
        if stage.name.startswith("denoise"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        edit(parent, tmp_path / "edited.ome.tiff", watch=watch, **settings)
    with pytest.raises(WsigenError, match="holds another edit"):
        edit(parent, tmp_path / "edited.ome.tiff", **{**settings, "seed": 4})


@pytest.mark.parametrize("at", ["edit.write_thumbnail", "names.move_all"])
def test_an_edit_that_was_killed_while_it_wrote_goes_on(parent, edited, settings, tmp_path, monkeypatch, at):
    def killed(sources, targets):
        if at == "names.move_all":
            move_all(sources[:4], targets[:4])
        raise KeyboardInterrupt

    out = tmp_path / "edited.ome.tiff"
    with monkeypatch.context() as patched:
        patched.setattr(f"wsigen.editing.{at}", killed)
        with pytest.raises(KeyboardInterrupt):
            edit(parent, out, **settings)
    assert out.exists() == (at == "names.move_all")  # before, nothing gets its place
    assert not EditFiles(out).manifest.exists()
    left = [tmp_path / f".0123456789ab.{name}" for name in (out.name, "edited.undo")]
    for path in left:
        path.write_bytes(b"half a slide")
    monkeypatch.setattr("wsigen.editing.patches.CELL_PX", 200)  # how much is held at a time changes nothing
    assert edit(parent, out, **settings).level0_sha256 == edited.level0_sha256
    assert not any(path.exists() for path in left)
    ends = ("geojson", "groovy", "jpg", "json", "ome.tiff", "overlay.jpg", "undo")
    names = ["edit.geojson", *(f"edited.{end}" for end in ends), "wsigen-edit.groovy"]
    assert sorted(path.name for path in tmp_path.glob("*edit*")) == names


def test_one_output_is_written_by_one_edit(parent, edited, settings, tmp_path):
    with held_output(tmp_path / "a.ome.tiff"), pytest.raises(WsigenError, match="another run makes it"):
        edit(parent, tmp_path / "a.ome.tiff", **settings)
    with held_output(edited.slide), pytest.raises(WsigenError, match="another run makes it"):
        undo_edit(edited.slide)
    assert edited.undo.exists()


def test_regions_far_apart_have_windows_of_their_own_and_two_workers_make_the_same(parent, settings, tmp_path):
    regions = drawing(tmp_path / "two.geojson", (8, 8, 60, 60, "Tumor"), (1990, 1500, 90, 80, "Glass"))
    given = {**settings, "regions": regions, "steps": 1}
    made = edit(parent, tmp_path / "a.ome.tiff", **given)
    assert len(made.boxes) == 2
    assert edit(parent, tmp_path / "b.ome.tiff", **{**given, "workers": 2}).level0_sha256 == made.level0_sha256
    assert (abs(pixels(made.slide)[1530:1550, 2020:2050] - [235, 235, 240]) <= 4).all()  # erased


def test_other_um_per_px_are_resampled_if_asked(scanned, settings, tmp_path):
    with pytest.raises(WsigenError, match="--resample"):
        edit(scanned, tmp_path / "a.tif", slide_mpp=0.4, **settings)
    made = edit(scanned, tmp_path / "a.tif", slide_mpp=0.4, resample=True, **settings)
    was, now = pixels(scanned), pixels(made.slide)
    assert now.shape == was.shape
    different = (was != now).any(-1)
    assert different[710:810, 910:1050].mean() > 0.9
    different[600:920, 800:1160] = False
    assert not different.any()


def test_slides_on_which_drawings_would_lie_elsewhere_are_refused(settings, tmp_path):
    rgb = tissue(1024, 1024)
    write_mrxs(tmp_path / "part.mrxs", [rgb, np.ascontiguousarray(rgb[::2, ::2])], without=lambda y, x: x < 256)
    with pytest.raises(ImageError, match="768x1024 px at 256, 0, and QuPath counts px from there"):
        edit(tmp_path / "part.mrxs", tmp_path / "a.ome.tiff", **settings)
    more = {"tile": (256, 256), "photometric": "rgb", "resolution": (2e4, 1.3e4), "resolutionunit": "CENTIMETER"}
    tifffile.imwrite(tmp_path / "oblong.tif", rgb, **more)
    with pytest.raises(ImageError, match=r"1\.54 times as high as wide"):
        edit(tmp_path / "oblong.tif", tmp_path / "a.tif", resample=True, **settings)
    assert not list(tmp_path.glob("a.*"))


WRONG = [
    ({"regions": [(5000, 100, 60, 60, "Tumor")]}, "out of range|outside"),
    ({"regions": [(100, 100, 60, 60, "Nerve")]}, "Nerve"),
    ({"regions": [(100, 100, 60, 60, None)]}, "no class is set"),
    ({"regions": []}, "no polygons|no features|empty"),
    ({"strength": 0.0}, "strength"),
    ({"margin_um": -1.0}, "margin"),
    ({"size": (600, 600)}, "an edit decides it itself"),
    ({"model": "nowhere"}, "nowhere"),
]


@pytest.mark.parametrize(("changes", "says"), WRONG)
def test_what_is_wrong_is_said_in_a_line(parent, settings, tmp_path, changes, says):
    if "regions" in changes:
        changes = {"regions": drawing(tmp_path / "wrong.geojson", *changes["regions"])}
    with pytest.raises(WsigenError, match=says) as refused:
        edit(parent, tmp_path / "a.ome.tiff", **{**settings, **changes})
    assert "\n" not in str(refused.value).strip() or "\n-" in str(refused.value) or "\n  " in str(refused.value)
    assert not (tmp_path / "a.ome.tiff").exists()


def test_outputs_are_not_written_over_inputs_or_others(parent, settings, tmp_path):
    copy = tmp_path / "copy.ome.tiff"
    shutil.copy(parent, copy)
    with pytest.raises(WsigenError, match="is the slide itself"):
        edit(copy, copy, **settings, overwrite=True)
    with pytest.raises(WsigenError, match=r"ends in '\.ome\.tiff'"):
        edit(copy, tmp_path / "a.svs", **settings)
    (tmp_path / "b.ome.tiff").write_bytes(b"mine")
    with pytest.raises(WsigenError, match="exists already"):
        edit(copy, tmp_path / "b.ome.tiff", **settings)
    regions = shutil.copy(settings["regions"], tmp_path / "c.geojson")
    with pytest.raises(WsigenError, match="is an input"):
        edit(copy, tmp_path / "c.ome.tiff", **{**settings, "regions": regions, "overwrite": True})
    (tmp_path / "d.ome.tiff").mkdir()
    (tmp_path / "e.edit").touch()
    for name, says in (("d", "is a folder"), ("e", "in the way")):
        with pytest.raises(WsigenError, match=says):
            edit(copy, tmp_path / f"{name}.ome.tiff", **settings, overwrite=True)


def test_names_beside_a_slide_are_its_own(tmp_path):
    assert EditFiles(tmp_path / "slide").annotations == tmp_path / "slide.geojson"  # a name without an ending
    with pytest.raises(WsigenError, match="has that name"):
        EditFiles.of(tmp_path / "a.jpg", tmp_path / "b.jpg", overwrite=False)


def test_names_of_others_are_refused(tmp_path):
    parent = tmp_path / "slide.ome.tiff"
    with pytest.raises(WsigenError, match="of another use"):
        EditFiles.of(parent, tmp_path / "wsigen-edit.ome.tiff", overwrite=True)
    (tmp_path / "folder").mkdir()
    (tmp_path / "a.edit").symlink_to(tmp_path / "folder")
    with pytest.raises(WsigenError, match="in the way"):
        EditFiles.of(parent, tmp_path / "a.ome.tiff", overwrite=True)


def test_an_edit_that_fails_leaves_the_one_before_whole(parent, edited, settings, tmp_path, monkeypatch):
    def full(*_, **__):
        raise OutputError("no room")

    for path in EditFiles(edited.slide).all:
        shutil.copy(path, tmp_path)
    before = {path: digest(path) for path in EditFiles(tmp_path / edited.slide.name).all}
    monkeypatch.setattr("wsigen.editing.edit.replace_pixels", full)
    with pytest.raises(WsigenError, match="no room"):
        edit(parent, tmp_path / edited.slide.name, **{**settings, "steps": 1}, overwrite=True)
    assert {path: digest(path) for path in before} == before


def test_formats_whose_pixels_cannot_be_replaced_are_refused_before_anything_is_made(settings, tmp_path):
    from PIL import Image

    Image.fromarray(np.full((700, 700, 3), 200, np.uint8)).save(tmp_path / "a.jpg")
    with pytest.raises(WsigenError, match=r"name in \.ome\.tiff, .* or convert it first"):
        edit(tmp_path / "a.jpg", tmp_path / "b.jpg", **settings)


def test_such_formats_are_written_anew_as_ome_tiff(settings, tmp_path):
    from PIL import Image

    rgb = tissue(1100, 1300)
    Image.fromarray(rgb).save(tmp_path / "a.png")
    before = digest(tmp_path / "a.png")
    regions = drawing(tmp_path / "drawn.geojson", (600, 500, 100, 80, "Tumor"))
    given = {**settings, "regions": regions, "steps": 1}
    with pytest.raises(WsigenError, match="--slide-mpp"):
        edit(tmp_path / "a.png", tmp_path / "b.ome.tiff", **given)
    assert not (tmp_path / "b.edit").exists()
    made = edit(tmp_path / "a.png", tmp_path / "b.ome.tiff", slide_mpp=0.5, **given)
    assert made.undo is None
    assert any("written anew" in note for note in made.notes)
    image = open_image(made.slide)
    assert (image.mpp, image.width, image.height) == (0.5, 1300, 1100)
    far = np.ones(rgb.shape[:2], bool)
    far[420:660, 520:780] = False
    assert np.abs(pixels(made.slide) - rgb)[far].mean() < 4  # JPEG
    manifest = json.loads(made.manifest.read_text())
    assert manifest["history"][0]["parent_sha256"] == before
    assert synthetic_mark(made.slide) == "partly"
    assert 'Name="b.ome.tiff"' in description_of(made.slide)
    assert not EditFiles(made.slide).undo.exists()


def test_regions_off_the_tissue_are_told(bundle, tmp_path):
    import tifffile

    rgb = np.full((1200, 2400, 3), 243, np.uint8)
    rgb[:, :1200] = tissue(1200, 1200)
    tifffile.imwrite(tmp_path / "a.tif", rgb, photometric="rgb", tile=(256, 256))
    placed = PlacedImage(open_image(tmp_path / "a.tif").stated(0.5), rgb.shape[:2], (0, 0))
    assert _shows_tissue(placed, np.array([300.0, 300.0, 500.0, 500.0]))
    assert not _shows_tissue(placed, np.array([1700.0, 300.0, 1900.0, 500.0]))
    bounds = np.array([[300.0, 300, 500, 500], [1700, 300, 1900, 500], [1700, 700, 1900, 900]])
    card = check_bundle(bundle)
    tissues, glass = card.table.index("Tumor"), card.table.index("Glass")
    for classes, told in (
        ([tissues] * 3, ["2 of 3 regions"]),
        ([tissues, tissues, glass], ["1 of 2 regions"]),
        ([glass] * 3, []),
    ):
        regions = SimpleNamespace(polygons=SimpleNamespace(classes=np.array(classes)))
        notes = list(_on_glass(placed, regions, bounds, card))  # glass that is drawn on glass is none of them
        assert [note.partition(" lie on bare glass")[0] for note in notes] == told
