from drawing import tumor_in_stroma

from wsigen.cohort.estimate import estimate_cohort


def test_drawings_count_with_their_own_sizes(content, write, tmp_path):
    """The largest decides memory and disk, however many small ones there are."""
    content["parts"] = [{"layouts": "*.geojson"}]
    small = estimate_cohort(write(content), workers=1)
    for number in range(4):
        tumor_in_stroma(tmp_path / f"small-{number}.geojson")
    tumor_in_stroma(tmp_path / "zz-large.geojson", size=1600)
    many = estimate_cohort(write(content), workers=1)
    large = estimate_cohort(write(content | {"parts": [{"layouts": "zz-large.geojson"}]}), workers=1)
    assert many.alive == large.alive * 2 > small.alive * 2
    assert many.memory == large.memory
    assert abs(many.calls - 5 * small.calls - large.calls) <= 0.1 * many.calls


def test_a_plan_of_many_slides_is_counted_on_a_few(content, write):
    """Calls and disk grow with the number of slides; the slides that are looked at do not."""
    few = estimate_cohort(write(content), workers=1)
    content["parts"][0]["slides"] = 60
    many = estimate_cohort(write(content), workers=1)
    assert (few.slides, many.slides) == (4, 61)
    assert few.looked_at <= many.looked_at <= 3
    assert 8 * few.calls < many.calls < 30 * few.calls
    assert many.disk > 8 * few.disk > 0
    assert many.alive == few.alive
    assert "61 (counted on 3 of them)" in str(many)
