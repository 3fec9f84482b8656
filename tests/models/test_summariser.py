"""Summarisers: against torch's own transformer, packing of windows, what is null; bundles whose denoisers are told tokens."""

import json

import numpy as np
import pytest
import tiny_bundles
import torch
import yaml
from torch import nn

from wsigen.base.errors import BundleError
from wsigen.models.bundle import bundle_hash, check_bundle
from wsigen.models.conditioning import NULL, Condition
from wsigen.models.model import load_model
from wsigen.models.network_config import SUMMARISERS
from wsigen.models.summariser import (
    KINDS,
    ConvSummariser,
    ViTSummariser,
    build_summariser,
    load_summariser,
    save_summariser,
    summarise,
)

SIZES = {"dimension": 5, "levels": 3, "side": 8, "width": 16, "layers": 2, "heads": 4, "mlp": 24}


@pytest.fixture(scope="module")
def vit():
    torch.manual_seed(0)
    network = ViTSummariser(**SIZES)
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.3)
    return network.eval()


def reference(network, cells, level):
    """The released network in torch's own layers, one window at a time; packing as its paper's code describes it."""
    state = network.state_dict()
    width = SIZES["width"]
    layers = []
    for i in range(SIZES["layers"]):
        layer = nn.TransformerEncoderLayer(
            width, SIZES["heads"], SIZES["mlp"], 0.0, "gelu", layer_norm_eps=1e-6, batch_first=True, norm_first=True
        )
        names = {
            "norm1": "ln_1", "norm2": "ln_2", "linear1": "mlp.0", "linear2": "mlp.3",
            "self_attn.out_proj": "self_attention.out_proj", "self_attn.in_proj": "self_attention.in_proj",
        }  # fmt: skip
        for mine, its in names.items():
            for kind in ("weight", "bias"):
                joint = "_" if mine.endswith("in_proj") else "."
                layer.state_dict()[f"{mine}{joint}{kind}"].copy_(state[f"encoder.layers.encoder_layer_{i}.{its}{joint}{kind}"])
        layers.append(layer.eval())
    slots = [state["pad_token"][0, 0]] * 64
    rows = [state["dim_reduce.weight"] @ cells[:, y, x] + state["dim_reduce.bias"] for y, x in np.ndindex(*cells.shape[1:])]
    first = {1: 32, 4: 30, 16: 24, 64: 0}[len(rows)]
    slots[first : first + len(rows)] = rows
    x = torch.stack([state["mag_embedding.weight"][level], *slots])[None] + state["encoder.pos_embedding"]
    for layer in layers:
        x = layer(x)
    x = nn.functional.layer_norm(x, (width,), state["encoder.ln.weight"], state["encoder.ln.bias"], 1e-6)
    x = x @ state["final_proj.weight"].T + state["final_proj.bias"]
    return nn.functional.layer_norm(x, (width,), state["layer_norm.weight"], state["layer_norm.bias"], 1e-5)[0]


@pytest.mark.parametrize("side", [1, 2, 4, 8])
@torch.no_grad()
def test_the_released_summariser(vit, side):
    cells = torch.randn(3, 5, side, side)
    levels = torch.tensor([2, 0, 1])
    tokens = vit(cells, levels)
    assert tokens.shape == (3, 65, 16)
    for window, level, found in zip(cells, levels, tokens, strict=True):
        assert torch.allclose(found, reference(vit, window, level), atol=1e-5)


def test_the_released_sizes_and_names():
    """38,656,000 parameters in 155 tensors, as the published checkpoint holds them."""
    with torch.device("meta"):
        state = ViTSummariser(1024, 8).state_dict()
    assert len(state) == 155
    assert sum(v.numel() for v in state.values()) == 38_656_000
    assert state["encoder.layers.encoder_layer_11.mlp.3.weight"].shape == (512, 2048)
    assert state["encoder.pos_embedding"].shape == (1, 65, 512)


@pytest.mark.parametrize("side", [1, 2, 8, 16])
def test_a_convolutional_summariser_takes_windows_of_any_level(side):
    network = ConvSummariser(5, 3, side=16, width=16, out_side=4, groups=4)
    tokens = network(torch.randn(2, 5, side, side), torch.tensor([0, 2]))
    assert tokens.shape == (2, network.tokens, network.width) == (2, 16, 16)
    tokens.sum().backward()
    assert all(p.grad is not None for p in network.parameters())


def test_unknown_windows_are_null_and_unknown_cells_are_not_seen(vit):
    windows = torch.randn(2, 6, 4, 4)
    windows[0, -1], windows[1, -1] = 0, 1
    windows[1, -1, 2, 3] = 0
    tokens = summarise(vit, windows, torch.tensor([1, 1]))
    assert (tokens[0] == 0).all()
    assert (tokens[1] != 0).any()
    windows[1, :-1, 2, 3] = 7.0
    assert torch.equal(summarise(vit, windows, torch.tensor([1, 1])), tokens)


