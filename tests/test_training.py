"""From an entry to a run: what is held out, what is written, what is refused."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import SPACE, make_photos
from safetensors.torch import load_file

import pipeline
from pipeline.errors import CacheError, DataError, UsageError
from pipeline.selection import choose_rows


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    root = tmp_path_factory.mktemp("training")
    make_photos(root / "photos", per_class=20)
    return pipeline.extract(str(root / "photos"), cache_dir=root / "cache", workers=1, test_fraction=0.25, **SPACE)


def test_run_folder_has_all_that_made_it(made, tmp_path):
    result = pipeline.train_head(made.path, runs_dir=tmp_path, lr=0.01, epochs=4, name="first")
    assert result.run == "0001-first"
    folder = Path(result.path)
    assert sorted(path.name for path in folder.iterdir()) == ["head.json", "head.safetensors", "run.json"]
    body = json.loads((folder / "run.json").read_text())
    assert body["settings"]["lr"] == 0.01
    assert body["cache"]["manifest_sha256"] == pipeline.open_cache(made.path).cache_digest
    assert [epoch["epoch"] for epoch in body["epochs"]] == [1, 2, 3, 4]
    tensors = load_file(folder / "head.safetensors")
    assert torch.equal(tensors["weight"], result.head.weight)
    assert tensors["weight"].shape == (3, 1024)
    described = json.loads((folder / "head.json").read_text())
    assert (described["classes"], described["space_sha256"]) == (["apple", "beet", "corn"], made.space)
    assert pipeline.train_head(made.path, runs_dir=tmp_path, epochs=1).run == "0002"


def test_test_rows_play_no_part(made, tmp_path):
    features = pipeline.open_cache(made.path)
    rows = choose_rows(features)
    test = features.rows("test")
    assert len(test) > 5
    assert not set(test) & (set(rows.train) | set(rows.val))
    assert len(rows.train) + len(rows.val) + len(test) == 60
    assert len(rows.val)
    result = pipeline.train_head(made.path, runs_dir=tmp_path, epochs=2)
    assert result.rows == {"train": len(rows.train), "val": len(rows.val)}
    assert result.metrics is not None
    assert result.metrics["accuracy"] == result.epochs[-1].val_accuracy


def test_validation_draw_is_independent_of_the_test_draw(made):
    features = pipeline.open_cache(made.path)
    rows = choose_rows(features, val_fraction=0.25)
    assert 3 <= len(rows.val) <= 20
    assert not np.array_equal(rows.val, choose_rows(features, val_fraction=0.25, split_seed=1).val)


def test_without_validation_rows_there_are_no_metrics(made, tmp_path):
    result = pipeline.train_head(made.path, runs_dir=tmp_path, epochs=1, val_fraction=0)
    assert result.metrics is None
    assert result.epochs[0].val_loss is None


def test_seed_decides_the_head(made, tmp_path):
    heads = [pipeline.train_head(made.path, runs_dir=tmp_path, epochs=1, seed=seed).head for seed in (0, 0, 1)]
    assert torch.equal(heads[0].weight, heads[1].weight)
    assert not torch.equal(heads[0].weight, heads[2].weight)


def test_named_validation_split_is_used(tmp_path):
    for name, count in (("train", 4), ("val", 3)):
        make_photos(tmp_path / "photos" / name, per_class=count)
    made = pipeline.extract(str(tmp_path / "photos"), cache_dir=tmp_path / "cache", workers=1, test_fraction=0, **SPACE)
    result = pipeline.train_head(made.path, runs_dir=tmp_path / "runs", epochs=1)
    assert result.rows == {"train": 12, "val": 9}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"lr": 0.0}, "lr must be above 0"),
        ({"epochs": 0}, "epochs must be at least 1"),
        ({"optimizer": "lion"}, "unknown optimizer 'lion'"),
        ({"momentum": 0.9}, "--optimizer sgd"),
        ({"dropout": 1.0}, "dropout"),
        ({"learning_rate": 0.1}, "unknown head setting 'learning_rate'"),
        ({"val_fraction": 1.0}, "val-fraction"),
        ({"name": "../up"}, "run name"),
        ({"device": "abacus"}, "unknown device"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_wrong_wishes_are_refused_and_leave_nothing(made, tmp_path, changes, said):
    with pytest.raises(UsageError) as error:
        pipeline.train_head(made.path, runs_dir=tmp_path / "runs", **changes)
    assert said in error.value.message + error.value.hint
    assert not (tmp_path / "runs").exists()


def test_divergence_is_an_error(made, tmp_path):
    with pytest.raises(DataError, match="diverged"):
        pipeline.train_head(made.path, runs_dir=tmp_path, optimizer="sgd", lr=1e37, weight_decay=1.0)


def test_no_train_rows(tmp_path):
    make_photos(tmp_path / "photos" / "test", per_class=2)
    made = pipeline.extract(str(tmp_path / "photos"), cache_dir=tmp_path / "cache", workers=1, **SPACE)
    with pytest.raises(DataError, match="no train split; it has test"):
        pipeline.train_head(made.path, runs_dir=tmp_path / "runs")


def test_unknown_entry(tmp_path):
    with pytest.raises(CacheError, match="no cache entry 'abc'"):
        pipeline.train_head("abc", cache_dir=tmp_path, runs_dir=tmp_path / "runs")
