"""An audit of data that is worse than usual: copies on both sides of a fold, features without a size, odd names."""

import csv
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import BACKBONE
from entries import at, make_entry, tamper

import pipeline
from pipeline.auditing.duplicates import Pair
from pipeline.auditing.judging import judge
from pipeline.auditing.labels import confident_joint
from pipeline.auditing.leaks import find_leaks
from pipeline.auditing.near import MOST, near_duplicates
from pipeline.csvtext import csv_text
from pipeline.errors import DataError, UsageError
from pipeline.features import Features
from pipeline.findings import CURVE, check_findings, read_finding, write_finding
from pipeline.selection import choose_folds

N = 120


def features_of(n=N, **fields):
    """Rows of three classes that nothing tells apart; one image each."""
    rng = np.random.default_rng(0)
    x = torch.from_numpy(rng.normal(size=(n, 4)).astype(np.float32))
    digests = rng.integers(0, 256, (n, 32), np.uint8)
    made = Features(x, torch.arange(n) % 3, ("a", "b", "c"), [f"{row}.jpg" for row in range(n)], digests=digests)
    return replace(made, **fields)


def twice(n=N):
    """Digests in which row i + n/2 is the image of row i."""
    digests = np.random.default_rng(1).integers(0, 256, (n // 2, 32), np.uint8)
    return np.concatenate([digests, digests])


def test_an_image_in_two_groups_is_not_judged_by_a_head_that_saw_it():
    features = features_of(digests=twice(), groups=[f"patient {row % 60 + 60 * (row >= 60)}" for row in range(N)])
    folds = choose_folds(features, 5)
    assert sorted(np.concatenate([fold.val for fold in folds]).tolist()) == list(range(N))
    for fold in folds:
        assert not set(fold.train % 60) & set(fold.val % 60)
    assert len(folds[0].train) < N - len(folds[0].val)


def test_a_test_row_is_not_judged_by_a_head_that_saw_its_copy():
    """One test row of class a has a copy in train: what is said of it does not depend on the copy's label."""
    x = torch.randn(N, 4)
    split = np.array(["train"] * 100 + ["test"] * 20)
    digests = features_of().digests
    digests[110] = digests[5]
    said = []
    for label in (0, 1):
        y = torch.arange(N) % 3
        y[5] = label
        said.append(judge(features_of(x=x, y=y, split=split, digests=digests), folds=2)[1])
    assert np.array_equal(said[0].probabilities, said[1].probabilities)
    # Where train has nothing else nobody can judge.
    copied = judge(features_of(split=np.array(["train"] * 60 + ["test"] * 60), digests=twice()), folds=2)
    assert len(copied[0].rows) == 60
    assert len(copied[1].rows) == 0


def test_an_exact_copy_is_called_one_even_if_another_test_row_comes_first():
    features = features_of(4, split=np.array(["test", "test", "train", "test"]))
    pairs = [Pair(0, 1, "exact", 1.0, 0.0), Pair(0, 2, "exact", 1.0, 0.0), Pair(1, 3, "copy", 0.9, 0.01)]
    assert [(one.id, one.kind, one.of) for one in find_leaks(features, pairs)] == [
        ("0.jpg", "exact", "2.jpg"),
        ("1.jpg", "exact", "2.jpg"),
        ("3.jpg", "chain", "2.jpg"),
    ]


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e25])
def test_features_without_a_size_are_refused_and_named(tmp_path, value):
    """Also those of a test row, which no head would see."""
    tamper(make_entry(tmp_path / "cache"), at(4, lambda row: row * 0 + value))
    with pytest.raises(DataError, match=r"the features of 0004.jpg are not finite"):
        pipeline.audit(cache_dir=tmp_path / "cache", runs_dir=tmp_path / "runs", folds=2)


