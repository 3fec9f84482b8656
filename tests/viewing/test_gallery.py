"""Pages of many slides: the gallery, and the same page from hosts that know nothing of wsigen."""

from __future__ import annotations

import http.server
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from seeing import inner, keep, of_slide, pane_pixels
from viewing_making import cohort, painted_slide, small_slide

from wsigen.base.errors import OutputError, WsigenError
from wsigen.viewing.find import slides_of_folder
from wsigen.viewing.page import write_page
from wsigen.viewing.server import serving
from wsigen.viewing.site import site_of


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args: Any) -> None:
        pass


@contextmanager
def python_http_server(folder: Path) -> Iterator[str]:
    """``python -m http.server``, which answers no ranges."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_a_gallery_and_its_filters(visit: Any, tmp_path: Path) -> None:
    folder = cohort(tmp_path / "cohort", 6)
    with serving(site_of(str(folder))) as url:
        page = visit.go(url, ".cards li")
        cards = page.locator(".cards li:visible")
        assert cards.count() == 6
        assert page.locator(".count").text_content() == "6 slides"
        page.get_by_role("button", name="test", exact=True).click()
        assert cards.count() == 3
        page.get_by_role("button", name="All", exact=True).first.click()
        page.get_by_role("button", name="lobular").click()
        assert page.locator(".count").text_content() == "2 of 6 slides"
        page.keyboard.press("c")
        assert page.locator(".with-classes").count() == 1
        cards.first.locator("a").click()
        page.wait_for_selector(".view[data-ready]")
        assert page.title() == "demo-1.ome.tiff"
        page.keyboard.press("n")
        page.wait_for_function("() => document.title === 'demo-4.ome.tiff'")
        page.wait_for_selector(".view[data-ready]")
        page.keyboard.press("g")
        cards.first.wait_for()
        assert cards.count() == 2
        page.locator("[type=search]").fill("demo-4")
        assert cards.count() == 1
        assert page.locator("b b, span b").count() == 0  # of the subtype <b>mixed</b>


def test_the_same_page_from_a_static_host(visit: Any, tmp_path: Path) -> None:
    folder = cohort(tmp_path / "cohort")
    index = write_page(folder, slides_of_folder(folder), "Demo <cohort>")
    assert index == folder / "index.html"
    asked = []
    visit.page.on("request", lambda request: asked.append(request.url))
    with python_http_server(folder) as url:
        page = visit.go(url, ".cards li")
        assert page.locator("h1").text_content() == "Demo <cohort>"
        assert page.evaluate("[...document.images].every(image => image.complete && image.naturalWidth > 0)")
        page = visit.go(f"{url}?again#slide=demo-2&x=750&y=550&scale=1")
        page.keyboard.press("c")
        shot, y, x = pane_pixels(page)
        wanted = of_slide(tifffile.imread(folder / "slides" / "demo-2.ome.tiff"), y, x, shot).astype(int)
        assert np.abs(inner(shot)[: len(wanted), : wanted.shape[1]] - wanted).max() <= 3
    assert all(address.startswith((url, "blob:", "data:")) for address in asked)


def test_a_host_without_ranges_and_a_file_too_large_for_it(visit: Any, tmp_path: Path) -> None:
    folder = cohort(tmp_path / "cohort", 1)
    write_page(folder, slides_of_folder(folder))
    with (folder / "slides" / "demo-0.ome.tiff").open("r+b") as file:
        file.truncate(2**28 + 1)  # a hole: it takes no disk
    with python_http_server(folder) as url:
        page = visit.go(url)
        assert "sends whole files only" in page.locator(".notice").text_content()
        assert page.locator(".mark").text_content() == "synthetic"


def test_a_page_is_the_same_each_time_and_forgets_what_is_gone(tmp_path: Path) -> None:
    folder = cohort(tmp_path / "cohort", 2)
    slides = slides_of_folder(folder)
    write_page(folder, slides)
    first = files_of(folder)
    write_page(folder, slides)
    assert files_of(folder) == first
    write_page(folder, slides[:1])
    assert "page/slides/1.json" not in files_of(folder)
    assert not [name for name in files_of(folder) if name.startswith(".")]
    assert "cohort" not in str(first["page/data.json"].replace(b'"title"', b""))  # nothing of the machine's folders


@pytest.mark.parametrize("theirs", ["page/notes.txt", "index.html"])
def test_what_is_no_page_of_ours_is_not_replaced(theirs: str, tmp_path: Path) -> None:
    folder = cohort(tmp_path / "cohort", 1)
    (folder / theirs).parent.mkdir(exist_ok=True)
    (folder / theirs).write_text("mine")
    before = files_of(folder)
    with pytest.raises(OutputError, match="no page of wsigen"):
        write_page(folder, slides_of_folder(folder))
    assert files_of(folder) == before


def test_a_slide_that_cannot_be_read_leaves_the_page_as_it_was(tmp_path: Path) -> None:
    folder = cohort(tmp_path / "cohort", 2)
    slides = slides_of_folder(folder)
    write_page(folder, slides)
    before = files_of(folder / "page")
    (folder / "slides" / "demo-1.ome.tiff").write_bytes(b"no slide")
    with pytest.raises(WsigenError):
        write_page(folder, slides)
    assert files_of(folder / "page") == before


def test_a_slide_elsewhere_is_no_slide_of_the_page(tmp_path: Path) -> None:
    folder = cohort(tmp_path / "cohort", 1)
    outside = small_slide(tmp_path, name="outside")
    (folder / "cohort.csv").write_text(f"id,slide\nx,../{outside.name}\n")
    with pytest.raises(WsigenError, match="does not lie in"):
        slides_of_folder(folder)


def test_pictures_for_the_documentation(visit: Any, tmp_path: Path) -> None:
    if "WSIGEN_SCREENSHOTS" not in os.environ:
        pytest.skip("WSIGEN_SCREENSHOTS says where pictures of the page are kept")
    folder = tmp_path / "cohort"
    folder.mkdir()
    rows = ["id,split,subtype,slide"]
    for number in range(8):
        name = f"demo-{number:04d}"
        painted_slide(folder, 1536, 1280, name, number)
        rows.append(f"{name},{('train', 'test')[number % 4 == 3]},{('ductal', 'lobular')[number % 2]},{name}.ome.tiff")
    (folder / "cohort.csv").write_text("\n".join(rows))
    with serving(site_of(str(folder))) as url:
        page = visit.go(url, ".cards li")
        page.keyboard.press("c")
        keep(page, "gallery")
