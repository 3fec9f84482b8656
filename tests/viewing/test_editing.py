"""Regions drawn on the page are made anew: what is asked for, what is refused, what a person sees.

``WSIGEN_SCREENSHOTS=docs/viewing`` keeps the pictures of the documentation.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from seeing import inner, keep, of_slide, pane_pixels
from slide_making import tissue
from test_server import ask
from viewing_making import cohort, fake_edit, painted_slide, small_slide

from wsigen.base.errors import ResourceError
from wsigen.editing.edit import edit
from wsigen.run.engine.stage import Stage
from wsigen.run.generate import generate
from wsigen.viewing.server import serving
from wsigen.viewing.site import site_of
from wsigen.viewing.versions import next_version, work_of

PLACE = "#x=750&y=550&scale=1"
CLASSES = ["Tumor", "Stroma", "Immune cells", "Other", "Glass"]
TRIANGLE = {"name": "Tumor", "corners": [[600, 400], [900, 400], [750, 700]]}


def asked(*regions: Any, **more: Any) -> bytes:
    return json.dumps({"slide": 0, "regions": list(regions or [TRIANGLE]), **more}).encode()


def wait(url: str, state: str) -> dict[str, Any]:
    for _ in range(400):
        said = json.loads(ask(url, "edit/state.json")[2])
        if said["state"] != "busy":
            assert said["state"] == state, said
            return said
        threading.Event().wait(0.05)
    raise AssertionError("the edit does not end")


@pytest.fixture
def slide(tmp_path: Path) -> Path:
    return small_slide(tmp_path)


@pytest.fixture
def url(slide: Path) -> Iterator[str]:
    with serving(site_of(str(slide), edit=fake_edit)) as address:
        yield address


# -- what is asked for -----------------------------------------------------------------------------------------------------


def test_an_edit_comes_onto_the_page(url: str, slide: Path) -> None:
    before = slide.read_bytes()
    assert [c["name"] for c in json.loads(ask(url, "page/data.json")[2])["edit"]["classes"]] == CLASSES
    assert json.loads(ask(url, "edit/state.json")[2]) == {"state": "none", "edits": {}}
    assert ask(url, "edit", "POST", asked(strength=0.5))[0] == 200
    said = wait(url, "done")
    made = slide.with_name("a.edit-1.ome.tiff")
    drawn = json.loads(made.with_name("a.edit-1.regions").read_text())
    assert drawn["seed"] == 1
    assert drawn["strength"] == 0.5
    (feature,) = drawn["regions"]["features"]
    assert feature["geometry"]["coordinates"] == [[*TRIANGLE["corners"], TRIANGLE["corners"][0]]]
    assert feature["properties"]["classification"]["name"] == "Tumor"
    (entry,) = said["edits"]["0"]
    assert (entry["number"], entry["parent"], entry["label"], entry["mark"]) == (said["made"], 0, "edit 1", "synthetic")
    record = json.loads(ask(url, entry["about"])[2])
    assert ask(url, record["file"])[2] == made.read_bytes()
    assert slide.read_bytes() == before
    (again,) = json.loads(ask(url, "page/data.json")[2])["slides"]
    assert again["edits"] == [entry]
    assert ask(url, "edit", "POST", asked(slide=entry["number"], seed=77))[0] == 200  # an edit of the edit
    assert [(e["label"], e["parent"]) for e in wait(url, "done")["edits"]["0"]] == [("edit 1", 0), ("edit 2", 1)]
    assert json.loads(made.with_name("a.edit-2.regions").read_text())["seed"] == 77


def test_edits_are_found_again(url: str, slide: Path) -> None:
    ask(url, "edit", "POST", asked())
    wait(url, "done")
    with serving(site_of(str(slide))) as other:
        data = json.loads(ask(other, "page/data.json")[2])
        assert "edit" not in data
        assert [e["label"] for e in data["slides"][0]["edits"]] == ["edit 1"]
        assert ask(other, "edit", "POST", asked())[0] == 404
    with serving(site_of(str(slide.parent))) as other:
        slides = json.loads(ask(other, "page/data.json")[2])["slides"]
        assert [(s["name"], len(s["edits"])) for s in slides] == [("a.ome.tiff", 1)]


REFUSED = {
    "no JSON": b"draw",
    "another slide": asked(slide=7),
    "an unknown class": asked({**TRIANGLE, "name": "<b>Bone</b>"}),
    "a line": asked({**TRIANGLE, "corners": [[1, 2], [3, 4]]}),
    "no numbers": asked({**TRIANGLE, "corners": [[1, 2], [3, 4], [5, "6px"]]}),
    "not finite": asked().replace(b"900", b"1e999"),
    "no regions": b'{"slide": 0, "regions": []}',
    "too strong": asked(strength=2),
    "half a seed": asked(seed=1.5),
    "a seed below 0": asked(seed=-1),
    "a path": asked(output="/tmp/x.ome.tiff"),
    "too many corners": asked({**TRIANGLE, "corners": [[1, 2]] * 10_001}),
    "too much": b" " * 2**21 + asked(),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_cannot_be_is_refused_in_one_line(url: str, slide: Path, what: str) -> None:
    status, headers, said = ask(url, "edit", "POST", REFUSED[what])
    assert (status, headers["Content-Type"]) == (400, "text/plain; charset=utf-8")
    assert said.count(b"\n") == 1
    assert len(said) < 600
    assert json.loads(ask(url, "edit/state.json")[2])["state"] == "none"
    assert not list(slide.parent.glob("a.edit-*"))


def test_nobody_else_can_ask(url: str, slide: Path) -> None:
    base = url.rsplit("/", 2)[0]
    assert ask(f"{base}/wrong/", "edit", "POST", asked())[0] == 403
    assert ask(url, "edit", "POST", asked(), Origin="https://elsewhere.example")[0] == 403
    assert ask(url, "edit", "POST", asked(), Host="elsewhere.example")[0] == 403
    assert ask(url, "edit")[0] == 404
    with contextlib.suppress(OSError):  # the server may close the connection before it was told everything
        assert ask(url, "edit", "POST", b" " * (2**24 + 1))[0] >= 400
    assert not list(slide.parent.glob("a.edit-*"))


class Slow:
    """An edit that goes on until it is let go or stopped."""

    def __init__(self) -> None:
        self.begun, self.go = threading.Event(), threading.Event()

    def __call__(self, slide: Path, output: Path, *, watch: Callable[[Stage], None], **given: Any) -> None:
        watch(Stage("denoise (0.7 um/px)", 12, done=6))
        self.begun.set()
        while not self.go.wait(0.02):
            watch(Stage("denoise (0.7 um/px)", 12, done=6))
        fake_edit(slide, output, watch=watch, **given)


def test_one_at_a_time_and_cancelled(slide: Path) -> None:
    slow = Slow()
    with serving(site_of(str(slide), edit=slow)) as url:
        ask(url, "edit", "POST", asked())
        slow.begun.wait(10)
        state = json.loads(ask(url, "edit/state.json")[2])
        assert (state["state"], state["title"], state["share"]) == ("busy", "denoise (0.7 um/px)", 0.5)
        status, _, said = ask(url, "edit", "POST", asked())
        assert (status, said) == (400, b"an edit is being made; wait for it, or cancel it\n")
        ask(url, "edit/cancel", "POST", b"{}")
        wait(url, "cancelled")
        slow.go.set()
        ask(url, "edit", "POST", asked())
        wait(url, "done")


def test_the_server_ends_an_edit(slide: Path) -> None:
    slow = Slow()
    with serving(site_of(str(slide), edit=slow)) as url:
        ask(url, "edit", "POST", asked())
        slow.begun.wait(10)
    assert not [thread for thread in threading.enumerate() if thread.name == "wsigen edit"]


def failing(error: Exception) -> Callable[..., None]:
    def edit(slide: Path, output: Path, **given: Any) -> None:
        work_of(output).mkdir()
        raise error

    return edit


@pytest.mark.parametrize("error", [ResourceError("memory: 3 GB are missing"), OSError("disk full"), ValueError("<b>\x1b[31m")])
def test_what_goes_wrong_is_told(slide: Path, error: Exception) -> None:
    with serving(site_of(str(slide), edit=failing(error))) as url:
        ask(url, "edit", "POST", asked())
        said = wait(url, "failed")["error"]
        assert str(error) in said or said == r"ValueError: <b>\x1b[31m"
    assert not list(slide.parent.glob("a.edit-*"))


def test_names_of_versions(tmp_path: Path, slide: Path) -> None:
    def name(text: str) -> str:
        shutil.copyfile(slide, tmp_path / text)
        return next_version(tmp_path / text).name

    assert name("x.ome.tiff") == "x.edit-1.ome.tiff"
    (tmp_path / "x.edit-1.ome.tiff").touch()
    assert [name("x.ome.tiff"), name("x.edit-1.ome.tiff")] == ["x.edit-2.ome.tiff"] * 2
    (tmp_path / "x.edit-2.edit").mkdir()  # of an edit that was stopped
    assert name("x.ome.tiff") == "x.edit-3.ome.tiff"
    assert [name("y.tif"), name("a.b.OME.TIF")] == ["y.edit-1.tif", "a.b.edit-1.OME.TIF"]
    tifffile.imwrite(tmp_path / "strips.tif", tissue(128, 128), photometric="rgb")
    assert next_version(tmp_path / "strips.tif").name == "strips.edit-1.ome.tiff"


def test_edits_of_a_cohort_lie_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = cohort(tmp_path / "cohort", 2)
    with monkeypatch.context() as change:
        change.chdir(folder / "slides")
        assert next_version(Path("demo-1.ome.tiff")) == folder / "edits" / "demo-1.edit-1.ome.tiff"
    with serving(site_of(str(folder), edit=fake_edit)) as url:
        for slide in (1, 2):
            assert ask(url, "edit", "POST", asked(slide=slide))[0] == 200
            assert wait(url, "done")["made"] == slide + 1
    assert sorted(p.name for p in (folder / "edits").glob("*.tiff")) == ["demo-1.edit-1.ome.tiff", "demo-1.edit-2.ome.tiff"]
    with serving(site_of(str(folder))) as url:
        slides = json.loads(ask(url, "page/data.json")[2])["slides"]
        assert [len(s["edits"]) for s in slides] == [0, 2]


# -- what a person sees ----------------------------------------------------------------------------------------------------


def centre(page: Any, number: int = 0) -> tuple[float, float]:
    box = page.locator(".pane").nth(number).bounding_box()
    return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2


def drag(page: Any, *corners: tuple[float, float]) -> None:
    x, y = centre(page)
    page.mouse.move(x + corners[0][0], y + corners[0][1])
    page.mouse.down()
    for across, down in corners[1:]:
        page.mouse.move(x + across, y + down, steps=8)
    page.mouse.up()


def posted(page: Any) -> dict[str, Any]:
    with page.expect_request(lambda request: request.url.endswith("/edit")) as seen:
        page.get_by_text("Make anew", exact=True).click()
    return json.loads(seen.value.post_data)


def test_drawn_made_and_seen_in_place(visit: Any, url: str, slide: Path) -> None:
    page = visit.go(url + PLACE)
    page.keyboard.press("c")
    before, y, x = pane_pixels(page)
    assert page.get_by_text("Make anew", exact=True).is_disabled()
    page.keyboard.press("d")
    drag(page, (-150, -100), (150, -100), (150, 100), (-150, 100))
    assert page.locator(".regions li").count() == 1
    request = posted(page)
    page.wait_for_selector(".version")
    page.wait_for_function("() => document.querySelector('.version[aria-pressed=true]').textContent === 'edit 1'")
    after, *_ = pane_pixels(page)
    wanted = of_slide(tifffile.imread(slide.with_name("a.edit-1.ome.tiff")), y, x, after).astype(int)
    assert np.abs(inner(after) - wanted).max() <= 3
    assert (inner(after) != inner(before)).any()
    corners = np.array(request["regions"][0]["corners"])
    assert np.abs(corners.min(0) - [600, 450]).max() <= 5  # px of the slide, as it was drawn at scale 1
    assert np.abs(corners.max(0) - [900, 650]).max() <= 5
    assert request["regions"][0]["name"] == "Tumor"
    assert "seed" not in request
    assert page.locator(".regions li").count() == 0
    page.keyboard.press("ArrowRight")  # a view that moves is written into the address
    page.wait_for_function("() => location.hash.includes('version=1')")
    page.get_by_text("original", exact=True).click()
    page.wait_for_function("() => document.querySelectorAll('.panes').length === 1")
    page.wait_for_function("() => document.querySelector('.version[aria-pressed=true]').textContent === 'original'")
    page.keyboard.press("v")
    page.wait_for_function("() => document.querySelector('.version[aria-pressed=true]').textContent === 'edit 1'")


def test_versions_side_by_side(visit: Any, url: str) -> None:
    ask(url, "edit", "POST", asked())
    wait(url, "done")
    page = visit.go(url + PLACE + "&version=1")
    page.keyboard.press("c")  # classes lie beside the first alone
    page.keyboard.press("s")
    page.wait_for_function("() => document.querySelectorAll('.pane').length === 2 && !document.querySelector('.coming')")
    assert page.locator(".pane .name").all_text_contents() == ["a.ome.tiff", "a.edit-1.ome.tiff"]
    old, new = (pane_pixels(page, number)[0] for number in (0, 1))
    assert old.shape == new.shape
    differs = (np.abs(inner(old) - inner(new)).max(2) > 8).mean()
    assert 0.05 < differs < 0.6  # the region, at the same place in both
    page.keyboard.press("ArrowRight")
    moved = [pane_pixels(page, number)[0] for number in (0, 1)]
    assert (inner(moved[0]) != inner(old)).any()
    page.keyboard.press("s")
    page.wait_for_function("() => document.querySelectorAll('.pane').length === 1")


@pytest.mark.parametrize("missing", ["about", "tiles"])
def test_a_version_that_cannot_be_shown_leaves_what_is_seen(visit: Any, url: str, missing: str) -> None:
    ask(url, "edit", "POST", asked())
    about = wait(url, "done")["edits"]["0"][0]["about"]
    lost = f"**/{about if missing == 'about' else json.loads(ask(url, about)[2])['file']}"
    page = visit.go(url + PLACE)
    page.route(lost, lambda route: route.abort())
    page.get_by_text("edit 1", exact=True).click()
    page.wait_for_function("() => document.querySelector('.notice').textContent.startsWith('The version cannot be shown: ')")
    assert page.locator(".version[aria-pressed=true]").text_content() == "original"
    assert page.locator(".pane .name").all_text_contents() == ["a.ome.tiff"]
    page.unroute(lost)
    page.get_by_text("edit 1", exact=True).click()
    page.wait_for_function("() => document.querySelector('.pane .name').textContent === 'a.edit-1.ome.tiff'")
    assert not page.locator(".notice").is_visible()


def test_by_clicks_and_by_keys_alone(visit: Any, url: str) -> None:
    page = visit.go(url + PLACE)
    page.keyboard.press("d")
    x, y = centre(page)
    for across, down in ((-100, -100), (100, -100), (0, 80)):
        page.mouse.click(x + across, y + down)
        page.wait_for_timeout(400)  # no double click
    page.mouse.click(x - 100, y - 98)  # on the first corner
    page.wait_for_selector(".regions li")
    page.keyboard.press("d")
    for key in (" ", "ArrowRight", " ", "ArrowDown", " ", " ", "Backspace"):
        page.keyboard.press(key)
        page.wait_for_timeout(700)
    page.keyboard.press("Enter")
    page.wait_for_function("() => document.querySelectorAll('.regions li').length === 2")
    page.keyboard.press("d")
    page.keyboard.press("Escape")
    assert page.get_by_text("Draw a region", exact=True).is_visible()
    page.locator(".edit select").select_option("Stroma")
    page.get_by_label("Remove this region of Tumor").first.click()
    page.locator(".edit input[type=range]").fill("40")
    page.get_by_label("Seed").fill("-3")
    assert page.get_by_text("Make anew", exact=True).is_disabled()
    page.get_by_label("Seed").fill("123")
    request = posted(page)
    (region,) = request["regions"]
    assert request["strength"] == 0.4
    assert request["seed"] == 123
    assert len(region["corners"]) == 3
    assert region["corners"][0] == [750, 550]
    page.wait_for_selector(".version")


def test_progress_cancel_and_a_page_loaded_again(visit: Any, slide: Path) -> None:
    slow = Slow()
    with serving(site_of(str(slide), edit=slow)) as url:
        page = visit.go(url + PLACE)
        page.keyboard.press("d")
        drag(page, (-80, -80), (80, -80), (0, 80))
        page.get_by_text("Make anew", exact=True).click()
        page.wait_for_function("() => document.querySelector('.detail').textContent === 'denoise (0.7 um/px) · 50 %'")
        page.reload()
        page.wait_for_function("() => document.querySelector('.detail')?.textContent === 'denoise (0.7 um/px) · 50 %'")
        page.get_by_text("Cancel", exact=True).click()
        page.wait_for_function("() => document.querySelector('.problem').textContent === 'Cancelled; nothing was changed.'")
        assert page.locator(".version").count() == 0


def test_an_error_is_text(visit: Any, slide: Path) -> None:
    error = ResourceError("<img src=x onerror=alert(1)> is missing")
    with serving(site_of(str(slide), edit=failing(error))) as url:
        page = visit.go(url + PLACE)
        page.keyboard.press("d")
        drag(page, (-80, -80), (80, -80), (0, 80))
        page.get_by_text("Make anew", exact=True).click()
        page.wait_for_function("() => document.querySelector('.problem').textContent.startsWith('<img')")
        assert page.locator("img[src=x]").count() == 0
        assert page.locator(".regions li").count() == 1  # nothing that was drawn is lost


def test_a_view_that_was_left_while_it_opened_stays_left(visit: Any, tmp_path: Path) -> None:
    folder = cohort(tmp_path / "cohort", 2)
    with serving(site_of(str(folder), edit=fake_edit)) as url:
        for milliseconds in (0, 20, 60, 120, 250, 400):
            page = visit.go(url, ".gallery .cards li")
            page.evaluate("location.hash = 'slide=demo-0'")
            page.wait_for_timeout(milliseconds)
            page.evaluate("location.hash = ''")
            page.wait_for_timeout(900)
            assert page.evaluate("location.hash") == ""
            assert page.locator(".gallery").is_visible()
            assert page.locator(".view").count() == 0


def test_the_true_edit_comes_onto_the_page(visit: Any, bundle: Path, tmp_path: Path) -> None:
    """From the drawing to the picture, with a small model."""
    path = tmp_path / "slide.ome.tiff"
    generate(path, class_name="Tumor", size="1024x768", model=str(bundle), steps=2, seed=1, chunk=32, workers=1)
    before = path.read_bytes()
    with serving(site_of(str(path), edit=partial(edit, workers=1, steps=2, chunk=32), model=str(bundle))) as url:
        page = visit.go(url + "#x=512&y=384&scale=1")
        page.keyboard.press("c")
        old, *_ = pane_pixels(page)
        page.keyboard.press("d")
        drag(page, (-120, -90), (120, -90), (120, 90), (-120, 90))
        page.locator(".edit select").select_option("Stroma")
        page.get_by_text("Make anew", exact=True).click()
        page.wait_for_selector(".version", timeout=300_000)
        page.wait_for_function("() => document.querySelector('.version[aria-pressed=true]')?.textContent === 'edit 1'")
        new, *_ = pane_pixels(page)
        assert (np.abs(new - old).max(2) > 8).mean() > 0.02
        assert (new[200:240, 30:90] == old[200:240, 30:90]).all()  # far away
        assert page.locator(".mark").all_text_contents() == ["synthetic"]
    assert path.read_bytes() == before
    said = json.loads((tmp_path / "slide.edit-1.json").read_text())
    assert said["history"][-1]["parent"] == "slide.ome.tiff"


def test_pictures_for_the_documentation(visit: Any, tmp_path: Path) -> None:
    if "WSIGEN_SCREENSHOTS" not in os.environ:
        pytest.skip("WSIGEN_SCREENSHOTS says where pictures of the page are kept")
    path = painted_slide(tmp_path, 4096, 3072, "slide", 2)
    with serving(site_of(str(path), edit=fake_edit)) as url:
        page = visit.go(url + "#x=2000&y=1500&scale=0.5")
        page.keyboard.press("d")
        drag(page, (-200, -60), (-90, -170), (60, -150), (190, -40), (150, 110), (-40, 160), (-190, 70))
        page.keyboard.press("d")
        x, y = centre(page)
        page.locator(".edit select").select_option("Stroma")
        for across, down in ((250, 60), (330, 40), (360, 150)):
            page.mouse.click(x + across, y + down)
            page.wait_for_timeout(400)
        page.mouse.move(x + 280, y + 190)
        keep(page, "draw")
