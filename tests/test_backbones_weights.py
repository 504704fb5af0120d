"""State dicts from files and names: same content same digest, no code is run, what does not fit is named."""

import contextlib
import io
import pickle
import random
import re

import pytest
import torch
from safetensors.torch import save_file
from torchvision import models

from pipeline.backbones.backbone import load_backbone
from pipeline.backbones.vision import TorchvisionFamily, build, named_weights
from pipeline.backbones.weights import fill, read_state, state_digest
from pipeline.errors import DataError, UsageError
from pipeline.threads import cpu_threads

NAME = "shufflenet_v2_x0_5"


@pytest.fixture(autouse=True)
def one_thread():
    """Small products are slower with two threads, much slower on a busy machine."""
    with cpu_threads(1):
        yield


@pytest.fixture(scope="module")
def original():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        return build(NAME)


@pytest.fixture(scope="module")
def state(original):
    return {key: value.clone() for key, value in original.state_dict().items()}


def load(weights):
    return load_backbone(NAME, weights=str(weights), image_size=32)


def test_pth_and_safetensors_of_the_same_tensors_have_the_same_digest(state, tmp_path):
    torch.save(state, tmp_path / "a.pth")
    torch.save({"state_dict": state, "note": "a checkpoint"}, tmp_path / "b.pt")
    save_file(state, tmp_path / "c.safetensors")
    slim = {key: value for key, value in state.items() if not key.startswith("fc.") and "num_batches" not in key}
    save_file(slim, tmp_path / "d.safetensors")
    digests = {load(path).weights_digest for path in tmp_path.iterdir()}
    assert len(digests) == 1
    state["conv1.0.weight"][0, 0, 0, 0] += 1e-6
    save_file(state, tmp_path / "e.safetensors")
    state["conv1.0.weight"][0, 0, 0, 0] -= 1e-6
    assert load(tmp_path / "e.safetensors").weights_digest not in digests


def test_weights_from_a_file_compute_what_the_original_network_computes(original, state, tmp_path):
    torch.save(state, tmp_path / "a.pth")
    images = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        logits = original.eval().fc(load(tmp_path / "a.pth").network(images))
        assert torch.equal(logits, original(images))


def test_random_weights_are_always_the_same_and_leave_the_global_generator_alone():
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = load("none")
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    torch.rand(7)
    assert load("none").weights_digest == first.weights_digest
    torch.manual_seed(0)
    same = build(NAME)
    assert torch.equal(same.conv1[0].weight, first.network.conv1[0].weight)


class _Code:
    def __init__(self, canary):
        self.canary = canary

    def __reduce__(self):
        return (open, (str(self.canary), "w"))


@pytest.mark.parametrize("how", ["zip", "legacy", "plain pickle", "nested"])
def test_a_pickle_with_code_is_refused_and_does_not_run(state, tmp_path, how):
    canary, path = tmp_path / "canary", tmp_path / "w.pth"
    if how == "plain pickle":
        path.write_bytes(pickle.dumps(_Code(canary), protocol=2))
    elif how == "nested":
        torch.save({"state_dict": {"fc.weight": _Code(canary)}}, path)
    else:
        torch.save({**state, "extra": _Code(canary)}, path, _use_new_zipfile_serialization=how == "zip")
    with pytest.raises(DataError, match="holds more than tensors and is refused"):
        load(path)
    assert not canary.exists()


@pytest.mark.parametrize("kind", ["pth", "safetensors"])
@pytest.mark.parametrize("share", [0.001, 0.3, 0.999])
def test_a_truncated_file_is_told(state, tmp_path, kind, share):
    path = tmp_path / f"w.{kind}"
    if kind == "pth":
        torch.save(state, path)
    else:
        save_file(state, path)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(DataError, match=r"is not a whole|lacks|refused"):
        load(path)


def test_an_empty_safetensors_file_is_told(tmp_path):
    (tmp_path / "w.safetensors").write_bytes(b"")
    with pytest.raises(DataError, match="is not a whole safetensors file"):
        read_state(tmp_path / "w.safetensors")


@pytest.mark.parametrize("data", [b"", b"hello", b"\x80\x02"])
def test_what_is_no_weights_file_at_all_is_told(tmp_path, data):
    (tmp_path / "w.pth").write_bytes(data)
    with pytest.raises(DataError):
        read_state(tmp_path / "w.pth")


