"""Seeds, touches of the test split, `compare`: honest selection as a user meets it."""

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import SPACE, make_photos

import pipeline
from pipeline.errors import DataError, UsageError
from pipeline.runs import open_run, read_evaluations
from pipeline.touches import count_touches, log_touch


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """An entry with a test split, three seeds of one recipe and a ridge head, all measured."""
    root = tmp_path_factory.mktemp("protocol")
    make_photos(root / "photos" / "train", per_class=16)
    make_photos(root / "photos" / "test", per_class=10)
    made = pipeline.extract(str(root / "photos"), cache_dir=root / "cache", workers=1, **SPACE)
    (root / "entry").write_text(made.path)
    seeds = pipeline.train_seeds(made.path, seeds=3, epochs=2, val_fraction=0.3, name="s", runs_dir=root / "runs")
    pipeline.evaluate_seeds(seeds.runs[1].run, runs_dir=root / "runs")
    ridge = pipeline.train_head(made.path, solver="ridge", val_fraction=0.3, runs_dir=root / "runs")
    pipeline.evaluate(ridge.run, runs_dir=root / "runs")
    return root


@pytest.fixture
def runs(place, tmp_path) -> Path:
    """Those runs, to be changed."""
    return Path(shutil.copytree(place / "runs", tmp_path / "runs"))


def test_seeds_are_the_runs_that_are_trained_alone(place, tmp_path):
    entry = (place / "entry").read_text()
    for seed in range(3):
        alone = pipeline.train_head(entry, epochs=2, val_fraction=0.3, seed=seed, runs_dir=tmp_path)
        own = next((place / "runs").glob(f"{seed + 1:04d}*"))
        assert (own / "head.safetensors").read_bytes() == (Path(alone.path) / "head.safetensors").read_bytes()


def test_seeds_of_which_some_are_gone_are_told(place, tmp_path, caplog):
    entry = (place / "entry").read_text()
    with pytest.raises(UsageError, match=r"below 2\^63"):
        pipeline.train_seeds(entry, seeds=3, seed=2**63 - 2, epochs=1, runs_dir=tmp_path)
    assert not list(tmp_path.iterdir())
    made = pipeline.train_seeds(entry, seeds=3, epochs=1, runs_dir=tmp_path)
    shutil.rmtree(made.runs[0].path)
    assert len(pipeline.evaluate_seeds(runs_dir=tmp_path).results) == 2
    assert "2 of 3 seeds are there" in caplog.text
    shutil.rmtree(made.runs[1].path)
    with pytest.raises(DataError, match="all that is left of 3 seeds"):
        pipeline.evaluate_seeds(runs_dir=tmp_path)


def test_seeds_on_the_command_line(cli, place):
    entry = (place / "entry").read_text()
    told = cli("train-head", entry, "--seeds", 2, "--seed", 5, "--epochs", 1, "--val-fraction", 0.3, "--json")
    body = json.loads(told.out)
    assert "seeds 5 to 6" in told.err
    assert (told.code, [one["seed"] for one in body["seeds"]]) == (0, [5, 6])
    accuracies = [one["metrics"]["accuracy"] for one in body["seeds"]]
    assert body["mean"]["accuracy"] == pytest.approx(np.mean(accuracies))
    assert body["std"]["accuracy"] == pytest.approx(np.std(accuracies, ddof=1))
    assert body["metrics"] == body["seeds"][0]["metrics"]
    told = cli("evaluate", body["run"], "--seeds")
    assert told.code == 0
    assert "2 seeds: accuracy" in told.out
    assert "±" in told.out
    assert "next: pipeline compare" in told.err
    assert "test split measured 1 time for each run" in told.err
    figures = told.out.partition("2 seeds: accuracy ")[2].partition(" %")[0]
    assert cli("report", body["run"], "--no-images", "-o", "page.html").code == 0
    assert f"One of 2 seeds of its recipe: accuracy {figures}% over them." in Path("page.html").read_text()
    cli("evaluate", body["run"])
    listed = json.loads(cli("runs", "--json").out)["runs"]
    assert [one["touches"] for one in listed] == [2, 1]
    assert "measured 2 to 3 times for each run" in cli("evaluate", body["run"], "--seeds").err
    assert {one["group"] for one in listed} == {body["group"]}
    told = cli("runs")
    assert "% x3" in told.out
    assert "#5" in told.out
    assert f"next: pipeline predict {listed[-1]['run']}" in told.err  # one recipe has nothing to be compared with


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["train-head", "latest", "--seeds", 3, "--solver", "exact"], "draws nothing at random"),
        (["train-head", "latest", "--seeds", 1], "at least 2"),
        (["evaluate", "latest", "--seeds", "--end-to-end"], "--end-to-end goes with one run"),
        (["compare", "--metric", "nil"], "Did you mean 'nll'"),
        (["compare", "--csv", "--md"], "--csv and --md"),
        (["compare", "-o", "table.html"], "unknown ending '.html'"),
        (["compare"], "there are none under runs"),
        (["compare", "--backbones", "resnet18,rasnet18", "nowhere"], "unknown backbone 'rasnet18'"),
    ],
)
def test_refusals(cli, place, options, said):
    where = ["--cache-dir", place / "cache"] if options[0] != "compare" else []
    told = cli(*options, *where)
    assert (told.code, told.out) == (2, "")
    assert said in told.err


