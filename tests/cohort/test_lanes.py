"""Several slides at a time: what is left of those that fail is bounded."""

from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace

from hypothesis import given
from hypothesis import strategies as st

from wsigen.base.errors import OutputError
from wsigen.cohort.folder import CohortFolder
from wsigen.cohort.lanes import TRIES, Lanes
from wsigen.run.outputs import drawn_of


@given(st.sets(st.integers(0, 11)), st.integers(1, 4))
def test_of_many_slides_that_fail_the_state_of_a_few_is_kept(bad, runs):
    slides = [f"s{number:02d}" for number in range(12)]
    tries, forgotten = [], []

    def make(slide, cluster, watch):
        tries.append(slide)
        if int(slide[1:]) in bad:
            raise OutputError("no room")

    lanes = Lanes(slides, make, forgotten.append)
    lanes.run(lambda: SimpleNamespace(workers=1, priority=0), runs, lambda stage: None)
    assert set(lanes.failed) == {f"s{number:02d}" for number in bad}
    assert set(lanes.done) == set(slides) - set(lanes.failed)
    assert all(tries.count(slide) == TRIES for slide in lanes.failed)
    assert len(set(lanes.failed) - set(forgotten)) <= runs
    assert set(forgotten) <= set(lanes.failed)


def test_a_slide_whose_polygons_are_not_there_yet_is_not_complete(tmp_path):
    """They come after the manifest, so a kill may leave them out."""
    folder = CohortFolder(tmp_path)
    made = folder.made("a")
    made.slide.parent.mkdir(parents=True)
    for path in (made.slide, made.annotations, made.labels, made.manifest):
        assert not folder.complete("a", drawn=False)
        path.touch()
    assert folder.complete("a", drawn=False)
    assert not folder.complete("a", drawn=True)
    made.annotations.with_suffix(".drawn.geojson").touch()
    assert folder.complete("a", drawn=True)


@given(st.sampled_from(["slide", "annotations", "labels", "thumbnail", "manifest", "drawn"]))
def test_a_slide_of_which_a_file_is_gone_is_not_done(lost):
    with TemporaryDirectory() as place:
        folder = CohortFolder(Path(place))
        files = folder.files("a")
        paths = {name: getattr(files, name) for name in files.__slots__} | {"drawn": drawn_of(files.slide)}
        for path in paths.values():
            path.parent.mkdir(exist_ok=True)
            path.touch()
        assert folder.done("a", drawn=True)
        paths[lost].unlink()
        assert not folder.done("a", drawn=True)
        assert folder.done("a") == (lost == "drawn")
