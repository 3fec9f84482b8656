import os

import pytest
from hypothesis import HealthCheck, settings

os.environ.setdefault("OMP_NUM_THREADS", "1")

settings.register_profile("shared", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("shared")


@pytest.fixture(scope="session", autouse=True)
def _no_settings_of_whoever_runs_the_tests(tmp_path_factory):
    os.environ["XDG_CONFIG_HOME"] = str(tmp_path_factory.mktemp("config"))
    os.environ["XDG_CACHE_HOME"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="session")
def bundle(tmp_path_factory):
    """A tiny random bundle conditioned on class maps: the engine's tests need no trained weights."""
    from tiny_bundles import make_class_map_bundle

    return make_class_map_bundle(tmp_path_factory.mktemp("bundle") / "tiny")


@pytest.fixture(scope="session")
def grid_bundle(tmp_path_factory):
    """A tiny random bundle that draws grids and follows them."""
    from tiny_bundles import make_grid_bundle

    return make_grid_bundle(tmp_path_factory.mktemp("bundle") / "grid")


@pytest.fixture(scope="session")
def token_bundle(tmp_path_factory):
    """A tiny random bundle with class tokens: one model call per label."""
    from tiny_bundles import make_token_bundle

    return make_token_bundle(tmp_path_factory.mktemp("bundle") / "token")
