"""Engines other than the module itself: equal to it up to rounding, and refused where they do not run."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from pipeline.backbones.backbone import cut_original, load_backbone, load_original, together
from pipeline.backbones.preprocess import Preprocess
from pipeline.backbones.taps import Tapped, point_of
from pipeline.engines.folding import folded
from pipeline.engines.openvino import IMAGES_A_THREAD, graph_name, openvino_version, part_size
from pipeline.engines.registry import (
    ENGINES,
    check_engine,
    dtypes_of,
    engine_version,
    installed_engines,
    make_engine,
    missing,
)
from pipeline.errors import UsageError
from pipeline.threads import cpu_threads, default_threads

CPU = torch.device("cpu")
SMALL = {"weights": "none", "image_size": 32, "mean": (0.4, 0.5, 0.6), "std": (0.2, 0.3, 0.4)}
QUICK = [name for name in ("eager", "openvino") if not missing(name, "cpu")]
"""Engines that start within a second; torch.compile does not."""


@pytest.fixture(autouse=True)
def one_thread():
    with cpu_threads(1):
        yield


@pytest.fixture(scope="module")
def pixels():
    return np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3), np.uint8)


def features(name, backbone, pixels, **more):
    return make_engine(name, backbone.network, backbone.preprocess, CPU, **more).features(pixels)


def awake(network: nn.Module) -> nn.Module:
    """Give every BatchNorm statistics and weights of its own, as training does: folding is then more than a copy."""
    generator = torch.Generator().manual_seed(0)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d) and module.running_var is not None:
            for tensor in (module.weight, module.running_var):
                tensor.data = 0.5 + torch.rand(tensor.shape, generator=generator)
            for tensor in (module.bias, module.running_mean):
                tensor.data = torch.rand(tensor.shape, generator=generator) - 0.5
    return network


@pytest.mark.parametrize("model", ["shufflenet_v2_x0_5", "squeezenet1_1"])
@pytest.mark.parametrize("name", QUICK)
def test_features_are_the_modules_up_to_rounding(name, model, pixels):
    backbone = load_backbone(model, **SMALL)
    awake(backbone.network)
    before = copy.deepcopy(backbone.network.state_dict())
    wanted, found = features("reference", backbone, pixels), features(name, backbone, pixels)
    assert found.dtype == np.float32
    assert found.shape == wanted.shape
    assert np.abs(found - wanted).max() <= 1e-5 * np.abs(wanted).max()
    assert not np.array_equal(found, found[[1, 0, 2, 3]])
    assert all(torch.equal(value, before[key]) for key, value in backbone.network.state_dict().items())


@pytest.mark.parametrize("name", QUICK)
def test_vision_transformers_and_several_layers_go_through_engines(name, pixels):
    original = load_original("vit_b_16", **SMALL)
    original.network.encoder.layers = original.network.encoder.layers[:2]  # 2 of 12 blocks, to be quick
    cuts = cut_original(original, ["encoder.layers.encoder_layer_0", "encoder.ln"], "cls+avg")
    both = together(cuts)
    plain = make_engine("reference", both, original.preprocess, CPU).all_features(pixels)
    found = make_engine(name, both, original.preprocess, CPU).all_features(pixels)
    assert [rows.shape for rows in found] == [(4, 1536), (4, 1536)]
    for rows, wanted in zip(found, plain, strict=True):
        assert np.abs(rows - wanted).max() <= 1e-5 * np.abs(wanted).max()


@pytest.mark.parametrize("name", QUICK)
def test_a_row_does_not_depend_on_its_neighbours(name, pixels):
    backbone = load_backbone("tiny_network:network")
    engine = make_engine(name, backbone.network, backbone.preprocess, CPU)
    order = [3, 0, 2, 1]
    assert np.array_equal(engine.features(pixels[order]), engine.features(pixels)[order])
    lonely = np.zeros_like(pixels)
    lonely[2] = pixels[2]
    assert np.array_equal(engine.features(lonely)[2], engine.features(pixels)[2])


class Shared(nn.Module):
    """One BatchNorm that may be folded, one whose convolution is seen by others, one used twice, one of training."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.norm_a = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)
        self.b, self.norm_b = nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4)
        self.c, self.norm_c = nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4)
        self.d, self.norm_d = nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4, track_running_stats=False)

    def forward(self, x):
        x = self.norm_a(self.a(x))
        seen = self.b(x)
        x = self.norm_b(seen) + seen
        x = self.norm_c(self.c(self.norm_c(self.c(x))))
        return self.norm_d(self.d(x)).relu().mean((2, 3))


def test_only_what_nobody_else_sees_is_folded():
    network = awake(Shared()).eval()
    made = folded(network)
    kinds = {name: type(getattr(made, f"norm_{name}")).__name__ for name in "abcd"}
    assert kinds == {"a": "Identity", "b": "BatchNorm2d", "c": "BatchNorm2d", "d": "BatchNorm2d"}
    images = torch.rand(2, 3, 8, 8)
    assert torch.allclose(made(images), network(images), atol=1e-5)
    assert isinstance(network.norm_a, nn.BatchNorm2d)


@pytest.mark.parametrize(
    ("layer", "kind"), [("a", "BatchNorm2d"), ("input:norm_a", "BatchNorm2d"), ("norm_a", "Identity")]
)
def test_a_layer_that_is_kept_is_not_folded_away(layer, kind):
    network = awake(Shared()).eval()
    tapped = Tapped(network, [point_of(network, layer, "avg")])
    made = folded(tapped)
    assert type(made.network.norm_a).__name__ == kind
    images = torch.rand(2, 3, 8, 8)
    assert torch.allclose(made(images), tapped(images), atol=1e-6)


