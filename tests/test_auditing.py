"""An audit finds what is planted, says what it says of the right rows, and writes it."""

import csv
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import SPACE
from entries import make_entry, tamper
from planted import find_planted
from sklearn.datasets import load_digits

import pipeline
from pipeline.auditing.balance import balance_of
from pipeline.auditing.duplicates import Pair, exact_duplicates
from pipeline.auditing.groups import weak_groups
from pipeline.auditing.labels import confident_joint, find_suspects
from pipeline.auditing.leaks import find_leaks
from pipeline.auditing.outliers import neighbour_distances
from pipeline.cli.audit_view import _cut
from pipeline.errors import DataError, UsageError
from pipeline.features import Features

ROWS = 300
TEST = [row for row in range(ROWS) if row % 5 == 4]


@pytest.fixture(scope="module")
def faulty(tmp_path_factory):
    """Classes that can be told apart. Rows 0, 4 and 14 are one image, 4 and 14 in test; the labels of 14, of 30 and of
    test row 19 are wrong; row 60 is far away."""
    root = tmp_path_factory.mktemp("audit")
    seeds = [0 if row in (4, 14) else row for row in range(ROWS)]
    labels = [seed % 3 for seed in seeds]
    for row in (30, 19):
        labels[row] = (labels[row] + 1) % 3
    labels[14] = 1
    make = make_entry(
        root / "cache", seeds=seeds, labels=labels, ids=[f"site{row % 2}/{row}.jpg" for row in range(ROWS)]
    )

    def change(features, rows):
        for place, row in enumerate(rows):
            features[place] *= 0.2
            features[place, seeds[row] % 3] += 1.5
            features[place, 3] = -9 if row == 60 else features[place, 3]

    tamper(make, change)
    return root


def options(root):
    return {"cache_dir": root / "cache", "runs_dir": root / "runs"}


def test_what_was_planted_is_found(faulty, tmp_path):
    run = pipeline.train_head(**options(faulty), solver="exact")
    measured = pipeline.evaluate(run.run, **options(faulty))
    result, folder = pipeline.audit(**options(faulty), near=False, output=tmp_path / "lists")
    assert [(one.a.id, one.b.id) for one in result.duplicates] == [
        ("site0/0.jpg", "site0/4.jpg"),
        ("site0/0.jpg", "site0/14.jpg"),
    ]
    assert [one.b.id for one in result.conflicts] == ["site0/14.jpg"]
    assert [(leak.id, leak.of) for leak in result.leaks] == [
        ("site0/4.jpg", "site0/0.jpg"),
        ("site0/14.jpg", "site0/0.jpg"),
    ]
    assert "site0/30.jpg" in [one.id for one in result.labels.suspects]
    assert {one.split for one in result.labels.suspects} == {"train"}
    assert "site1/19.jpg" in [one.id for one in result.test_labels.suspects]
    assert {one.split for one in result.test_labels.suspects} == {"test"}
    assert result.test_labels.accuracy is None
    assert result.outliers.rows[0].id == "site0/60.jpg"
    outcomes = pipeline.read_outcomes(next(iter(pipeline.runs.list_runs(faulty / "runs"))))
    kept = [row not in ("site0/4.jpg", "site0/14.jpg") for row in outcomes.ids]
    assert result.effect.accuracy == measured.metrics["accuracy"]
    assert result.effect.clean_accuracy == outcomes.right[kept].mean()
    assert result.effect.clean_n == len(TEST) - 2
    assert pipeline.read_audit(folder) == result
    rows = list(csv.DictReader((folder / "labels.csv").read_text().splitlines()))
    assert [row["id"] for row in rows] == [one.id for one in result.labels.suspects]
    assert float(rows[0]["margin"]) == result.labels.suspects[0].margin


def test_test_rows_have_no_part_in_what_is_said_of_others(tmp_path):
    said = []
    for value in (0.0, 5.0):
        root = tmp_path / str(value)

        def change(features, rows, value=value):
            for place, row in enumerate(rows):
                features[place] = value + place if row % 5 == 4 else features[place]

        tamper(make_entry(root / "cache", seeds=range(100)), change)
        said.append(pipeline.audit(**options(root), near=False)[0])
    assert said[0].labels == said[1].labels
    assert said[0].labels.judged == 80


@pytest.mark.parametrize("seed", [0, 1])
def test_five_percent_of_wrong_labels_in_digits(seed):
    x, y = load_digits(return_X_y=True)
    features = Features(torch.from_numpy(x).float(), torch.from_numpy(y), tuple("0123456789"))
    found = find_planted(features, seed)
    assert found.planted == 90
    assert found.precision >= 0.6
    assert found.recall >= 0.6


def test_confident_joint_of_a_small_case():
    p = np.array([[0.9, 0.1], [0.8, 0.2], [0.1, 0.9], [0.2, 0.8], [0.45, 0.55], [0.5, 0.5]])
    y = np.array([0, 0, 0, 1, 1, 0])
    found = confident_joint(p, y)
    # t_0 = (0.9 + 0.8 + 0.1 + 0.5) / 4, t_1 = (0.8 + 0.55) / 2; rows 4 and 5 count to none.
    assert found.thresholds == pytest.approx([0.575, 0.675])
    assert found.counted.tolist() == [0, 0, 1, 1, -1, -1]
    assert found.wrong == pytest.approx(4 / 3)
    suspects = find_suspects(p, y)
    assert (suspects.places.tolist(), suspects.suggested.tolist(), suspects.confident.tolist()) == ([2], [1], [True])
    assert suspects.margins.tolist() == pytest.approx([-0.8])


