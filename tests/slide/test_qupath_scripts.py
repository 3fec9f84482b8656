"""Scripts for QuPath, run by a Groovy with stand-ins for QuPath (`qupath_stubs`)."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from qupath_stubs import compile_stubs, run_script

import wsigen.cohort
import wsigen.slide

EDIT = Path(wsigen.slide.__file__).with_name("wsigen_edit.groovy")
IMPORT = EDIT.with_name("import_annotations.groovy")
OPEN = Path(wsigen.cohort.__file__).with_name("open_in_qupath.groovy")

PROGRAM = """
import pathlib, signal, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)
name = pathlib.Path(sys.argv[2]).name
given = dict(zip(sys.argv[3::2], sys.argv[4::2]))
print("given", sys.argv[1], name, pathlib.Path(given["--regions"]).read_text(), flush=True)
print("run-1  denoise (0.7 um/px): 50 %  6/12 tasks  20 s left", file=sys.stderr, flush=True)
output = pathlib.Path(given["--output"])
if "wrong" in name:
    sys.exit("class 'Bone' is not of this model; choose another")
work = output.with_name(output.name.partition(".")[0] + ".edit-" + given["--seed"] + ".edit")
work.mkdir()
if not output.name.endswith(".ome.tiff"):
    sys.exit("a TIFF of JPEG 2000, in which pixels cannot be replaced; give the new slide a name in .ome.tiff, and it is")
if "slow" in name:
    try:
        time.sleep(60)
    except KeyboardInterrupt:
        sys.exit(130)
