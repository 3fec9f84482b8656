from wsigen.cohort.estimate import estimate_cohort


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
