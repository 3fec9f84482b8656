"""Label images: what is accepted, what is refused, and that boxes agree."""

import pickle

import numpy as np
import pytest
import pyvips
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from wsigen.base.errors import LayoutError
from wsigen.base.geometry import Box
from wsigen.layout.raster import read_class_table, read_label_raster
from wsigen.layout.read import read_layout

LABELS = np.random.default_rng(0).integers(0, 5, (128, 160)).astype(np.uint8)


@pytest.fixture(scope="module")
def png(tmp_path_factory):
    path = tmp_path_factory.mktemp("raster") / "labels.png"
    Image.fromarray(LABELS).save(path)
    return path


def whole(layout, cell):
    return layout.class_map(Box(0, 0, -(-layout.height // cell), -(-layout.width // cell)), cell)


def test_raster_over_the_slide(png, table):
    layout = read_layout(png, table, (1024, 1280), 0)
    np.testing.assert_array_equal(whole(layout, 8), LABELS)
    np.testing.assert_array_equal(whole(layout, 4), LABELS.repeat(2, 0).repeat(2, 1))
    np.testing.assert_array_equal(whole(layout, 32), LABELS[2::4, 2::4])


def test_own_size_and_scale(png, table):
    layout = read_layout(png, table, None, 0)
    assert (layout.height, layout.width) == (128, 160)
    np.testing.assert_array_equal(whole(layout, 1), LABELS)
    layout = read_layout(png, table, None, 0, scale=8.0)
    np.testing.assert_array_equal(whole(layout, 8), LABELS)


@pytest.mark.parametrize("dtype", ["uint16", "int16", "uint32", "int32"])
def test_wide_values_and_table(tmp_path, table, dtype):
    path = tmp_path / "l.tif"
    tifffile.imwrite(path, LABELS.astype(dtype) * 1000, tile=(64, 64))
    classes = {0: "", 1000: "tumor", 2000: "Stroma", 3000: "Immune cells", 4000: "Other"}
    layout = read_label_raster(path, table, classes, (1024, 1280), 0)
    np.testing.assert_array_equal(whole(layout, 8), LABELS)


@settings(max_examples=40, deadline=None)
@given(
    st.integers(-2, 90),
    st.integers(-2, 90),
    st.integers(1, 70),
    st.integers(1, 70),
    st.sampled_from([3, 8, 32]),
)
def test_any_box_equals_the_whole(png, table, y, x, h, w, cell):
    layout = read_label_raster(png, table, None, (700, 877), 0)
    outer = layout.class_map(Box(-2, -2, 162, 162), cell)
    part = layout.class_map(Box(y, x, y + h, x + w), cell)
    np.testing.assert_array_equal(part, outer[y + 2 : y + 2 + h, x + 2 : x + 2 + w])


def test_strips_and_pickles(png, table, monkeypatch):
    layout = read_label_raster(png, table, None, (1024, 1280), 0)
    monkeypatch.setattr("wsigen.layout.raster.STRIP_PX", 300)
    np.testing.assert_array_equal(whole(pickle.loads(pickle.dumps(layout)), 8), LABELS)


def fails(path, table, *parts, size=(1024, 1280), classes=None):
    with pytest.raises(LayoutError) as caught:
        read_label_raster(path, table, classes, size, 0)
    message = str(caught.value)
    assert "\n" not in message
    for part in (path.name, *parts):
        assert part in message, message


def test_wrong_size(png, table):
    fails(png, table, "wrong size", "160 x 128", "1024 x 1024", size=(1024, 1024))
    read_label_raster(png, table, None, (1024, 1285), 0)


def test_unknown_values(tmp_path, table):
    path = tmp_path / "l.png"
    labels = LABELS.copy()
    labels[3, :7] = 77
    labels[9, 0] = 200
    Image.fromarray(labels).save(path)
    fails(path, table, "77, 200", "8 of 20480 pixels", "1: Tumor")
    fails(path, table, "'Tumour'", "did you mean 'Tumor'", classes={0: "Tumour"})


def test_other_images(tmp_path, table):
    rgb, bits, real = (tmp_path / n for n in ("rgb.png", "bits.png", "real.tif"))
    Image.fromarray(np.dstack([LABELS * 9, LABELS, LABELS])).save(rgb)
    fails(rgb, table, "a picture in colour", "'#000000'")
    pyvips.Image.new_from_array(LABELS % 4 * 85).pngsave(str(bits), bitdepth=2)
    fails(bits, table, "2 bit", "save the labels")
    tifffile.imwrite(real, LABELS.astype(np.float32))
    fails(real, table, "float")


def test_unreadable(tmp_path, png, table):
    fails(tmp_path / "none.png", table, "no such layout file")
    cut = tmp_path / "cut.png"
    cut.write_bytes(png.read_bytes()[:4000])
    fails(cut, table, "read to its end")
    fails(png, table, "not possible", size=(2_000_000, 2_500_000))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("t.yaml", "1: Tumor\n2: Stroma\n0:\n"),
        ("t.yml", "Tumor: 1\nStroma: 2\n"),
        ("t.json", '{"1": "Tumor", "2": "Stroma"}'),
        ("t.csv", "value,name\n1,Tumor\n\n2,Stroma\n"),
        ("t.tsv", "1\tTumor\n2\tStroma\n"),
        ("list.json", '["", "Tumor", "Stroma"]'),
    ],
)
def test_class_tables(write, name, text):
    found = read_class_table(write(text, name))
    assert {v: n for v, n in found.items() if n} == {1: "Tumor", 2: "Stroma"}


@pytest.mark.parametrize(
    ("name", "text", "part"),
    [
        ("t.yaml", "a: [", "cannot be parsed"),
        ("t.yaml", "x: Tumor", "not a whole number"),
        ("t.yaml", "hello", "neither"),
        ("t.yaml", "{}", "empty"),
        ("t.csv", "1,Tumor\n1,Stroma\n", "twice"),
        ("t.csv", "1,Tumor\n2\n", "no name"),
    ],
)
def test_bad_class_tables(write, name, text, part):
    with pytest.raises(LayoutError, match=part):
        read_class_table(write(text, name))


def test_missing_class_table(tmp_path, png, table):
    with pytest.raises(LayoutError, match="no such class table"):
        read_layout(png, table, None, 0, class_table_path=tmp_path / "none.yaml")


def test_classes_of_the_table_are_renamed(tmp_path, table):
    png = tmp_path / "l.png"
    Image.fromarray(np.repeat(np.array([[0, 1, 2, 3]], np.uint8), 4, 0)).save(png)
    (tmp_path / "t.csv").write_text("value;name\n0;Glass\n1;Krebs\n2;Fett\n3;Stroma\n", encoding="utf-8")
    names = {"Krebs": "Tumor", "fett": None}
    layout = read_layout(png, table, (64, 64), 4, class_table_path=tmp_path / "t.csv", names=names)
    assert layout.class_map(Box(0, 0, 1, 4), 16).tolist() == [[0, 1, 4, 2]]
    with pytest.raises(LayoutError, match=r"unknown classes 'Krebs' .*'Fett' .*--layout-names"):
        read_layout(png, table, (64, 64), 4, class_table_path=tmp_path / "t.csv")


def test_values_and_colours_of_tables(write):
    assert read_class_table(write('"#FF8000": Tumor\n"0 0 255": Stroma\n', "t.yaml")) == {
        "#ff8000": "Tumor",
        "#0000ff": "Stroma",
    }
    assert read_class_table(write('Tumor: "#ff8000"\n', "u.yaml")) == {"#ff8000": "Tumor"}
    assert read_class_table(write("colour,name\n#ff8000,Tumor\n", "t.csv")) == {"#ff8000": "Tumor"}
    with pytest.raises(LayoutError, match="both numbers and colours"):
        read_class_table(write('"#ff8000": Tumor\n1: Stroma\n', "v.yaml"))
    for bad in ("#ff80", "300 0 0", "1.5"):
        with pytest.raises(LayoutError, match="nor a colour"):
            read_class_table(write(f'"{bad}": Tumor\n', "w.yaml"))


COLOURS = np.array([[0, 0, 0], [255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 0]], np.uint8)


def test_colours(tmp_path, table):
    path, alpha = tmp_path / "l.png", tmp_path / "a.tif"
    Image.fromarray(COLOURS[LABELS]).save(path)
    tifffile.imwrite(alpha, np.dstack([COLOURS[LABELS], LABELS]), photometric="rgb", extrasamples=["unassalpha"], tile=(64, 64))
    classes = {"#{:02x}{:02x}{:02x}".format(*c): name for c, name in zip(COLOURS, table.names, strict=True)}
    for file in (path, alpha):
        layout = read_label_raster(file, table, classes, (1024, 1280), 0)
        np.testing.assert_array_equal(whole(layout, 8), LABELS)
    assert layout.notes == ("a.tif: its alpha channel is ignored",)
    fails(path, table, "unknown label values #ffff00", "known: #000000: Glass", classes=dict(list(classes.items())[:4]))
    grey = tmp_path / "g.png"
    Image.fromarray(LABELS).save(grey)
    fails(grey, table, "list its numbers", classes=classes)


@pytest.mark.parametrize("kind", ["png", "tif"])
def test_palettes_are_read_by_index(tmp_path, table, kind):
    path = tmp_path / f"l.{kind}"
    image = Image.fromarray(LABELS)
    image.putpalette([7, 7, 7] * 2 + [0, 255, 0] + [1, 2, 3] * 253)  # two labels of one colour
    image.save(path)
    layout = read_label_raster(path, table, None, (1024, 1280), 0)
    np.testing.assert_array_equal(whole(layout, 8), LABELS)
    assert layout.notes == (f"l.{kind}: its labels are the indices of its palette",)


@pytest.mark.parametrize("white", [1, 255])
def test_one_bit(tmp_path, table, white):
    path = tmp_path / "l.png"
    Image.fromarray(LABELS > 2).save(path)
    layout = read_label_raster(path, table, {0: "Stroma", white: "Tumor"}, (1024, 1280), 0)
    np.testing.assert_array_equal(whole(layout, 8), np.where(LABELS > 2, 1, 2))


def test_grey_saved_as_colours(tmp_path, table):
    path = tmp_path / "l.png"
    Image.fromarray(np.dstack([LABELS] * 3)).save(path)
    np.testing.assert_array_equal(whole(read_label_raster(path, table, None, (1024, 1280), 0), 8), LABELS)


def test_small_labels_in_several_channels_are_colours(tmp_path, table):
    """However near the channels are, a lossless file means what it says."""
    nothing = np.zeros_like(LABELS)
    for name in ("l.png", "l.tif"):
        for channels in (
            (nothing, LABELS > 2, nothing),
            (nothing, LABELS == 1, 2 * (LABELS == 2)),
            (LABELS, LABELS, LABELS + 1),
        ):
            Image.fromarray(np.dstack(channels).astype(np.uint8)).save(tmp_path / name)
            fails(tmp_path / name, table, "a picture in colour", "list its colours")


def test_labels_in_red_alone_are_read_and_told(tmp_path, table):
    nothing = np.zeros_like(LABELS)
    Image.fromarray(np.dstack([LABELS * 20, nothing, nothing])).save(tmp_path / "l.png")
    classes = dict(enumerate(["Glass", "Tumor", "Stroma", "Immune cells", "Other"]))
    layout = read_label_raster(tmp_path / "l.png", table, {20 * v: n for v, n in classes.items()}, (1024, 1280), 0)
    np.testing.assert_array_equal(whole(layout, 8), LABELS)
    assert layout.notes == ("l.png: its labels are its red; green and blue are 0 everywhere",)


def test_jpeg_is_read_by_a_threshold_and_told(tmp_path, table):
    path, wide = tmp_path / "l.jpg", np.kron(LABELS[:32, :40] > 2, np.ones((4, 4), np.uint8)) * np.uint8(255)
    Image.fromarray(wide).save(path, quality=60)
    stored = np.asarray(Image.open(path))
    between = ((stored != 0) & (stored != 255)).mean()
    assert between > 0.1
    layout = read_label_raster(path, table, {0: "Stroma", 255: "Tumor"}, (128, 160), 0)
    np.testing.assert_array_equal(whole(layout, 1), np.where(stored >= 128, 1, 2))
    assert "lossy compression: more than 10 % of the pixels" in layout.notes[0]
    fails(path, table, "JPEG", "save the labels as PNG", classes={0: "Stroma", 128: "Other", 255: "Tumor"}, size=(128, 160))
    fails(path, table, "JPEG", classes={0: "Stroma", 20: "Tumor"}, size=(128, 160))
    Image.fromarray(np.ones((128, 160), np.uint8)).save(path)
    (note,) = read_label_raster(path, table, {1: "Stroma", 2: "Tumor"}, (128, 160), 0).notes
    assert "JPEG) may have changed its values" in note


def test_all_unknown_values_are_listed(tmp_path, table):
    path = tmp_path / "l.tif"
    tifffile.imwrite(path, np.arange(128 * 160, dtype=np.uint16).reshape(128, 160) % 900)
    fails(path, table, "unknown label values 5-899 in")


def test_several_planes(tmp_path, table):
    path = tmp_path / "l.ome.tif"
    tifffile.imwrite(path, np.stack([LABELS, LABELS]), photometric="minisblack")
    fails(path, table, "2 planes of one size")