work.rmdir()
output.write_text("slide")
output.with_name(output.name.replace(".ome.tiff", ".geojson")).write_text("one\\ntwo\\n")
"""


@pytest.fixture(scope="module")
def classes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compile_stubs(tmp_path_factory.mktemp("stubs"))


@pytest.fixture
def wsigen_program(tmp_path: Path) -> Path:
    path = tmp_path / "bin" / "wsigen"
    path.parent.mkdir()
    path.write_text(f"#!{sys.executable}\n{PROGRAM}")
    path.chmod(0o755)
    return path


def edit(classes: Path, folder: Path, slide: str = "a b.ome.tiff", selected: str = "Tumor", **more: str) -> list[str]:
    (folder / slide).parent.mkdir(exist_ok=True)
    (folder / slide).touch()
    return run_script(EDIT, classes, folder, STUB_SLIDE=str(folder / slide), STUB_SELECTED=selected, **more)


def test_the_selection_is_made_anew_and_opened(classes: Path, tmp_path: Path, wsigen_program: Path) -> None:
    said = edit(classes, tmp_path, selected="Tumor;line;Stroma", STUB_KEPT=str(wsigen_program))
    assert "given edit a b.ome.tiff FEATURE_COLLECTIONTumor,Stroma" in said
    assert "CALL bar 0.5" in said
    assert "CALL label denoise (0.7 um/px): 50 %  6/12 tasks  20 s left" in said
    calls = [line for line in said if line.startswith(("CALL open", "CALL type", "CALL added", "CALL down", "CALL centre"))]
    assert calls == ["CALL open a b.edit-1.ome.tiff", "CALL type BRIGHTFIELD_H_E", "CALL added 2", "CALL downsample 4.0",
                     "CALL centre 100.0 200.0"]  # fmt: skip
    assert not any("error" in line for line in said)
    again = edit(classes, tmp_path, "a b.edit-1.ome.tiff", STUB_KEPT=str(wsigen_program))
    assert "CALL open a b.edit-2.ome.tiff" in again


def test_where_wsigen_is(classes: Path, tmp_path: Path, wsigen_program: Path) -> None:
    assert any("without the program wsigen" in line for line in edit(classes, tmp_path))
    asked = edit(classes, tmp_path, STUB_CHOSEN=str(wsigen_program))
    assert any(line.startswith("CALL asked Where is wsigen?") for line in asked)
    assert f"CALL kept {wsigen_program}" in asked
    found = edit(classes, tmp_path, PATH=f"{wsigen_program.parent}:/usr/bin:/bin")
    assert not any("asked" in line for line in found)
    assert "CALL open a b.edit-2.ome.tiff" in found


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"selected": ""}, "select annotations"),
        ({"selected": "line"}, "select annotations"),
        ({"selected": "Tumor;-"}, "1 of 2 annotations have no class"),
        ({"STUB_ROTATED": "1"}, "rotated, cropped or transformed"),
        ({"STUB_SLIDE": ""}, "no image is open"),
        ({"slide": "wrong.ome.tiff"}, "class 'Bone' is not of this model"),
        ({"slide": "slow.ome.tiff", "STUB_CANCEL": "1"}, "cancelled; nothing was changed"),
    ],
)
def test_what_is_wrong_is_said(classes: Path, tmp_path: Path, wsigen_program: Path, more: dict[str, str], said: str) -> None:
    if more.get("STUB_SLIDE") == "":
        lines = run_script(EDIT, classes, tmp_path)
    else:
        lines = edit(classes, tmp_path, STUB_KEPT=str(wsigen_program), **more)
    assert any(line.startswith("CALL error") and said in line for line in lines)
    assert not list(tmp_path.glob("*.edit"))
    assert not any(line.startswith("CALL open") for line in lines)


def test_a_format_that_is_not_edited_in_place_becomes_an_ome_tiff(classes: Path, tmp_path: Path, wsigen_program: Path) -> None:
    said = edit(classes, tmp_path, "scan.svs", STUB_KEPT=str(wsigen_program))
    assert "CALL open scan.edit-1.ome.tiff" in said
    assert not any(line.startswith("CALL error") for line in said)
    assert not list(tmp_path.glob("*.edit"))


def test_in_a_project(classes: Path, tmp_path: Path, wsigen_program: Path) -> None:
    said = edit(classes, tmp_path, STUB_KEPT=str(wsigen_program), STUB_PROJECT="1")
    at = [said.index(line) for line in ("CALL added 2", "CALL saved a b.edit-1.ome.tiff", "CALL saved project",
                                        "CALL open entry a b.edit-1.ome.tiff")]  # fmt: skip
    assert at == sorted(at)


def test_whoever_keeps_the_old_image_is_told_where_the_new_one_is(classes: Path, tmp_path: Path, wsigen_program: Path) -> None:
    said = edit(classes, tmp_path, STUB_KEPT=str(wsigen_program), STUB_KEEPS="1")
    assert f"CALL said the new version is {tmp_path / 'a b.edit-1.ome.tiff'}" in said


def test_edits_of_a_cohort_lie_apart(classes: Path, tmp_path: Path, wsigen_program: Path) -> None:
    (tmp_path / "cohort.csv").touch()
    edit(classes, tmp_path, "slides/x.ome.tiff", STUB_KEPT=str(wsigen_program))
    assert (tmp_path / "edits" / "x.edit-1.ome.tiff").is_file()


def test_annotations_are_imported(classes: Path, tmp_path: Path) -> None:
    (tmp_path / "x.ome.tiff").touch()
    assert any(
        "no annotations found" in line
        for line in run_script(IMPORT, classes, tmp_path, STUB_SLIDE=str(tmp_path / "x.ome.tiff"))
    )
    (tmp_path / "x.geojson").touch()
    said = run_script(IMPORT, classes, tmp_path, STUB_SLIDE=str(tmp_path / "x.ome.tiff"))
    assert said[:2] == ["CALL type BRIGHTFIELD_H_E", "CALL added 1"]


def test_a_project_of_a_cohort(classes: Path, tmp_path: Path) -> None:
    for name in ("slides/a.ome.tiff", "slides/b.ome.tiff", "slides/b.geojson"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    said = run_script(OPEN, classes, tmp_path, STUB_CHOSEN=str(tmp_path))
    assert [line for line in said if line.startswith("CALL saved")] == [
        "CALL saved a.ome.tiff", "CALL saved b.ome.tiff", "CALL saved project"]  # fmt: skip
    assert said.count("CALL added 1") == 1
    assert said[-1] == "CALL shows project"
