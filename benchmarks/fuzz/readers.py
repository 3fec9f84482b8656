"""Every reader of files that come from elsewhere: a good file for it, how such files are spoiled, how it is called."""

from __future__ import annotations

import json
import shutil
import struct
import zlib
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.fuzz.mutations import Spoiled, spoil_bytes, spoil_json, spoil_yaml

_NUMBER = struct.Struct("<I")
"""Of a spooled block's checksum."""

SLIDE = "slide.ome.tiff"

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Reader:
    """A reader under test.

    Attributes
    ----------
    make : Callable[[Path], list[Path]]
        Writes good files below an empty folder; returns those to spoil.
    spoil : Spoiled
        Spoils one of them.
    read : Callable[[Path], object]
        Reads the spoiled file (or the folder it lies in) as wsigen does.
    weight : int
        How many cases it gets for each of another's.
    """

    make: Callable[[Path], list[Path]]
    spoil: Spoiled
    read: Callable[[Path], object]
    weight: int = 1


def readers() -> dict[str, Reader]:
    """All readers by name."""
    return {
        "settings": Reader(_settings, spoil_yaml, _read_settings, 3),
        "machine": Reader(_machine, spoil_yaml, _read_machine),
        "geojson": Reader(_geojson, spoil_json, _read_layout, 3),
        "label-raster": Reader(_rasters, spoil_bytes, _read_layout, 2),
        "class-table": Reader(_class_tables, spoil_yaml, _read_class_table),
        "subtypes": Reader(_subtypes, spoil_yaml, _read_subtypes),
        "reference": Reader(_images, spoil_bytes, _read_image, 3),
        "splice": Reader(_pyramids, spoil_bytes, _splice, 2),
        "undo": Reader(_undo, spoil_bytes, _read_undo),
        "grid": Reader(_grid, spoil_bytes, _read_grid),
        "card": Reader(_card, spoil_yaml, _read_bundle, 2),
        "model-config": Reader(_model_configs, spoil_json, _read_networks, 2),
        "run-spec": Reader(_run_spec, spoil_json, _read_run_spec, 3),
        "manifest": Reader(_manifest, spoil_json, _read_manifest, 2),
        "spool": Reader(_spool, spoil_bytes, _read_spool, 2),
        "dataset": Reader(_dataset, spoil_yaml, _read_dataset, 2),
        "csv": Reader(_csv, spoil_bytes, _read_csv),
        "recipe": Reader(_recipes, spoil_yaml, _read_recipe),
        "cohort-plan": Reader(_cohort_plan, spoil_yaml, _read_cohort_plan, 2),
        "queue": Reader(_queue, spoil_yaml, _read_queue),
    }


# -- settings and tables -------------------------------------------------------------------------------------------------