def test_each_look_at_test_rows_is_logged_and_no_other(place, runs):
    run = open_run(runs / "0004")
    assert count_touches(run) == 1
    assert pipeline.evaluate(run.path, split="train", runs_dir=runs).touch is None
    again = pipeline.evaluate(run.path, runs_dir=runs, command="by hand")
    assert (again.touch, count_touches(run)) == (2, 2)
    assert read_evaluations(run)["test"]["touch"] == 2
    line = json.loads((run.path / "test-touches.jsonl").read_text().splitlines()[1])
    assert (line["n"], line["command"], line["entry"]) == (30, "by hand", Path((place / "entry").read_text()).name)


def test_touches_of_many_writers_are_all_there(runs):
    from concurrent.futures import ThreadPoolExecutor

    run = open_run(runs / "0004")
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: log_touch(run, "e", number), range(40)))
    lines = (run.path / "test-touches.jsonl").read_text().splitlines()
    assert sorted(json.loads(line)["n"] for line in lines[1:]) == list(range(40))


def test_nothing_but_evaluate_looks_at_test_rows(place, tmp_path, monkeypatch):
    from pipeline import streaming

    read = streaming.read_features

    def spoilt(entry):
        features = read(entry)
        features.x[torch.from_numpy(features.split == "test")] = torch.nan
        return features

    monkeypatch.setattr(streaming, "read_features", spoilt)
    entry = (place / "entry").read_text()
    for options in ({}, {"refit": True}, {"solver": "exact"}):
        made = pipeline.train_head(entry, runs_dir=tmp_path, **options)
        assert torch.isfinite(made.head.weight).all()
        assert made.calibration is not None
        assert np.isfinite(made.calibration["temperature"])
        assert not count_touches(open_run(Path(made.path)))
    swept = pipeline.sweep(entry, lr=(1e-3,), runs_dir=tmp_path, epochs=1, refit=True)
    assert torch.isfinite(swept.run.head.weight).all()
    assert swept.run.calibration is not None
    assert "without them" in swept.run.calibration["fitted_on"]
    assert pipeline.learn_curve(entry, fractions=(1.0,)).points[-1].mean > 0
    with pytest.raises(DataError, match="logits that are not finite"):  # the guard itself works
        pipeline.evaluate(made.path, runs_dir=tmp_path)


def test_a_run_without_held_out_rows_has_no_temperature(place, tmp_path):
    made = pipeline.train_head((place / "entry").read_text(), val_fraction=0, epochs=1, runs_dir=tmp_path)
    assert made.calibration is None
    assert "calibrated" not in pipeline.evaluate(made.path, runs_dir=tmp_path).metrics


def test_predictions_are_calibrated_on_request(cli, place, runs):
    entry = (place / "entry").read_text()
    plain, calibrated = (
        json.loads(cli("predict", "0001", "--cache", entry, "--runs-dir", runs, "--json", *more).out)["predictions"]
        for more in ([], ["--calibrated"])
    )
    temperature = open_run(next(runs.glob("0001*"))).body["calibration"]["temperature"]
    assert [one["label"] for one in plain] == [one["label"] for one in calibrated]
    assert (plain[0]["probability"] > calibrated[0]["probability"]) is (temperature > 1)
    none = pipeline.train_head(entry, val_fraction=0, epochs=1, runs_dir=runs)
    told = cli("predict", none.run, "--cache", entry, "--runs-dir", runs, "--calibrated")
    assert (told.code, "has no temperature" in told.err) == (3, True)


def test_a_run_without_its_head_is_not_compared(cli, runs):
    head = next(runs.glob("0001*")) / "head.json"
    head.rename(head.with_name("away"))
    done = cli("compare", "--runs-dir", runs)
    head.with_name("away").rename(head)
    assert (done.code, "head.json is not there" in done.err) == (3, True)


