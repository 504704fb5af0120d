"""A linear head as a value and as files."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load, save

from pipeline.digest import seal
from pipeline.errors import DataError
from pipeline.heads.head import CHUNK_ROWS
from pipeline.heads.linear import LinearHead
from pipeline.heads.reading import read_head


@pytest.fixture
def head():
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(3, 8, generator=generator)
    return LinearHead(weight, torch.randn(3, generator=generator), ("a", "b", "ü"), {"dtype": "float32"}, "5" * 64)


def write(head, folder):
    for name, data in head.to_files().items():
        (folder / name).write_bytes(data)
    return folder


def test_logits_are_those_of_a_linear_layer_whatever_the_number_of_rows(head):
    x = torch.randn(CHUNK_ROWS + 5, 8, generator=torch.Generator().manual_seed(1))
    expected = x.double() @ head.weight.double().T + head.bias.double()
    logits = head.logits(x)
    assert (logits.dtype, logits.shape) == (torch.float32, (CHUNK_ROWS + 5, 3))
    assert float((logits - expected).abs().max()) < 1e-5
    assert torch.equal(head.logits(x[:4]), torch.nn.functional.linear(x[:4], head.weight, head.bias))
    assert not logits.requires_grad


def test_half_precision_features_give_float32_logits(head):
    x = torch.randn(4, 8, generator=torch.Generator().manual_seed(1)).half()
    assert torch.equal(head.logits(x), head.logits(x.float()))


def test_files_and_back_is_the_same_head(head, tmp_path):
    again = read_head(write(head, tmp_path))
    assert torch.equal(again.weight, head.weight)
    assert torch.equal(again.bias, head.bias)
    assert (again.classes, again.space, again.space_sha256) == (head.classes, head.space, head.space_sha256)
    assert head.to_files() == again.to_files()


def test_files_are_plain_safetensors_and_json(head, tmp_path):
    write(head, tmp_path)
    tensors = load((tmp_path / "head.safetensors").read_bytes())
    assert {name: tuple(tensor.shape) for name, tensor in tensors.items()} == {"weight": (3, 8), "bias": (3,)}
    body = json.loads((tmp_path / "head.json").read_text())
    assert (body["kind"], body["classes"], body["dim"]) == ("linear", ["a", "b", "ü"], 8)


def test_a_head_whose_weight_is_a_view_is_written_whole(head):
    wide = LinearHead(head.weight.T.contiguous().T, head.bias, head.classes, head.space, head.space_sha256)
    assert torch.equal(load(wide.to_files()["head.safetensors"])["weight"], head.weight)


@pytest.mark.parametrize("name", ["head.json", "head.safetensors"])
def test_a_missing_or_short_file_is_told(head, tmp_path, name):
    write(head, tmp_path)
    data = (tmp_path / name).read_bytes()
    for damaged in (data[:-9], data[: len(data) // 3], b""):
        (tmp_path / name).write_bytes(damaged)
        with pytest.raises(DataError, match="cannot be read"):
            read_head(tmp_path)
    (tmp_path / name).unlink()
    with pytest.raises(DataError, match="cannot be read"):
        read_head(tmp_path)


@pytest.mark.parametrize("change", [{"classes": ["b", "a", "ü"]}, {"space_sha256": "6" * 64}, {"extra": 1}])
def test_a_description_that_was_changed_by_hand_is_refused(head, tmp_path, change):
    write(head, tmp_path)
    body = json.loads((tmp_path / "head.json").read_text())
    (tmp_path / "head.json").write_text(json.dumps({**body, **change}))
    with pytest.raises(DataError, match="is damaged or of another version"):
        read_head(tmp_path)


def test_another_version_is_refused(head, tmp_path):
    write(head, tmp_path)
    body = json.loads((tmp_path / "head.json").read_text())
    body = {key: value for key, value in body.items() if key != "sha256"}
    (tmp_path / "head.json").write_text(json.dumps(seal({**body, "format_version": 3})))
    with pytest.raises(DataError, match="another version"):
        read_head(tmp_path)
    (tmp_path / "head.json").write_text("[1, 2]")
    with pytest.raises(DataError, match="is damaged"):
        read_head(tmp_path)


@pytest.mark.parametrize(
    "tensors",
    [
        {"weight": torch.zeros(3, 9), "bias": torch.zeros(3)},
        {"weight": torch.zeros(4, 8), "bias": torch.zeros(4)},
        {"weight": torch.zeros(3, 8)},
        {"weight": torch.zeros(3, 8), "bias": torch.zeros(3), "scale": torch.zeros(8)},
    ],
)
def test_tensors_that_do_not_fit_the_description_are_refused(head, tmp_path, tensors):
    write(head, tmp_path)
    (tmp_path / "head.safetensors").write_bytes(save(tensors))
    with pytest.raises(DataError, match="its tensors are"):
        read_head(tmp_path)


def test_a_flipped_bit_in_the_weights_is_noticed(head, tmp_path):
    write(head, tmp_path)
    data = np.frombuffer((tmp_path / "head.safetensors").read_bytes(), np.uint8).copy()
    data[-6] ^= 0x40
    (tmp_path / "head.safetensors").write_bytes(data.tobytes())
    with pytest.raises(DataError):
        read_head(tmp_path)
