"""The loop: exact resume after a kill, bad numbers, full disks, other configurations, tiny trainings to the end."""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import torch
from train_tiny import make_denoiser, train_autoencoder

import wsigen
from wsigen.base.errors import ConfigError, TrainingError
from wsigen.models.bundle import check_bundle
from wsigen.training.autoencoder import load_vae
from wsigen.training.autoencoder_task import hinge_loss
from wsigen.training.loop import prefetched
from wsigen.training.recipes import DenoiserRecipe, read_recipe
from wsigen.training.trainer import learning_rate

HERE = Path(__file__).parent
ENVIRONMENT = {**os.environ, "PYTHONPATH": f"{Path(wsigen.__file__).parents[1]}:{HERE}", "OMP_NUM_THREADS": "1"}


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def losses(folder: Path) -> list[float]:
    with (folder / "losses.csv").open() as file:
        return [float(row["loss"]) for row in csv.DictReader(file)]


def draws_a_slide(bundle: Path) -> bool:
    from wsigen.run.generate import generate

    options = {"size": (512, 512), "class_name": "Tumor", "steps": 1, "levels": 1}
    return generate(bundle.with_name("s.ome.tiff"), model=str(bundle), **options).slide.is_file()


def test_a_killed_training_resumes_to_the_same_curve(tmp_path: Path) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    make_denoiser(whole, entropy={"enabled": True}, loop={"steps": 60})
    command = [sys.executable, str(HERE / "train_tiny.py"), str(killed)]
    process = subprocess.Popen(command, env=ENVIRONMENT, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 90
    while not (killed / "checkpoint.pt").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    time.sleep(0.3)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert not (killed / "bundle").exists()
    done = subprocess.run([*command, "--resume"], env=ENVIRONMENT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert (killed / "losses.csv").read_text() == (whole / "losses.csv").read_text()
    assert len(losses(whole)) == 60
    weights = [(f / "bundle" / "unet" / "diffusion_pytorch_model.safetensors").read_bytes() for f in (whole, killed)]
    assert weights[0] == weights[1]


def test_minutes_stop_early_and_the_parts_of_a_step_are_resumed(tmp_path: Path) -> None:
    first = train_autoencoder(tmp_path / "a", minutes=1e-6, micro_batch=1, steps=8)
    assert (first.step, first.result) == (1, None)
    assert train_autoencoder(tmp_path / "a", resume=True, micro_batch=1, steps=8).result
    train_autoencoder(tmp_path / "b", micro_batch=1, steps=8)
    assert losses(tmp_path / "a") == losses(tmp_path / "b")


def test_resuming_what_is_finished_keeps_its_figures(tmp_path: Path) -> None:
    make_denoiser(tmp_path, entropy={"enabled": True})
    said = (tmp_path / "bundle" / "README.md").read_text()
    assert all(f"- {name}: " in said for name in ("steps", "loss", "mse", "entropy"))
    outcome = make_denoiser(tmp_path, resume=True, entropy={"enabled": True})
    assert (outcome.step, outcome.result) == (6, tmp_path / "bundle")
    assert (tmp_path / "bundle" / "README.md").read_text() == said


def test_a_loss_that_is_no_number_stops_and_the_good_state_stays(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"the loss is nan at step 3; stopped, the checkpoint of step 3 stays: .*--out"):
        make_denoiser(tmp_path, poisoned_step=3)
    with pytest.raises(TrainingError, match=r"the loss is nan at step 0; stopped, there is no checkpoint yet: "):
        make_denoiser(tmp_path / "first", poisoned_step=0)
    kept = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    assert kept["step"] == 3
    assert all(torch.isfinite(v).all() for v in kept["state"]["module.model"].values())


@pytest.mark.parametrize("factor", [float("nan"), float("inf")])
def test_a_discriminator_that_loses_its_numbers_is_never_kept(
    factor: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from wsigen.training import autoencoder_task

    calls = []

    def poisoned(real: torch.Tensor, fake: torch.Tensor) -> torch.Tensor:
        calls.append(1)
        return hinge_loss(real, fake) * (factor if len(calls) == 2 else 1.0)

    with monkeypatch.context() as patched:
        patched.setattr(autoencoder_task, "hinge_loss", poisoned)
        with pytest.raises(TrainingError, match=r"the adversary is (nan|inf) at step 6"):
            train_autoencoder(tmp_path / "a", steps=10)
    kept = torch.load(tmp_path / "a" / "checkpoint.pt", weights_only=True)
    assert kept["step"] == 6
    assert all(torch.isfinite(v).all() for v in kept["state"]["module.adversary"].values())
    assert train_autoencoder(tmp_path / "a", steps=10, resume=True).result
    train_autoencoder(tmp_path / "b", steps=10)
    assert losses(tmp_path / "a") == losses(tmp_path / "b")


def test_a_gradient_of_the_discriminator_that_is_no_number_stops(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The loss of the discriminator is a number, its gradient is not: the square root's at 0 is infinite."""
    from wsigen.training import autoencoder_task

    def steep(real: torch.Tensor, fake: torch.Tensor) -> torch.Tensor:
        return hinge_loss(real, fake) + (0.0 * fake.sum()).abs().sqrt()

    monkeypatch.setattr(autoencoder_task, "hinge_loss", steep)
    with pytest.raises(TrainingError, match="the adversary gradient is nan at step 5"):
        train_autoencoder(tmp_path, steps=10)
    assert torch.load(tmp_path / "checkpoint.pt", weights_only=True)["step"] == 5


def test_a_full_disk_keeps_the_checkpoint_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_denoiser(tmp_path, loop={"minutes": 1e-6})
    before = (tmp_path / "checkpoint.pt").read_bytes()

    def full(state: object, path: Path) -> None:
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(TrainingError, match=r"step 2 cannot be written .*No space left.* untouched"):
        make_denoiser(tmp_path, resume=True)
    assert (tmp_path / "checkpoint.pt").read_bytes() == before
    assert not [p for p in tmp_path.iterdir() if p.name.startswith(".")]
    monkeypatch.undo()
    assert make_denoiser(tmp_path, resume=True).result


def test_a_checkpoint_of_another_configuration_is_refused(tmp_path: Path) -> None:
    make_denoiser(tmp_path, loop={"minutes": 1e-6})
    with pytest.raises(TrainingError, match=r"made with p_unc 0\.1, the recipe says 0\.5"):
        make_denoiser(tmp_path, resume=True, p_unc=0.5)
    with pytest.raises(TrainingError, match=r"made with loop\.steps 6"):
        make_denoiser(tmp_path, resume=True, loop={"steps": 9})
    with pytest.raises(TrainingError, match="already; go on with --resume"):
        make_denoiser(tmp_path)
    (tmp_path / "checkpoint.pt").write_bytes(b"damaged")
    with pytest.raises(TrainingError, match="not a readable checkpoint"):
        make_denoiser(tmp_path, resume=True)


def test_the_end_of_a_training_however_short_has_a_picture(tmp_path: Path) -> None:
    train_autoencoder(tmp_path / "a", steps=3, sample_every=1000)
    make_denoiser(tmp_path / "b", loop={"steps": 2, "sample_every": 1000})
    for name, step in (("a", 3), ("b", 2)):
        assert [file.name for file in (tmp_path / name / "samples").iterdir()] == [f"{step:07d}.png"]


def test_a_bundle_samples_by_default_as_our_measurements_prefer(tmp_path: Path) -> None:
    make_denoiser(tmp_path, loop={"steps": 1})
    card = check_bundle(tmp_path / "bundle")
    assert (card.eta, card.guidance) == (1.0, 0.0)


def test_a_tiny_autoencoder_learns(tmp_path: Path) -> None:
    train_autoencoder(tmp_path, steps=60, learning_rate=1e-2, sample_every=60)
    found = losses(tmp_path)
    assert np.mean(found[20:30]) < 0.7 * np.mean(found[:3])  # before the adversary plays
    assert (tmp_path / "samples" / "0000060.png").is_file()


@pytest.mark.parametrize("kind", ["class-map", "class-tokens", "none"])
def test_a_tiny_denoiser_learns_and_its_bundle_generates(kind: str, tmp_path: Path) -> None:
    loop = {"steps": 80, "sample_every": 80, "learning_rate": 5e-3}
    make_denoiser(tmp_path, conditioning={"kind": kind}, entropy={"enabled": kind != "none"}, loop=loop)
    found = losses(tmp_path)
    assert np.mean(found[-15:]) < 0.8 * np.mean(found[:5])
    assert (tmp_path / "samples" / "0000080.png").is_file()
    card = check_bundle(tmp_path / "bundle")
    assert card.table.names == ["Glass", "Tumor"]
    assert load_vae(tmp_path / "bundle").config["latent_channels"] == 4
    assert "--model tiny" not in (tmp_path / "bundle" / "README.md").read_text()  # its name is no place to load it from
    assert draws_a_slide(tmp_path / "bundle")


def test_prompts_fine_tune_a_stable_diffusion_folder(tmp_path: Path) -> None:
    import tiny_bundles

    start = tiny_bundles.make_text_bundle(tmp_path / "sd", with_card=False)
    out = tmp_path / "out"
    make_denoiser(out, start=start, conditioning={"kind": "text"}, entropy={"enabled": True}, loop={"steps": 3})
    card = check_bundle(out / "bundle")
    assert card.conditioning.prompt == "{class}, {level}"
    assert np.isfinite(losses(out)).all()
    assert draws_a_slide(out / "bundle")


def test_one_cycle_equals_torchs() -> None:
    optimiser = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, max_lr=0.3, total_steps=50, cycle_momentum=False)
    for step in range(50):
        assert learning_rate("one-cycle", 0.3, step, 50) == pytest.approx(optimiser.param_groups[0]["lr"], rel=1e-6)
        optimiser.step()
        if step < 49:
            schedule.step()


def test_prefetching_keeps_the_order_and_raises_where_it_failed() -> None:
    with closing(prefetched(lambda k: 10 // (5 - k), 0, 9, threads=2)) as items:
        assert [next(items) for _ in range(5)] == [2, 2, 3, 5, 10]
        with pytest.raises(ZeroDivisionError):
            next(items)


def test_an_unknown_setting_of_a_recipe_is_named_with_the_nearest(tmp_path: Path) -> None:
    file = tmp_path / "r.yaml"
    file.write_text("dataset: c.yaml\nautoencoder: a\nbundle: {name: a, title: b, licence: c, not_for: d}\nloop: {step: 3}\n")
    with pytest.raises(ConfigError, match=r"unknown setting 'loop.step' \(did you mean 'steps'\?\)"):
        read_recipe(DenoiserRecipe, file)
