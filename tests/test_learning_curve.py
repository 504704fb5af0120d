"""A learning curve trains what it says, is measured on validation rows alone, and says what it found."""

import csv
import json
from importlib.util import find_spec

import numpy as np
import pytest
from entries import make_entry, tamper

import pipeline
from pipeline.errors import DataError, UsageError
from pipeline.findings import check_findings
from pipeline.learning_curve import read_curve

ROWS = 400


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """Three classes that can be told apart in part; a row's feature says its class."""
    root = tmp_path_factory.mktemp("curve") / "cache"

    def change(features, rows):
        for place, row in enumerate(rows):
            features[place, row % 3] += 1.5

    tamper(make_entry(root, seeds=range(ROWS)), change)
    return root


def curve(cache, **options):
    return pipeline.learn_curve(cache_dir=cache, **{"draws": 2, **options})


def test_the_whole_curve(cache, tmp_path):
    plans, reports = [], []
    result = curve(cache, on_plan=plans.append, on_progress=reports.append)
    body = result.to_json()
    points = body["points"]
    assert points[0]["shots"] == 1
    assert points[0]["rows"] == 3
    assert points[-1]["fraction"] == 1.0
    assert [point["draws"] for point in points] == [2] * (len(points) - 1) + [1]
    assert points[-1]["val_accuracy_std"] is None
    assert points[-1]["val_accuracy"] > points[0]["val_accuracy"]
    assert (plans[0].train, plans[0].val) == (points[-1]["rows"], body["val_rows"])
    assert reports[-1].done == reports[-1].total == plans[0].heads == sum(point["draws"] for point in points)
    assert body["settings"]["C"] == 1 / 4
    # The last point is what train-head makes of these settings.
    run = pipeline.train_head(cache_dir=cache, runs_dir=tmp_path / "runs", settings=result.settings)
    assert run.metrics["accuracy"] == pytest.approx(points[-1]["val_accuracy"])
    assert run.rows["train"] == points[-1]["rows"]
    again = curve(cache)
    assert [point.accuracies for point in again.points] == [point.accuracies for point in result.points]


def test_test_rows_are_not_looked_at(cache, tmp_path):
    entries = []
    for value in (0.0, np.nan):
        root = tmp_path / str(value)

        def change(features, rows, value=value):
            for place, row in enumerate(rows):
                features[place] = value if row % 5 == 4 else features[place]

        tamper(make_entry(root, seeds=range(100)), change)
        entries.append(curve(root, fractions=(0.5, 1.0)))
    assert [point.accuracies for point in entries[0].points] == [point.accuracies for point in entries[1].points]


@pytest.mark.parametrize(
    "options",
    [{"solver": "minibatch", "epochs": 2}, {"solver": "ridge", "l2": 1.0}, {"solver": "centroid"}, {"C": 9.0}],
)
def test_every_kind_of_head(cache, options):
    result = curve(cache, shots=(2,), fractions=(1.0,), **options)
    assert len(result.points[-1].accuracies) == (2 if options.get("solver") == "minibatch" else 1)
    assert result.extrapolation is None
    assert result.why_none == "a fit needs 5 sizes, there are 2"
    assert result.last_gain == pytest.approx(result.points[1].mean - result.points[0].mean, abs=1e-6)


@pytest.mark.parametrize(
    ("options", "error", "said"),
    [
        ({"draws": 0}, UsageError, "draws must be at least 1"),
        ({"seed": -1}, UsageError, "seed must be at least 0"),
        ({"val_fraction": 0.0}, UsageError, "measured on validation rows, and there are none"),
        ({"solver": "ridge"}, UsageError, "ridge would choose --l2"),
        ({"solver": "minibatch", "early_stopping": 2}, UsageError, "early-stopping would choose"),
        ({"solver": "minibatch", "C": 1.0}, UsageError, "--C does not go with"),
        ({"shots": (1000,)}, UsageError, "1000 images a class cannot be drawn"),
    ],
)
def test_what_cannot_be_is_refused(cache, options, error, said):
    with pytest.raises(error, match=said):
        curve(cache, **options)


def test_unlabelled_entries_are_refused(tmp_path):
    make_entry(tmp_path, classes=(), labels=[-1] * 20)
    with pytest.raises(DataError, match="no labels"):
        curve(tmp_path)


def test_the_command(cli, cache, tmp_path):
    done = cli("learn-curve", "latest", "--cache-dir", cache, "--draws", 2, "--csv", "curve.csv")
    assert done.code == 0
    assert "test never looked at" in done.err
    assert "images" in done.out
    assert "●" in done.out
    assert "test not measured" in done.out
    assert f"--cache-dir {cache}" in done.err.splitlines()[-1]
    assert max(map(len, done.out.splitlines()[:-3])) <= 80
    rows = list(csv.DictReader((tmp_path / "curve.csv").read_text().splitlines()))
    document = json.loads(cli("learn-curve", "--cache-dir", cache, "--draws", 2, "--json").out)
    assert len(rows) == sum(point["draws"] for point in document["points"])
    assert {float(row["val_accuracy"]) for row in rows} == {
        accuracy for point in document["points"] for accuracy in point["val_accuracies"]
    }
    [kept] = (tmp_path / "audits").iterdir()
    curve_file = read_curve(kept)
    assert document.keys() < curve_file.keys()
    assert [point["val_accuracies"] for point in curve_file["points"]] == [
        point["val_accuracies"] for point in document["points"]
    ]
    check_findings(kept)  # as `audit` does, which shares the folder
    quiet = cli("learn-curve", "--cache-dir", cache, "--draws", 1, "--shots", 1, "-q")
    assert (quiet.out, quiet.err) == ("unknown\n", "")


def test_outputs_are_refused_before_training(cli, cache, tmp_path):
    (tmp_path / "there.csv").touch()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").touch()
    for options, said in (
        (["-o", "a.gif"], "unknown ending '.gif'"),
        (["--csv", "a.txt"], "unknown ending '.txt'"),
        (["--csv", "there.csv"], "there.csv exists"),
        (["--keep-in", "mine"], "holds neither an audit nor a learning curve"),
    ):
        done = cli("learn-curve", "--cache-dir", cache, *options)
        assert done.code == 2
        assert said in done.err
    if find_spec("matplotlib") is None:
        done = cli("learn-curve", "--cache-dir", cache, "-o", "curve.svg")
        assert done.code == 2
        assert "feature-pipeline[plots]" in done.err


@pytest.mark.parametrize(
    ("text", "said"),
    [(None, "no learning curve"), ("{}", "damaged"), ('{"format": "x"', "cannot be read")],
)
def test_file_that_is_no_curve_is_refused(tmp_path, text, said):
    if text is not None:
        (tmp_path / "learning-curve.json").write_text(text)
    with pytest.raises(DataError, match=said) as error:
        read_curve(tmp_path)
    assert "pipeline learn-curve CACHE" in error.value.hint