@pytest.mark.parametrize("zipped", [True, False])
def test_a_damaged_file_is_read_or_told_but_never_crashes(tmp_path, zipped):
    buffer = io.BytesIO()
    torch.save({"w": torch.arange(50.0), "b": torch.zeros(3)}, buffer, _use_new_zipfile_serialization=zipped)
    whole, rng = buffer.getvalue(), random.Random(0)
    for _ in range(300):
        data = bytearray(whole)
        for _ in range(3):
            data[rng.randrange(len(data))] = rng.randrange(256)
        (tmp_path / "w.pth").write_bytes(data)
        with contextlib.suppress(DataError):
            read_state(tmp_path / "w.pth")


@pytest.mark.parametrize("content", [[1, 2], {"epoch": 3}, torch.zeros(3), {"state_dict": {"a": 1}}])
def test_what_is_not_a_state_dict_is_told(tmp_path, content):
    torch.save(content, tmp_path / "w.pth")
    with pytest.raises(DataError, match="is not a state dict"):
        read_state(tmp_path / "w.pth")


def test_other_endings_are_refused(tmp_path):
    (tmp_path / "w.h5").write_bytes(b"")
    with pytest.raises(DataError, match="weights files end in"):
        load(tmp_path / "w.h5")


def test_a_missing_tensor_and_a_prefix_are_named(state, tmp_path):
    torch.save({key: value for key, value in state.items() if key != "conv5.0.weight"}, tmp_path / "a.pth")
    with pytest.raises(
        DataError, match=r"a\.pth lacks 1 of the backbone's \d+ tensors, the first being 'conv5.0.weight'"
    ):
        load(tmp_path / "a.pth")
    torch.save({f"module.{key}": value for key, value in state.items()}, tmp_path / "b.pth")
    with pytest.raises(DataError, match="lacks") as caught:
        load(tmp_path / "b.pth")
    assert "module." in caught.value.hint


def test_a_wrong_shape_is_named_with_both(state, tmp_path):
    torch.save({**state, "conv1.0.weight": torch.zeros(24, 1, 3, 3)}, tmp_path / "a.pth")
    with pytest.raises(DataError, match=r"a\.pth.*conv1\.0\.weight.*24, 1, 3, 3.*24, 3, 3, 3") as caught:
        load(tmp_path / "a.pth")
    assert "another architecture" in caught.value.hint
    assert "\n" not in caught.value.message


@pytest.mark.parametrize("last", [{}, {"fc.weight": torch.zeros(7, 1024), "fc.bias": torch.zeros(7)}])
def test_the_last_layer_may_be_missing_or_of_another_width(state, tmp_path, last):
    torch.save(state, tmp_path / "a.pth")
    torch.save({key: value for key, value in state.items() if not key.startswith("fc.")} | last, tmp_path / "b.pth")
    assert load(tmp_path / "a.pth").weights_digest == load(tmp_path / "b.pth").weights_digest


def test_names_are_found_in_any_case_and_unknown_ones_met_with_the_nearest():
    assert named_weights("resnet50", "default").name == "IMAGENET1K_V2"
    assert named_weights("resnet50", "imagenet1k_v1").name == "IMAGENET1K_V1"
    assert named_weights("resnet50", "none") is None
    with pytest.raises(UsageError, match=r"unknown weights 'IMAGENET_V1' for resnet50.*Did you mean 'IMAGENET1K_V1'"):
        TorchvisionFamily().build("resnet50", "IMAGENET_V1", None)
    with pytest.raises(DataError, match="no weights file"):
        TorchvisionFamily().build("resnet50", "gone.pth", None)


def test_a_failed_download_says_what_else_there_is(monkeypatch, tmp_path):
    def no_network(*_args, **_more):
        raise OSError("no network")

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", no_network)
    with pytest.raises(
        DataError, match=r"IMAGENET1K_V1 of shufflenet_v2_x0_5 are not on this disk.*no network"
    ) as caught:
        load("DEFAULT")
    assert "--weights FILE" in caught.value.hint


