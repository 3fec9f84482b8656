"""The names of the package, as README uses them."""

import subprocess
import sys

import pytest

import wsigen


def test_names_stay_what_they_are():
    """A module of the package must not take the place of a function of its name once it is imported."""
    code = "import wsigen\nfor _ in range(2):\n    assert all(callable(getattr(wsigen, name)) for name in wsigen.__all__)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


def test_unknown_names():
    with pytest.raises(AttributeError, match="generat"):
        wsigen.generat  # noqa: B018


def test_generate_twice(bundle, tmp_path):
    settings = {"model": str(bundle), "class_name": "Tumor", "size": "600x600", "steps": 1, "workers": 1}
    first = wsigen.generate(tmp_path / "a.ome.tiff", **settings)
    assert wsigen.generate(tmp_path / "b.ome.tiff", **settings).level0_sha256 == first.level0_sha256
