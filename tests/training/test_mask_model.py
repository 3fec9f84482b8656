"""The mask model learns synthetic subtypes, never trains the unknown, resumes exactly, and draws from its bundle."""

import csv
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from wsigen.base.classes import UNKNOWN, ClassTable, TissueClass
from wsigen.base.errors import BundleError, ConfigError, TrainingError
from wsigen.base.geometry import Box
from wsigen.models.mask_bundle import find_mask, mask_hash
from wsigen.models.mask_sampling import MaskNetwork, draw_cells, draw_map, load_mask, map_shape
from wsigen.run.generate import generate
from wsigen.training.mask_data import MaskData, MaskExample, MaskStream
from wsigen.training.mask_task import MaskTask, build_mask_network, describe_mask, fit_mask, one_hot
from wsigen.training.recipes import MaskRecipe

TABLE = ClassTable(
    (TissueClass("Glass", (235, 235, 240), True), TissueClass("Tumor", (200, 0, 0)), TissueClass("Stroma", (150, 200, 150)))
)
SUBTYPES = ("tumorous", "stromal")


def recipe(p_unc=0.2, **loop):
    given = {"steps": 250, "batch": 16, "learning_rate": 4e-3, "ema": 0.97, "sample_every": 0, "checkpoint_minutes": 0, **loop}
    network = {"channels": (16, 32), "layers": 1, "norm_groups": 4, "head_dim": 8}
    return MaskRecipe(dataset=Path("none"), side=16, network=network, sampling={"steps": 12}, p_unc=p_unc, loop=given)


def disc(rng, value):
    """A disc of one class on glass."""
    y, x = np.mgrid[:16, :16] - rng.uniform(6.5, 8.5, (2, 1, 1))
    return np.where(y**2 + x**2 < rng.uniform(4.5, 6.0) ** 2, value, 0).astype(np.uint8)


def examples():
    rng = np.random.default_rng(0)
    return tuple(MaskExample(disc(rng, 1 + subtype), subtype) for subtype in (0, 1) for _ in range(8))


DATA = MaskData(examples(), TABLE, SUBTYPES, 45.0, "data")


def stream(seed=0):
    return MaskStream(examples(), 16, 0, seed)


def make_task(cells=None, count=16):
    settings = recipe(batch=count)
    maps = examples() if cells is None else (MaskExample(cells, 1),)
    network = build_mask_network(settings, 3, 2)
    return MaskTask(settings, network, MaskStream(maps, 16, 0, 0), describe_mask(settings, DATA), TABLE)


def losses(folder):
    with (folder / "losses.csv").open() as file:
        return [float(row["loss"]) for row in csv.DictReader(file)]


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    torch.set_num_threads(1)
    out = tmp_path_factory.mktemp("trained")
    assert fit_mask(recipe(checkpoint_minutes=9), DATA, out).result
    return out


@pytest.fixture(scope="module")
def mask_bundle(trained, bundle, tmp_path_factory):
    folder = shutil.copytree(bundle, tmp_path_factory.mktemp("mask") / "bundle")
    shutil.copytree(trained / "mask", folder / "mask")
    return folder


def test_the_loss_falls(trained):
    found = losses(trained)
    assert len(found) == 250
    assert np.mean(found[-20:]) < 0.35 * np.mean(found[:10])


def test_samples_carry_the_classes_of_their_subtype(trained):
    network, card = load_mask(trained / "mask"), describe_mask(recipe(), DATA)
    for subtype in (0, 1):
        own, other = 1 + subtype, 2 - subtype
        drawn = np.stack([draw_cells(network, card, subtype, (16, 16), seed) for seed in range(4)])
        assert 0.1 < np.mean(drawn == own) < 0.7
        assert np.mean(drawn == other) < 0.25 * np.mean(drawn == own)
        assert np.mean(drawn[:, [0, -1]] == 0) > 0.8


def test_equal_seeds_draw_equal_maps_whatever_the_threads(trained):
    network, card = load_mask(trained / "mask"), describe_mask(recipe(), DATA)
    first = draw_cells(network, card, 0, (16, 16), 5, 6)
    torch.set_num_threads(2)
    assert np.array_equal(draw_cells(network, card, 0, (16, 16), 5, 6), first)
    assert torch.get_num_threads() == 2
    assert not np.array_equal(draw_cells(network, card, 0, (16, 16), 6, 6), first)


