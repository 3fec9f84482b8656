"""The mask model learns synthetic subtypes, never trains the unknown, resumes exactly, and draws from its bundle."""

import shutil

import numpy as np
import pytest
import torch

from wsigen.classes import UNKNOWN, ClassTable, TissueClass
from wsigen.errors import BundleError, ConfigError
from wsigen.generation import generate
from wsigen.geometry import Box
from wsigen.models.mask_bundle import find_mask
from wsigen.models.mask_sampling import draw_map, map_shape
from wsigen.training.mask_export import export_mask, mask_card
from wsigen.training.mask_maps import MaskBatch, MaskExample, MaskStream, check_maps
from wsigen.training.mask_model import MaskSettings, MaskTraining, one_hot

TABLE = ClassTable(
    (TissueClass("Glass", (235, 235, 240), True), TissueClass("Tumor", (200, 0, 0)), TissueClass("Stroma", (150, 200, 150)))
)
SUBTYPES = ["tumorous", "stromal"]
STEPS = 250
SETTINGS = MaskSettings(
    side=16, channels=(16, 32), layers=1, norm_groups=4, head_dim=8, batch=16, steps=STEPS, learning_rate=4e-3, average=0.97,
    null_share=0.2,
)  # fmt: skip


def disc(rng, value):
    """A disc of one class on glass."""
    y, x = np.mgrid[:16, :16] - rng.uniform(6.5, 8.5, (2, 1, 1))
    return np.where(y**2 + x**2 < rng.uniform(4.5, 6.0) ** 2, value, 0).astype(np.uint8)


def examples():
    rng = np.random.default_rng(0)
    return [MaskExample(disc(rng, 1 + subtype), subtype) for subtype in (0, 1) for _ in range(8)]


def stream(seed=0):
    return MaskStream(examples(), 16, 0, seed)


@pytest.fixture(scope="module")
def trained():
    torch.set_num_threads(1)
    training, batches = MaskTraining(SETTINGS, 3, 2, seed=0), stream()
    losses = [training.step(batches.batch(k, SETTINGS.batch)) for k in range(STEPS)]
    return training, losses


@pytest.fixture(scope="module")
def mask_bundle(trained, bundle, tmp_path_factory):
    folder = shutil.copytree(bundle, tmp_path_factory.mktemp("mask") / "bundle")
    card = mask_card(trained[0], TABLE, SUBTYPES, examples(), steps=12)
    export_mask(trained[0], card, folder)
    return folder


def test_the_loss_falls(trained):
    losses = trained[1]
    assert np.mean(losses[-20:]) < 0.35 * np.mean(losses[:10])


def test_samples_carry_the_classes_of_their_subtype(trained):
    for subtype in (0, 1):
        own, other = 1 + subtype, 2 - subtype
        drawn = np.stack([trained[0].sample(subtype, (16, 16), seed, steps=12) for seed in range(4)])
        assert 0.1 < np.mean(drawn == own) < 0.7
        assert np.mean(drawn == other) < 0.25 * np.mean(drawn == own)
        assert np.mean(drawn[:, [0, -1]] == 0) > 0.8


def test_equal_seeds_draw_equal_maps_whatever_the_threads(trained):
    first = trained[0].sample(0, (16, 16), 5, steps=6)
    torch.set_num_threads(2)
    try:
        assert np.array_equal(trained[0].sample(0, (16, 16), 5, steps=6), first)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(1)
    assert not np.array_equal(trained[0].sample(0, (16, 16), 6, steps=6), first)


def test_resume_gives_the_same_losses():
    whole, batches = MaskTraining(SETTINGS, 3, 2, seed=1), stream(1)
    expected = [whole.step(batches.batch(k, 4)) for k in range(6)]
    begun = MaskTraining(SETTINGS, 3, 2, seed=1)
    for k in range(3):
        begun.step(batches.batch(k, 4))
    resumed = MaskTraining(SETTINGS, 3, 2, seed=99)
    resumed.seed = 1
    resumed.load_state_dict(begun.state_dict())
    assert [resumed.step(batches.batch(k, 4)) for k in range(3, 6)] == expected[3:]
    for a, b in zip(whole.average.parameters(), resumed.average.parameters(), strict=True):
        assert torch.equal(a, b)