def test_compare_needs_no_features(place, runs, monkeypatch):
    monkeypatch.setattr("pipeline.store.entry.Entry.read_shards", None)
    monkeypatch.setattr("pipeline.store.entry.Entry.read_samples", None)
    found = pipeline.compare(runs_dir=runs)
    assert [len(line.runs) for line in found.lines] in ([3, 1], [1, 3])
    best, other = found.lines
    assert best.standing.value >= other.standing.value
    assert best.standing.difference is None
    group = best if len(best.runs) == 3 else other
    values = [read_evaluations(run)["test"]["metrics"]["accuracy"] for run in group.runs]
    assert list(group.values) == values
    assert group.standing.value == pytest.approx(np.mean(values))
    assert group.std == pytest.approx(np.std(values, ddof=1))
    assert (best.cost.dim, found.n) == (1024, 30)
    assert best.cost.extraction_seconds is not None


def test_compare_on_the_command_line(cli, runs):
    told = cli("compare", "--runs-dir", runs)
    assert told.code == 0
    assert "0001-s +2" in told.out
    assert "to the best, 95 %" in told.out
    assert "Holm's correction for 1 comparison" in told.err
    assert "McNemar" not in told.err  # of one of the two there are seeds
    assert "next: pipeline evaluate" in told.err
    told = cli("compare", "0001", "0004", "--metric", "nll", "--runs-dir", runs, "--csv", "-o", "table.md")
    rows = list(csv.DictReader(told.out.splitlines()))
    assert {row["runs"] for row in rows} == {"0001-s", "0004"}
    assert float(rows[0]["value"]) <= float(rows[1]["value"])
    assert "| run | head | backbone | NLL | to the best, 95 % | p |" in Path("table.md").read_text()
    body = json.loads(cli("compare", "--runs-dir", runs, "--json").out)
    assert (body["n"], body["correction"], len(body["lines"])) == (30, "Holm", 2)
    assert cli("compare", "--runs-dir", runs, "-o", "table.md").code == 2


def test_compare_refuses_other_rows_and_says_what_to_do(place, runs, tmp_path):
    shutil.copytree(place / "photos", tmp_path / "photos")
    (tmp_path / "photos" / "test" / "beet" / "03.jpg").unlink()
    other = pipeline.extract(str(tmp_path / "photos"), cache_dir=place / "cache", workers=1, **SPACE)
    mine = pipeline.train_head(other.path, epochs=1, runs_dir=runs)
    pipeline.evaluate(mine.run, runs_dir=runs)
    with pytest.raises(DataError, match=r"30 and 29, of which 29") as error:
        pipeline.compare(["0001", mine.run], runs_dir=runs)
    assert "--cache" in error.value.hint
    with pytest.raises(UsageError, match="there is one") as error:
        pipeline.compare(runs_dir=runs)
    assert f"Measure another: pipeline evaluate {runs / '0004'}" in error.value.hint
    with pytest.raises(UsageError, match="there is one") as error:
        pipeline.compare(["0004"], runs_dir=runs)
    assert "Name another" in error.value.hint
    pipeline.evaluate("0001", cache=other.path, runs_dir=runs)
    found = pipeline.compare(cache=other.cache, runs_dir=runs)
    assert found.n == 29
    assert len(found.left_out) == 3
    unmeasured = pipeline.train_head(other.path, epochs=1, runs_dir=runs)
    with pytest.raises(DataError, match="no evaluation"):
        pipeline.compare(["0001", unmeasured.run], runs_dir=runs)


def test_backbones_are_chosen_on_validation_rows_and_one_is_measured(cli, place):
    given = ["--backbones", "shufflenet_v2_x0_5,squeezenet1_1", "--weights", "none", "--image-size", 32]
    told = cli("compare", *given, place / "photos", "--cache-dir", place / "cache", "--json")
    assert told.code == 0, told.err
    body = json.loads(told.out)
    accuracies = [one["metrics"]["accuracy"] for one in body["backbones"]]
    assert accuracies == sorted(accuracies, reverse=True)
    looks = {one["run"]: count_touches(open_run(Path("runs") / one["run"])) for one in body["backbones"]}
    assert list(looks.values()) == [1, 0]
    assert body["evaluation"]["run"] == body["backbones"][0]["run"]
    again = cli("compare", *given, place / "photos", "--cache-dir", place / "cache")
    assert again.out.count("cached") == 2
    assert "squeezenet1_1 · 2 of 2" in again.err
    assert "next: pipeline sweep" in again.err
    assert cli("compare", "--backbones", "resnet18", place / "photos").code == 2
    assert cli("compare", "--backbones", "resnet18,resnet50").code == 2
