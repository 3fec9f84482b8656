"""Names of columns in ``croissant.json``."""

from hypothesis import given
from hypothesis import strategies as st

from wsigen.cohort.croissant import plain_names


@given(st.lists(st.text("ab_ 23", min_size=1, max_size=5), max_size=12))
def test_names_of_columns_are_plain_and_each_its_own(columns: list[str]) -> None:
    names = plain_names(columns)
    assert len(set(names)) == len(names) == len(columns)
    assert all(name.replace("_", "a").isalnum() for name in names)
