"""Metrics of a run, classes matched by name, spaces kept apart, and the end-to-end proof."""

import errno
import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from conftest import SPACE, make_image, make_photos

import pipeline
from pipeline.errors import CacheError, DataError, UsageError
from pipeline.runs import open_run, read_evaluations


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A source with two splits, its entry, and a run."""
    root = tmp_path_factory.mktemp("evaluation")
    make_photos(root / "photos" / "train", per_class=8)
    make_photos(root / "photos" / "test", per_class=7)
    made = pipeline.extract(str(root / "photos"), cache_dir=root / "cache", workers=1, **SPACE)
    run = pipeline.train_head(made.path, runs_dir=root / "runs", epochs=3)
    return root, made, run


def evaluate(root: Path, run, **changes):
    return pipeline.evaluate(run.path, cache_dir=root / "cache", runs_dir=root / "runs", workers=1, **changes)


def test_metrics_are_those_of_the_head_on_the_test_rows(trained):
    root, made, run = trained
    result = evaluate(root, run)
    features = pipeline.open_cache(made.path)
    x, y = features.numpy("test")
    predicted = run.head.logits(torch.from_numpy(x)).argmax(1).numpy()
    assert (result.n, result.split) == (21, "test")
    assert result.metrics["accuracy"] == (predicted == y).mean()
    low, high = result.metrics["accuracy_ci95"]
    assert low <= result.metrics["accuracy"] <= high
    wanted = {"accuracy", "accuracy_ci95", "balanced_accuracy", "top5_accuracy", "macro_f1", "nll", "ece"}
    assert wanted <= set(result.metrics)


def test_end_to_end_decodes_afresh_and_agrees(trained):
    root, _, run = trained
    result = evaluate(root, run, end_to_end=True)
    assert result.end_to_end is not None
    assert result.end_to_end.holds
    assert result.end_to_end.prediction_agreement == 1.0
    assert result.end_to_end.max_abs_logit_difference <= 1e-4
    assert result.end_to_end.accuracy == result.metrics["accuracy"]
    assert read_evaluations(open_run(Path(run.path)))["test"]["end_to_end"] == result.end_to_end.to_json()


def test_end_to_end_refuses_images_that_changed(trained, tmp_path):
    root, _, run = trained
    copy = shutil.copytree(root / "photos", tmp_path / "photos")
    make_image(4321).save(copy / "test" / "beet" / "03.jpg")
    with pytest.raises(DataError, match=r"test/beet/03\.jpg has changed"):
        evaluate(root, run, end_to_end=True, source=str(copy))
    (copy / "test" / "beet" / "03.jpg").unlink()
    with pytest.raises(DataError, match=r"test/beet/03\.jpg cannot be used any more: it cannot be opened"):
        evaluate(root, run, end_to_end=True, source=str(copy))
    with pytest.raises(DataError, match="no folder") as error:
        evaluate(root, run, end_to_end=True, source=str(tmp_path / "gone" / "away"))
    assert "--source" in error.value.hint


def test_classes_are_matched_by_name_not_by_position(trained, tmp_path):
    root, _, run = trained
    shutil.copytree(root / "photos" / "test" / "corn", tmp_path / "other" / "test" / "corn")
    shutil.copytree(root / "photos" / "test" / "apple", tmp_path / "other" / "test" / "apple")
    made = pipeline.extract(str(tmp_path / "other"), cache_dir=root / "cache", workers=1, **SPACE)
    assert made.computed == 0
    result = evaluate(root, run, cache=made.path)
    full = evaluate(root, run)
    assert result.n == 14
    matrix, small = full.metrics["confusion_matrix"], result.metrics["confusion_matrix"]
    assert small == [matrix[0], [0, 0, 0], matrix[2]]


def test_unknown_classes_are_named(trained, tmp_path):
    root, _, run = trained
    shutil.copytree(root / "photos" / "test" / "corn", tmp_path / "other" / "test" / "kale")
    shutil.copytree(root / "photos" / "test" / "apple", tmp_path / "other" / "test" / "apple")
    made = pipeline.extract(str(tmp_path / "other"), cache_dir=root / "cache", workers=1, **SPACE)
    with pytest.raises(DataError, match="kale"):
        evaluate(root, run, cache=made.path)


def test_another_space_of_equal_width_is_refused(trained):
    root, _, run = trained
    other = pipeline.extract(str(root / "photos"), cache_dir=root / "cache", workers=1, **{**SPACE, "mean": (0.5,)})
    with pytest.raises(DataError, match=r"another feature space.*preprocess"):
        evaluate(root, run, cache=other.path)


def test_missing_split_names_those_there_are(trained):
    root, _, run = trained
    with pytest.raises(DataError, match=r"no val split; it has train \(24\), test \(21\)"):
        evaluate(root, run, split="val")
    with pytest.raises(UsageError, match="unknown split"):
        evaluate(root, run, split="dev")


def test_entry_that_is_gone_is_said_with_the_way_out(trained, tmp_path):
    root, made, _ = trained
    copy = Path(shutil.copytree(made.path, tmp_path / "cache" / made.cache))
    run = pipeline.train_head(copy, runs_dir=tmp_path / "runs", epochs=1)
    shutil.rmtree(copy)
    with pytest.raises(CacheError, match="which is gone") as error:
        pipeline.evaluate(run.path, cache_dir=tmp_path / "cache", runs_dir=tmp_path / "runs")
    assert "pipeline extract" in error.value.hint
    found = pipeline.evaluate(run.path, cache_dir=root / "cache", runs_dir=tmp_path / "runs")
    assert found.n == 21


def test_damaged_head_is_refused(trained, tmp_path):
    root, _, run = trained
    copy = Path(shutil.copytree(run.path, tmp_path / "0001"))
    body = json.loads((copy / "head.json").read_text())
    body["classes"].reverse()
    (copy / "head.json").chmod(0o644)
    (copy / "head.json").write_text(json.dumps(body))
    with pytest.raises(DataError, match=r"head\.json is damaged"):
        pipeline.evaluate(copy, cache_dir=root / "cache", runs_dir=tmp_path)


@pytest.mark.parametrize("code", [errno.EACCES, errno.EROFS, errno.ENOSPC, errno.EIO])
def test_a_result_that_cannot_be_kept_is_returned_all_the_same(trained, tmp_path, monkeypatch, caplog, code):
    root, _, run = trained
    wanted = evaluate(root, run)
    copy = Path(shutil.copytree(run.path, tmp_path / "0001"))
    before = sorted(path.name for path in copy.iterdir())

    def refuse(*_, **__):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "replace", refuse)
    found = pipeline.evaluate(copy, cache_dir=root / "cache", runs_dir=tmp_path)
    assert found.metrics == wanted.metrics
    assert "the result is not kept" in caplog.text
    assert sorted(path.name for path in copy.iterdir()) == before