def features_of(n=60, **fields):
    x = torch.from_numpy(np.random.default_rng(0).normal(size=(n, 4)).astype(np.float32))
    made = Features(x, torch.arange(n) % 3, ("a", "b", "c"), ids=[f"{row}.jpg" for row in range(n)])
    return replace(made, **fields)


def test_copies_of_copies_leak_and_twins_do_not():
    features = features_of(6, split=np.array(["train", "train", "test", "test", "test", "val"]))
    pairs = [
        Pair(0, 2, "copy", 0.99, 0.01),
        Pair(2, 3, "exact", 1.0, 0.0),
        Pair(4, 5, "twin", 0.99, 0.3),
        Pair(0, 1, "mirrored", 0.98, 0.02),
    ]
    assert [(one.id, one.kind, one.of) for one in find_leaks(features, pairs)] == [
        ("2.jpg", "copy", "0.jpg"),
        ("3.jpg", "chain", "0.jpg"),
    ]
    assert exact_duplicates(features) == []


def test_only_groups_that_are_significantly_worse():
    n = 200
    names = [f"camera{row % 4}" for row in range(n)]
    right = np.array([row % 4 != 2 or row % 8 == 2 for row in range(n)])
    found, tested = weak_groups(features_of(n, groups=names), np.arange(n), right)
    assert tested == 4
    assert [(one.by, one.group, one.n, one.accuracy, one.rest) for one in found] == [("group", "camera2", 50, 0.5, 1.0)]
    classes = [f"{'abc'[row % 3]}/{row}.jpg" for row in range(n)]
    assert weak_groups(features_of(n, ids=classes), np.arange(n), right) == ([], 0)
    assert weak_groups(features_of(n, groups=names), np.arange(n), np.arange(n) % 7 > 0)[0] == []


def test_distances_are_those_of_scikit_learn():
    from sklearn.neighbors import NearestNeighbors

    x = features_of(50).x
    found = neighbour_distances(x, np.arange(50), k=5)
    oracle = NearestNeighbors(n_neighbors=6, metric="cosine").fit(x.numpy()).kneighbors(x.numpy())[0][:, 1:]
    assert found.values == pytest.approx(oracle.mean(axis=1), abs=1e-5)


def test_balance_names_what_is_absent():
    split = np.array(["train"] * 5 + ["test"])
    found = balance_of(features_of(6, split=split, y=torch.tensor([0, 0, 0, 1, 2, 0])))
    assert [(one.name, one.train, one.test) for one in found.classes] == [("a", 3, 1), ("b", 1, 0), ("c", 1, 0)]
    assert found.ratio == 3
    assert found.absent == (("b", "test"), ("c", "test"))


def test_the_command(cli, faulty, tmp_path):
    done = cli("audit", "--cache-dir", faulty / "cache", "--runs-dir", tmp_path / "runs", "-v")
    assert done.code == 0
    assert "2 test rows of 60 known from train" in done.out
    assert "labels differ" in done.out
    assert done.err.splitlines()[-1].startswith("next: pipeline learn-curve ")
    assert "copies, 5 of " in cli("audit", "--cache-dir", faulty / "cache", "-o", tmp_path / "short").out
    folder = next((tmp_path / "audits").iterdir())
    result = pipeline.read_audit(folder)
    document = json.loads(cli("audit", "--cache-dir", faulty / "cache", "-o", folder, "--json").out)
    assert {**document, "seconds": 0, "path": 0} == {**result.to_json(), "seconds": 0, "path": 0}
    assert cli("audit", "--cache-dir", faulty / "cache", "-o", folder, "-q").out == f"{folder}\n"


def test_ids_that_are_cut_keep_their_split_and_their_end():
    assert _cut("test/a long name of a class/copy of 1.jpg", 27) == "test/…a class/copy of 1.jpg"
    assert _cut("n" * 30 + "/x.jpg", 27) == f"…{'n' * 20}/x.jpg"


def test_near_duplicates_are_looked_for_where_images_are(cli, photos, tmp_path):
    pipeline.extract(str(photos), cache_dir=tmp_path / "cache", workers=1, test_fraction=0.3, **SPACE)
    asked = {**options(tmp_path), "folds": 2, "workers": 1}
    assert pipeline.audit(**asked)[0].near_checked == "confirmed"
    photos.rename(tmp_path / "moved")
    alone, _ = pipeline.audit(**asked)
    assert (alone.near_checked, str(photos) in alone.near_note) == ("features", True)
    assert pipeline.audit(**asked, source=tmp_path / "moved")[0].near_checked == "confirmed"
    with pytest.raises(DataError, match="nowhere"):
        pipeline.audit(**asked, source=tmp_path / "nowhere")
    done = cli("audit", "--folds", 2, "--no-near")
    assert (done.code, "near ones not looked for" in done.out) == (0, True)


def test_what_cannot_be_is_refused(cli, faulty, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").touch()
    with pytest.raises(UsageError, match="neither an audit nor a learning curve"):
        pipeline.audit(**options(faulty), output=tmp_path / "mine")
    with pytest.raises(DataError, match="no audit at"):
        pipeline.read_audit(tmp_path / "mine")
    (tmp_path / "mine" / "audit.json").write_text("{}")
    with pytest.raises(DataError, match="damaged"):
        pipeline.read_audit(tmp_path / "mine")
    run = pipeline.train_head(**options(faulty), solver="centroid")
    with pytest.raises(DataError, match="was not measured on the test rows"):
        pipeline.audit(**options(faulty), run=run.run)
    make_entry(tmp_path / "cache", classes=(), labels=[-1] * 20)
    done = cli("audit")
    assert (done.code, "has no labels" in done.err) == (3, True)
