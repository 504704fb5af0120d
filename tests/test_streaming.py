"""Features that stay on disk: what is read, in which order, and that heads are those of features in memory."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from entries import RECIPE, SPACE, flip, make_entry, make_rows, overwrite

import pipeline
from pipeline.errors import CacheError, DataError, UsageError
from pipeline.features import read_features
from pipeline.heads.centroid import fit_centroids
from pipeline.heads.logistic import solve_logistic
from pipeline.heads.minibatch import train_network
from pipeline.heads.ridge import ridge_path
from pipeline.heads.settings import HeadSettings
from pipeline.heads.transform import fit_transform
from pipeline.store.catalog import list_entries
from pipeline.streaming import needs_streaming, stream_features

N, D, BAD = 600, 6, (3, 64, 65, 599)
WIDE = replace(SPACE, row_shape=(D,))
ORDER = tuple(int(row) for row in np.argsort(make_rows(range(N), space=WIDE).features[:, :3].argmax(1), kind="stable"))
"""Image seeds in the order of their class, which is the largest of the first three features: as a folder has them."""


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A cache with an entry of 600 rows in shards of 64, class by class, with a few bad rows."""
    root = tmp_path_factory.mktemp("streaming")
    x = make_rows(ORDER, space=WIDE).features
    recipe = replace(RECIPE, shard_rows=64)
    splits = (np.arange(N) % 5 == 4) * 2
    make_entry(root, seeds=ORDER, labels=x[:, :3].argmax(1), splits=splits, bad=BAD, space=WIDE, recipe=recipe)
    return root


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """Slices of 5 rows, which end elsewhere than shards do, and blocks of a few of them."""
    monkeypatch.setattr("pipeline.store.slices.SLICE_BYTES", 5 * 4 * D + 3)
    monkeypatch.setattr("pipeline.streaming.BLOCK_BYTES", 130 * 4 * D)
    monkeypatch.setattr("pipeline.streaming.MIXED_BATCHES", 2)


@pytest.fixture
def entry(root):
    [found] = list_entries(root)
    return found


@pytest.fixture
def both(entry):
    """The features in memory, and streamed."""
    return read_features(entry), stream_features(entry)


def test_samples_are_those_of_features_in_memory(both):
    features, streamed = both
    samples = streamed.samples
    assert torch.equal(samples.y, features.y)
    assert samples.ids == features.ids
    assert np.array_equal(samples.split, features.split)
    assert (samples.cache_digest, samples.space_sha256) == (features.cache_digest, features.space_sha256)
    assert (samples.x.shape, samples.x.dtype) == (features.x.shape, features.x.dtype)
    assert samples.x.device.type == "meta"
    assert streamed.x.shape == (N - len(BAD), D)


@pytest.mark.parametrize("size", [1, 7, 64, 1000])
def test_chunks_are_those_of_the_tensor(both, size):
    features, streamed = both
    rows = np.flatnonzero(np.random.default_rng(size).random(len(features)) < 0.3)
    for x, stream in ((features.x, streamed.x), (features.x[rows], streamed.x.select(rows))):
        expected, found = list(x.split(size)), list(stream.split(size))
        assert len(stream) == len(x)
        assert len(found) == len(expected)
        assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))
    twice = streamed.x.select(rows).select(np.arange(0, len(rows), 2))
    assert torch.equal(torch.cat(list(twice.split(size))), features.x[rows[::2]])
    assert list(streamed.x.select(np.empty(0, np.int64)).split(size)) == []


def test_rows_of_a_stream_keep_their_order(both):
    with pytest.raises(ValueError, match="in their order"):
        both[1].x.select(np.array([3, 2]))


