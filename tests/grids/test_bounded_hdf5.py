"""Feature files of strangers: packed ones are read, and none takes more time or memory than its size allows."""

import struct
import zlib

import numpy as np
import pytest

from wsigen.base.errors import GridError
from wsigen.grids.bounded_hdf5 import BoundedFile
from wsigen.grids.opening import open_grid

h5py = pytest.importorskip("h5py")
pytest.importorskip("pyfive")

SAID = {"patch_size": 8, "patch_size_level0": 8, "target_magnification": 20, "level0_width": 160, "level0_height": 128}


def write(path, features, userblock=0, **how):
    with h5py.File(path, "w", userblock_size=userblock) as file:
        file.create_dataset("features", data=features, **how).attrs["encoder"] = "test"
        file["coords"] = np.array([(8 * (i % 20), 8 * (i // 20)) for i in range(len(features))])
        file["coords"].attrs.update(SAID)
    return path


def numbers(count=40):
    return np.random.default_rng(0).normal(size=(count, 6)).astype(np.float32)


@pytest.mark.parametrize(
    "how",
    [
        {"chunks": (7, 4)},
        {"chunks": (1, 6), "maxshape": (None, 6)},
        {"chunks": (7, 4), "compression": "gzip"},
        {"chunks": (64, 6), "maxshape": (None, 6), "compression": "gzip", "shuffle": True, "fletcher32": True},
        {"userblock": 512, "chunks": (8, 6), "shuffle": True},
    ],
)
def test_packed_features_are_the_plain_ones(tmp_path, how):
    plain, packed = write(tmp_path / "a.h5", numbers()), write(tmp_path / "b.h5", numbers(), **how)
    assert np.array_equal(open_grid(packed).values, open_grid(plain).values)


def test_large_plain_features_end_with_their_file(tmp_path):
    """Larger than the pieces in which pyfive would read them."""
    features = np.random.default_rng(0).normal(size=(257, 4999)).astype(np.float32)
    grid = open_grid(write(tmp_path / "a.h5", features))
    assert np.array_equal(grid.values[:, 12, 16], features[256])


def test_a_chunk_that_unpacks_to_more_than_it_holds_is_refused(tmp_path):
    path = write(tmp_path / "a.h5", numbers(), chunks=(40, 6), compression="gzip")
    with h5py.File(path, "a") as file:
        file["features"].id.write_direct_chunk((0, 0), zlib.compress(bytes(2**24)))
    with pytest.raises(GridError, match="unpacks to more than its 960 bytes; extract"):
        open_grid(path)


def test_other_filters_are_refused(tmp_path):
    path = write(tmp_path / "a.h5", numbers(), chunks=(40, 6), compression="lzf")
    with pytest.raises(GridError, match=r"filters \[32000\] of HDF5; only shuffle and gzip"):
        open_grid(path)


def test_a_tree_whose_branches_all_lead_to_one_child_is_refused(tmp_path):
    path = write(tmp_path / "a.h5", numbers(), chunks=(40, 6))
    content = bytearray(path.read_bytes())
    root = content.index(b"TREE\x01\x00")
    entry = content[root + 24 : root + 24 + 32]  # size, mask and place of a chunk; where its bytes are comes after
    leaf = len(content)
    content += content[root : root + 24 + 40]
    child = leaf
    for level in range(1, 7):
        node = struct.pack("<4sBBHQQ", b"TREE", 1, level, 32, 2**64 - 1, 2**64 - 1)
        node += (bytes(entry) + struct.pack("<Q", child)) * 32
        if level == 6:
            content[root : root + len(node)] = node
        child = len(content)
        content += node
    path.write_bytes(content)
    with pytest.raises(GridError, match="same bytes again and again"):
        open_grid(path)


def test_a_file_is_read_a_few_times_only(tmp_path):
    (tmp_path / "a").write_bytes(bytes(2**20))
    with BoundedFile(tmp_path / "a") as file:
        for _ in range(4):
            file.seek(0)
            assert len(file.read()) == 2**20
        file.seek(0)
        file.read()
        file.seek(0)
        with pytest.raises(ValueError, match="again and again"):
            file.read(1)
    assert file.closed
