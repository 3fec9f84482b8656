"""`Site`: what one ``wsigen view`` shows, by name; the server gives out nothing else."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote

from wsigen.base.errors import BundleError, ConfigError, ImageError
from wsigen.models.bundle import check_bundle, find_bundle
from wsigen.storage.folder import RUN_SPEC
from wsigen.storage.opening import is_url, open_folder
from wsigen.viewing.editing import Edit, Editor
from wsigen.viewing.find import annotations_of, quoted, slides_of_folder
from wsigen.viewing.page import DATA, FOLDER, Make, assets, pages_of
from wsigen.viewing.shown_slide import ShownSlide
from wsigen.viewing.versions import Versions, originals

Post = Callable[[bytes], bytes]


@dataclass(frozen=True)
class Site:
    """Everything a browser may ask for.

    Attributes
    ----------
    made : dict of str to callable
        Content by name, made when it is asked for.
    files : dict of str to Path
        Files by name, given out whole or in ranges.
    slides : list of ShownSlide
        Those whose tiles are made where a browser cannot read the file's own: ``tiles/NUMBER/LEVEL/ROW/COLUMN``.
    posts : dict of str to callable
        What a page may ask to be done, by name: the body in, the answer out.
    ends : list of callable
        Called when the page is no longer shown.
    """

    made: dict[str, Make]
    files: dict[str, Path]
    slides: list[ShownSlide] = field(default_factory=list)
    posts: dict[str, Post] = field(default_factory=dict)
    ends: list[Callable[[], None]] = field(default_factory=list)


def site_of(what: str, real: str | None = None, edit: Edit | None = None, model: str = "default") -> Site:
    """Open a slide, a run or a folder of slides.

    Parameters
    ----------
    what : str
        A slide's file or URL, a run's directory or URL, a cohort's or any other folder with slides.
    real : str, optional
        A real slide to show beside it.
    edit : callable, optional
        `wsigen.edit`, for regions that are drawn on the page.
    model : str
        The model that makes them anew.

    Raises
    ------
    WsigenError
        If there is nothing of the kind, or it cannot be read.
    """
    if _is_slide(what):
        return _with_editor(_site([_alone(what, 0, real=False)], Path(what).name, real), edit, model)
    run = _run_of(what)
    if run is not None:
        if real is not None:
            raise ConfigError("--real: stands beside a slide; a run shows its own picture alone")
        return _site_of_run(run, edit, model)
    folder = Path(what)
    if not folder.is_dir():
        raise ImageError(f"{what}: no such slide, run or folder; check the path")
    return _with_editor(_site(originals(slides_of_folder(folder)), folder.resolve().name, real), edit, model)


def _site(slides: list[ShownSlide], title: str, real: str | None) -> Site:
    """The site of slides and of their edits."""
    if len(slides) == 1:
        slides[0].open()  # what cannot be read is said here and not in the page
    beside = [_alone(real, len(slides), real=True)] if real is not None else []
    for slide in beside:
        slide.open()
    shown = (*slides, *beside)
    made = {**assets(), **pages_of(shown, title, lambda number: f"tiles/{number}/")}
    if beside:
        made[DATA] = lambda: _with_real(pages_of(shown, title)[DATA]())
    if len(slides) == 1:
        made[f"{FOLDER}/slides/0.json"]()  # looked up now and kept: the page waits for it
    return Site(made, _files(shown), list(shown))


def _with_editor(site: Site, edit: Edit | None, model: str) -> Site:
    """A site with its edits, and with regions drawn on it made anew if there is something that can."""
    versions = Versions(site.slides, site.made, site.files, lambda path, number: _alone(str(path), number, real=False))
    versions.find()
    if edit is None:
        return site
    try:
        table = check_bundle(find_bundle(model)).table
    except BundleError:
        if model == "default":  # an installation without a model shows slides all the same
            return site
        raise
    editor = Editor(versions, edit, model, table)
    data = site.made[DATA]
    site.made[DATA] = lambda: json.dumps({**json.loads(data()), "edit": editor.offer()}, ensure_ascii=False).encode()
    site.made["edit/state.json"] = editor.state
    site.posts.update({"edit": editor.begin, "edit/cancel": editor.cancel})
    site.ends.append(editor.end)
    return site


def _alone(path: str, number: int, real: bool) -> ShownSlide:
    """A slide that was named by itself, wherever it lies."""
    name = path.rstrip("/").rpartition("/")[2]
    if "://" in path:
        return ShownSlide(name, path, real=real)
    drawn = annotations_of(Path(path))
    return ShownSlide(
        name,
        path,
        f"files/{number}/{quoted(name)}",
        drawn,
        f"files/{number}/{quoted(drawn.name)}" if drawn else "",
        real=real,
    )


def _files(slides: Sequence[ShownSlide]) -> dict[str, Path]:
    """Files by the name that a browser asks for (not quoted)."""
    found: dict[str, Path] = {}
    for slide in slides:
        if slide.url:
            found[unquote(slide.url)] = Path(slide.path)
        if slide.annotations is not None:
            found[unquote(slide.annotations_url)] = slide.annotations
    return found


def _with_real(data: bytes) -> bytes:
    """Say that the last slide stands beside each other one."""
    content = json.loads(data)
    return json.dumps({**content, "real": content["slides"].pop()}, ensure_ascii=False).encode()


def _is_slide(what: str) -> bool:
    if "://" in what:
        return what.casefold().endswith((".tif", ".tiff", ".btf"))
    return Path(what).is_file()


def _run_of(what: str) -> str | None:
    """The place of a run, None if it is none."""
    if not is_url(what) and not Path(what).is_dir():
        return None
    return what if open_folder(what).has(RUN_SPEC) else None


def _site_of_run(place: str, edit: Edit | None, model: str) -> Site:
    """The site of a run; when it is finished, its slide takes its place."""
    from wsigen.viewing.shown_run import ShownRun

    run = ShownRun(place)
    site = Site({**assets(), DATA: run.data, "run/picture.png": run.picture, "run/steps.png": run.steps}, {}, [])

    def state() -> bytes:
        answer = run.state()
        slide = run.finished_slide() if json.loads(answer)["over"] and not site.slides else None
        if slide is not None:
            finished = _site([_alone(str(slide), 0, real=False)], slide.name, None)
            site.made.update(finished.made)
            site.files.update(finished.files)
            site.slides[:] = finished.slides
            _with_editor(site, edit, model)
        return answer

    site.made["run/state.json"] = state
    return site
