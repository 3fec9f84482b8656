"""Two processes, as ``accelerate launch`` starts them, encode a dataset together."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from dataset.dataset_making import CLASSES, tiles

import wsigen
from wsigen.base.errors import TrainingError
from wsigen.training.processes import main_first, processes, together

HERE = Path(__file__).parent
DATASET = {
    "classes": CLASSES[1:],
    "levels": [{"name": "patch", "mpp": 0.5}],
    "patch_px": 64,
    "overlap_px": 0,
    "sources": [{"kind": "tiles", "folder": "tiles", "mpp": 0.5}],
}


def launch(count: int, file: Path, out: Path) -> list[str]:
    """What each of the processes printed last."""
    told = started(count, "encode_share.py", str(file), str(out))
    assert [code for code, _, _ in told] == [0] * count, told
    return [text.splitlines()[-1] for _, text, _ in told]


def started(count: int, *command: str) -> list[tuple[int, str, str]]:
    """Exit status and output of each process; environment variables are those of ``accelerate launch --cpu``."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    common = {
        **os.environ,
        "PYTHONPATH": f"{Path(wsigen.__file__).parents[1]}:{HERE}",
        "OMP_NUM_THREADS": "1",
        "CUDA_VISIBLE_DEVICES": "",
        "ACCELERATE_USE_CPU": "true",
    }
    if count > 1:
        common |= {
            "WORLD_SIZE": str(count),
            "LOCAL_WORLD_SIZE": str(count),
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(port),
        }
    ranks = [{"RANK": str(rank), "LOCAL_RANK": str(rank)} if count > 1 else {} for rank in range(count)]
    line = [sys.executable, str(HERE / command[0]), *command[1:]]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    there = [subprocess.Popen(line, env=common | rank, **pipes) for rank in ranks]  # type: ignore[call-overload]
    told = [process.communicate(timeout=500) for process in there]
    return [(process.returncode, *texts) for process, texts in zip(there, told, strict=True)]


@pytest.mark.slow
def test_two_processes_encode_what_one_does(tmp_path: Path) -> None:
    tiles(tmp_path / "tiles", 6, 2)
    file = tmp_path / "dataset.yaml"
    file.write_text(yaml.safe_dump(DATASET))
    (alone,) = launch(1, file, tmp_path / "one")
    assert alone.startswith("1 processes")
    assert set(launch(2, file, tmp_path / "two")) == {alone.replace("1 processes", "2 processes")}


def test_the_main_process_indexes_a_dataset_and_the_others_find_it(tmp_path: Path) -> None:
    tiles(tmp_path / "tiles", 3, 1)
    (tmp_path / "dataset.yaml").write_text(yaml.safe_dump(DATASET))
    told = started(2, "open_together.py", str(tmp_path / "dataset.yaml"))
    assert [code for code, _, _ in told] == [0, 0], told
    first, second = (text.splitlines()[-1].split(" | ") for _, text, _ in told)
    assert (first[:2], second[:2]) == (["0", "1"], ["1", "0"])
    assert first[2:4] == second[2:4]
    assert "no such dataset file" in first[4]
    assert second[4] == "the first process of this training could not make the index; see what it says"


def test_alone_nobody_is_waited_for() -> None:
    assert main_first("a number", lambda: 3) == 3
    with pytest.raises(ZeroDivisionError):
        main_first("a number", lambda: 1 // 0)


def test_who_is_left_alone_says_so() -> None:
    (code, text, errors), (other, _, _) = started(2, "left_alone.py")
    assert (code, other) == (0, 9), errors
    assert "another process of this training ended" in text
    assert text.count("\n") == 1


def test_other_errors_stay_what_they_are() -> None:
    with pytest.raises(RuntimeError, match="out of memory"), together():
        raise RuntimeError("CUDA out of memory")


def test_processes_that_do_not_find_each_other_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each would take itself for the only one and write the same files."""
    if processes().num_processes > 1:
        pytest.skip("this is one of several")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(TrainingError, match="2 processes were started, and this one cannot join the others"):
        processes()
