"""Several slides at a time: what is left of those that fail is bounded."""

from types import SimpleNamespace

from hypothesis import given
from hypothesis import strategies as st

from wsigen.base.errors import OutputError
from wsigen.cohort.folder import CohortFolder
from wsigen.cohort.lanes import TRIES, Lanes


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
