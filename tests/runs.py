"""Runs for tests: settings of a small slide, stopped where the test says."""

import pytest
from drawing import tumor_in_stroma

from wsigen.run.generate import generate


def work_of(run_dir):
    """The folder of a run's state and spool."""
    return next(run_dir.glob("work-*"))


def settings_of(bundle, tmp_path, **more):
    layout = tumor_in_stroma(tmp_path / "layout.geojson")
    base = {"model": str(bundle), "layout": layout, "size": (640, 584), "steps": 3, "guidance": 0.5, "seed": 5, "chunk": 32}
    return {**base, "workers": 1, "threads": 1, "batch": 2, "keep_run": True, **more}


def interrupt_in_the_middle(out, settings, after):
    count = 0

    def watch(stage):
        nonlocal count
        count += 1
        if count == after:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        generate(out, watch=watch, **settings)
