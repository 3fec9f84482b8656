"""How often a task may fail, and how many workers it may lose."""

import pytest

from wsigen.engine.cluster import WorkerLostError
from wsigen.engine.run import LOSSES, TRIES, Dispatcher, place_of_key
from wsigen.errors import RunError
from wsigen.tasks.perform import Report, Task

TASK = Task("denoise", 1, (0, 2), 3)


class Results:
    """A cluster that gives back what it was given."""

    def __init__(self, *results):
        self._results = iter(results)

    def take(self):
        return TASK, next(self._results)


@pytest.mark.parametrize(
    ("error", "limit", "words"),
    [(ValueError("odd shape"), TRIES, "ValueError: odd shape"), (WorkerLostError("tcp://a died"), LOSSES, "enough memory")],
)
def test_a_task_is_given_up_by_name(error, limit, words):
    dispatcher = Dispatcher(None, Results(*[error] * limit))
    for _ in range(limit - 1):
        assert isinstance(dispatcher.take()[1], WorkerLostError)
    with pytest.raises(RunError, match=rf"denoise step 3 of chunk \(0, 2\) in pass 1 .*{words}"):
        dispatcher.take()


def test_lost_workers_are_not_the_tasks_own_failures():
    report = Report(1, 0.1)
    dispatcher = Dispatcher(None, Results(*[WorkerLostError("died")] * (LOSSES - 1), ValueError("once"), report))
    for _ in range(LOSSES):
        dispatcher.take()
    assert dispatcher.take() == (TASK, report)


@pytest.mark.parametrize(
    ("key", "place"),
    [
        ("pass-1/latents/c/4/0/2/3", (1, 8, (2, 3))),
        ("pass-0/history/c/4/0/2/3", (0, 10, (2, 3))),
        ("pass-0/partials/c/4/2/3/0/0/0", (0, 9, (2, 3))),
    ],
)
def test_keys_name_a_half_step(key, place):
    assert place_of_key(key) == place


def test_other_keys_cannot_be_made_again():
    with pytest.raises(RunError, match="generate anew"):
        place_of_key("pass-0/classes")
