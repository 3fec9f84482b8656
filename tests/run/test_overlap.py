"""Tasks that share a worker: one calls the model while others read and write, and the pixels are the same."""

import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wsigen.models.model import CallLimit, Model
from wsigen.run.check_workers import WorkerInfo, _hints
from wsigen.run.config import make_config
from wsigen.run.engine.cluster import Size
from wsigen.run.engine.workers import Workers
from wsigen.run.estimate.memory import Projection
from wsigen.run.generate import generate
from wsigen.run.store import PassState

CALL_S = 0.02


class Watched:
    """A model whose calls take a while; counts who calls it at once, and who meanwhile reads or writes."""

    def __init__(self, monkeypatch):
        self.calling = self.most = self.meanwhile = 0
        self._lock = threading.Lock()
        predict = Model.predict

        def slow_predict(model, *args):
            with self._lock:
                self.calling += 1
                self.most = max(self.most, self.calling)
            try:
                time.sleep(CALL_S)
                return predict(model, *args)
            finally:
                with self._lock:
                    self.calling -= 1

        monkeypatch.setattr(Model, "predict", slow_predict)
        for name in ("read_latents", "write_partial"):
            monkeypatch.setattr(PassState, name, self._noted(getattr(PassState, name)))

    def _noted(self, access):
        def noted(*args):
            with self._lock:
                self.meanwhile += self.calling > 0
            return access(*args)

        return noted


def slide(bundle, path, **more):
    settings = {"model": str(bundle), "class_name": "Tumor", "size": (600, 600), "steps": 2, "guidance": 0.0, "seed": 5}
    return generate(path, **settings, workers=1, chunk=32, levels=1, batch=2, threads=1, **more).level0_sha256


def test_one_task_calls_the_model_while_another_reads_and_writes(bundle, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        alone = Watched(patch)
        digest = slide(bundle, tmp_path / "a.ome.tiff")
    with monkeypatch.context() as patch:
        shared = Watched(patch)
        assert slide(bundle, tmp_path / "b.ome.tiff", tasks_at_once=2) == digest
    assert (alone.most, alone.meanwhile) == (1, 0)
    assert shared.most == 1
    assert shared.meanwhile > 0


def test_the_same_pixels_from_processes_with_several_tasks(bundle, tmp_path):
    alone = slide(bundle, tmp_path / "a.ome.tiff")
    assert slide(bundle, tmp_path / "b.ome.tiff", tasks_at_once=3, processes=True) == alone


@given(threads=st.integers(1, 6), most=st.integers(1, 3) | st.none())
def test_no_more_have_a_slot_than_may(threads, most):
    limit, counted, lock = CallLimit(), [0, 0], threading.Lock()

    def work():
        with limit.slot(most):
            with lock:
                counted[0] += 1
                counted[1] = max(counted)
            time.sleep(0.001)
            with lock:
                counted[0] -= 1

    running = [threading.Thread(target=work) for _ in range(threads)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join(10)
    assert counted[0] == 0
    assert counted[1] <= (most or threads)


def test_a_task_that_fails_gives_its_slot_back():
    limit = CallLimit()
    with pytest.raises(ValueError, match="odd"), limit.slot(1):
        raise ValueError("odd")
    done = threading.Event()

    def work():
        with limit.slot(1):
            done.set()

    threading.Thread(target=work, daemon=True).start()
    assert done.wait(5)


@pytest.mark.parametrize(
    ("settings", "tasks", "calls"),
    [
        ({"device": "cpu", "workers": 3}, 1, 3),
        ({"device": "cpu", "workers": 3, "processes": True, "tasks_at_once": 2}, 2, 1),
        ({"device": "cpu", "scheduler": "tcp://a:1"}, 1, None),
        ({"device": "cuda"}, 2, 1),
        ({"device": "cuda", "scheduler": "tcp://a:1"}, 2, 1),
        ({"device": "cuda", "tasks_at_once": 1}, 1, 1),
    ],
)
def test_an_accelerator_has_two_tasks_and_one_call_at_once(settings, tasks, calls):
    workers = Workers.of(make_config({"class_name": "Tumor", "size": (600, 600), **settings}))
    assert (workers.tasks_at_once, workers.calls_at_once) == (tasks, calls)


@given(workers=st.integers(1, 8), tasks=st.integers(1, 8), own=st.booleans())
def test_memory_counts_every_task_but_a_model_for_each_process_alone(workers, tasks, own):
    projection = Projection(300, 200, 1000, 1000, 100, 10, 0, 0)
    more = projection.total(workers, own, tasks) - projection.total(workers, own)
    assert more == workers * (tasks - 1) * projection.worker


def test_a_worker_with_one_thread_for_its_accelerator_is_named():
    def answer(*devices):
        return WorkerInfo("host", "3.11", {}, list(devices), 1.0, "model")

    answers = {"a": answer("cpu", "cuda:0"), "b": answer("cpu", "cuda:0"), "c": answer("cpu"), "gone": answer("cpu", "cuda:0")}
    (hint,) = _hints(answers, {"a": Size(1, 1), "b": Size(2, 1), "c": Size(1, 0)})
    assert hint.startswith("a:")
    assert "--nthreads 2" in hint


def test_a_worker_that_declares_several_accelerators_is_named():
    """They take turns: a process computes on one alone."""
    answers = {name: WorkerInfo("host", "3.11", {}, ["cpu", "cuda:0"], 1.0, "model") for name in ("a", "b")}
    (hint,) = _hints(answers, {"a": Size(4, 2), "b": Size(2, 1)})
    assert hint.startswith("a: declares 2 GPUs")
    assert len(_hints(answers, {"a": Size(1, 2), "b": Size(2, 1)})) == 2