def test_a_stopped_training_resumes_to_the_same_losses_and_weights(tmp_path):
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    fit_mask(recipe(steps=7, batch=8, micro_batch=4), DATA, whole)
    first = fit_mask(recipe(steps=7, batch=8, micro_batch=4, minutes=1e-6), DATA, stopped)
    assert (first.step, first.result, (stopped / "mask").exists()) == (1, None, False)
    with pytest.raises(TrainingError, match=r"made with p_unc 0\.2, the recipe says 0\.5"):
        fit_mask(recipe(0.5, steps=7, batch=8, micro_batch=4), DATA, stopped, resume=True)
    fit_mask(recipe(steps=7, batch=8, micro_batch=4, sample_every=5), DATA, stopped, resume=True)
    assert (whole / "losses.csv").read_text() == (stopped / "losses.csv").read_text()
    assert mask_hash(whole / "mask") == mask_hash(stopped / "mask")
    assert sorted(p.name for p in (stopped / "samples").iterdir()) == ["0000005.png", "0000007.png"]


def test_unknown_cells_are_never_trained():
    """The gradient of the loss is zero on the network's output wherever the cell is unknown."""
    cells = np.zeros((16, 16), np.uint8)
    cells[3:9, 2:7] = UNKNOWN
    task = make_task(cells, 4)
    outputs = []

    def keep(module, given, out):
        out[0].retain_grad()
        outputs.append(out[0])

    task.network.register_forward_hook(keep)
    batch = task.draw(0, 0)
    loss, _ = task.loss("model", {"model": task.network}, batch, 0.0)
    loss.backward()
    known = batch["known"][:, None].expand_as(outputs[0])
    assert (known.sum(), (~known).sum()) == (4 * 3 * 226, 4 * 3 * 30)
    assert outputs[0].grad[known].abs().min() > 0
    assert (outputs[0].grad[~known] == 0).all()
    unknown = make_task(np.full((16, 16), UNKNOWN, np.uint8), 4)
    assert unknown.loss("model", {"model": unknown.network}, unknown.draw(0, 0), 0.0)[0] == 0


def test_the_loss_is_the_mean_squared_error_of_v():
    task = make_task(count=64)

    def zero(y, t, class_labels, return_dict):
        return (torch.zeros_like(y),)

    loss, _ = task.loss("model", {"model": zero}, task.draw(0, 0), 0.0)
    # E|v|^2 = abar E eps^2 + (1 - abar) x0^2 = 1 for x0 = +-1
    assert float(loss) == pytest.approx(1.0, abs=0.05)


def test_the_null_condition_is_drawn_with_its_probability():
    task = make_task(np.zeros((16, 16), np.uint8), 64)  # a map of subtype 1
    drawn = torch.cat([task.draw(k, 0)["conditions"] for k in range(20)])
    assert set(drawn.tolist()) == {1, 2}
    assert (drawn == 2).float().mean() == pytest.approx(0.2, abs=0.04)


def test_a_batch_of_a_step_is_pure():
    first, again, other = make_task().draw(3, 0), make_task().draw(3, 0), make_task().draw(4, 0)
    assert all(torch.equal(first[k], again[k]) for k in first)
    assert not torch.equal(first["noisy"], other["noisy"])


def test_one_hot():
    hot = one_hot(torch.tensor([[[0, 2, UNKNOWN]]], dtype=torch.uint8), 3)[0, :, 0]
    assert hot.T.tolist() == [[1, -1, -1], [-1, -1, 1], [0, 0, 0]]


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


def test_the_bundle_draws_slides_of_any_shape(mask_bundle):
    card = find_mask(mask_bundle, TABLE)
    assert card.subtypes == SUBTYPES
    assert {frozenset(pair) for pair in card.adjacent} == {frozenset(("Glass", "Tumor")), frozenset(("Glass", "Stroma"))}
    reordered = ClassTable((TABLE[2], TABLE[0], TABLE[1]))
    for size in ((1000, 1000), (700, 2100)):
        name, layout = draw_map(mask_bundle / "mask", card, TABLE, "TUMOROUS", 1, size)
        assert name == "tumorous"
        drawn = layout.class_map(Box(0, 0, size[0] // 10, size[1] // 10), 10)
        assert np.mean(drawn == 1) > 0.1
        other = draw_map(mask_bundle / "mask", card, reordered, "tumorous", 1, size)[1]
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


def test_an_exported_model_computes_what_was_trained(trained, tmp_path):
    """What is published is the mean of the weights that the checkpoint holds."""
    kept = torch.load(trained / "checkpoint.pt", weights_only=True)["state"]["average"]
    network = build_mask_network(recipe(), 3, 2)
    with torch.no_grad():
        for parameter, mean in zip(network.parameters(), kept["shadow_params"], strict=True):
            parameter.copy_(mean)
    abar = load_mask(trained / "mask").abar
    card = describe_mask(recipe(), DATA)
    own = draw_cells(MaskNetwork(network.eval(), abar, "v_prediction"), card, 0, (16, 16), 1)
    assert np.mean(own == draw_cells(load_mask(trained / "mask"), card, 0, (16, 16), 1)) > 0.98
