"""A run directory from a stranger: whatever lies in it, it is refused in one line or it works.

Either way no file outside it and its slide is touched, and no connection is opened.
"""

import json
import os
import shutil
import socket
from contextlib import nullcontext
from pathlib import Path

import google_crc32c
import pytest
from runs import settings_of, work_of

from wsigen.base.errors import OutputError, RunError, WsigenError
from wsigen.run import rundir
from wsigen.run.generate import generate, resume
from wsigen.run.inspect import inspect
from wsigen.run.spec import RunSpec, json_hash
from wsigen.run.tasks import context
from wsigen.slide.sidecars import EDIT_SCRIPT

PARTS = (".ome.tiff", ".geojson", ".json", ".jpg", ".overlay.jpg", ".groovy")


@pytest.fixture(scope="module")
def made(bundle, tmp_path_factory):
    """A run that was kept, all of it done."""
    folder = tmp_path_factory.mktemp("made")
    generate(folder / "a.ome.tiff", **settings_of(bundle, folder, steps=1))
    return folder


@pytest.fixture
def listener():
    """A port of this machine on which somebody waits for us."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        yield server


class Visit:
    """A folder with a stranger's run, precious files around it, and a watch over both.

    Attributes
    ----------
    run, output : Path
        The run directory; where its slide will lie.
    """

    def __init__(self, made, folder, listener, monkeypatch):
        self.root, self.listener = folder, listener
        self.run, self.output = folder / "a.run", folder / "a.ome.tiff"
        self._made, self._outside = made, folder.parent / f"{folder.name}-precious"
        self._outside.mkdir()
        for part in PARTS:
            (self._outside / f"precious{part}").write_text(f"precious {part}")
        (self._outside / "work").mkdir()
        (self._outside / "work" / "notes").write_text("precious notes")
        self.precious = self._outside / "precious.ome.tiff"
        self.connections = []
        connect = socket.socket.connect

        def watched(this, address):
            if this.family != socket.AF_UNIX:
                self.connections.append(address)
                raise ConnectionRefusedError(f"a connection to {address}")
            return connect(this, address)

        monkeypatch.setattr(socket.socket, "connect", watched)
        self.reset()

    @property
    def address(self):
        return f"tcp://127.0.0.1:{self.listener.getsockname()[1]}"

    def reset(self):
        """The stranger's run as it came, and no slide."""
        context._contexts.clear()
        shutil.rmtree(self.root)
        shutil.copytree(self._made / "a.run", self.run, symlinks=True)
        self._before = self._seen()

    def spec(self):
        return json.loads((self.run / "run.json").read_text())

    def forge(self, content):
        """Write ``run.json`` with hashes that fit, and rename the work folder, as far as the form allows to."""
        content = {key: value for key, value in content.items() if key not in ("hash", "run_id")}
        digests = {"hash": json_hash(content), "run_id": "0" * 12}
        try:
            spec = RunSpec.model_validate_json(json.dumps(content))
            digests = {"hash": spec.hash, "run_id": spec.run_id}
            work_of(self.run).rename(self.run / spec.work)
        except (ValueError, WsigenError):
            pass
        (self.run / "run.json").write_text(json.dumps({**content, **digests}))

    def resume(self, **settings):
        """Refused in one line (which is returned), or done (the result); nothing else was touched."""
        try:
            answer = resume(self.run, workers=1, **settings)
            assert answer.slide == self.output
        except WsigenError as error:
            answer = str(error)
            assert "\n" not in answer
        self.check()
        return answer

    def check(self):
        assert self.connections == []
        with pytest.raises(BlockingIOError):
            self.listener.accept()
        assert self._seen() == self._before
        own = {self.run, *(self.root / f"a{part}" for part in (*PARTS, ".drawn.geojson")), self.root / EDIT_SCRIPT}
        assert set(self.root.iterdir()) <= own

    def _seen(self):
        folders = (self._outside, self._made)
        paths = sorted(path for folder in folders for path in folder.rglob("*"))
        return {path: (path.lstat().st_mtime_ns, path.read_bytes() if path.is_file() else b"") for path in paths}


@pytest.fixture
def visit(made, tmp_path, listener, monkeypatch):
    (tmp_path / "visit").mkdir()
    return Visit(made, tmp_path / "visit", listener, monkeypatch)