class Untraceable(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)

    def forward(self, x):
        x = self.norm(self.conv(x))
        return x.mean((2, 3)) if float(x.sum()) > 0 else x.amax((2, 3))


@pytest.mark.filterwarnings("ignore::UserWarning")  # of torch.export, about the float
def test_code_that_cannot_be_traced_runs_eagerly_and_is_refused_by_name_elsewhere(pixels):
    plain = Preprocess(32, 32, "bilinear", (0.0,) * 3, (1.0,) * 3)
    network = Untraceable().eval()
    wanted = make_engine("reference", network, plain, CPU).features(pixels)
    assert np.allclose(make_engine("eager", network, plain, CPU).features(pixels), wanted, atol=1e-6)
    pytest.importorskip("openvino")
    with pytest.raises(UsageError, match=r"torch.export does not take this network") as told:
        make_engine("openvino", network, plain, CPU).features(pixels)
    assert "--engine eager" in told.value.hint


def test_bfloat16_is_rounded_and_comes_back_as_float32(pixels):
    backbone = load_backbone("shufflenet_v2_x0_5", **SMALL)
    wanted = features("reference", backbone, pixels)
    found = features("eager", backbone, pixels, dtype="bfloat16")
    assert found.dtype == np.float32
    assert 1e-5 < np.abs(found - wanted).max() / np.abs(wanted).max() < 5e-2


@pytest.mark.skipif(bool(missing("compile", "cpu")), reason="no C++ compiler")
def test_the_compiled_graph_is_the_module_up_to_rounding(pixels):
    tiny = load_backbone("tiny_network:network")
    network = awake(tiny.network)
    wanted = make_engine("reference", network, tiny.preprocess, CPU).features(pixels)
    engine = make_engine("compile", network, tiny.preprocess, CPU)
    found = engine.features(pixels)
    assert np.abs(found - wanted).max() <= 1e-5 * np.abs(wanted).max()
    assert np.array_equal(engine.features(pixels), found)


class Store:
    """Keeps graphs in memory."""

    def __init__(self) -> None:
        self.kept, self.loads = {}, 0

    def load(self, name):
        self.loads += 1
        return self.kept.get(name)

    def save(self, name, parts):
        self.kept[name] = parts


def test_openvinos_graph_is_kept_and_taken_again(pixels, monkeypatch):
    pytest.importorskip("openvino")
    backbone, store = load_backbone("tiny_network:network"), Store()
    first = features("openvino", backbone, pixels, graphs=store)
    part = (part_size(len(pixels), default_threads()), *pixels.shape[1:])
    assert list(store.kept) == [graph_name(part, openvino_version())]
    monkeypatch.setattr("pipeline.engines.graph.export_graph", None)  # would fail if it were made again
    assert np.array_equal(features("openvino", backbone, pixels, graphs=store), first)
    assert store.loads == 2


def test_openvino_takes_a_batch_in_parts_of_one_shape(pixels):
    pytest.importorskip("openvino")
    backbone = load_backbone("tiny_network:network")
    several = np.concatenate([pixels] * 4)
    whole = features("openvino", backbone, several, threads=len(several))  # one part
    parts = features("openvino", backbone, several, threads=1)
    assert part_size(len(several), 1) == IMAGES_A_THREAD < len(several)
    np.testing.assert_allclose(parts, whole, rtol=0, atol=1e-5 * np.abs(whole).max())
    assert np.array_equal(parts[: len(pixels)], parts[len(pixels) : 2 * len(pixels)])


def test_parts_divide_the_batch():
    assert [part_size(64, threads) for threads in (1, 2, 3, 16, 64)] == [4, 8, 8, 64, 64]
    assert part_size(50, 2) == 5
    assert part_size(13, 2) == 13  # a prime is not cut into single images
    assert part_size(1, 2) == 1


def test_engines_say_what_they_lack():
    assert {"reference", "eager"} <= set(installed_engines("cpu")) <= set(ENGINES)
    assert "eager" in installed_engines("cpu", "bfloat16")
    assert "reference" not in installed_engines("cpu", "bfloat16")
    assert installed_engines("cpu", "tf32") == ()
    assert set(installed_engines("cuda", "tf32")) <= {"eager", "compile"}
    assert dtypes_of("reference", "cuda") == ("float32",)
    assert engine_version("eager") == f"torch {torch.__version__}"
    with pytest.raises(UsageError, match="openvino does not run here: it runs on the CPU alone"):
        check_engine("openvino", "cuda", "float32")
    with pytest.raises(UsageError, match=r"tf32 is not to be had with engine eager on cpu") as told:
        check_engine("eager", "cpu", "tf32")
    assert told.value.hint == ""
    with pytest.raises(UsageError, match=r"float16 is not to be had with engine reference on cuda"):
        check_engine("reference", "cuda", "float16")


def test_what_is_not_installed_is_named_with_the_remedy(monkeypatch):
    monkeypatch.setattr("pipeline.engines.registry.find_spec", lambda name: None)
    monkeypatch.setattr("pipeline.engines.registry.shutil.which", lambda name: None)
    assert installed_engines("cpu") == ("reference", "eager")
    with pytest.raises(UsageError, match=r"pip install 'feature-pipeline\[openvino\]'") as told:
        check_engine("openvino", "cpu", "float32")
    assert told.value.hint == "Here: reference, eager."
    with pytest.raises(UsageError, match=r"no C\+\+ compiler"):
        check_engine("compile", "cpu", "float32")