def _written(path: Path, content: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def _settings(folder: Path) -> list[Path]:
    full = "size: 1024x1024\nclass: Tumor\nmode: shifted\nsteps: 10\nguidance: 0.5\neta: 1.0\nseed: 3\nmpp: 0.5\nquality: 90\n"
    return [_written(folder / "full.yaml", full), _written(folder / "demo.yaml", (ROOT / "configs/demo.yaml").read_bytes())]


def _read_settings(path: Path) -> object:
    from wsigen.run.config import make_config

    return make_config({}, path)


def _machine(folder: Path) -> list[Path]:
    full = "scheduler: tcp://10.0.0.1:8786\nrun_dir: runs/a.run\ndevice: cuda\nworkers: 4\nprocesses: true\nmemory_gb: 8.5\n"
    return [_written(folder / "machine.yaml", full + "threads: 2\ntasks-at-once: 2\nwindow: 3\nkeep-run: true\n")]


def _read_machine(path: Path) -> object:
    from wsigen.run.config import RunConfig
    from wsigen.run.machine_file import with_machine

    return with_machine(RunConfig(size=(512, 512)), path)


def _class_tables(folder: Path) -> list[Path]:
    return [_written(folder / "table.yaml", "0: Glass\n1: Tumor\n2: Stroma\n")]


def _read_class_table(path: Path) -> object:
    from wsigen.layout.raster import read_class_table

    return read_class_table(path)


def _subtypes(folder: Path) -> list[Path]:
    return [_written(folder / "subtypes.yaml", (ROOT / "wsigen/layout/subtypes.yaml").read_bytes())]


def _read_subtypes(path: Path) -> object:
    from wsigen.layout.subtypes import known_subtypes

    return known_subtypes(_table(), path)


def _cohort_plan(folder: Path) -> list[Path]:
    return [
        _written(folder / name, (ROOT / "configs" / name).read_bytes()) for name in ("cohort-example.yaml", "cohort-small.yaml")
    ]


def _read_cohort_plan(path: Path) -> object:
    from wsigen.cohort.plan import read_plan

    return read_plan(path)


def _queue(folder: Path) -> list[Path]:
    return [_written(folder / "slurm.yaml", (ROOT / "configs/slurm.yaml").read_bytes())]


def _read_queue(path: Path) -> object:
    from wsigen.run.engine.queue import read_queue_file

    return read_queue_file(path)


# -- layouts and images --------------------------------------------------------------------------------------------------


def _table() -> Any:
    from wsigen.models.bundle import DEFAULT_FOLDER
    from wsigen.models.card import read_card

    return read_card(DEFAULT_FOLDER).table


def _geojson(folder: Path) -> list[Path]:
    return [_written(folder / "layout.geojson", (ROOT / "examples/demo-small.geojson").read_bytes())]


def _rasters(folder: Path) -> list[Path]:
    from PIL import Image

    folder.mkdir(parents=True, exist_ok=True)
    labels = Image.fromarray(np.kron(np.array([[0, 1], [2, 3]], np.uint8), np.ones((40, 40), np.uint8)))
    paths = [folder / "labels.png", folder / "labels.tif"]
    for path in paths:
        labels.save(path)
    for path in (folder / "palette.png", folder / "palette.tif"):
        labels.putpalette([200, 0, 0, 0, 200, 0, 0, 0, 200, 9, 9, 9])
        labels.save(path)
        paths.append(path)
    return paths


def _read_layout(path: Path) -> object:
    from wsigen.base.geometry import Box
    from wsigen.layout.read import read_layout

    layout = read_layout(path, _table(), (1024, 1024), 0, 1.0, None)
    return layout.class_map(Box(0, 0, 64, 64), 8)


def _images(folder: Path) -> list[Path]:
    import tifffile
    from PIL import Image

    folder.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(0).integers(0, 255, (128, 128, 3), np.uint8)
    for name in ("reference.png", "reference.jpg"):
        Image.fromarray(pixels).save(folder / name)
    with tifffile.TiffWriter(folder / "reference.ome.tif") as tiff:
        tiff.write(pixels, tile=(64, 64), photometric="rgb", compression="deflate", subifds=1)
        tiff.write(pixels[::2, ::2], tile=(64, 64), photometric="rgb", compression="deflate", subfiletype=1)
    return sorted(folder.iterdir())


def _read_image(path: Path) -> object:
    from wsigen.base.geometry import Box
    from wsigen.slide.reading import open_image

    return open_image(path).region(Box(0, 0, 64, 64), (128, 128))


def _pyramids(folder: Path) -> list[Path]:
    import pyvips
    import tifffile

    folder.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(0).integers(150, 200, (128, 160, 3), np.uint8)
    kinds: dict[str, dict[str, Any]] = {"deflate": {"bigtiff": True}, "jpeg": {"byteorder": ">"}, "lzw": {}}
    for name, how in kinds.items():
        with tifffile.TiffWriter(folder / f"{name}.tif", **how) as tiff:
            for level in (pixels, np.ascontiguousarray(pixels[::2, ::2])):
                tiff.write(level, tile=(64, 64), photometric="rgb", compression=name, metadata=None)
    image = pyvips.Image.new_from_array(pixels)
    image.tiffsave(str(folder / "vips.tif"), tile=True, pyramid=True, tile_width=64, tile_height=64, compression="jpeg")
    return sorted(folder.glob("*.tif"))


def _splice(path: Path) -> object:
    """Replace pixels, and undo it: the parent's bytes, or no file."""
    from wsigen.base.errors import WsigenError
    from wsigen.base.geometry import Box
    from wsigen.slide.splice import Patch, replace_pixels, restore

    box = Box(30, 40, 100, 130)
    patch = Patch(box, np.full((*box.shape, 3), 99, np.uint8), np.ones(box.shape, bool))
    output, undo = path.with_name("out.ome.tiff"), path.with_name("out.undo")
    try:
        replace_pixels(path, output, [patch], description="other", undo=undo)
    except WsigenError:
        if output.exists() or undo.exists():
            raise RuntimeError(f"{path}: refused, but {output.name} was written") from None
        raise
    try:
        restore(output, undo)
        if output.read_bytes() != path.read_bytes():
            raise RuntimeError(f"{path}: undone to something else")
    finally:
        output.unlink()
        undo.unlink()
    return output


def _undo(folder: Path) -> list[Path]:
    from wsigen.base.geometry import Box
    from wsigen.slide.splice import Patch, replace_pixels

    box = Box(30, 40, 100, 130)
    patch = Patch(box, np.full((*box.shape, 3), 99, np.uint8), np.ones(box.shape, bool))
    replace_pixels(_pyramids(folder)[0], folder / SLIDE, [patch], undo=folder / "slide.undo")
    return [folder / "slide.undo"]


def _read_undo(path: Path) -> object:
    from wsigen.slide.splice import restore

    output, parent = path.with_name("out.ome.tiff"), path.with_name("deflate.tif")
    shutil.copyfile(path.with_name(SLIDE), output)
    restore(output, path)
    if output.read_bytes() != parent.read_bytes():
        raise RuntimeError(f"{path}: undone to something else")
    return output


def _grid(folder: Path) -> list[Path]:
    from wsigen.grids.grid import GridFile
    from wsigen.grids.wsz import new_grid

    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "grid.wsz"
    about = GridFile(encoder="test", cell_um=4.0, width_um=80.0, height_um=64.0)
    with new_grid(path, about, (3, 16, 20)) as writer:
        writer.write(0, np.random.default_rng(0).normal(size=(3, 16, 20)), np.ones((16, 20), bool))
        writer.overview(np.zeros((16, 20, 3), np.uint8))
    packed = {"chunks": (8, 4), "compression": "gzip", "shuffle": True}
    return [path, _features(folder / "features.h5"), _features(folder / "packed.h5", packed)]


def _features(path: Path, how: dict[str, Any] | None = None) -> Path:
    """As TRIDENT writes them."""
    import h5py

    said = {"patch_size": 8, "patch_size_level0": 8, "target_magnification": 20, "level0_width": 160, "level0_height": 128}
    with h5py.File(path, "w") as file:
        features = np.random.default_rng(0).normal(size=(40, 6)).astype(np.float32)
        file.create_dataset("features", data=features, **(how or {}))
        file["features"].attrs["encoder"] = "test"
        file["coords"] = np.array([(8 * (i % 20), 8 * (i // 20)) for i in range(40)])
        file["coords"].attrs.update(said)
    return path


def _read_grid(path: Path) -> object:
    from wsigen.base.geometry import Box
    from wsigen.grids.opening import open_grid

    return open_grid(path).window(Box(0, 0, 8, 10), 8.0)


# -- models --------------------------------------------------------------------------------------------------------------


def _bundle(folder: Path) -> Path:
    from wsigen.models.bundle import DEFAULT_FOLDER

    copy = folder / "bundle"
    shutil.copytree(DEFAULT_FOLDER, copy, ignore=shutil.ignore_patterns("*.safetensors"))
    for weights in DEFAULT_FOLDER.rglob("*.safetensors"):
        (copy / weights.relative_to(DEFAULT_FOLDER)).symlink_to(weights)
    return copy


def _card(folder: Path) -> list[Path]:
    return [_bundle(folder) / "wsigen.yaml"]


def _model_configs(folder: Path) -> list[Path]:
    return sorted(_bundle(folder).rglob("*config.json"))


def _read_bundle(path: Path) -> object:
    from wsigen.models.bundle import check_bundle

    return check_bundle(path.parent)


def _read_networks(path: Path) -> object:
    """Check what a bundle's networks would be; loading then takes no more memory than the weights."""
    from wsigen.models.bundle import check_bundle
    from wsigen.models.loading import check_network, read_schedule

    folder = next(parent for parent in path.parents if (parent / "wsigen.yaml").is_file())
    check_bundle(folder)
    return [check_network(part.parent) for part in sorted(folder.rglob("config.json"))] + [read_schedule(folder)]


# -- runs ----------------------------------------------------------------------------------------------------------------


def _run_spec(folder: Path) -> list[Path]:
    """A run that was prepared and claimed, before its first task."""
    from wsigen.run.rundir import claim, make_run_dir
    from wsigen.storage.folder import RUN_SPEC

    run = folder / "slide.run"
    claim(make_run_dir(run, folder / SLIDE), _prepared(folder))
    return [run / RUN_SPEC]


def _prepared(folder: Path) -> Any:
    from wsigen.run.config import RunConfig
    from wsigen.run.prepare import prepare

    folder.mkdir(parents=True, exist_ok=True)
    return prepare(RunConfig(size=(512, 512), class_name="Tumor", steps=2), folder / SLIDE)


def _read_run_spec(path: Path) -> object:
    """Read it twice: as it is, and with a hash that fits, as whoever alters it would write it."""
    from wsigen.base.errors import WsigenError
    from wsigen.run.spec import RunSpec, json_hash
    from wsigen.storage.opening import open_folder

    folder = open_folder(path.parent)
    try:
        return RunSpec.load(folder)
    except WsigenError as error:
        with suppress(ValueError, TypeError, RecursionError):
            content = dict(json.loads(path.read_bytes()))
            content.pop("hash", None)
            path.write_text(json.dumps({**content, "hash": json_hash(content)}))
            return RunSpec.load(folder)
        raise error


def _manifest(folder: Path) -> list[Path]:
    from wsigen.run.manifest import make_manifest

    prepared = _prepared(folder)
    manifest = make_manifest(prepared.spec, prepared.card, {"Tumor": 1000.0}, {"level0_tiles": "0" * 64})
    return [_written(folder / "slide.json", manifest.model_dump_json())]


def _read_manifest(path: Path) -> object:
    from wsigen.evaluation.seams import borders_of, read_manifest

    manifest = read_manifest(path.with_name(SLIDE))
    return manifest and borders_of(manifest.passes, (512, 512))


def _spool(folder: Path) -> list[Path]:
    from wsigen.slide.pyramid import PyramidSpec
    from wsigen.slide.tiles import encode_block

    spec = PyramidSpec(width=512, height=512, mpp=0.5, magnification=20.0)
    pixels = np.random.default_rng(0).integers(0, 255, (512, 512, 3), np.uint8)
    return [_written(folder / "block.blk", bytes(encode_block(spec, (0, 0), pixels)))]


def _read_spool(path: Path) -> object:
    from wsigen.slide.tiles import read_block

    blob = path.read_bytes()[: -_NUMBER.size]
    return read_block(blob + _NUMBER.pack(zlib.crc32(blob)), path.name)  # a checksum that fits: whoever alters one can write it


# -- training ------------------------------------------------------------------------------------------------------------


def _dataset(folder: Path) -> list[Path]:
    return [_written(folder / "dataset.yaml", (ROOT / "configs/dataset-example.yaml").read_bytes())]


def _read_dataset(path: Path) -> object:
    from wsigen.dataset.settings import read_settings

    return read_settings(path)


def _csv(folder: Path) -> list[Path]:
    return [_written(folder / "subtypes.csv", "image,subtype,patient\na.png,solid,1\nb.png,fibrous,2\n")]


def _read_csv(path: Path) -> object:
    from wsigen.dataset.tables import column_of_images

    return column_of_images(path, "image", "subtype", ["a.png", "b.png"])


def _recipes(folder: Path) -> list[Path]:
    return [_written(folder / name, (ROOT / "configs" / name).read_bytes()) for name in ("mask-small.yaml",)]


def _read_recipe(path: Path) -> object:
    from wsigen.training.recipes import MaskRecipe, read_recipe

    return read_recipe(MaskRecipe, path)
