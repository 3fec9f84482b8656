"""A small share of ``python -m benchmarks.fuzz``: every reader takes strange input or refuses it in one line."""

import pytest

from benchmarks.fuzz.child import faults
from benchmarks.fuzz.readers import readers

CASES = 12
SEED = 7
"""Not the one of the campaign: other cases than those that were mended."""


@pytest.mark.parametrize("name", sorted(readers()))
def test_strange_input_is_taken_or_refused_in_one_line(tmp_path, name):
    reader = readers()[name]
    files = reader.make(tmp_path / "good")
    for file in files:
        reader.read(file)
    found = [(case, *fault) for case in range(CASES) for fault in faults(reader, files, name, SEED, case)]
    assert [fault for fault in found if fault[1] != "slow"] == []  # a busy machine is slow
