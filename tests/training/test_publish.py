"""What a training publishes can be read by whoever the umask says, and appears whole or not at all."""

import json
import os

import numpy as np
import pytest
from safetensors.numpy import save_file

from wsigen.base.errors import TrainingError
from wsigen.training.publish import whole_folder


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o007, 0o660), (0o077, 0o600)])
def test_every_file_is_as_the_umask_says(tmp_path, umask, mode):
    before = os.umask(umask)
    try:
        with whole_folder(tmp_path / "bundle") as beside:
            (beside / "unet").mkdir()
            save_file({"weights": np.zeros(3, np.float32)}, beside / "unet" / "model.safetensors")
            (beside / "wsigen.yaml").write_text("")
    finally:
        os.umask(before)
    files = [path for path in (tmp_path / "bundle").rglob("*") if path.is_file()]
    assert {path.stat().st_mode & 0o777 for path in files} == {mode}
    assert len(files) == 2


def test_what_was_there_stays_if_writing_fails(tmp_path):
    with whole_folder(tmp_path / "bundle") as beside:
        (beside / "file").write_text("old")
    with pytest.raises(TrainingError, match="cannot be written"), whole_folder(tmp_path / "bundle") as beside:
        (beside / "file" / "in a file").write_text("new")
    assert (tmp_path / "bundle" / "file").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


def test_configs_do_not_say_where_networks_lay(tmp_path):
    """diffusers and transformers write the folder that a network was loaded from into its config."""
    config = {"_class_name": "UNet2DModel", "_name_or_path": "/home/anna/secret/unet", "sample_size": 8}
    with whole_folder(tmp_path / "bundle") as beside:
        (beside / "unet").mkdir()
        (beside / "unet" / "config.json").write_text(json.dumps(config))
    text = (tmp_path / "bundle" / "unet" / "config.json").read_text()
    assert json.loads(text) == {"_class_name": "UNet2DModel", "sample_size": 8}


def test_files_that_are_no_configs_stay_as_they_are(tmp_path):
    """A bundle is copied with all that its owner put into it."""
    odd = {
        "my_config.json": b"// a comment",
        "list_config.json": b"[1]",
        "deep_config.json": b"[" * 100_000,
        "bytes_config.json": b"\xff",
    }
    with whole_folder(tmp_path / "bundle") as beside:
        for name, content in odd.items():
            (beside / name).write_bytes(content)
    assert {name: (tmp_path / "bundle" / name).read_bytes() for name in odd} == odd
