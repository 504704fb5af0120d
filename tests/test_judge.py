"""Which trained head tells what rounding does: the newest of the feature space that can be read."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from entries import SPACE, overwrite

from pipeline.heads.linear import LinearHead
from pipeline.judge import newest_judge
from pipeline.runs import Run, save_run
from pipeline.store.key import FeatureSpace

HALF = replace(SPACE, store_dtype="float16")
OTHER = replace(SPACE, weights="1" * 64)


def save(root: Path, seed: int = 0, space: FeatureSpace = SPACE, **body) -> Run:
    """A run of a head with random weights."""
    rng = np.random.default_rng(seed)
    weight, bias = (torch.from_numpy(rng.normal(size=shape).astype(np.float32)) for shape in ((3, 4), (3,)))
    head = LinearHead(weight, bias, ("apple", "beet", "corn"), space.to_json(), space.sha256)
    return save_run(root, "", {"space_sha256": space.sha256, **body}, head.to_files())


@pytest.mark.parametrize("name", ["nothing", "file", "empty"])
def test_without_runs_there_is_no_judge(tmp_path, name):
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "empty").mkdir()
    assert newest_judge(tmp_path / name, SPACE) is None


@pytest.mark.parametrize("asked", [SPACE, HALF], ids=["float32", "float16"])
@pytest.mark.parametrize("trained", [SPACE, HALF], ids=["on float32", "on float16"])
def test_a_head_of_the_space_judges_however_its_rows_are_stored(tmp_path, asked, trained):
    run = save(tmp_path, space=trained)
    save(tmp_path, space=OTHER)
    judge = newest_judge(tmp_path, asked)
    assert judge is not None
    assert judge.name == run.id


def test_a_head_of_another_space_is_no_judge(tmp_path):
    save(tmp_path, space=OTHER)
    save(tmp_path, space=replace(SPACE, row_shape=(5,)))
    assert newest_judge(tmp_path, SPACE) is None


def test_the_newest_run_judges(tmp_path):
    names = [save(tmp_path, seed).id for seed in range(12)]
    judge = newest_judge(tmp_path, SPACE)
    assert judge is not None
    assert judge.name == names[-1] == "0012"


@pytest.mark.parametrize("name", ["head.json", "head.safetensors", "run.json"])
@pytest.mark.parametrize("damage", [lambda path: overwrite(path, b"{}"), Path.unlink], ids=["damaged", "missing"])
def test_a_newer_run_that_is_damaged_is_passed_over(tmp_path, name, damage):
    good, bad = save(tmp_path), save(tmp_path, 1)
    damage(bad.path / name)
    judge = newest_judge(tmp_path, SPACE)
    assert judge is not None
    assert judge.name == good.id


def test_a_run_that_somebody_else_wrote_does_not_stop_an_extraction(tmp_path):
    good = save(tmp_path)
    save_run(tmp_path, "other", {"classes": ["apple"]}, {"head.bin": b"x"})
    judge = newest_judge(tmp_path, SPACE)
    assert judge is not None
    assert judge.name == good.id


@pytest.mark.parametrize("kind", ["float32", "float16"])
def test_predictions_are_the_largest_logits_of_rows_however_they_lie_in_memory(tmp_path, kind):
    save(tmp_path)
    judge = newest_judge(tmp_path, SPACE)
    assert judge is not None
    x = np.random.default_rng(1).normal(size=(50, 4)).astype(kind)
    logits = x.astype(np.float32) @ judge.head.weight.numpy().T + judge.head.bias.numpy()
    for rows in (x, np.asfortranarray(x)):
        found = judge.predictions(rows)
        assert (found == logits.argmax(axis=1)).all()
        assert found.dtype == np.int64
    assert len(judge.predictions(x[:0])) == 0
