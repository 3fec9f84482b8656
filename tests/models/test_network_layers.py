"""1x1 convolutions as products: the same numbers, and the same bits for 1, 2 and 4 threads."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from wsigen.models.conditioning import NULL
from wsigen.models.layers import Pointwise, replace_pointwise
from wsigen.models.model import Model

THREADS = (1, 2, 4)


@pytest.fixture(autouse=True)
def threads_as_before() -> Iterator[None]:
    yield
    torch.set_num_threads(1)


def with_threads(threads: int, work: Callable[[], np.ndarray]) -> np.ndarray:
    torch.set_num_threads(threads)
    return work()


def example() -> tuple[nn.Conv2d, Tensor]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(4, 416, 16, 16, generator=generator).to(memory_format=torch.channels_last)
    return nn.Conv2d(416, 256, 1).requires_grad_(False), x


def test_product_equals_convolution() -> None:
    convolution, x = example()
    found = Pointwise(convolution)(x)
    assert found.is_contiguous(memory_format=torch.channels_last)
    assert torch.allclose(found, convolution(x), atol=1e-5)


def test_threads_do_not_change_the_bits() -> None:
    convolution, x = example()
    product = Pointwise(convolution)
    first, *others = [with_threads(n, lambda: product(x).numpy()) for n in THREADS]
    assert all(np.array_equal(first, other) for other in others)


def test_only_plain_ones_are_replaced() -> None:
    network = nn.Sequential(
        nn.Conv2d(4, 4, 1),
        nn.Conv2d(4, 4, 1, stride=2),
        nn.Conv2d(4, 4, 3, padding=1),
        nn.Conv2d(4, 4, 1, groups=2),
    )
    replace_pointwise(network)
    assert [isinstance(m, Pointwise) for m in network] == [True, False, False, False]


@pytest.mark.parametrize("kind", ["class-map", "class-tokens", "text"])
def test_predictions_and_frozen_decodes_have_the_same_bits(models: dict[str, Model], kind: str) -> None:
    model = models[kind]
    y = np.random.default_rng(0).normal(size=(4, 4, 16, 16)).astype(np.float32)
    model.autoencoder.freeze_norm(with_threads(1, lambda: model.autoencoder.norm_statistics([y[0]])))
    for work in (lambda: model.predict(y, 500, [NULL] * 4, 0), lambda: model.autoencoder.decode(y[0])):
        first, *others = [with_threads(n, work) for n in THREADS]
        assert all(np.array_equal(first, other) for other in others)
    model.autoencoder.freeze_norm(None)
