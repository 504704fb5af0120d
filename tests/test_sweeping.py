"""A sweep tries what it says, chooses on validation rows or folds alone, and leaves a run like any other."""

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import make_photos

import pipeline
from pipeline.errors import DataError, UsageError
from pipeline.features import Features
from pipeline.heads.grid import Grid
from pipeline.heads.settings import HeadSettings
from pipeline.heads.solvers import Problem
from pipeline.heads.trials import measure_heads, run_trials
from pipeline.selection import choose_folds, choose_rows

CLASSES = ("apple", "beet", "corn")


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("sweep")
    make_photos(root / "photos", per_class=24)
    pipeline.extract(
        str(root / "photos"), cache_dir=root / "cache", workers=1, test_fraction=0.25, backbone="tiny_network:network"
    )
    return root


@pytest.fixture
def swept(place, tmp_path):
    def sweep(**more):
        return pipeline.sweep(cache_dir=place / "cache", runs_dir=tmp_path / "runs", **more)

    return sweep


def problem_of(features: Features, rows) -> Problem:
    return Problem(features.x, features.y, rows.train, rows.val, features.classes, features.space, "")


@pytest.mark.parametrize(
    ("grid", "options"),
    [
        ({"lr": (1e-3, 1e-2), "weight_decay": (0.0, 1e-2)}, {"epochs": 4}),
        ({"lr": (1e-3, 1e-2)}, {"hidden": 8, "dropout": 0.2, "epochs": 4}),
        ({"l2": (1e-3, 1e-1)}, {"solver": "exact"}),
        ({"C": (0.1, 1.0)}, {"solver": "exact", "class_weight": "balanced"}),
        ({"l2": (1e-3, 1e-1)}, {"solver": "ridge"}),
    ],
    ids=["minibatch", "mlp", "exact", "exact by C", "ridge"],
)
def test_each_trial_is_what_train_head_makes_of_its_settings(place, swept, tmp_path, grid, options):
    result = swept(**grid, **options, transforms=("plain", "standardize"))
    assert (
        result.to_json()["heads"]
        == len(result.candidates)
        == 2 * np.prod([len(v) for v in grid.values()]) * (4 if "lr" in grid and "weight_decay" not in grid else 1)
    )
    for candidate in result.candidates[:3]:
        alone = pipeline.train_head(settings=candidate.settings, cache_dir=place / "cache", runs_dir=tmp_path / "alone")
        assert candidate.val_accuracy == alone.metrics["accuracy"]
        assert candidate.val_loss == pytest.approx(alone.metrics["nll"], rel=1e-4)


def test_the_best_on_validation_rows_becomes_a_run_that_evaluates(place, swept, tmp_path):
    result = swept(
        lr=(1e-30, 1e-2), weight_decay=(0.0,), transforms=("standardize",), epochs=8, seeds=(3, 4), name="best"
    )
    best, worst = result.candidates
    assert (best.settings.lr, worst.settings.lr) == (1e-2, 1e-30)
    assert best.val_accuracy > worst.val_accuracy
    assert best.settings.seed == 3
    assert [trial.settings.seed for trial in best.trials] == [3, 4]
    assert best.val_accuracy == pytest.approx(np.mean([trial.val_accuracy for trial in best.trials]))
    body = json.loads((Path(result.run.path) / "run.json").read_text())
    assert (body["settings"]["lr"], body["settings"]["seed"]) == (1e-2, 3)
    assert body["sweep"]["heads"] == 4
    assert "mean of 2 seeds" in body["sweep"]["chosen_by"]
    alone = pipeline.train_head(settings=best.settings, cache_dir=place / "cache", runs_dir=tmp_path / "alone")
    assert torch.equal(alone.head.weight, result.run.head.weight)
    measured = pipeline.evaluate(result.run.run, cache_dir=place / "cache", runs_dir=tmp_path / "runs", end_to_end=True)
    assert measured.end_to_end.holds


def test_test_rows_are_never_looked_at(place, swept, monkeypatch):
    before = swept(lr=(1e-3, 1e-2), weight_decay=(0.0,))
    read = pipeline.streaming.read_features

    def spoilt(entry):
        features = read(entry)
        test = features.rows("test")
        assert len(test)
        features.x[test] = float("nan")
        features.y[test] = 0
        return features

    monkeypatch.setattr("pipeline.streaming.read_features", spoilt)
    for folds in (0, 3):
        after = swept(lr=(1e-3, 1e-2), weight_decay=(0.0,), folds=folds)
        assert all(np.isfinite(one.val_loss) for one in after.candidates)
        if not folds:
            assert [one.to_json() for one in after.candidates] == [one.to_json() for one in before.candidates]
            assert torch.equal(after.run.head.weight, before.run.head.weight)