def leaves(content, path=()):
    """Path of every value of nested JSON, containers too."""
    items = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    for key, value in items:
        yield (*path, key)
        yield from leaves(value, (*path, key))


def altered(content, path, value):
    copy = json.loads(json.dumps(content))
    inner = copy
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    return copy


def others(value, visit):
    """What a stranger might write in place of a value, of the same type and of others."""
    places = [str(visit.precious), visit.address, f"http://{visit.address[6:]}/x", "../precious.ome.tiff", "a\0b"]
    if isinstance(value, bool) or value is None:
        return [not value, *places[:2]]
    if isinstance(value, int):
        return [value + 1, 10**9]
    if isinstance(value, float):
        return [value / 2 + 0.1]
    if isinstance(value, str):
        return [*places, ""]
    return [type(value)() if value else [0.5]]


@pytest.mark.slow
def test_every_field_altered(visit):
    """One by one, nested ones too, with hashes that fit."""
    content = visit.spec()
    fields = [path for path in leaves(content) if path[0] not in ("hash", "run_id")]
    assert len(fields) > 100
    worked = set()
    for path in fields:
        inner = content
        for key in path:
            inner = inner[key]
        for value in others(inner, visit):
            visit.forge(altered(content, path, value))
            if not isinstance(visit.resume(), str):
                worked.add(".".join(map(str, path)))
            visit.reset()
    assert worked <= {*FOR_PEOPLE, *LIKE_ANY_RECIPE}


VERSIONS = ("python", "dask", "tifffile", "transformers", "zarr")
FOR_PEOPLE = {"began", "keep_run", "settings.model", *(f"versions.{name}" for name in VERSIONS)}
"""What nothing is made of, and whether a stranger's own directory stays."""

LIKE_ANY_RECIPE = {
    "settings.mixed_workers", "settings.levels", "settings.strength", "settings.drawn", "settings.rois",
    "settings.edit_strength", "settings.margin_um", "device",
    *(f"glass.latent.{n}" for n in range(4)),
}  # fmt: skip
"""What decides pixels of the slide, as a recipe may, or means the same here."""


@pytest.mark.parametrize("field", ["output", "overwrite", "run_dir", "scheduler", "surprise"])
@pytest.mark.parametrize("where", ["", "settings", "sampling"])
def test_fields_that_a_run_has_not(visit, field, where):
    content = visit.spec()
    inside = content[where] if where else content
    for value in (str(visit.precious), visit.address, True):
        inside[field] = value
        visit.forge(content)
        assert "run.json" in visit.resume()


