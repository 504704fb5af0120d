"""A sweep over features that stay on disk tries the heads that `train-head` would stream, and reads no more at once."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from entries import RECIPE, SPACE, flip, make_entry, make_rows

import pipeline
from pipeline.config import read_config
from pipeline.errors import CacheError, UsageError
from pipeline.head_arguments import sweep_arguments

N, D = 300, 6
WIDE = replace(SPACE, row_shape=(D,))
GRIDS = {
    "minibatch": {"lr": (1e-3, 1e-2), "weight_decay": (0.0, 1e-2), "epochs": 2, "batch_size": 16},
    "mlp": {"lr": (1e-2,), "weight_decay": (0.0,), "hidden": 4, "epochs": 2},
    "exact": {"solver": "exact", "l2": (1e-2, 1e-1)},
    "ridge": {"solver": "ridge", "l2": (1e-2, 1e-1), "class_weight": "balanced"},
}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A cache with an entry of 300 rows in shards of 64, whose labels their first features tell."""
    root = tmp_path_factory.mktemp("swept")
    labels = make_rows(range(N), space=WIDE).features[:, :3].argmax(1)
    splits = (np.arange(N) % 5 == 4) * 2
    make_entry(root, seeds=range(N), labels=labels, splits=splits, space=WIDE, recipe=replace(RECIPE, shard_rows=64))
    return root


@pytest.fixture
def swept(root, tmp_path, monkeypatch):
    monkeypatch.setattr("pipeline.store.slices.SLICE_BYTES", 5 * 4 * D)
    monkeypatch.setattr("pipeline.streaming.BLOCK_BYTES", 130 * 4 * D)
    return lambda **more: pipeline.sweep(cache_dir=root, runs_dir=tmp_path / "runs", **more)


@pytest.mark.parametrize("name", GRIDS)
def test_each_trial_is_the_head_that_is_streamed_alone(root, swept, tmp_path, name):
    result = swept(**GRIDS[name], transforms=("plain", "standardize"), stream="always")
    assert result.to_json()["streamed"] is True
    for candidate in result.candidates[:3]:
        alone = pipeline.train_head(
            settings=candidate.settings, stream="always", cache_dir=root, runs_dir=tmp_path / "alone"
        )
        assert candidate.val_accuracy == alone.metrics["accuracy"]
        assert candidate.val_loss == pytest.approx(alone.metrics["nll"], rel=1e-4)


@pytest.mark.parametrize("solver", ["exact", "ridge"])
@pytest.mark.parametrize("folds", [0, 3])
def test_convex_solvers_arrive_where_they_do_in_memory(swept, solver, folds):
    kept, found = (swept(**GRIDS[solver], folds=folds, stream=way) for way in ("never", "always"))
    assert [one.settings for one in found.candidates] == [one.settings for one in kept.candidates]
    for one, other in zip(kept.candidates, found.candidates, strict=True):
        assert other.val_loss == pytest.approx(one.val_loss, rel=1e-4)
    assert torch.allclose(kept.run.head.weight, found.run.head.weight, atol=1e-4)


def test_an_entry_too_large_for_memory_is_streamed_and_said_to_be(root, cli, monkeypatch):
    monkeypatch.setattr("pipeline.streaming.free_memory", lambda: 10 * N * D)
    given = ("sweep", "latest", "--cache-dir", root, "--solver", "ridge")
    told = cli(*given)
    assert (told.code, "streamed from disk" in told.err) == (0, True), told.err
    assert json.loads(cli(*given, "--stream", "never", "--json").out)["streamed"] is False


def test_balanced_batches_are_refused_before_anything_is_kept(root, cli, tmp_path):
    told = cli("sweep", "--cache-dir", root, "--stream", "always", "--sampling", "balanced", "--runs-dir", tmp_path)
    assert (told.code, "takes rows from anywhere" in told.err) == (2, True), told.err
    assert not list(tmp_path.iterdir())


def test_damage_while_it_is_read_stops_the_sweep_and_leaves_no_run(tmp_path):
    entry = make_entry(tmp_path / "cache", seeds=range(40), labels=np.arange(40) % 2, space=WIDE)
    features = entry.read_shard(1)
    assert features.offset is not None

    def damage(progress):
        if progress.done == 0:
            flip(entry.shard_path(1), features.offset)

    with pytest.raises(CacheError, match="is damaged"):
        pipeline.sweep(
            cache_dir=tmp_path / "cache", runs_dir=tmp_path / "runs", lr=(1e-2,), stream="always", on_progress=damage
        )
    assert not (tmp_path / "runs").exists()


def test_an_experiment_file_says_whether_its_sweep_streams(tmp_path):
    path = tmp_path / "one.toml"
    path.write_text(
        '[extract]\nsource = "digits"\nbackbone = "resnet18"\n[head]\nstream = "always"\n[sweep]\nlr = [0.1, 0.2]\n'
    )
    assert sweep_arguments(read_config(path))["stream"] == "always"


def test_an_unknown_way_is_refused(swept):
    with pytest.raises(UsageError, match="unknown stream 'often'"):
        swept(lr=(1e-2,), stream="often")


def test_a_list_may_also_be_given_again_and_again(cli, tmp_path, root):
    given = ("sweep", "--cache-dir", root, "--solver", "ridge", "--transforms", "plain", "--json")
    told = cli(*given, "--l2", "0.1", "--l2", "1,10", "--runs-dir", tmp_path)
    assert sorted({one["settings"]["l2"] for one in json.loads(told.out)["settings"]}) == [0.1, 1.0, 10.0]
