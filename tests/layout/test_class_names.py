"""Written names: renamed, left out, shortened, or refused."""

import ast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wsigen.base.errors import ConfigError
from wsigen.base.yaml_file import parse_yaml
from wsigen.layout.class_names import ClassNames, Unresolved, WrittenClasses, as_option, check_names, parse_names


def test_names_from_an_option():
    assert parse_names("Necrosis=Other, Region*=,=Stroma") == {"Necrosis": "Other", "Region*": None, "": "Stroma"}
    assert parse_names({"a": None}) == {"a": None}


def test_names_with_commas_and_equal_signs():
    text = '"Carcinoma, NOS"=Tumor,p53=wt=Other, "a, b=c" = ,"Fat",5" core=Stroma'
    with pytest.raises(ValueError, match="'\"Fat\"' has no '='"):
        parse_names(text)
    names = {"Carcinoma, NOS": "Tumor", "p53=wt": "Other", "a, b=c": None, '5" core': "Stroma"}
    assert parse_names(text.replace(',"Fat"', "")) == names


@given(st.text(st.characters(categories=("L", "N", "P", "S", "Zs"))).map(str.strip), st.sampled_from(["Tumor", ""]))
def test_what_a_message_advises_does_what_it_says(written, name):
    advice = as_option(written, name)
    if advice.startswith("--layout-names "):
        found = parse_names(ast.literal_eval(advice.removeprefix("--layout-names ")))
    else:
        found = parse_yaml(advice.removesuffix(" in a --config file")[1:-1])["layout-names"]
    assert found == {written: name or None}


@pytest.mark.parametrize(("text", "match"), [("Necrosis", "no '='"), ("a=b,", "no '='"), ("a=b,a=", "twice")])
def test_options_that_say_nothing_or_twice(text, match):
    with pytest.raises(ValueError, match=match):
        parse_names(text)


@pytest.mark.parametrize(
    ("written", "found"),
    [
        ("Tumor", 1),
        ("tumor: Positive", 1),
        ("Immune cells: CD3: PD1", 3),
        ("Necrosis", 4),
        ("necrosis: old", 4),
        ("Stroma: Positive", Unresolved.DROPPED),
        ("Stroma: Negative", 2),
        ("Tumor*", Unresolved.STARRED),
        ("Region*", Unresolved.STARRED),
        ("Ignore*", 0),
        ("Tumor: Ignore*", Unresolved.STARRED),
        ("Entzu\u0308ndung", 2),
        ("Positive", Unresolved.UNKNOWN),
        (None, Unresolved.UNNAMED),
        (" ", Unresolved.UNNAMED),
    ],
)
def test_the_longest_part_that_is_known_counts(table, written, found):
    names = {"Necrosis": "other", "Stroma: Positive": None, "Ignore*": "Glass", "never": "Tumor", "Entz\u00fcndung": "Stroma"}
    assert ClassNames(table, names).find(written) == found


def test_what_has_no_name_may_be_given_one(table):
    assert ClassNames(table, {"": "Tumor"}).find(None) == 1
    assert ClassNames(table, {"": None}).find(None) is Unresolved.DROPPED


def test_renamed_names_nobody_asked_for(table):
    known = ClassNames(table, {"Necrosis": "Other", "Nekrose": "Other"})
    known.find("Necrosis: old")
    assert known.unused == ["Nekrose"]


def test_renamed_to_nothing_known(table):
    with pytest.raises(ConfigError, match=r"setting 'layout_names': unknown class 'Tumour' \(did you mean 'Tumor'\?\)"):
        check_names(table, {"a": "Tumour"}, "layout_names")


def test_unknown_names_are_listed_with_counts(table):
    text = ClassNames(table).unknown({"Positive": 3, "Tumour": 40})
    assert text.startswith("unknown classes 'Tumour' (did you mean 'Tumor'?) (40 times), 'Positive' (3 times); known: Glass, ")
    assert "and 8 more; known" in ClassNames(table).unknown({f"x{i}": 1 for i in range(20)})


def test_without_a_table_names_are_classes_unless_they_are_renamed_or_left_out():
    names = WrittenClasses({"Tumour": "Tumor", "Fat": None, "never": "tumor", "": "Stroma"})
    found = names.classes(["tumour: Positive", "TUMOR", "Fat: old", "Region*", "Necrosis", "necrosis", "Other: a", ""])
    assert [name.casefold() for name in found] == ["tumor", "necrosis", "other: a", "stroma"]
    assert len({names.find(written) for written in ("Tumour", "never", "tumor")}) == 1
    assert names.unused == []
    assert WrittenClasses({"Fat": None, "Nekrose": "x"}).unused == ["Fat", "Nekrose"]
    assert WrittenClasses().classes(["Fat", "Ignore*", "", "Tumor: Ignore*"]) == ["Fat"]


@pytest.mark.parametrize("written", ["Tumor: Positive", "fat: old", "Region*", "Tumour: Ignore*", "TUMOUR", "", "Glass: a: b"])
def test_names_are_looked_up_alike_with_and_without_a_table(table, written):
    names = {"Tumour": "Tumor", "Fat": None, "Glass": "Glass", "Tumor": "Tumor"}
    with_table, without = ClassNames(table, names), WrittenClasses(names)
    found = with_table.find(written)
    assert without.find(written) == (table.names[found] if isinstance(found, int) else None)
    assert without.unused == with_table.unused
