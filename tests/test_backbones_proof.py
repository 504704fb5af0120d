"""A dozen of the proofs that `make check-backbones` does for all: see proof.py."""

import proof
import pytest

from pipeline.threads import cpu_threads

TORCHVISION = ("shufflenet_v2_x0_5", "mobilenet_v3_small", "squeezenet1_1", "mnasnet0_5")
TIMM = (
    "test_vit",  # class token
    "test_convnext",
    "test_nfnet",
    "test_efficientnet",
    "dla46x_c",  # a convolution as classifier
    "levit_128s",  # two heads, each with a normalisation of its own
    "efficientvim_m1",  # four heads, weighted
    "repghostnet_050",
    "starnet_s050",
)


@pytest.fixture(autouse=True)
def one_thread(monkeypatch):
    """Small products are slower with two threads, much slower on a busy machine."""
    monkeypatch.setattr("pipeline.extraction.recipe.default_threads", lambda: 1)
    with cpu_threads(1):
        yield


@pytest.mark.parametrize("name", TORCHVISION)
def test_cut_of_torchvision(name, tmp_path):
    difference, _ = proof.prove(name, tmp_path)
    assert difference <= proof.BAR


@pytest.mark.parametrize("name", TIMM)
def test_cut_of_timm(name, tmp_path):
    pytest.importorskip("timm")
    difference, _ = proof.prove(f"timm/{name}", tmp_path)
    assert difference <= proof.BAR


def test_the_list_has_every_module_of_timm_with_a_classifier():
    timm = pytest.importorskip("timm")
    listed = {timm.models.model_entrypoint(name).__module__.rpartition(".")[2] for name in proof.TIMM}
    assert set(timm.list_modules()) - listed == set()
    assert len(listed) >= 40
