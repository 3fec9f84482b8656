"""The traffic that is reckoned is the one of a run."""

from collections import Counter

import numpy as np
import pytest
from drawing import tumor_in_stroma
from tiny_bundles import CROP

from benchmarks.scale.traffic import PassTraffic
from wsigen.base import geometry
from wsigen.run.config import make_config
from wsigen.run.estimate.calls import active_chunks
from wsigen.run.estimate.projection import plans_of
from wsigen.run.generate import generate
from wsigen.run.prepare import prepare
from wsigen.storage.zarr_stores import ChunkFiles

CHECKSUM, PLACE = 4, 16
"""Bytes: of a tile's checksum, and of where it lies in its key."""


@pytest.mark.parametrize(
    ("sampler", "glass", "chunk", "tile"),
    [("ddim", True, 32, 128), ("dpm++", False, 32, 128), ("ddim", False, 64, 32), ("ddim", False, 32, 16)],
)
def test_a_run_moves_the_bytes_that_are_reckoned(bundle, tmp_path, monkeypatch, sampler, glass, chunk, tile):
    """What is written exactly; what is read but for where crops happen to lie, and less beside glass."""
    moved, denoising = Counter(), [True]
    monkeypatch.setattr(geometry, "TILE", tile)
    monkeypatch.setattr(geometry, "SMALLEST_TILE", min(tile, geometry.SMALLEST_TILE))

    def count(kind, key, data):
        if denoising[0] and data is not None and any(f"/{name}/c/" in key for name in ("latents", "partials", "history")):
            side = chunk + (CROP if "/partials/" in key else 0)
            tiles = (side // geometry.tile_side(side)) ** 2
            beside = CHECKSUM if tiles == 1 else tiles * (CHECKSUM + PLACE) + CHECKSUM
            moved[kind, "bytes"] += len(data) - (beside if kind == "written" else 0)
            moved[kind, "requests"] += 1

    for name, kind in (("get", "read"), ("set", "written")):
        before, before_sync = getattr(ChunkFiles, name), getattr(ChunkFiles, f"{name}_sync")

        async def watched(self, key, *args, before=before, kind=kind, **more):
            found = await before(self, key, *args, **more)
            count(kind, key, found if kind == "read" else None)
            return found

        def watched_sync(self, key, *args, before=before_sync, kind=kind, **more):
            found = before(self, key, *args, **more)
            count(kind, key, found if kind == "read" else args[0])
            return found

        monkeypatch.setattr(ChunkFiles, name, watched)
        monkeypatch.setattr(ChunkFiles, f"{name}_sync", watched_sync)

    def look(stage):
        denoising[0] = stage.name.startswith("denoise") and not stage.finished

    what = {"layout": tumor_in_stroma(tmp_path / "layout.geojson")} if glass else {"class_name": "Tumor"}
    size = (1024, 1024) if chunk == 64 else (640, 768)  # whole chunks: of one at the canvas's edge fewer tiles are read
    settings = {"model": str(bundle), "size": size, "chunk": chunk, "levels": 1, "steps": 4, "workers": 1, **what}
    settings |= {"sampler": sampler, "eta": 0.0}
    prepared = prepare(make_config(settings), tmp_path / "x.ome.tiff")
    plan = plans_of(prepared.manifest)[0]
    active = active_chunks(prepared.layout, plan, prepared.manifest.glass["index"])
    generate(tmp_path / "x.ome.tiff", watch=look, **settings)
    total = PassTraffic(plan, active, prepared.card.latent.channels, sampler == "dpm++").total()
    low, high = (0.7, 1.1) if glass else (0.88, 1.12)
    assert low * total.read <= moved["read", "bytes"] <= high * total.read
    assert low * total.reads <= moved["read", "requests"] <= high * total.reads
    if tile > chunk:
        assert moved["written", "bytes"] == total.written
    assert 0.7 * total.written <= moved["written", "bytes"] <= total.written, "tiles beyond the canvas are not written"
    assert moved["written", "requests"] == total.writes


def test_active_chunks_are_those_of_the_run(bundle, tmp_path):
    """Tissue in a corner of one chunk, and near the edge of another."""
    from benchmarks.bundles import write_squares
    from wsigen.run.repair import prepare_pass
    from wsigen.run.rundir import claim, make_run_dir
    from wsigen.run.tasks.context import run_context

    layout = write_squares(tmp_path / "squares.geojson", [("Tumor", 0, 0, 120), ("Stroma", 816, 560, 200)])
    settings = {"model": str(bundle), "layout": layout, "size": (1536, 1280), "chunk": 32, "levels": 1}
    prepared = prepare(make_config(settings), tmp_path / "x.ome.tiff")
    claim(folder := make_run_dir(tmp_path / "run", tmp_path / "x.ome.tiff"), prepared)
    run = run_context(folder.name, prepared.manifest.hash)
    prepare_pass(run, run.passes[0], prepared.layout)
    found = active_chunks(prepared.layout, plans_of(prepared.manifest)[0], prepared.manifest.glass["index"])
    assert found == {(int(i), int(j)) for i, j in np.argwhere(run.passes[0].state.activity)}
    assert 0 < len(found) < len(plans_of(prepared.manifest)[0].grid)
