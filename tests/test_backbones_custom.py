"""The user's own networks: found, described by their source file, refused with one line."""

import re
import sys
from pathlib import Path

import pytest

import pipeline
from pipeline.backbones.backbone import load_backbone
from pipeline.digest import sha256_file
from pipeline.errors import DataError, UsageError

SOURCE = """
import torch
from torch import nn

def plain():
    return nn.Sequential(nn.Conv2d(3, 8, 4, 4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())

def sized():
    return nn.Conv2d(3, 8, 4, 4), {"resize": 20, "crop": 16, "mean": [0.5, 0.5, 0.5], "mode": "squash"}

def broken():
    raise KeyError("no such file")

def wrong():
    return "a network"

def misspelt():
    return plain(), {"crop_size": 16}

def impossible():
    return plain(), {"std": [0, 1, 1]}

number = 3
"""


@pytest.fixture
def mine(tmp_path, monkeypatch):
    """A module in the working directory."""
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "my_networks.py"
    path.write_text(SOURCE)
    yield path
    sys.modules.pop("my_networks", None)


def test_a_function_in_the_working_directory_is_a_backbone(mine):
    backbone = load_backbone("my_networks:plain")
    assert (backbone.name, backbone.layer, backbone.row_shape) == ("my_networks:plain", "output", (8,))
    assert backbone.architecture == f"my_networks:plain@sha256:{sha256_file(mine)}"
    assert (backbone.preprocess.resize, backbone.preprocess.crop) == (256, 224)
    assert load_backbone("my_networks:plain", weights="none").weights_digest == backbone.weights_digest
    assert load_backbone(backbone.architecture).weights_digest == backbone.weights_digest


def test_what_it_says_of_its_images_is_used(mine):
    backbone = load_backbone("my_networks:sized", pool="max", mean=(0.1,))
    assert (backbone.layer, backbone.pool, backbone.row_shape) == ("output", "max", (8,))
    made = backbone.preprocess
    assert (made.resize, made.crop, made.mode, made.mean) == (20, 16, "squash", (0.1, 0.1, 0.1))
    assert load_backbone("my_networks:sized").pool == "avg"
    assert load_backbone("my_networks:sized", pool="none").row_shape == (8, 4, 4)
    assert load_backbone("my_networks:plain", layer="0", pool="none", image_size=16).row_shape == (8, 4, 4)


def test_weights_come_from_a_file_too(mine, tmp_path):
    import torch

    torch.save({"weight": torch.zeros(8, 3, 4, 4), "bias": torch.ones(8)}, tmp_path / "mine.pth")
    backbone = load_backbone("my_networks:sized", weights=str(tmp_path / "mine.pth"))
    assert bool((backbone.network(torch.zeros(1, 3, 16, 16)) == 1).all())
    with pytest.raises(UsageError, match="unknown weights 'best' for my_networks:sized"):
        load_backbone("my_networks:sized", weights="best")


@pytest.mark.parametrize(
    ("asked", "kind", "said"),
    [
        ("no_networks:plain", UsageError, "no module 'no_networks'"),
        ("my_networks:plane", UsageError, "no function 'plane'.*Did you mean 'plain'"),
        ("my_networks:number", UsageError, "no function 'number'"),
        ("my_networks:broken", DataError, "my_networks:broken failed: KeyError: 'no such file'"),
        ("my_networks:wrong", DataError, "my_networks:wrong returned str"),
        ("my_networks:misspelt", DataError, "'crop_size'.*Did you mean .*'crop'"),
        ("my_networks:impossible", DataError, "std above 0"),
        ("math:sqrt", UsageError, "has no source file"),
    ],
)
def test_what_cannot_be_used_is_told_in_one_line(mine, asked, kind, said):
    with pytest.raises(kind, match=said):
        load_backbone(asked)


def test_a_module_that_cannot_be_imported_is_told_in_one_line(mine):
    mine.write_text("import nothing_like_it\n")
    with pytest.raises(UsageError, match="no module 'nothing_like_it'"):
        load_backbone("my_networks:plain")
    mine.write_text("1 / 0\n")
    with pytest.raises(DataError, match="my_networks cannot be imported: ZeroDivisionError"):
        load_backbone("my_networks:plain")


def test_the_same_model_end_to_end_until_its_source_changes(mine, photos):
    made = pipeline.extract(str(photos), backbone="my_networks:sized", pool="avg", workers=1, test_fraction=0.3)
    run = pipeline.train_head(made.cache, epochs=1)
    result = pipeline.evaluate(run.run, end_to_end=True, workers=1)
    assert result.end_to_end.max_abs_logit_difference <= 1e-6
    mine.write_text(SOURCE + "# another version\n")
    with pytest.raises(DataError, match="has changed since it was imported"):
        load_backbone("my_networks:sized")
    del sys.modules["my_networks"]  # as a new process
    again = pipeline.extract(str(photos), backbone="my_networks:sized", pool="avg", workers=1, test_fraction=0.3)
    assert (again.computed, again.space != made.space) == (36, True)
    with pytest.raises(DataError, match="the source file of my_networks:sized has changed"):
        pipeline.evaluate(run.run, end_to_end=True, workers=1)


def test_the_page_on_backbones_shows_one_that_works(mine):
    page = (Path(__file__).parent.parent / "docs" / "BACKBONES.md").read_text()
    (code,) = re.findall(r"^```python\n(.*?)^```", page, flags=re.DOTALL | re.MULTILINE)
    mine.write_text(code)
    assert load_backbone("my_networks:tiny").row_shape == (8,)