@pytest.mark.slow
def test_every_file_altered(visit):
    """Emptied, cut, garbage, another file's content: one by one."""
    names = sorted(str(path.relative_to(visit.run)) for path in visit.run.rglob("*") if path.is_file())
    assert len(names) > 20
    for number, name in enumerate(names):
        path = visit.run / name
        data = path.read_bytes()
        ways = [b"", data[: len(data) // 2], b"{}", b"[" * 1000, bytes(len(data)), os.urandom(len(data))]
        for way in ways if "/" not in name else [ways[number % len(ways)]]:
            path.write_bytes(way)
            visit.resume()
            visit.reset()
            path = visit.run / name


@pytest.mark.parametrize("name", ["run.json", "driver.lock", "outputs-begun", "finished.json", "timesteps.png", "surprise"])
def test_links_to_files_are_refused(visit, bundle, tmp_path, name):
    """Through a lock that is a link, a file elsewhere would be emptied."""
    path = visit.run / name
    path.unlink(missing_ok=True)
    path.symlink_to(visit.precious)
    assert name in visit.resume()
    with pytest.raises(WsigenError, match="link"):
        generate(visit.output, **settings_of(bundle, tmp_path, steps=1))
    visit.check()


def test_a_lock_that_is_a_link_is_not_opened(visit):
    from wsigen.storage.local import LocalFolder

    (visit.run / "driver.lock").unlink(missing_ok=True)
    (visit.run / "driver.lock").symlink_to(visit.precious)
    with pytest.raises(RunError, match="cannot be opened"), LocalFolder(visit.run).lock("driver.lock"):
        pass
    visit.check()


@pytest.mark.parametrize("part", ["", "spool", "state.zarr", "state.zarr/pass-0", "state.zarr/pass-0/latents"])
def test_links_to_folders_are_refused(visit, part):
    path = work_of(visit.run) / part
    shutil.rmtree(path)
    path.symlink_to(visit.precious.parent / "work", target_is_directory=True)
    assert "link" in visit.resume()


@pytest.mark.parametrize("name", ["run.json", "outputs-begun", "driver.lock", "spool", "latents", "zarr.json"])
def test_files_of_gigabytes_are_not_read(visit, name):
    """Sparse ones, which take no room and travel well."""
    path = next((path for path in sorted(visit.run.rglob("*")) if path.is_file() and name in path.parts), visit.run / name)
    with path.open("ab") as file:
        file.truncate(2**31)
    assert "of 2048 MiB" in visit.resume()
    with pytest.raises(RunError, match="of 2048 MiB"):
        inspect(visit.run)


@pytest.mark.parametrize("name", ["spool", "latents", "classes"])
def test_a_chunk_is_no_larger_than_this_run_makes_it(visit, name):
    files = [path for path in sorted(work_of(visit.run).rglob("*")) if path.is_file() and path.name != "zarr.json"]
    path = next(path for path in files if name in path.parts)
    with path.open("ab") as file:
        file.truncate(200 * 2**20)
    assert "larger than this run makes it" in visit.resume()
    with pytest.raises(RunError, match="larger than this run makes it"):
        inspect(visit.run)


@pytest.mark.parametrize("name", ["latents", "partials", "classes"])
def test_what_arrays_say_of_themselves_is_not_believed(visit, name):
    file = work_of(visit.run) / "state.zarr" / "pass-0" / name / "zarr.json"
    there = json.loads(file.read_text())
    for change in ({"shape": [10**6] * len(there["shape"])}, {"codecs": there["codecs"][:1]}, {"fill_value": 1}):
        file.write_text(json.dumps({**there, **change}))
        with pytest.raises(RunError, match=r"of another shape or coded otherwise|unreadable"):
            inspect(visit.run)
    assert not isinstance(visit.resume(), str)  # which writes it as it was


def test_a_class_map_that_claims_gigabytes_is_made_again(visit):
    """A few bytes that Blosc would unpack to 2 GiB, with a checksum that fits."""
    chunks = work_of(visit.run) / "state.zarr" / "pass-0" / "classes" / "c"
    file = next(path for path in chunks.rglob("0") if path.is_file())
    packed = bytearray(file.read_bytes()[:-4])
    packed[4:8] = (2**31 - 1).to_bytes(4, "little")
    file.write_bytes(packed + google_crc32c.value(bytes(packed)).to_bytes(4, "little"))
    with pytest.raises(WsigenError, match="would unpack to 2147483647 bytes"):
        inspect(visit.run)
    shutil.rmtree(work_of(visit.run) / "spool")
    assert not isinstance(visit.resume(), str)


PATHS = ["output", "model", *(f"settings.{name}" for name in ("layout", "reference", "grid", "mask_model", "subtypes"))]


@pytest.mark.parametrize("field", PATHS)
def test_paths_that_no_system_takes_are_one_line(visit, field):
    """Too long, with NUL or half a character in them, or through a file."""
    *outer, name = field.split(".")
    for value in ("x" * 300, "/x" * 3000, "a\0b", "a\udcffb", "a\ud800b", str(visit.precious / "x"), "x" * 300 + ".ome.tiff"):
        visit.forge(altered(visit.spec(), (*outer, name), value))
        assert isinstance(visit.resume(), str)
        visit.reset()


@pytest.mark.parametrize("name", ["activity", "norm"])
@pytest.mark.parametrize("what", ["shape", "codecs"])
def test_arrays_of_gigabytes_are_not_made(visit, name, what):
    """What a file says of itself is compared first; the run makes them again."""
    file = work_of(visit.run) / "state.zarr" / "pass-0" / name / "zarr.json"
    there = json.loads(file.read_text())
    sides = [10**6] * len(there["shape"])
    grid = {"name": "regular", "configuration": {"chunk_shape": sides}}
    gzip = {"name": "gzip", "configuration": {"level": 1}}
    changes = {"shape": {"shape": [10**7] * len(sides), "chunk_grid": grid}, "codecs": {"codecs": [there["codecs"][0], gzip]}}
    file.write_text(json.dumps({**there, **changes[what]}))
    shutil.rmtree(work_of(visit.run) / "spool")
    assert not isinstance(visit.resume(), str)


def test_a_folder_in_the_place_of_a_file_is_one_line(visit):
    (visit.run / "run.json").unlink()
    (visit.run / "run.json").mkdir()
    assert "not a run directory" in visit.resume()


@pytest.mark.parametrize(
    "numbers",
    [
        {"slide": {"width": 10**15, "height": 10**15}},
        {"passes": [{"width": 10**6, "height": 10**6, "chunk": 32, "side": 32}]},
    ],
)
def test_numbers_beyond_all_slides_are_one_line(visit, numbers):
    content = visit.spec()
    for name, values in numbers.items():
        held = content[name][0] if isinstance(values, list) else content[name]
        held |= values[0] if isinstance(values, list) else values
    visit.forge(content)
    assert "run.json" in visit.resume()
    with pytest.raises(RunError, match=r"run\.json"):
        inspect(visit.run)


def test_pipes_are_not_waited_for(visit):
    (visit.run / "run.json").unlink()
    os.mkfifo(visit.run / "run.json")
    assert "special file" in visit.resume()


def test_where_the_slide_goes_is_said_by_the_user(visit, tmp_path):
    """A run directory that is not the NAME.run beside its slide does not know; the name alone is kept."""
    assert visit.spec()["output"] == "a.ome.tiff"
    visit.run = visit.run.rename(visit.root / "b.run")
    with pytest.raises(RunError, match=r"--output a\.ome\.tiff"):
        resume(visit.run, workers=1)
    there = visit.root / "b.ome.tiff"
    assert resume(visit.run, output=there, workers=1).slide == there
    with pytest.raises(OutputError, match=r"no such folder"):
        resume(visit.run, output=visit.run / "x" / "a.ome.tiff", workers=1)


@pytest.mark.parametrize("part", PARTS)
def test_a_file_that_the_run_did_not_write_is_not_replaced(visit, part):
    """On the word of no file in the run; the user's own word counts."""
    theirs = visit.output.with_name(f"a{part}")
    forgeries = [
        lambda: None,
        lambda: (visit.run / "outputs-begun").write_bytes(b""),
        lambda: (visit.run / "outputs-begun").write_text("{}"),
        lambda: (visit.run / "outputs-begun").unlink(),
        lambda: (visit.run / "finished.json").write_text("{}"),
    ]
    for forge in forgeries:
        theirs.write_bytes(b"precious")
        forge()
        assert "is not of this run" in visit.resume()
        assert theirs.read_bytes() == b"precious"
        assert work_of(visit.run).is_dir()
    assert not isinstance(visit.resume(overwrite=True), str)
    assert theirs.read_bytes() != b"precious"


@pytest.mark.parametrize("field", ["run_id", "output", "files", "surprise"])
def test_every_field_of_what_was_written(visit, field):
    """Altered, the slide's files are a stranger's; as they are, the run's own, which it may write again."""
    assert not isinstance(visit.resume(), str)
    begun = json.loads((visit.run / "outputs-begun").read_text())
    good = visit.output.read_bytes()
    (stamp,) = begun["files"]["a.ome.tiff"]
    near = [{**begun["files"], "a.ome.tiff": [[*stamp[:n], stamp[n] + 1, *stamp[n + 1 :]]]} for n in range(3)]
    for value in ("b", {}, {"a.ome.tiff": [stamp]}, {"a.ome.tiff": []}, *near, [], None, 3):
        (visit.run / "outputs-begun").write_text(json.dumps({**begun, field: value}))
        assert "not of this run" in visit.resume()
        assert visit.output.read_bytes() == good
    (visit.run / "outputs-begun").write_text(json.dumps(begun))
    assert not isinstance(visit.resume(), str)
    assert visit.output.read_bytes() == good


def test_every_field_of_a_finished_run(visit):
    """All of it must fit the slide that lies there, or the run goes on as one that is not finished."""
    assert not isinstance(visit.resume(), str)
    state = work_of(visit.run)

    def outcome():
        manifest = json.loads(visit.output.with_name("a.json").read_text())
        said = {"run_id": manifest["run_id"], "output": "a.ome.tiff", "level0_sha256": manifest["sha256"]["level0_tiles"]}
        stamps = {f"a{part}": rundir.stamp(visit.root / f"a{part}") for part in PARTS}
        return {**said, "files": stamps, "area_px": {}, "layout": None}

    wrong = [(name, "b") for name in ("run_id", "output", "level0_sha256")]
    wrong += [("files", value) for value in ({}, {"a.ome.tiff": [1, 2, 3]}, [], None)]
    for field, value in [*wrong, ("files", "a.json"), ("area_px", []), ("layout", 3), ("surprise", 1)]:
        true = outcome()
        false = {**true["files"], "a.json": [1, 2, 3]} if value == "a.json" else value
        (visit.run / "finished.json").write_text(json.dumps({**true, field: false}))
        assert not isinstance(visit.resume(), str)
        assert state.is_dir(), field
    (visit.run / "finished.json").write_text(json.dumps(outcome()))
    assert not isinstance(visit.resume(), str)
    assert not visit.run.exists()


@pytest.mark.parametrize("placed", range(len(PARTS) + 1))
def test_killed_while_files_get_their_places(visit, monkeypatch, placed):
    """What is there already is known as the run's own: resume needs no permission."""
    with monkeypatch.context() as patch:
        cut_after(placed, visit, patch)
        with pytest.raises(KeyboardInterrupt) if placed < len(PARTS) else nullcontext():
            visit.resume()
    assert len([path for path in visit.root.glob("a.*") if path.is_file()]) == placed
    assert (visit.root / "a.json").exists() == (placed == len(PARTS))
    assert not isinstance(visit.resume(), str)
    assert all((visit.root / f"a{part}").is_file() for part in PARTS)


def cut_after(placed, visit, patch):
    """Let the process stop when so many of the slide's files have their places."""
    replace, left = Path.replace, placed

    def cut(path, target):
        nonlocal left
        if Path(target).parent == visit.root and Path(target).name.startswith("a."):
            left -= 1
            if left < 0:
                raise KeyboardInterrupt
        return replace(path, target)

    patch.setattr(Path, "replace", cut)


@pytest.mark.parametrize("moments", [(2, 0, 3), (4, 1, 0), (0, 4, 1)])
def test_killed_again_and_again_while_files_get_their_places(visit, monkeypatch, moments):
    for placed in (*moments, 9):
        with monkeypatch.context() as patch:
            cut_after(placed, visit, patch)
            with pytest.raises(KeyboardInterrupt) if placed < 9 else nullcontext():
                visit.resume()
    assert all((visit.root / f"a{part}").is_file() for part in PARTS)


def test_leave_to_replace_outlives_a_kill(visit, monkeypatch):
    """What lay there when the user said so, and nothing that came later."""
    visit.output.write_bytes(b"old")
    with monkeypatch.context() as patch:
        cut_after(0, visit, patch)
        with pytest.raises(KeyboardInterrupt):
            visit.resume(overwrite=True)
    assert visit.output.read_bytes() == b"old"
    theirs = visit.output.with_name("a.jpg")
    theirs.write_bytes(b"precious")
    assert "a.jpg: exists already" in visit.resume()
    theirs.unlink()
    assert not isinstance(visit.resume(), str)


def test_inspecting_touches_the_run_alone(visit):
    assert inspect(visit.run).picture
    visit.check()
    visit.forge({**visit.spec(), "layout_title": "\x1b[2J"})
    assert "\x1b" not in str(inspect(visit.run))
    (visit.run / "timesteps.png").unlink()
    (visit.run / "timesteps.png").symlink_to(visit.precious)
    with pytest.raises(RunError, match="link"):
        inspect(visit.run)
    visit.check()


def test_it_is_said_that_a_run_began_elsewhere(visit):
    """Which scheduler it was, no file may say: whoever is told an address may be led to a stranger's."""
    content = visit.spec()
    for began, words in (("scheduler", "--scheduler ADDRESS"), ("queue", r"--scheduler FILE.yaml"), ("here", "")):
        visit.forge({**content, "began": began})
        told = []
        resume(visit.run, workers=1, watch=lambda stage, told=told: told.append(stage.note))
        notes = [note for note in told if "began" in note]
        assert len(notes) == (1 if words else 0)
        assert all(words in note and "1 worker of this machine" in note for note in notes)
        visit.reset()
    assert visit.address not in (visit.run / "run.json").read_text()


def test_the_device_keeps_its_kind(visit):
    assert "the run began on 'cpu'" in visit.resume(device="cuda")
    assert not isinstance(visit.resume(device="cpu"), str)
