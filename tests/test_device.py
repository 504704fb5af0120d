"""Which device computes. torch's own answers are put in the place of hardware."""

import pytest
import torch

from pipeline.device import resolve_device
from pipeline.errors import UsageError


@pytest.fixture
def hardware(monkeypatch):
    def have(*, cuda: int = 0, mps: bool = False) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: cuda)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)

    return have


@pytest.mark.parametrize(
    ("cuda", "mps", "found"), [(0, False, "cpu"), (0, True, "mps"), (1, False, "cuda"), (2, True, "cuda")]
)
def test_auto_prefers_cuda_to_mps_to_the_cpu(hardware, cuda, mps, found):
    hardware(cuda=cuda, mps=mps)
    assert resolve_device("auto") == torch.device(found)


def test_a_device_asked_for_by_name_is_that_one(hardware):
    hardware(cuda=2, mps=True)
    assert resolve_device("cpu") == torch.device("cpu")
    assert resolve_device("mps") == torch.device("mps")
    assert resolve_device("cuda") == torch.device("cuda")
    assert resolve_device("cuda:1") == torch.device("cuda", 1)
    assert resolve_device("cuda:0") == torch.device("cuda", 0)


def test_what_is_not_there_is_never_replaced(hardware):
    hardware(cuda=1)
    with pytest.raises(UsageError, match=r"--device cuda:1 was asked for, but torch .* finds 1 CUDA devices"):
        resolve_device("cuda:1")
    with pytest.raises(UsageError, match="--device mps was asked for"):
        resolve_device("mps")
    hardware()
    for asked in ("cuda", "cuda:0"):
        with pytest.raises(UsageError, match="finds no CUDA device") as caught:
            resolve_device(asked)
        assert "--device auto" in caught.value.hint


@pytest.mark.parametrize(
    "asked", ["gpu", "", "CUDA", "cpu:0", "mps:0", "auto:1", "cuda:-1", "cuda:x", "cuda:1:2", "xpu"]
)
def test_unknown_devices_are_refused_with_the_known_ones(hardware, asked):
    hardware(cuda=4, mps=True)
    with pytest.raises(UsageError, match="unknown device") as caught:
        resolve_device(asked)
    assert "cuda:N" in caught.value.hint


def test_an_index_of_odd_digits_is_refused(hardware):
    hardware(cuda=4)
    with pytest.raises(UsageError, match="unknown device"):
        resolve_device("cuda:²")
