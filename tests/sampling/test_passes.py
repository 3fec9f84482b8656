"""Passes: the same after a way through JSON."""

import json

import pytest

from wsigen.sampling.passes import PassPlan
from wsigen.sampling.schedule import make_schedule

PASS = PassPlan(
    index=1, level=0, height=128, width=160, scale=1, factor=8, chunk=64, side=32,
    schedule=make_schedule([0.999, 0.9, 0.7, 0.4, 0.1, 1e-12], steps=4, strength=0.5), start="previous", strength=0.5,
    mode="shifted", overlap=8, taper="linear", weighted_last=0, seed=7,
)  # fmt: skip


def test_json_gives_an_equal_pass():
    values = json.loads(json.dumps(PASS.to_json()))
    assert values == PASS.to_json()
    assert PassPlan.from_json(values) == PASS


@pytest.mark.parametrize("change", [{"start": "nothing"}, {"side": "wide"}, {"schedule": {"timesteps": [9]}}])
def test_a_pass_of_another_version_is_refused(change):
    with pytest.raises(ValueError, match=next(iter(change))):
        PassPlan.from_json({**PASS.to_json(), **change})
