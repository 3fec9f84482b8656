"""The latent of bare glass, which the driver encodes: the same whatever number of threads its machine has."""

import pytest
from runs import settings_of

from wsigen.models.one_thread import one_thread
from wsigen.run.config import make_config
from wsigen.run.prepare import prepare


@pytest.fixture
def many_threads():
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


def test_glass_is_encoded_with_one_thread(bundle, tmp_path, many_threads, monkeypatch):
    import torch

    from wsigen.models.autoencoder import Autoencoder

    threads = []
    encode = Autoencoder.encode

    def watched(self, rgb):
        threads.append(torch.get_num_threads())
        return encode(self, rgb)

    monkeypatch.setattr(Autoencoder, "encode", watched)
    prepare(make_config(settings_of(bundle, tmp_path)), tmp_path / "a.ome.tiff")
    assert threads == [1]
    assert torch.get_num_threads() == 3


def test_threads_come_back_after_an_error(many_threads):
    import torch

    with pytest.raises(ValueError, match="wrong with 1"), one_thread():
        raise ValueError(f"wrong with {torch.get_num_threads()}")
    assert torch.get_num_threads() == 3