def test_unknown_cells_are_never_trained():
    """The gradient of the loss is zero on the network's output wherever the cell is unknown."""
    training = MaskTraining(SETTINGS, 3, 2, seed=0)
    cells = stream().batch(0, 4).cells
    cells[:, :, 8:] = UNKNOWN
    outputs = []
    training.model.register_forward_hook(lambda module, given, out: (out.sample.retain_grad(), outputs.append(out.sample))[0])
    training.loss(MaskBatch(cells, np.zeros(4, np.int64))).backward()
    gradient = outputs[0].grad
    assert gradient[..., :8].abs().min() > 0
    assert (gradient[..., 8:] == 0).all()
    assert training.loss(MaskBatch(np.full_like(cells, UNKNOWN), np.zeros(4, np.int64))) == 0


def test_the_loss_is_the_mean_squared_error_of_v():
    training = MaskTraining(SETTINGS, 3, 2, seed=3)
    zero = torch.nn.Module()
    zero.forward = lambda y, t, class_labels: type("Out", (), {"sample": torch.zeros_like(y)})  # v_theta = 0
    training.model = zero
    cells = stream().batch(0, 64).cells
    loss = float(training.loss(MaskBatch(cells, np.zeros(64, np.int64))))
    # E|v|^2 = abar E eps^2 + (1 - abar) x0^2 = 1 for x0 = +-1
    assert loss == pytest.approx(1.0, abs=0.05)


def test_one_hot():
    hot = one_hot(torch.tensor([[[0, 2, UNKNOWN]]]), 3)[0, :, 0]
    assert hot.T.tolist() == [[1, -1, -1], [-1, -1, 1], [0, 0, 0]]


def test_the_null_condition_is_drawn_with_its_probability():
    training = MaskTraining(SETTINGS, 3, 2, seed=0)
    seen = []
    training.model.register_forward_pre_hook(lambda module, args, kwargs: seen.append(kwargs["class_labels"]), with_kwargs=True)
    for k in range(20):
        training.done = k
        training.loss(MaskBatch(np.zeros((64, 16, 16), np.uint8), np.ones(64, np.int64)))
    drawn = torch.cat(seen)
    assert set(drawn.tolist()) == {1, 2}
    assert (drawn == 2).float().mean() == pytest.approx(0.2, abs=0.04)


def test_batches_are_pure_and_subtypes_balanced():
    unequal = [*examples()[:1], *examples()[8:]]
    batches = MaskStream(unequal, 16, 0, 4)
    a, b = batches.batch(7, 200), MaskStream(unequal, 16, 0, 4).batch(7, 200)
    assert np.array_equal(a.cells, b.cells)
    assert np.array_equal(a.subtypes, b.subtypes)
    assert 0.35 < a.subtypes.mean() < 0.65
    for cells, subtype in zip(a.cells, a.subtypes, strict=True):
        assert set(np.unique(cells)) == {0, 1 + subtype}


def test_maps_of_any_shape_are_cut_or_padded_with_glass():
    long = MaskStream([MaskExample(np.full((5, 40), 2, np.uint8), 0)], 16, 0, 0).batch(0, 30)
    assert long.cells.shape == (30, 16, 16)
    assert {int((cells == 2).sum()) for cells in long.cells} == {80}
    assert (long.cells[:, 0] == 0).any()