def test_an_epoch_has_every_row_once_in_an_order_of_its_own(both):
    features, streamed = both
    generator = torch.Generator().manual_seed(1)
    orders = []
    for _ in range(2):
        blocks = list(streamed.x.shuffled(generator, batch_size=8))
        positions = torch.cat([rows for rows, _ in blocks])
        assert torch.equal(positions.sort().values, torch.arange(len(features)))
        assert torch.equal(torch.cat([x for _, x in blocks]), features.x[positions])
        assert {len(rows) for rows, _ in blocks[:-1]} == {16}
        orders.append(positions)
    assert not torch.equal(*orders)
    again = [rows for rows, _ in streamed.x.shuffled(torch.Generator().manual_seed(1), batch_size=8)]
    assert torch.equal(torch.cat(again), orders[0])


def test_every_part_of_an_epoch_has_all_classes_though_they_lie_one_after_the_other(both):
    features, streamed = both
    shares = torch.bincount(features.y) / len(features)
    for seed in range(5):
        blocks = streamed.x.shuffled(torch.Generator().manual_seed(seed), batch_size=8)
        order = torch.cat([rows for rows, _ in blocks])
        for part in order.split(128)[:-1]:
            assert (torch.bincount(features.y[part], minlength=3) / len(part) - shares).abs().max() < 0.15


def test_exact_solvers_arrive_where_they_do_in_memory(both):
    features, streamed = both
    rows = features.rows("train")
    y, (x, stream) = features.y[rows], (features.x[rows] + 5, streamed.x.select(rows).mapped(lambda chunk: chunk + 5))
    exact, other = solve_logistic(x, y, 3, 1e-3), solve_logistic(stream, y, 3, 1e-3)
    assert other.gradient_norm_ratio <= 1e-6
    assert torch.allclose(exact.weight, other.weight, atol=1e-4)
    weights = torch.rand(len(y), generator=torch.Generator().manual_seed(0))
    ridges = [ridge_path(part, y, 3, weights).solve(0.1) for part in (x, stream)]
    centroids = [fit_centroids(part, y, ("a", "b", "c")) for part in (x, stream)]
    for kept, found in (ridges, centroids):
        assert all(torch.allclose(one, other, atol=1e-12) for one, other in zip(kept, found, strict=True))
    known, same = (fit_transform(part, l2_norm=True, standardize=True) for part in (x, stream))
    assert torch.allclose(known.mean, same.mean)
    assert torch.allclose(known.apply(x), torch.cat(list(same.apply(stream).split(50))), atol=1e-5)


@pytest.mark.parametrize("options", [{}, {"hidden": 8}, {"class_weight": "balanced", "label_smoothing": 0.1}])
def test_minibatch_heads_are_as_good_as_in_memory(both, options):
    features, streamed = both
    train, val = features.rows("train"), features.rows("test")
    settings = HeadSettings(epochs=20, lr=0.02, batch_size=16, **options)
    kept, found, again = (
        train_network(x, features.y, train, val, 3, settings) for x in (features.x, streamed.x, streamed.x)
    )
    assert abs(kept.epochs[-1].val_accuracy - found.epochs[-1].val_accuracy) < 0.05
    assert found.epochs[-1].val_accuracy > 0.85
    assert found.epochs[-1].train_loss == pytest.approx(kept.epochs[-1].train_loss, rel=0.1)
    for name, tensor in found.network.state_dict().items():
        assert torch.equal(tensor, again.network.state_dict()[name]), name


def test_half_precision_is_streamed_as_it_is_stored(tmp_path):
    entry = make_entry(tmp_path, space=replace(WIDE, store_dtype="float16"))
    expected = read_features(entry).x
    [found] = stream_features(entry).x.split(100)
    assert found.dtype == torch.float16
    assert torch.equal(found, expected)


