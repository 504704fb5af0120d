"""Views of cached images: found by content, drawn in training without moving anything else, averaged when asked."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from entries import SPACE, make_entry
from scipy.special import softmax
from sklearn.linear_model import LogisticRegression
from torch import nn

import pipeline
from pipeline.errors import CacheError, DataError, UsageError
from pipeline.features import read_features
from pipeline.heads.settings import HeadSettings
from pipeline.heads.viewed import views_generator
from pipeline.store.entry import Entry
from pipeline.training import open_training
from pipeline.views import find_views, open_for_training

STEPS = "crop:0.5-1,hflip:0.5"
SEEDS = tuple(range(60))


def make_views(root, count: int = 3, steps: str = STEPS, **more) -> list[Entry]:
    """Publish an entry and its views; the plain one first."""
    return [make_entry(root, space=SPACE.of_view(steps, number), seeds=SEEDS, **more) for number in range(count)]


@pytest.fixture
def views(tmp_path):
    return make_views(tmp_path / "cache")


def train(tmp_path, cache="latest", **more):
    return pipeline.train_head(cache, cache_dir=tmp_path / "cache", runs_dir=tmp_path / "runs", **more)


def test_views_are_found_by_content_whatever_else_is_there(tmp_path, views):
    root = tmp_path / "cache"
    make_entry(root, space=SPACE.of_view(STEPS, 1), seeds=SEEDS[:30])  # of other samples
    make_entry(root, space=replace(SPACE, layer="output:stage2").of_view("hflip:1", 1), seeds=SEEDS)
    make_entry(root, space=SPACE.of_view(STEPS, 4), seeds=SEEDS)  # the one before it is missing
    found = find_views(views[0], "all")
    assert [entry.id for entry in found.entries] == [entry.id for entry in views]
    assert found.augment == STEPS
    assert [entry.id for entry in find_views(views[0], 2, "hflip,crop:0.50-1").entries] == [views[0].id, views[1].id]


def test_the_latest_of_several_views_is_the_plain_one(tmp_path, views):
    features = pipeline.open_cache("latest", cache_dir=tmp_path / "cache")
    assert features.cache == views[0].id
    alone = make_entry(tmp_path / "other", space=SPACE.of_view(STEPS, 1))
    assert pipeline.open_cache("latest", cache_dir=tmp_path / "other").cache == alone.id


def test_what_cannot_be_found_is_said_with_the_command_that_makes_it(tmp_path):
    made = {"command": "pipeline extract photos --backbone tiny"}
    plain, view = make_views(tmp_path / "cache", 2, **made)
    with pytest.raises(CacheError, match=r"has 2 views of .* 4 are asked for") as few:
        find_views(plain, 4)
    assert few.value.hint == f"Make them: {made['command']} --views 4 --augment {STEPS}"
    with pytest.raises(CacheError, match="has 1 view of hflip:0.5"):
        find_views(plain, "all", "hflip")
    with pytest.raises(UsageError, match=f"holds view 1 of {STEPS}") as bound:
        train(tmp_path, view.id)
    with pytest.raises(UsageError, match=f"holds view 1 of {STEPS}"):
        pipeline.finetune(view.path, cache_dir=tmp_path / "cache", runs_dir=tmp_path / "runs")
    assert bound.value.hint is not None
    assert plain.id in bound.value.hint
    make_views(tmp_path / "cache", 2, "hflip:0.5")
    with pytest.raises(UsageError, match="several augmentations: crop:0.5-1,hflip:0.5 and hflip:0.5"):
        find_views(plain, "all")
    assert len(find_views(plain, "all", "hflip")) == 2
    with pytest.raises(CacheError, match="has no views"):
        find_views(make_entry(tmp_path / "none"), 2)


def test_what_does_not_go_together_is_refused(tmp_path, views, monkeypatch):
    for refused, message in (
        ({"views": 0}, "at least 2, or all"),
        ({"augment": "hflip"}, "--augment needs --views"),
        ({"views": 2, "stream": "always"}, "does not go with --views"),
        ({"views": 2, "solver": "knn"}, "does not go with --views"),
    ):
        with pytest.raises(UsageError, match=message):
            train(tmp_path, **refused)
    monkeypatch.setattr("pipeline.views.free_memory", lambda: 4000)
    with pytest.raises(DataError, match="3 views of 60 rows x 4 features need 0.0 GB of memory"):
        train(tmp_path, views="all")


def test_a_view_of_which_other_rows_are_usable_is_refused(tmp_path):
    plain = make_entry(tmp_path / "cache", seeds=SEEDS)
    make_entry(tmp_path / "cache", space=SPACE.of_view(STEPS, 1), seeds=SEEDS, bad=[3])
    with pytest.raises(DataError, match="has 59 usable rows, its plain images 60"):
        open_for_training(plain, 2, None, "auto")


@pytest.mark.parametrize("more", [{}, {"hidden": 5}, {"sampling": "balanced"}, {"dropout": 0.3}], ids=str)
def test_training_equals_a_plain_loop_that_draws_the_same_views(tmp_path, views, more):
    settings = HeadSettings(epochs=3, batch_size=8, lr=0.05, **more)
    opened = open_training(views[0].path, views="all")
    result = train(tmp_path, settings=settings, views="all")
    x = torch.stack([read_features(entry).x for entry in views])
    y, rows = opened.features.y, torch.from_numpy(opened.rows.train)
    torch.manual_seed(0)
    network: nn.Module = nn.Linear(4, 3)
    if "hidden" in more:
        torch.manual_seed(0)
        network = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 3))
    optimiser = torch.optim.Adam(network.parameters(), lr=0.05)
    order, drawn = torch.Generator().manual_seed(0), views_generator(0)
    for _ in range(3):
        if "sampling" in more:
            from pipeline.heads.balance import BalancedRows

            mixed = BalancedRows(rows, y[rows]).draw(order)
        else:
            mixed = rows[torch.randperm(len(rows), generator=order)]
        which = torch.randint(3, (len(rows),), generator=drawn)
        for batch, view in zip(mixed.split(8), which.split(8), strict=True):
            seen = x[view, batch]
            if "dropout" in more:
                seen = nn.functional.dropout(seen, 0.3)
            loss = nn.functional.cross_entropy(network(seen), y[batch])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
    logits = result.head.logits(x[0]).detach()
    assert torch.equal(logits, network(x[0]).detach())
    assert not torch.equal(logits, train(tmp_path, settings=settings).head.logits(x[0]))


def test_one_view_is_the_run_without_views(tmp_path, views):
    one, plain = train(tmp_path, views=1), train(tmp_path)
    assert torch.equal(one.head.weight, plain.head.weight)
    assert [epoch.val_loss for epoch in one.epochs] == [epoch.val_loss for epoch in plain.epochs]
    assert one.views is None
    assert "views" not in one.to_json()


def test_a_run_says_what_views_it_saw_and_is_bound_to_plain_images(tmp_path, views):
    result = train(tmp_path, views=2, refit=True, standardize=True)
    body = json.loads((tmp_path / "runs" / result.run / "run.json").read_text())
    ids = [{"id": entry.id, "manifest_sha256": entry.digest} for entry in views[:2]]
    assert body["views"] == {"count": 2, "augment": STEPS, "entries": ids} == result.views
    assert body["space_sha256"] == views[0].space.sha256
    assert "augment" not in result.head.space["preprocess"]
    seen = torch.cat([read_features(entry).x[read_features(entry).rows("train")] for entry in views[:2]])
    assert torch.allclose(result.head.transform.mean, seen.mean(0), atol=1e-6)


@pytest.mark.parametrize("solver", ["exact", "ridge", "centroid"])
def test_other_solvers_take_all_views_as_rows(tmp_path, views, solver):
    more = {"l2": 0.1} if solver != "centroid" else {}
    result = train(tmp_path, views="all", solver=solver, **more)
    opened = open_training(views[0].path, views="all")
    x = np.concatenate([read_features(entry).x.numpy()[opened.rows.train] for entry in views])
    y = np.tile(opened.features.y.numpy()[opened.rows.train], 3)
    plain = opened.features.x.numpy()
    assert result.rows["train"] == len(opened.rows.train)
    if solver == "exact":
        twin = LogisticRegression(C=1 / (0.1 * len(y)), tol=1e-9, max_iter=1000).fit(x.astype(np.float64), y)
        found = softmax(result.head.logits(torch.from_numpy(plain)).numpy(), axis=1)
        assert np.abs(found - twin.predict_proba(plain)).max() < 1e-4
    if solver == "centroid":
        means = np.stack([x[y == label].mean(0) for label in range(3)])
        nearest = ((plain[:, None] - means) ** 2).sum(2).argmin(1)
        assert (result.head.logits(torch.from_numpy(plain)).numpy().argmax(1) == nearest).mean() > 0.95


def test_a_sweep_draws_the_views_that_its_run_draws(tmp_path, views):
    common = {"cache_dir": tmp_path / "cache", "runs_dir": tmp_path / "runs", "views": "all", "epochs": 2}
    result = pipeline.sweep(views[0].path, lr=(0.01, 0.1), weight_decay=(0.0,), transforms=("plain",), **common)
    assert result.run.views is not None
    assert result.run.epochs[-1].val_loss == pytest.approx(result.chosen.val_loss, rel=1e-5)


def test_averaged_views_are_the_mean_of_their_probabilities(tmp_path, views):
    run = train(tmp_path, views="all", epochs=20, lr=0.05)
    place = {"cache_dir": tmp_path / "cache", "runs_dir": tmp_path / "runs"}
    plain, mean = pipeline.evaluate(run.run, **place), pipeline.evaluate(run.run, tta=True, **place)
    assert plain.tta is None
    assert mean.to_json()["tta"] == {"views": 3, "augment": STEPS}
    features = read_features(views[0])
    rows = features.rows("test")
    each = [softmax(run.head.logits(read_features(entry).x[rows]).numpy(), axis=1) for entry in views]
    expected, y = np.mean(each, axis=0), features.y.numpy()[rows]
    assert mean.metrics["accuracy"] == (expected.argmax(1) == y).mean()
    assert mean.metrics["nll"] == pytest.approx(-np.log(expected[np.arange(len(y)), y]).mean(), rel=1e-5)
    assert "calibrated" not in mean.metrics
    kept = sorted(path.name for path in (tmp_path / "runs" / run.run).glob("evaluation-*.json"))
    assert kept == ["evaluation-test-tta.json", "evaluation-test.json"]
    for refused in ({"tta": True, "end_to_end": True}, {"augment": "hflip"}):
        with pytest.raises(UsageError):
            pipeline.evaluate(run.run, **refused, **place)


def test_the_commands_say_what_is_done_with_views(cli, tmp_path):
    plain, _, last = make_views(tmp_path / "cache")
    trained = cli("train-head", "--views", "all", "--epochs", "1", "--json")
    assert trained.code == 0
    assert json.loads(trained.out)["views"]["count"] == 3
    assert f"3 views of {STEPS}" in cli("train-head", "--views", "3", "--augment", STEPS).err
    measured = cli("evaluate", "--tta")
    assert f"mean of 3 views ({STEPS})" in measured.out
    swept = cli("sweep", "--views", "2", "--lr", "0.1", "--weight-decay", "0", "--epochs", "1")
    assert f"2 views of {STEPS}" in swept.err
    assert cli("train-head", "--views", "9").code == 4
    assert cli("train-head", "--views", "some").code == 2
    listed = cli("cache", "ls")
    assert "photos · view 2" in listed.out
    assert f"next: pipeline train-head {plain.id}" in listed.err
    info = cli("cache", "info", last.id)
    assert f"view 2 of {STEPS}" in info.out
    assert f"next: pipeline train-head {plain.id}" in info.err
    differs = cli("cache", "diff", plain.id, last.id)
    assert "augment" in differs.out