def test_wrong_maps_are_refused():
    with pytest.raises(ConfigError, match="no class map"):
        MaskStream([], 16, 0, 0)
    with pytest.raises(ConfigError, match="uint8"):
        MaskStream([MaskExample(np.zeros((4, 4, 3), np.uint8), 0)], 16, 0, 0)
    with pytest.raises(ConfigError, match="class 7"):
        check_maps([MaskExample(np.full((4, 4), 7, np.uint8), 0)], 3, 1)
    with pytest.raises(ConfigError, match="subtype 2"):
        check_maps([MaskExample(np.full((4, 4), UNKNOWN, np.uint8), 2)], 3, 2)


def test_the_bundle_draws_slides_of_any_shape(mask_bundle):
    card = find_mask(mask_bundle, TABLE)
    assert card.subtypes == tuple(SUBTYPES)
    assert {frozenset(pair) for pair in card.adjacent} == {frozenset(("Glass", "Tumor")), frozenset(("Glass", "Stroma"))}
    reordered = ClassTable((TABLE[2], TABLE[0], TABLE[1]))
    for size in ((1000, 1000), (700, 2100)):
        name, layout = draw_map(mask_bundle, card, TABLE, "TUMOROUS", 1, size)
        assert name == "tumorous"
        drawn = layout.class_map(Box(0, 0, size[0] // 10, size[1] // 10), 10)
        assert np.mean(drawn == 1) > 0.1
        other = draw_map(mask_bundle, card, reordered, "tumorous", 1, size)[1]
        assert np.mean(other.cells == 2) == np.mean(layout.cells == 1)
    assert map_shape((700, 2100), 16, 2) == (10, 28)
    assert map_shape((500, 90_000), 16, 8) == (8, 32)


def test_generate_draws_its_layout_from_the_bundle(mask_bundle, tmp_path):
    settings = {"model": str(mask_bundle), "layout": "sample", "size": "640x600", "steps": 1, "workers": 1, "seed": 1}
    result = generate(tmp_path / "a.ome.tiff", subtype="stromal", **settings)
    assert "mask model" in result.layout
    assert result.area_px["Stroma"] > 4 * result.area_px["Tumor"]
    assert result.area_px["Stroma"] > 0.1 * 640 * 600
    with pytest.raises(ConfigError, match=r"'stroml'.*did you mean 'stromal'.*tumorous"):
        generate(tmp_path / "b.ome.tiff", subtype="stroml", **settings)
    (tmp_path / "own.yaml").write_text("mine: {rest: 1}")
    own = generate(tmp_path / "c.ome.tiff", subtype="mine", subtypes=str(tmp_path / "own.yaml"), **settings)
    assert "procedural" in own.layout


@pytest.mark.parametrize(
    ("old", "new", "word"),
    [
        ("- Stroma\n", "- Gland\n", "Gland"),
        ("side: 16", "side: no", "side"),
        ("- tumorous\n", "", "num_class_embeds"),
        ("format: 1", "format: 1\nmore: 2", "more"),
    ],
)
def test_a_damaged_mask_model_is_refused(mask_bundle, tmp_path, old, new, word):
    folder = shutil.copytree(mask_bundle, tmp_path / "bundle")
    card = folder / "mask" / "mask.yaml"
    text = card.read_text()
    assert old in text
    card.write_text(text.replace(old, new))
    with pytest.raises(BundleError, match=word):
        find_mask(folder, TABLE)


def test_the_mask_model_is_part_of_the_bundle(mask_bundle, tmp_path):
    from wsigen.models.bundle import bundle_hash

    folder = shutil.copytree(mask_bundle, tmp_path / "bundle")
    before = bundle_hash(folder)
    assert before == bundle_hash(mask_bundle)
    card = folder / "mask" / "mask.yaml"
    card.write_text(card.read_text().replace("steps: 12", "steps: 13"))
    assert bundle_hash(folder) != before
    shutil.rmtree(folder / "mask")
    assert find_mask(folder, TABLE) is None


def test_names_must_fit_the_model(trained):
    with pytest.raises(ConfigError, match="3 classes and 2 subtypes"):
        mask_card(trained[0], TABLE, ["one"], examples())