@pytest.mark.parametrize("kind", list(KINDS))
def test_a_summariser_is_saved_and_loaded(kind, tmp_path):
    sizes = {"dimension": 5, "levels": 2, "side": 8, "width": 32}
    network = build_summariser({"_class_name": kind, **sizes, **({"layers": 1} if kind == "ViTSummariser" else {})})
    save_summariser(network, tmp_path / "summariser")
    again = load_summariser(tmp_path, "cpu")
    given = torch.randn(1, 5, 8, 8), torch.tensor([1])
    assert torch.equal(again(*given), network.eval()(*given))
    save_summariser(network, tmp_path / "summariser", half=True)
    assert torch.allclose(load_summariser(tmp_path, "cpu")(*given), again(*given), atol=0.02)
    assert set(KINDS) == set(SUMMARISERS)


@pytest.fixture(scope="module", params=["class-map", "none", "text"])
def told(request, tmp_path_factory):
    """A bundle told a grid by tokens, besides each kind of class conditions."""
    return tiny_bundles.make_grid_token_bundle(tmp_path_factory.mktemp("told"), kind=request.param)


def test_a_denoiser_is_told_a_grid_and_without_one_it_is_null(told):
    model = load_model(told)
    rng = np.random.default_rng(0)
    latents = np.repeat(rng.standard_normal((1, 4, 16, 16), dtype=np.float32), 4, axis=0)
    grid = rng.standard_normal((7, 4, 4), dtype=np.float32)
    grid[-1] = 1
    other, unknown = grid.copy(), grid.copy()
    other[:-1] += 1
    unknown[-1] = 0
    conditions = [Condition(grid=grid), Condition(grid=other), Condition(grid=unknown), NULL]
    first, second, third, null = model.predict(latents, 500, conditions, 1)
    assert np.abs(first - second).max() > 1e-4
    assert np.array_equal(third, null)
    alone = model.predict(latents, 500, [NULL] * 4, 1)[0]
    assert np.allclose(alone, null, atol=1e-6)


def test_the_summariser_is_part_of_the_bundle(told):
    before = bundle_hash(told)
    file = told / "summariser" / "config.json"
    text = file.read_text()
    file.write_text(text + "\n")
    assert bundle_hash(told) != before
    file.write_text(text)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"dimension": 7}, "summariser dimension is 6, but the card's grid.dimension is 7"),
        ({"parts": [3, 4]}, "grid.parts of the card has 3, no divisor of the summariser's side 4"),
        ({"parts": [4]}, r"grid.parts \[4\]: give one number for each of 2 levels"),
        ({"mean": [0.0]}, "neither mean nor std"),
        ({"encoder_sha256": "abc"}, "setting 'grid.encoder_sha256'"),
    ],
)
def test_a_card_that_does_not_fit_its_summariser(tmp_path, change, message):
    folder = tiny_bundles.make_grid_token_bundle(tmp_path)
    card = yaml.safe_load((folder / "wsigen.yaml").read_text())
    card["grid"] |= change
    tiny_bundles.write_card(folder, card)
    with pytest.raises(BundleError, match=message):
        check_bundle(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"_class_name": "Other"}, "the summariser is a Other; possible: ViTSummariser, ConvSummariser"),
        ({"heads": 3}, "heads must divide width"),
        ({"depth": 3}, "depth"),
        ({"width": 32}, "cross_attention_dim is 16, but the summariser's width is 32"),
        ({"levels": 3}, "summariser levels is 3, but the card's number of levels is 2"),
    ],
)
def test_a_summariser_that_cannot_be(tmp_path, change, message):
    folder = tiny_bundles.make_grid_token_bundle(tmp_path)
    file = folder / "summariser" / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    with pytest.raises(BundleError, match=message):
        check_bundle(folder)


def test_weights_that_are_not_of_the_config(tmp_path):
    folder = tiny_bundles.make_grid_token_bundle(tmp_path)
    file = folder / "summariser" / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"mlp": 2**16}))
    with pytest.raises(BundleError, match="summariser: "):
        load_model(folder)


def test_another_kind_of_u_net_is_refused(tmp_path):
    folder = tiny_bundles.make_grid_token_bundle(tmp_path)
    tiny_bundles.tiny_unet(8, 2).save_pretrained(folder / "unet")
    with pytest.raises(BundleError, match="a grid told by tokens needs a UNet2DConditionModel"):
        check_bundle(folder)