def test_names_mean_nothing_to_terminals_and_csv(cli, tmp_path):
    ids = [f"a\rb[/b],{row}\n\x1b[31m.jpg" for row in range(20)]
    classes = ("[/b]", "=1+1", "[red]x")
    make_entry(
        tmp_path / "cache",
        ids=ids,
        seeds=[row // 2 for row in range(20)],
        labels=[0] * 9 + [1] * 8 + [2] * 3,
        classes=classes,
    )
    done = cli("audit", "--folds", 2, "--no-near", "-o", "[b]lists")
    assert done.code == 0
    assert ("[/b] 8 train images" in done.out, "[red]x 2 (4.0 : 1)" in done.out) == (True, True)
    assert "[b]lists" in done.out
    assert "\x1b" not in done.out
    with (tmp_path / "[b]lists" / "duplicates.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["b"] for row in rows} == set(ids[1::2])


def test_csv_is_read_as_it_was_written():
    rows = [["a\rb", "c", "1"], ["d\ne", '"', ","]]
    assert list(csv.reader(csv_text(["x", "y", "z"], rows).splitlines(keepends=True)))[1:] == rows
    assert csv_text(["x"], [["a"]]) == "x\na\n"


def test_pairs_that_are_no_copies_are_listed_up_to_a_number():
    x = torch.cat([torch.ones(300, 4), -torch.ones(300, 4)]) + 0.01 * torch.randn(600, 4)
    found = near_duplicates(Features(x, torch.zeros(600, dtype=torch.int64), ("all",)), None)
    assert len(found) == MOST
    assert [(one.a, one.b) for one in found] == sorted((one.a, one.b) for one in found)


def test_what_a_large_entry_has_can_be_read_back(tmp_path):
    write_finding(tmp_path, CURVE, {"points": [0] * 1_000_100})
    assert len(read_finding(tmp_path, CURVE)["points"]) == 1_000_100


def test_folders_that_cannot_be_are_refused_before_any_work(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="file is no folder"):
        check_findings(tmp_path / "file" / "lists")
    check_findings(tmp_path / "new" / "lists")


def test_copies_are_shown_before_pairs_that_are_none(cli, tmp_path):
    seeds = [0, 0, *range(2, 40)]
    tamper(make_entry(tmp_path / "cache", seeds=seeds), lambda features, rows: features.__imul__(1e-4))
    out = cli("audit", "--folds", 2).out
    assert out.index("exact") < out.index("unconfirmed")
    assert json.loads(cli("audit", "--folds", 2, "--json").out)["duplicates"]


def test_rows_of_equal_probabilities_count_to_their_class():
    p = np.array([[0.1, 0.9]] * 3 + [[0.05, 0.95]] * 5)
    assert p[:3, 0].mean() > 0.1  # by rounding
    assert (confident_joint(p, np.array([0] * 3 + [1] * 5)).counted >= 0).all()
    assert confident_joint(np.array([[0.1, 0.0]] * 3), np.zeros(3, int)).counted.tolist() == [0, 0, 0]


def test_an_image_that_is_gone_does_not_end_all_auditing(cli, photos):
    assert cli("extract", photos, *BACKBONE, "--workers", 1).code == 0
    next(photos.glob("*/*.jpg")).unlink()
    done = cli("audit", "--folds", 2, "--workers", 1)
    assert done.code == 3
    assert "With --no-near no image is read." in done.err
    assert cli("audit", "--folds", 2, "--no-near", "-q").code == 0


def test_runs_whose_outcomes_are_gone_are_passed_over_unless_asked_for(tmp_path):
    places = {"cache_dir": tmp_path / "cache", "runs_dir": tmp_path / "runs"}
    make_entry(tmp_path / "cache", seeds=[0 if row == 4 else row for row in range(40)])
    runs = [pipeline.train_head(**places, solver="centroid") for _ in range(2)]
    for one in runs:
        pipeline.evaluate(one.run, **places)
    (tmp_path / "runs" / runs[1].run / "evaluation-test.safetensors").unlink()
    result, _ = pipeline.audit(**places, folds=2, near=False)
    assert result.effect is not None
    assert result.effect.run == runs[0].run
    with pytest.raises(DataError, match="is not there"):
        pipeline.audit(**places, folds=2, near=False, run=runs[1].run)
