"""The layout of a run: what the user should know of it."""

import pytest
from runs import settings_of

from wsigen.run.generate import generate


@pytest.mark.parametrize("size", [None, (640, 640)])
def test_a_guessed_size_is_said_before_the_run_begins(bundle, tmp_path, size):
    notes = []

    def stop(stage):
        notes.append(stage.note)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        generate(tmp_path / "a.ome.tiff", watch=stop, **settings_of(bundle, tmp_path, size=size))
    (note,) = notes
    assert ("608x640 px are guessed" in note and "--size" in note) == (size is None)