def test_digest_depends_on_names_types_shapes_and_bits_but_not_on_counters():
    def digest(**tensors):
        module = torch.nn.Module()
        for name, tensor in tensors.items():
            module.register_buffer(name, tensor)
        return state_digest(module)

    base = digest(a=torch.zeros(4), b=torch.ones(2))
    assert base == digest(b=torch.ones(2), a=torch.zeros(4))
    assert base == digest(a=torch.zeros(4), b=torch.ones(2), num_batches_tracked=torch.tensor(9))
    others = [
        digest(a=torch.zeros(4), c=torch.ones(2)),
        digest(a=torch.zeros(2, 2), b=torch.ones(2)),
        digest(a=torch.zeros(4, dtype=torch.int32), b=torch.ones(2)),
        digest(a=-torch.zeros(4), b=torch.ones(2)),
        digest(a=torch.zeros(4), b=torch.ones(2) + 2**-23),
    ]
    assert len({base, *others}) == 6
    square = torch.arange(6.0).reshape(2, 3)
    assert digest(a=square.T) == digest(a=square.T.contiguous()) != digest(a=square.reshape(3, 2))


def served_by_torchvision(monkeypatch, state):
    """Let torchvision 'download' these tensors, for its own builder and for ours."""
    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", lambda *_args, **_more: pickle.loads(state))


def old_densenet_keys(state):
    """Return the keys of the densenet files that torchvision serves: `norm.1`, where the module has `norm1`."""
    for key in list(state):
        if re.search(r"denselayer\d+\.(norm|conv)[12]\.", key) and "num_batches" not in key:
            state[re.sub(r"(denselayer\d+\.(?:norm|conv))([12])", r"\1.\2", key)] = state.pop(key)


@pytest.mark.parametrize(
    ("name", "size", "alter"),
    [
        ("shufflenet_v2_x0_5", 32, None),
        ("mobilenet_v3_small", 32, None),
        ("googlenet", 64, None),
        ("mnasnet0_5", 32, None),
        ("densenet121", 32, old_densenet_keys),
    ],
)
def test_named_weights_compute_what_torchvisions_own_builder_computes(monkeypatch, name, size, alter):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        state = build(name).state_dict()
    if alter is not None:
        alter(state)
    served_by_torchvision(monkeypatch, pickle.dumps(state))
    whole = models.get_model(name, weights="DEFAULT").eval()
    images = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(0))
    backbone = load_backbone(name, image_size=size)
    whole.set_submodule(backbone.layer.removeprefix("input:"), torch.nn.Identity())
    with torch.inference_mode():
        assert torch.equal(backbone.network(images), whole(images))


@pytest.mark.parametrize("plain", [False, True])
def test_mnasnet_takes_its_own_state_with_and_without_what_torch_keeps_beside_it(plain):
    network, other = build("mnasnet0_5"), build("mnasnet0_5")
    state = network.state_dict()
    fill(other, dict(state) if plain else state, "its own state")
    assert torch.equal(other.layers[0].weight, network.layers[0].weight)


def test_densenet_takes_the_keys_of_the_files_torchvision_serves(tmp_path):
    network, other = build("densenet121"), build("densenet121")
    state = network.state_dict()
    old_densenet_keys(state)
    assert "features.denseblock1.denselayer1.conv.1.weight" in state
    torch.save(state, tmp_path / "a.pth")
    fill(other, read_state(tmp_path / "a.pth"), "an old file")
    assert state_digest(other) == state_digest(network)


@pytest.mark.parametrize("plain", [False, True])
def test_a_vision_transformer_takes_the_keys_of_the_files_torchvision_serves(tmp_path, plain):
    from torchvision.models.vision_transformer import VisionTransformer

    network, other = VisionTransformer(32, 16, 1, 2, 32, 64), VisionTransformer(32, 16, 1, 2, 32, 64)
    state, block = network.state_dict(), "encoder.layers.encoder_layer_0.mlp"
    for part in ("weight", "bias"):
        for old, new in (("linear_1", "0"), ("linear_2", "3")):
            state[f"{block}.{old}.{part}"] = state.pop(f"{block}.{new}.{part}")
    state._metadata[block]["version"] = 1
    torch.save(dict(state) if plain else state, tmp_path / "a.pth")
    fill(other, read_state(tmp_path / "a.pth"), "an old file")
    assert torch.equal(other.class_token, network.class_token)
    assert torch.equal(other.encoder.layers[0].mlp[3].weight, network.encoder.layers[0].mlp[3].weight)