def test_folds_hold_each_row_once_and_keep_groups_and_order_out_of_it():
    generator = np.random.default_rng(0)
    n = 120
    digests = generator.integers(0, 256, (n, 32), np.uint8)
    groups = [f"p{row % 30}" for row in range(n)]
    split = np.where(np.arange(n) % 6 == 0, "test", np.where(np.arange(n) % 6 == 1, "val", "train"))
    made = Features(
        torch.zeros(n, 2), torch.arange(n) % 3, CLASSES, [str(row) for row in range(n)], split, digests, groups=groups
    )
    folds = choose_folds(made, 4)
    together = np.sort(np.concatenate([fold.val for fold in folds]))
    assert np.array_equal(together, np.flatnonzero(split != "test"))  # validation rows take part, test rows do not
    for fold in folds:
        assert not set(fold.train) & set(fold.val)
        assert len(fold.train) + len(fold.val) == len(together)
        assert not {groups[row] for row in fold.train} & {groups[row] for row in fold.val}
    order = generator.permutation(n)
    moved = replace(
        made, y=made.y[order], split=split[order], digests=digests[order], groups=[groups[row] for row in order]
    )
    for fold, other in zip(folds, choose_folds(moved, 4), strict=True):
        assert {*fold.val.tolist()} == {*order[other.val].tolist()}
    assert [len(fold.val) for fold in choose_folds(made, 4, split_seed=1)] != [len(fold.val) for fold in folds]
    with pytest.raises(UsageError, match="folds must be at least 2"):
        choose_folds(made, 1)
    with pytest.raises(DataError, match=r"fold \d+ of 60 has 0 of 100 rows"):
        choose_folds(made, 60)


def test_a_run_chosen_by_folds_or_refit_trains_on_all_rows(place, swept):
    features = pipeline.open_cache(cache_dir=place / "cache")
    rows = choose_rows(features)
    everything = len(rows.train) + len(rows.val)
    options = {"lr": (1e-2,), "weight_decay": (0.0,), "transforms": ("plain",)}
    for more in ({"folds": 3}, {"refit": True}):
        run = swept(**options, **more).run
        assert (run.rows, run.metrics) == ({"train": everything, "val": 0}, None)
    assert swept(**options).run.rows["val"] == len(rows.val)


def test_heads_that_diverge_are_listed_and_never_chosen(swept):
    result = swept(lr=(1e-2, 1e37), weight_decay=(1.0,), transforms=("plain",), optimizer="sgd")
    assert [one.usable for one in result.candidates] == [True, False]
    assert result.run.settings.lr == 1e-2
    assert result.to_json()["settings"][1]["val_accuracy"] is None
    json.dumps(result.to_json(), allow_nan=False)
    with pytest.raises(DataError, match="heads of all 1 setting diverged"):
        swept(lr=(1e37,), weight_decay=(1.0,), transforms=("plain",), optimizer="sgd")
    with pytest.raises(DataError, match="heads of all 1 setting diverged"):
        swept(lr=(1e37,), weight_decay=(1.0,), transforms=("plain",), optimizer="sgd", hidden=4)


def test_a_batch_may_be_far_larger_than_the_data(swept):
    grid = {"lr": (1e-2,), "weight_decay": (0.0,), "transforms": ("plain",)}
    whole, beyond = (swept(**grid, batch_size=size) for size in (54, 10**12))
    assert whole.chosen.val_loss == beyond.chosen.val_loss


def test_an_optimum_that_is_not_reached_is_listed_and_never_chosen(swept, place, cli):
    result = swept(solver="exact", l2=(1e-1, 1e-30), transforms=("plain",))
    assert [one.usable for one in result.candidates] == [True, False]
    document = json.loads(json.dumps(result.to_json(), allow_nan=False))
    assert document["settings"][1]["val_loss"] is None
    base = ("sweep", "--cache-dir", place / "cache", "--solver", "exact", "--transforms", "plain")
    told = cli(*base, "--l2", "1e-1,1e-30", "--folds", "2", "-o", "table.csv")
    assert "not reached" in told.out
    assert "1 setting whose optimum was not reached" in told.err
    assert "nan" not in Path("table.csv").read_text()
    assert json.loads(Path("runs/0001/sweep.json").read_text())["settings"][1]["val_accuracy_std"] is None
    refused = cli(*base, "--l2", "1e-30")
    assert (refused.code, "the optimum was reached for none of 1 setting" in refused.err) == (3, True)