def test_damage_is_found_when_opened_and_when_read(tmp_path):
    entry = make_entry(tmp_path)
    opened = stream_features(entry)
    path = entry.shard_path(1)
    before = path.read_bytes()
    features = entry.read_shard(1)
    assert features.offset is not None
    flip(path, features.offset)
    with pytest.raises(CacheError, match=f"{path} is damaged"):
        list(opened.x.split(100))
    with pytest.raises(CacheError, match=f"{path} is damaged"):
        stream_features(entry)
    overwrite(path, before[:-1])
    with pytest.raises(CacheError, match=f"{path} is damaged"):
        stream_features(entry)
    path.unlink()
    with pytest.raises(CacheError, match=f"{path} is missing"):
        list(opened.x.split(100))


def test_maps_are_streamed_too(tmp_path):
    entry = make_entry(tmp_path, space=replace(SPACE, row_shape=(3, 2, 2)))
    streamed, kept = stream_features(entry).x, read_features(entry).x
    assert streamed.shape == kept.shape == (20, 3, 2, 2)
    assert torch.equal(torch.cat([*streamed.split(7)]), kept)
    parts = list(streamed.shuffled(torch.Generator().manual_seed(0), 4))
    places, rows = (torch.cat(found) for found in zip(*parts, strict=True))
    assert torch.equal(rows, kept[places])
    assert sorted(places.tolist()) == list(range(20))


def test_empty_entries_are_refused(tmp_path):
    bad = make_entry(tmp_path, seeds=range(4), bad=range(4))
    with pytest.raises(DataError, match="no usable rows"):
        stream_features(bad)


def test_train_head_streams_on_request_or_where_memory_is_short(root, tmp_path, cli, monkeypatch):
    given = ("train-head", "latest", "--cache-dir", root, "--runs-dir", tmp_path, "--lr", "0.02")
    kept = json.loads(cli(*given, "--json").out)
    told = cli(*given, "--stream", "always")
    assert "streamed from disk" in told.out + told.err
    found = json.loads(cli(*given, "--stream", "always", "--json").out)
    assert (kept["streamed"], found["streamed"]) == (False, True)
    assert found["metrics"]["accuracy"] == found["epochs"][-1]["val_accuracy"]
    assert abs(found["metrics"]["accuracy"] - kept["metrics"]["accuracy"]) < 0.1
    monkeypatch.setattr("pipeline.streaming.free_memory", lambda: 10 * N * D)
    assert json.loads(cli(*given, "--json").out)["streamed"] is True
    assert json.loads(cli(*given, "--stream", "never", "--json").out)["streamed"] is False
    run = ("evaluate", found["path"], "--cache-dir", root, "--json")
    measured = [json.loads(cli(*run, "--stream", way).out)["metrics"] for way in ("never", "always")]
    assert measured[0] == measured[1]
    for solver in ("exact", "ridge", "centroid"):
        documents = [
            json.loads(cli(*given[:-2], "--solver", solver, "--standardize", "--stream", way, "--json").out)
            for way in ("never", "always")
        ]
        assert documents[0]["metrics"]["nll"] == pytest.approx(documents[1]["metrics"]["nll"], rel=1e-4)


@pytest.mark.parametrize(
    ("options", "said"), [(["--solver", "knn"], "--solver knn keeps"), (["--sampling", "balanced"], "takes rows from")]
)
def test_what_needs_all_rows_at_once_is_refused(root, tmp_path, cli, options, said):
    told = cli("train-head", "--cache-dir", root, "--runs-dir", tmp_path / "runs", "--stream", "always", *options)
    assert told.code == 2
    assert said in told.err
    assert "--stream never" in told.err
    assert not (tmp_path / "runs").exists()


def test_an_unknown_way_is_refused(root, tmp_path):
    with pytest.raises(UsageError, match="unknown stream 'often'"):
        pipeline.train_head(cache_dir=root, runs_dir=tmp_path, stream="often")


def test_streaming_is_needed_where_features_fill_the_memory(entry, monkeypatch):
    for free, needed in ((10 * N * D, True), (1000 * N * D, False)):
        monkeypatch.setattr("pipeline.streaming.free_memory", lambda free=free: free)
        assert needs_streaming(entry) is needed
