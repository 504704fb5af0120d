"""Heads of every kind as files: the same head comes back, and what does not fit is refused."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load, save
from torch import nn

from pipeline.digest import seal, sha256_bytes
from pipeline.errors import DataError
from pipeline.heads.head import Head
from pipeline.heads.linear import LinearHead
from pipeline.heads.mlp import MLPHead
from pipeline.heads.modules import L2Normalize, Neighbours, Standardize
from pipeline.heads.neighbours import NeighboursHead
from pipeline.heads.reading import read_head
from pipeline.heads.transform import IDENTITY, Transform

BOUND = {"classes": ("a", "b", "ü"), "space": {"dtype": "float32"}, "space_sha256": "5" * 64}
D, H, N = 8, 6, 11


def tensors(*shapes):
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(shape, generator=generator) for shape in shapes]


MEAN, SCALE = torch.linspace(0, 1, D), torch.linspace(1, 3, D)
TRANSFORMS = {
    "plain": IDENTITY,
    "l2": Transform(l2_norm=True),
    "standardised": Transform(False, MEAN, SCALE),
    "both": Transform(True, MEAN, SCALE),
}
HEADS = {
    "linear": LinearHead(*tensors((3, D), (3,)), **BOUND),
    "mlp": MLPHead(*tensors((H, D), (H,), (3, H), (3,)), **BOUND, dropout=0.25),
    "neighbours": NeighboursHead(nn.functional.normalize(tensors((N, D))[0]), torch.arange(N) % 3, 4, 0.07, **BOUND),
}


@pytest.fixture(params=[(kind, how) for kind in HEADS for how in TRANSFORMS], ids=lambda param: " ".join(param))
def head(request) -> Head:
    kind, how = request.param
    return replace(HEADS[kind], transform=TRANSFORMS[how])


def write(head: Head, folder: Path) -> Path:
    for name, data in head.to_files().items():
        (folder / name).write_bytes(data)
    return folder


def test_a_head_comes_back_as_it_was(head, tmp_path):
    again = read_head(write(head, tmp_path))
    x = torch.randn(5, D)
    assert type(again) is type(head)
    assert again.to_files() == head.to_files()
    assert (again.kind, again.dim, again.classes, again.space) == (head.kind, D, head.classes, head.space)
    assert again.space_sha256 == head.space_sha256
    assert torch.equal(again.logits(x), head.logits(x))


def test_logits_are_those_of_the_module_and_of_the_steps_one_by_one(head):
    x = torch.randn(7, D)
    module = head.module()
    assert isinstance(module, nn.Module)
    assert not module.training
    with torch.no_grad():
        assert torch.equal(module(x), head.logits(x))
        plain = replace(head, transform=IDENTITY).module()
        expected = plain(head.transform.apply(x))
    assert torch.allclose(head.logits(x), expected, atol=1e-4)
    assert torch.equal(head.logits(x.half()), head.logits(x.half().float()))


def test_modules_are_plain_and_standardisation_is_folded():
    kinds = {
        (kind, how): [
            type(step)
            for step in (lambda module: module if isinstance(module, nn.Sequential) else [module])(
                replace(head, transform=transform).module()
            )
        ]
        for kind, head in HEADS.items()
        for how, transform in TRANSFORMS.items()
    }
    mlp = [nn.Linear, nn.ReLU, nn.Dropout, nn.Linear]
    for how, before in (("plain", []), ("standardised", []), ("l2", [L2Normalize]), ("both", [L2Normalize])):
        assert kinds["linear", how] == [*before, nn.Linear]
        assert kinds["mlp", how] == [*before, *mlp]
    assert kinds["neighbours", "both"] == [L2Normalize, Standardize, Neighbours]
    assert type(HEADS["linear"].module()) is nn.Linear


def test_training_a_module_on_leaves_the_head_alone(head):
    x = torch.randn(4, D)
    before = head.logits(x)
    with torch.no_grad():
        for parameter in head.module().parameters():
            parameter.zero_()
    assert torch.equal(head.logits(x), before)


def test_modules_can_be_exported(head):
    x = torch.randn(5, D)
    batch = torch.export.Dim("batch")
    program = torch.export.export(head.module().requires_grad_(False), (x,), dynamic_shapes=({0: batch},))
    assert torch.allclose(program.module()(x[:2]), head.logits(x[:2]), atol=1e-6)


def test_plain_linear_heads_keep_the_bytes_of_the_first_version():
    """Written by the version before there were other kinds."""
    weight = torch.arange(24, dtype=torch.float32).reshape(3, 8) / 7
    files = LinearHead(weight, weight[:, 0].contiguous(), **BOUND).to_files()
    assert {name: sha256_bytes(data) for name, data in files.items()} == FIRST_VERSION


FIRST_VERSION = {
    "head.safetensors": "9d3a1c6e85f33261696431d720370a37f5678206d70029a1de8c4647a3006b01",
    "head.json": "5fedccb03f879cca5bb16a0bfd22238006d764abc8ef2d7b16346da482e76bc1",
}


def change(folder: Path, **fields) -> None:
    body = json.loads((folder / "head.json").read_text())
    rest = {key: value for key, value in {**body, **fields}.items() if key != "sha256" and value is not ...}
    (folder / "head.json").write_text(json.dumps(seal(rest)))


WRONG = {
    "linear": [
        {"kind": "forest"}, {"kind": ["linear"]}, {"l2_norm": ...}, {"standardize": 1}, {"standardize": False},
        {"dim": 9}, {"classes": ["a", "b"]}, {"kind": "mlp"}, {"kind": "neighbours"}, {"format_version": 1},
    ],
    "mlp": [{"dropout": ...}, {"dropout": 1.0}, {"dropout": "half"}, {"format_version": 1}, {"kind": "linear"}],
    "neighbours": [
        {"k": 0}, {"k": N + 1}, {"k": True}, {"k": ...}, {"temperature": 0.0}, {"temperature": "hot"},
        {"classes": ["a", "b"]}, {"classes": []}, {"temperature": ...},
    ],
}  # fmt: skip


@pytest.mark.parametrize(("kind", "fields"), [(kind, fields) for kind in WRONG for fields in WRONG[kind]], ids=str)
def test_descriptions_that_do_not_fit_are_refused(tmp_path, kind, fields):
    write(replace(HEADS[kind], transform=TRANSFORMS["both"]), tmp_path)
    change(tmp_path, **fields)
    with pytest.raises(DataError, match=r"head\.json"):
        read_head(tmp_path)


@pytest.mark.parametrize(
    ("kind", "tensors"),
    [
        ("linear", {"scale": None}),
        ("linear", {"mean": torch.zeros(D + 1)}),
        ("linear", {"weight": torch.zeros(3, D, dtype=torch.float64)}),
        ("linear", {"more": torch.zeros(1)}),
        ("mlp", {"hidden_bias": torch.zeros(())}),
        ("mlp", {"weight": torch.zeros(3, H + 1)}),
        ("neighbours", {"labels": torch.full((N,), 3)}),
        ("neighbours", {"labels": torch.full((N,), -1)}),
        ("neighbours", {"labels": torch.zeros(N)}),
        ("neighbours", {"bank": torch.zeros(N, D + 1)}),
        ("neighbours", {"bank": torch.zeros(0, D), "labels": torch.zeros(0, dtype=torch.int64)}),
    ],
)
def test_tensors_that_do_not_fit_are_refused(tmp_path, kind, tensors):
    write(replace(HEADS[kind], transform=TRANSFORMS["both"]), tmp_path)
    path = tmp_path / "head.safetensors"
    changed = {**load(path.read_bytes()), **tensors}
    path.write_bytes(save({name: tensor for name, tensor in changed.items() if tensor is not None}))
    change(tmp_path, weights_sha256=sha256_bytes(path.read_bytes()))
    with pytest.raises(DataError, match=r"head\.json"):
        read_head(tmp_path)