def test_figures_of_many_heads_are_those_of_each():
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(50, 6, generator=generator), torch.randint(0, 3, (50,), generator=generator)
    weight, bias = torch.randn(4, 3, 6, generator=generator), torch.randn(4, 3, generator=generator)
    losses, accuracies = measure_heads(x, y, weight, bias)
    for place in range(4):
        logits = x @ weight[place].T + bias[place]
        assert losses[place] == pytest.approx(float(torch.nn.functional.cross_entropy(logits, y)), rel=1e-5)
        assert accuracies[place] == pytest.approx(float((logits.argmax(1) == y).double().mean()))


def test_seeds_of_the_grid_are_those_of_the_trials(place):
    features = pipeline.open_cache(cache_dir=place / "cache")
    problem = problem_of(features, choose_rows(features))
    tried = Grid(lr=(1e-3, 1e-2), weight_decay=(0.0,), transforms=("plain",)).settings(HeadSettings(epochs=1))
    found = list(run_trials(problem, tried, (0, 5)))
    assert [(trial.place, trial.settings.seed) for trial in found] == [(0, 0), (1, 0), (0, 5), (1, 5)]


def test_the_command_shows_writes_and_hands_on(cli, place):
    base = ("sweep", "--cache-dir", place / "cache", "--epochs", "2")
    told = cli(*base, "--lr", "1e-3,1e-2", "--seeds", "2", "-o", "table.csv")
    assert told.code == 0, told.err
    assert "16 heads of 8 settings" not in told.err
    assert "32 heads of 16 settings · minibatch" in told.err
    assert "test never looked at" in told.err
    assert "standardize" in told.out
    assert "run 0001" in told.out
    assert "and 6 settings more: runs/0001/sweep.json has all" in told.err
    kept = json.loads(Path("runs/0001/sweep.json").read_text())
    assert (kept["sweep"], len(kept["settings"]), len(kept["trials"])) == ("runs/0001/sweep.json", 16, 32)
    assert "next: pipeline evaluate 0001" in told.err
    rows = list(csv.DictReader(Path("table.csv").read_text().splitlines()))
    assert len(rows) == 16
    edge = {"0.01": "highest --lr tried, 0.01: higher", "0.001": "lowest --lr tried, 0.001: lower"}[rows[0]["lr"]]
    assert f"best at the {edge} ones may be better" in told.err
    assert [float(row["val_accuracy"]) for row in rows] == sorted(float(row["val_accuracy"]) for row in rows)[::-1]
    assert cli(*base, "--lr", "1e-3", "-o", "table.csv").code == 2
    document = json.loads(cli(*base, "--lr", "1e-3", "--json", "-o", "all.json").out)
    assert document["run"] == "0002"
    assert {"lr", "weight_decay", "seed", "fold", "val_accuracy", "val_loss"} <= set(document["trials"][0])
    assert json.loads(Path("all.json").read_text())["chosen"] == document["chosen"]
    assert cli(*base, "--lr", "1e-3", "-q").out == "0003\n"
    assert cli("evaluate", "0003", "--cache-dir", place / "cache").code == 0


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        (["--lr", "quick"], 2, "is no list of numbers"),
        (["--lr", "-1"], 2, "lr must be above 0"),
        (["--seeds", "x"], 2, "neither a number of seeds nor a list"),
        (["--seeds", "0"], 2, "seeds must be numbers from 0 on"),
        (["--seeds", "99999999999"], 2, "write '99999999999,'"),
        (["--solver", "ridge", "--l2", "1e308"], 2, "l2 must be from 1e-100 to 1e100"),
        (["--transforms", "standardise"], 2, "Did you mean 'standardize'"),
        (["--l2", "0.1"], 2, "--l2 does not go with --solver minibatch"),
        (["--solver", "exact", "--lr", "0.1"], 2, "--lr does not go with --solver exact"),
        (["--solver", "exact", "--C", "1", "--l2", "1"], 2, "say the same"),
        (["--solver", "knn"], 2, "is not one of"),
        (["--val-fraction", "0"], 2, "a sweep chooses on validation rows"),
        (["--folds", "1"], 2, "folds must be at least 2"),
        (["-o", "table.txt"], 2, "unknown ending '.txt'"),
    ],
)
def test_what_makes_no_sense_is_refused_in_one_line(cli, place, options, code, said):
    told = cli("sweep", "--cache-dir", place / "cache", *options)
    assert (told.code, said in told.err) == (code, True), told.err
    assert "Traceback" not in told.err
    assert not Path("runs").exists()
