import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from dataset.dataset_making import annotated, settings, slide, tiles

from wsigen.base.classes import UNKNOWN
from wsigen.base.errors import DatasetError
from wsigen.dataset import latents as module
from wsigen.dataset.dataset import open_dataset
from wsigen.dataset.latents import cache_latents


def encode(images):
    """Mean colour and red deviation of every cell: an encoder whose values a test can compute."""
    b, h, w, _ = images.shape
    cells = images.reshape(b, h // 8, 8, w // 8, 8, 3).astype(np.float32)
    values = np.concatenate([cells.mean((2, 4)), cells[..., :1].std((2, 4))], -1) / 64 - 1
    return values.transpose(0, 3, 1, 2)


@pytest.fixture
def dataset(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "BLOCK", 8)
    tiles(tmp_path / "tiles")
    annotated(tmp_path / "slides")
    slide(tmp_path / "plain" / "u1.png", seed=5)
    config = settings(
        tmp_path.resolve(),
        {"kind": "tiles", "folder": "tiles", "mpp": 0.5},
        {"kind": "annotated", "images": "slides", "mpp": 0.5},
        {"kind": "unlabelled", "images": "plain", "mpp": 0.5},
    )
    return open_dataset(config, tmp_path / "cache")


def test_an_interrupted_cache_goes_on_and_equals_a_whole_one(dataset, tmp_path):
    calls = 0

    def failing(images):
        nonlocal calls
        calls += 1
        if calls > 6:
            raise RuntimeError("killed")
        return encode(images)

    with pytest.raises(RuntimeError, match="killed"):
        cache_latents(dataset, failing, tmp_path / "a", "key", variants=2, batch=4)
    encoded = []
    resumed = cache_latents(
        dataset, lambda i: (encoded.append(len(i)), encode(i))[1], tmp_path / "a", "key", variants=2, batch=4
    )
    whole = cache_latents(dataset, encode, tmp_path / "b", "key", variants=2, batch=4)
    assert sum(encoded) == 2 * len(whole.patches) - 16  # two blocks of eight were done
    assert np.array_equal(resumed.group["latents"][:], whole.group["latents"][:])
    assert np.array_equal(resumed.mean, whole.mean)
    assert np.array_equal(resumed.std, whole.std)


@pytest.mark.parametrize("kept", [0, 40_000, 2**30])
def test_what_is_kept_in_memory_changes_no_batch(dataset, tmp_path, kept):
    """A patch is 2 kB of latents and class map."""
    cache = cache_latents(dataset, encode, tmp_path / "a", "key", variants=2)
    stream = cache.stream(3, kept_bytes=kept)
    first = [stream.batch(step, 8) for step in range(12)]
    again = [stream.batch(step, 8) for step in range(12)]
    fresh = [cache.stream(3, kept_bytes=0).batch(step, 8) for step in range(12)]
    for a, b, c in zip(first, again, fresh, strict=True):
        assert np.array_equal(a.latents, b.latents)
        assert np.array_equal(a.latents, c.latents)
        assert np.array_equal(a.class_maps, c.class_maps)
    size = sum(part.nbytes for pair in stream._kept.values() for part in pair)
    assert size == kept - stream._room <= kept
    assert (size > 0) == (kept > 0)


def test_processes_share_the_blocks_and_make_the_same_cache(dataset, tmp_path):
    whole = cache_latents(dataset, encode, tmp_path / "a", "key", variants=2)
    barrier, counts = threading.Barrier(3), [0, 0, 0]

    def encoded(rank):
        def count(done, of):
            counts[rank] += 1

        return cache_latents(
            dataset, encode, tmp_path / "b", "key", variants=2, share=(rank, 3), meet=lambda: barrier.wait(60), watch=count
        )

    with ThreadPoolExecutor(3) as pool:
        shared = list(pool.map(encoded, range(3)))
    blocks = -(-len(whole.patches) // 8) * 2
    assert sum(counts) == blocks
    assert max(counts) - min(counts) <= 1
    for cache in shared:
        assert np.array_equal(cache.group["latents"][:], whole.group["latents"][:])
        assert np.array_equal(cache.mean, whole.mean)


def test_statistics_are_those_of_the_tissue(dataset, tmp_path):
    cache = cache_latents(dataset, encode, tmp_path / "a", "key")
    values = []
    for row in range(len(cache.patches)):
        member = dataset.members[cache.patches.member[row]]
        box, mpp = cache.patches.box(row, 128), dataset.mpps[cache.patches.level[row]]
        values.append(encode(member.image(box, mpp)[None])[0][:, member.tissue(box, mpp)])
    tissue = np.concatenate(values, 1).astype(np.float64)
    np.testing.assert_allclose(cache.mean, tissue.mean(1), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(cache.std, tissue.std(1), rtol=1e-4)


def test_the_stream_is_pure_standardised_and_paired_with_its_maps(dataset, tmp_path):
    cache = cache_latents(dataset, encode, tmp_path / "a", "key")
    stream = cache.stream(3)
    a, b = stream.batch(4, 24), cache.stream(3).batch(4, 12)
    assert np.array_equal(a.latents[:12], b.latents)
    assert not np.array_equal(stream.batch(5, 12).latents, b.latents)
    assert a.latents.shape == (24, 4, 16, 16)
    assert a.class_maps.shape == (24, 16, 16)
    assert a.latents.dtype == np.float32
    stored = cache.group["latents"][:, 0].astype(np.float32)
    maps = cache.group["classes"][:, 0]
    for latent, classes, level in zip(a.latents, a.class_maps, a.levels, strict=True):
        raw = latent * cache.std[:, None, None] + cache.mean[:, None, None]
        row = int(np.abs(stored - raw).max((1, 2, 3)).argmin())
        np.testing.assert_allclose(stored[row], raw, atol=1e-3)
        assert np.array_equal(maps[row], classes)
        assert cache.patches.level[row] == level


def test_turned_variants_keep_latents_and_maps_together(dataset, tmp_path):
    cache = cache_latents(dataset, encode, tmp_path / "a", "key", variants=2)
    labels = cache.group["classes"]
    rows = np.flatnonzero([(len(np.unique(m)) > 1) for m in labels[:, 0]])
    assert len(rows)
    for row in rows:
        assert np.array_equal(labels[row, 1], np.rot90(labels[row, 0]))
    # Dark cells stay where they are turned to: jitter changes values, not their order by much.
    light = cache.group["latents"][:, :, 1].astype(np.float32)
    turned = [np.corrcoef(np.rot90(a).ravel(), b.ravel())[0, 1] for a, b in zip(light[:, 0], light[:, 1], strict=True)]
    assert min(turned) > 0.95


def test_another_key_is_encoded_anew_and_foreign_folders_are_left_alone(dataset, tmp_path):
    cache_latents(dataset, encode, tmp_path / "a", "one")
    other = cache_latents(dataset, lambda i: 2 * encode(i), tmp_path / "a", "two")
    assert other.group["latents"][0, 0].max() == pytest.approx(2 * encode(_image(dataset, other, 0)[None]).max(), rel=1e-2)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("x")
    with pytest.raises(DatasetError, match="holds other files"):
        cache_latents(dataset, encode, tmp_path / "mine", "one")
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "x"


def test_damage_is_found(dataset, tmp_path):
    cache = cache_latents(dataset, encode, tmp_path / "a", "key")
    for shard in (tmp_path / "a" / "latents" / "c").rglob("0"):
        if shard.is_file():
            data = bytearray(shard.read_bytes())
            data[100] ^= 0xFF
            shard.write_bytes(bytes(data))
    with pytest.raises(DatasetError, match="damaged"):
        cache.stream(0).batch(0, 200)


def test_latents_of_another_factor_are_refused(dataset, tmp_path):
    with pytest.raises(DatasetError, match="16 x 16 latents"):
        cache_latents(dataset, lambda i: encode(i)[:, :, ::2, ::2], tmp_path / "a", "key")


def test_unlabelled_share_decides_the_maps(dataset, tmp_path):
    cache = cache_latents(dataset, encode, tmp_path / "a", "key")
    assert (cache.stream(0, [1, 0], 1.0).batch(0, 20).class_maps == UNKNOWN).all()
    labelled = cache.stream(0, [1, 0], 0.0).batch(0, 20)
    assert all((m != UNKNOWN).any() for m in labelled.class_maps)
    assert labelled.labelled.all()


def _image(dataset, cache, row):
    member = dataset.members[cache.patches.member[row]]
    return member.image(cache.patches.box(row, 128), dataset.mpps[cache.patches.level[row]])


def test_stains_are_jittered_only_if_asked_for_and_only_in_turned_copies(dataset, tmp_path):
    plain = cache_latents(dataset, encode, tmp_path / "a", "key", variants=2)
    jittered = cache_latents(dataset, encode, tmp_path / "b", "key", variants=2, jitter=0.3)
    a, b = plain.group["latents"][:], jittered.group["latents"][:]
    assert np.array_equal(a[:, 0], b[:, 0])
    assert not np.array_equal(a[:, 1], b[:, 1])
    # a turned copy without jitter has the very colours of the patch
    assert np.allclose(a[:, 0].mean((2, 3)), a[:, 1].mean((2, 3)), atol=1e-2)


@pytest.mark.parametrize("dies", [False, True])
def test_others_are_waited_for_as_long_as_they_encode(monkeypatch, dies):
    """A block every eight minutes, of 20; a process that dies half-way is left to those who know how long to wait."""
    moments, now = np.full((20, 2, 3, 4), np.nan), [0.0]

    def go_on(seconds):
        now[0] += seconds
        moments[: int(min(now[0], 3600 if dies else np.inf) / 480)] = 0.0

    monkeypatch.setattr(module, "sleep", go_on)
    monkeypatch.setattr(module, "monotonic", lambda: now[0])
    module.await_others(lambda: int(np.isnan(moments).any(axis=(1, 2, 3)).sum()), 0.0)
    assert np.isfinite(moments).all() != dies
    assert now[0] <= (3600 + 960 + module.STILL_S if dies else 20 * 480)


@pytest.mark.parametrize("block_s", [1.0, 900.0])
def test_the_wait_for_others_follows_the_seconds_of_own_blocks(dataset, tmp_path, monkeypatch, block_s):
    """A process whose blocks take a quarter of an hour does not give the others up after ten minutes."""
    now, encoded = [0.0], [0.0]

    def slow(images):
        now[0] += block_s
        encoded[0] = now[0]
        return encode(images)

    monkeypatch.setattr(module, "sleep", lambda _: now.__setitem__(0, now[0] + 300))
    monkeypatch.setattr(module, "monotonic", lambda: now[0])
    cache_latents(dataset, slow, tmp_path / "a", "key", share=(0, 2))  # the other process never begins
    waited = now[0] - encoded[0]
    assert max(600, 10 * block_s) <= waited <= max(600, 10 * block_s) + 300


def test_patches_without_tissue_have_no_scale(tmp_path):
    tiles(tmp_path / "tiles")
    config = settings(tmp_path.resolve(), {"kind": "tiles", "folder": "tiles", "mpp": 0.5})
    glass = tuple(one.model_copy(update={"background": True}) for one in config.classes)
    dataset = open_dataset(config.model_copy(update={"classes": glass}), tmp_path / "cache")
    with pytest.raises(DatasetError, match=r"none of \d+ patches to train on shows tissue .*check the images' um/px"):
        cache_latents(dataset, encode, tmp_path / "a", "key")
