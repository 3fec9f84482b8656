"""The front door: the names of the package, as README uses them."""

import subprocess
import sys

import pytest

import wsigen

NAMES = {
    "generate", "resume", "estimate", "inspect", "evaluate", "evaluate_downstream", "train_autoencoder", "train_denoiser",
    "preview_cohort", "estimate_cohort", "make_cohort", "verify_cohort", "regenerate_cohort", "export_cohort",
    "export_cohort_slides", "report_cohort", "sign_cohort", "evaluate_labels",
    "train_grid", "train_mask", "train_tokens", "compress", "decompress", "list_models", "RunConfig", "Result",
    "edit", "undo_edit", "WsigenError", "__version__",
}  # fmt: skip


def test_exactly_these_names_are_shown():
    assert set(dir(wsigen)) == set(wsigen.__all__) == NAMES


@pytest.mark.parametrize("before", [False, True], ids=["fresh", "modules imported before"])
def test_names_stay_what_they_are(before):
    """A module of the package must not take the place of a function of its name once it is imported."""
    modules = "wsigen.run.generate, wsigen.run.inspect, wsigen.run.estimate.estimate, wsigen.evaluation.evaluate, wsigen.models"
    code = (
        f"import wsigen\n{f'import {modules}' if before else ''}\n"
        "for name in dir(wsigen) * 2:\n"
        "    value = getattr(wsigen, name)\n"
        "    assert callable(value) or name == '__version__', (name, value)\n"
        f"    import {modules}\n"
        f"assert set(dir(wsigen)) == {NAMES!r}"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


def test_everything_is_documented():
    for name in NAMES - {"__version__"}:
        assert getattr(wsigen, name).__doc__, name


def test_unknown_names():
    with pytest.raises(AttributeError, match="generat"):
        wsigen.generat  # noqa: B018


def test_generate_twice(bundle, tmp_path):
    settings = {"model": str(bundle), "class_name": "Tumor", "size": "600x600", "steps": 1, "workers": 1}
    first = wsigen.generate(tmp_path / "a.ome.tiff", **settings)
    assert wsigen.generate(tmp_path / "b.ome.tiff", **settings).level0_sha256 == first.level0_sha256


def test_models_are_listed_with_what_they_can_do():
    for model in wsigen.list_models():
        assert model.background in model.classes
        assert model.subtypes
        assert model.name in str(model)


def test_errors_of_evaluations_and_trainings_are_the_packages_own(tmp_path):
    for call in (
        lambda: wsigen.evaluate(tmp_path / "a", tmp_path / "b"),
        lambda: wsigen.evaluate_downstream(tmp_path / "a", tmp_path / "b"),
        lambda: wsigen.train_autoencoder(tmp_path / "no.yaml", out=tmp_path),
        lambda: wsigen.inspect(tmp_path),
        lambda: wsigen.resume(tmp_path),
    ):
        with pytest.raises(wsigen.WsigenError):
            call()
