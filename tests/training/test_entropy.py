"""The feature entropy loss against a short NumPy reference, its memory, and where its gradient goes."""

from __future__ import annotations

import numpy as np
import torch
from streams import Latents, card_of_kind, denoiser_settings

from wsigen.training.conditions import Conditioner
from wsigen.training.denoiser import build_schedule, build_unet
from wsigen.training.denoiser_task import Denoiser, DenoiserTask
from wsigen.training.entropy import FeatureMemory, feature_entropy
from wsigen.training.recipes import DenoiserRecipe


def reference(z: np.ndarray, rows: np.ndarray, k: np.ndarray, tau: float, alpha: float) -> tuple[float, np.ndarray]:
    """Eq. 3 and the memory's update, by loops."""
    z = z / np.linalg.norm(z, axis=1, keepdims=True)
    losses = [
        -np.log(np.exp(a @ k[r] / tau) / sum(np.exp(a @ b / tau) for b in k)) for a, r in zip(z, rows, strict=True) if r >= 0
    ]
    moved = k.copy()
    for r in set(rows[rows >= 0]):
        moved[r] = alpha * k[r] + (1 - alpha) * z[rows == r].mean(axis=0)
        moved[r] /= np.linalg.norm(moved[r])
    return float(np.mean(losses)), moved


def test_the_loss_and_the_memory_equal_the_reference() -> None:
    rng = np.random.default_rng(0)
    z, rows = rng.normal(size=(6, 5)).astype(np.float32), np.array([2, 0, 2, -1, 3, 0])
    memory = FeatureMemory(4, 5, decay=0.9, seed=3)
    expected, moved = reference(z, rows, memory.vectors.numpy().copy(), tau=0.2, alpha=0.9)
    found = feature_entropy(torch.from_numpy(z), torch.from_numpy(rows), memory.vectors, 0.2)
    np.testing.assert_allclose(found.item(), expected, rtol=1e-5)
    memory.update(torch.from_numpy(z), torch.from_numpy(rows))
    np.testing.assert_allclose(memory.vectors.numpy(), moved, rtol=1e-5, atol=1e-6)
    assert not np.allclose(moved[2], FeatureMemory(4, 5, 0.9, seed=3).vectors[2])


def test_crops_without_a_prompt_take_no_part() -> None:
    z = torch.randn(3, 5, requires_grad=True)
    memory = FeatureMemory(4, 5, 0.9, seed=0)
    loss = feature_entropy(z, torch.full((3,), -1), memory.vectors, 0.1)
    loss.backward()
    assert loss.item() == 0.0
    assert z.grad is not None
    assert not z.grad.any()
    before = memory.vectors.clone()
    memory.update(z.detach(), torch.full((3,), -1))
    assert torch.equal(before, memory.vectors)


def make_unet(kind: str) -> torch.nn.Module:
    torch.manual_seed(0)
    recipe = DenoiserRecipe.model_validate(denoiser_settings())
    return build_unet(recipe.network, card_of_kind(kind), 8)


def test_the_gradient_reaches_the_encoder_blocks_and_not_the_memory_nor_the_decoder() -> None:
    model = Denoiser(make_unet("class-tokens"))
    memory = FeatureMemory(4, 16, 0.9, seed=0)
    _, features = model(torch.randn(2, 4, 8, 8), torch.tensor([10, 500]), class_labels=torch.tensor([0, 3]))
    feature_entropy(features, torch.tensor([0, 3]), memory.vectors, 0.07).backward()
    grads = {name: p.grad for name, p in model.unet.named_parameters()}
    assert grads["conv_in.weight"].abs().sum() > 0
    assert all(grads[n].abs().sum() > 0 for n in grads if n.startswith("down_blocks") and n.endswith("conv1.weight"))
    assert all(g is None for n, g in grads.items() if n.startswith(("up_blocks", "conv_out")))
    assert not list(memory.parameters())
    assert memory.vectors.grad is None


def test_switched_on_it_is_part_of_the_loss_with_weight_beta() -> None:
    recipe = DenoiserRecipe.model_validate(denoiser_settings(entropy={"enabled": True, "beta": 0.1}))
    conditioner = Conditioner("class-map", 2, 2, knows_levels=True)
    task = DenoiserTask(recipe, recipe.bundle, make_unet("class-map"), build_schedule(recipe), conditioner, Latents())
    modules = {"model": task.players()["model"].module}
    total, scalars = task.loss("model", modules, task.draw(0, 0), 0.0)
    torch.testing.assert_close(total, scalars["mse"] + 0.1 * scalars["entropy"])
    before = task.memories()["features"].vectors.clone()  # type: ignore[operator]
    task.after_step(lambda x: x)
    assert not torch.equal(before, task.memories()["features"].vectors)  # type: ignore[arg-type]
