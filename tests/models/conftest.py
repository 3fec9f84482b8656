"""Tiny bundles, made once per session, and one torch thread."""

import sys
from pathlib import Path

import pytest

from wsigen.models.model import Model, load_model

sys.path.insert(0, str(Path(__file__).parents[1]))

import tiny_bundles


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    import torch

    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def class_map_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_bundles.make_class_map_bundle(tmp_path_factory.mktemp("class-map"))


@pytest.fixture(scope="session")
def token_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_bundles.make_token_bundle(tmp_path_factory.mktemp("tokens"))


@pytest.fixture(scope="session")
def text_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_bundles.make_text_bundle(tmp_path_factory.mktemp("text"))


@pytest.fixture(scope="session")
def plain_diffusers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Stable Diffusion's layout without a card."""
    return tiny_bundles.make_text_bundle(tmp_path_factory.mktemp("sd") / "tiny-sd", with_card=False)


@pytest.fixture(scope="session")
def class_map_model(class_map_bundle: Path) -> Model:
    return load_model(class_map_bundle)


@pytest.fixture(scope="session")
def token_model(token_bundle: Path) -> Model:
    return load_model(token_bundle)


@pytest.fixture(scope="session")
def text_model(text_bundle: Path) -> Model:
    return load_model(text_bundle)


@pytest.fixture(scope="session")
def folders(class_map_bundle: Path, token_bundle: Path, text_bundle: Path, plain_diffusers: Path) -> dict[str, Path]:
    """Bundle folders by kind of conditioning; "plain" has no card."""
    return {
        "class-map": class_map_bundle,
        "class-tokens": token_bundle,
        "text": text_bundle,
        "plain": plain_diffusers,
    }


@pytest.fixture(scope="session")
def models(class_map_model: Model, token_model: Model, text_model: Model, plain_diffusers: Path) -> dict[str, Model]:
    """Loaded models by kind of conditioning. Whoever freezes norms thaws them again."""
    return {
        "class-map": class_map_model,
        "class-tokens": token_model,
        "text": text_model,
        "plain": load_model(plain_diffusers),
    }
