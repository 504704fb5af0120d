"""How a network is run: what a plain loop computes, bit for bit, and nothing left changed behind."""

import platform
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import pipeline
from pipeline.backbones.backbone import load_backbone
from pipeline.backbones.memory import keep_memory
from pipeline.backbones.preprocess import Preprocess
from pipeline.engines.engine import float32_products
from pipeline.engines.reference import ReferenceEngine
from pipeline.engines.registry import ENGINES, make_engine
from pipeline.threads import cpu_threads, default_threads

CPU = torch.device("cpu")
ROOT = Path(pipeline.__file__).parents[1]


@pytest.fixture(autouse=True)
def one_thread():
    """Small products are slower with two threads, much slower on a busy machine."""
    with cpu_threads(1):
        yield


@pytest.fixture(scope="module")
def backbone():
    return load_backbone("shufflenet_v2_x0_5", weights="none", image_size=32, mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.4))


@pytest.fixture
def pixels():
    return np.random.default_rng(0).integers(0, 256, (5, 32, 32, 3), np.uint8)


def test_features_are_those_of_a_plain_loop_bit_for_bit(backbone, pixels):
    before = pixels.copy()
    features = ReferenceEngine(backbone.network, backbone.preprocess, CPU).features(pixels)
    images = torch.stack([torch.from_numpy(image).permute(2, 0, 1).float() / 255 for image in before])
    images = (images - torch.tensor([0.4, 0.5, 0.6]).view(3, 1, 1)) / torch.tensor([0.2, 0.3, 0.4]).view(3, 1, 1)
    with torch.no_grad():
        expected = backbone.network(images).numpy()
    assert features.dtype == np.float32
    assert np.array_equal(features, expected)
    assert np.array_equal(pixels, before)


def test_a_row_does_not_depend_on_its_neighbours(backbone, pixels):
    engine = ReferenceEngine(backbone.network, backbone.preprocess, CPU)
    order = [3, 0, 4, 2, 1]
    assert np.array_equal(engine.features(pixels[order]), engine.features(pixels)[order])
    lonely = np.zeros_like(pixels)
    lonely[2] = pixels[2]
    assert np.array_equal(engine.features(lonely)[2], engine.features(pixels)[2])


def test_features_of_a_half_precision_network_come_back_as_float32():
    class Half(torch.nn.Module):
        def forward(self, x):
            return x.mean((2, 3)).half()

    plain = Preprocess(4, 4, "bilinear", (0.0,) * 3, (1.0,) * 3)
    features = ReferenceEngine(Half(), plain, CPU).features(np.full((2, 4, 4, 3), 51, np.uint8))
    assert features.dtype == np.float32
    assert np.allclose(features, 0.2, atol=1e-3)


def test_engines_are_made_by_name(backbone):
    for name in ENGINES:
        engine = make_engine(name, backbone.network, backbone.preprocess, CPU)
        assert engine.name == name
        assert torch.__version__ in make_engine("reference", backbone.network, backbone.preprocess, CPU).version


def test_exact_float32_is_exact_inside_and_as_it_was_outside():
    matmul, tf32 = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    try:
        torch.set_float32_matmul_precision("high")
        torch.backends.cudnn.allow_tf32 = True
        with float32_products():
            assert torch.backends.cuda.matmul.fp32_precision == "ieee"
            assert torch.backends.cudnn.conv.fp32_precision == "ieee"
            assert torch.backends.cudnn.deterministic
            assert not torch.backends.cudnn.benchmark
        assert torch.get_float32_matmul_precision() == "high"
        with pytest.raises(RuntimeError, match="size"), float32_products():
            torch.zeros(2) @ torch.zeros(3)
        assert torch.get_float32_matmul_precision() == "high"
        assert torch.backends.cudnn.allow_tf32
        assert not torch.backends.cudnn.deterministic
    finally:
        torch.set_float32_matmul_precision(matmul)
        torch.backends.cudnn.allow_tf32 = tf32


def test_exact_float32_works_for_who_uses_torchs_new_switches():
    switch = torch.backends.cuda.matmul
    before = switch.fp32_precision
    try:
        switch.fp32_precision = "tf32"
        with float32_products():
            assert switch.fp32_precision == "ieee"
        assert switch.fp32_precision == "tf32"
    finally:
        switch.fp32_precision = before


def test_threads_are_as_they_were_afterwards():
    before = torch.get_num_threads()
    with cpu_threads(before + 1):
        assert torch.get_num_threads() == before + 1
    assert torch.get_num_threads() == before
    with pytest.raises(RuntimeError, match="size"), cpu_threads(before + 1):
        torch.zeros(2) @ torch.zeros(3)
    assert torch.get_num_threads() == before
    with cpu_threads(0):
        assert torch.get_num_threads() == before
    assert default_threads() >= 1


MEASURE = """
import ctypes, sys
from pipeline.backbones.memory import keep_memory
if sys.argv[1] == "keep":
    assert keep_memory()
c = ctypes.CDLL(None)
c.malloc.restype = ctypes.c_void_p
def resident():
    return int(open("/proc/self/statm").read().split()[1])
block = c.malloc(ctypes.c_size_t(64 << 20))
ctypes.memset(block, 1, 64 << 20)
full = resident()
c.free(ctypes.c_void_p(block))
print((full - resident()) * 4096 >> 20)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="about glibc")
@pytest.mark.parametrize(("how", "given_back"), [("keep", range(-3, 5)), ("plain", range(60, 70))])
def test_freed_memory_is_kept_for_the_next_layer(how, given_back):
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, how], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True
    )
    assert int(done.stdout) in given_back


def test_keeping_memory_says_whether_it_can():
    assert keep_memory() is (platform.libc_ver()[0] == "glibc")
