"""What float16 costs: the same figures as numpy gives for both tables, and images named that do not fit."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import make_photos
from safetensors.torch import load_file, save_file

import pipeline
from pipeline.errors import DataError
from pipeline.extraction.precision import Rounding
from pipeline.heads.linear import LinearHead
from pipeline.judge import newest_judge
from pipeline.runs import save_run
from pipeline.store.entry import open_entry

WEIGHTS = Path(pipeline.__file__).parent / "data" / "shufflenet_v2_x0_5-cifar10.safetensors"
JOB = {
    **{"backbone": "shufflenet_v2_x0_5", "weights": str(WEIGHTS), "image_size": 32},
    **{"batch_size": 4, "shard_rows": 8, "workers": 1},
}
TINY = 2.0**-14
"""The smallest normal float16."""


def measured(exact: np.ndarray, stored: np.ndarray) -> tuple[float, float]:
    """Both errors, from their definitions."""
    gap = np.abs(stored.astype(np.float64) - exact)
    normal = np.abs(exact) >= TINY
    return float(gap.max(initial=0)), float((gap[normal] / np.abs(exact[normal].astype(np.float64))).max(initial=0))


class Sign:
    """Predicts whether the first feature is larger than a threshold."""

    name = "0007"

    def __init__(self, threshold: float) -> None:
        self.threshold = threshold

    def predictions(self, features: np.ndarray) -> np.ndarray:
        assert features.dtype == np.float32
        return (features[:, 0] > self.threshold).astype(np.int64)


@pytest.mark.parametrize("scale", [1e-9, 1e-6, 1e-4, 1.0, 1e4])
@pytest.mark.parametrize("shape", [(4,), (2, 3, 3)])
def test_errors_are_those_that_numpy_finds(scale, shape):
    exact = (np.random.default_rng(0).normal(size=(200, *shape)) * scale).astype(np.float32)
    exact[::7] = 0
    stored = exact.astype(np.float16)
    found = Rounding()
    found.add(exact, stored, None)
    assert (found.max_abs_error, found.max_relative_error) == pytest.approx(measured(exact, stored), rel=1e-6)
    assert found.max_relative_error <= 2.0**-11 * 1.001
    assert (found.rows, found.predictions_changed, found.judged_by) == (200, None, None)


def test_taking_rows_in_parts_or_merging_is_taking_them_at_once():
    exact = np.random.default_rng(0).normal(size=(90, 4)).astype(np.float32)
    stored, judge = exact.astype(np.float16), Sign(float(np.nextafter(np.float32(exact[5, 0]), np.float32(-9))))
    whole, parts, merged = Rounding(), Rounding(), Rounding()
    whole.add(exact, stored, judge)
    for first in range(0, 90, 16):
        span, one = slice(first, first + 16), Rounding()
        parts.add(exact[span], stored[span], judge)
        one.add(exact[span], stored[span], judge)
        merged.merge(Rounding(**json.loads(json.dumps(one.to_json()))))
    assert whole == parts == merged
    assert whole.judged_by == "0007"


def test_no_rows_cost_nothing():
    found = Rounding()
    found.add(np.empty((0, 4), np.float32), np.empty((0, 4), np.float16), Sign(0))
    found.merge(Rounding())
    assert found == Rounding(predictions_changed=0, judged_by="0007")


def test_changed_predictions_of_some_parts_are_counted():
    found = Rounding(rows=3)
    found.merge(Rounding(rows=2, predictions_changed=1, judged_by="0001"))
    found.merge(Rounding(rows=1))
    assert (found.rows, found.predictions_changed, found.judged_by) == (6, 1, "0001")


@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan, 1e6])
def test_features_that_do_not_fit_are_measured_without_a_warning(value):
    exact = np.array([[value, 1.0]], np.float32)
    with np.errstate(over="ignore"):
        stored = exact.astype(np.float16)
    Rounding().add(exact, stored, Sign(0))


# --- on real features ---


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """Photos and their features as float32 and float16 with trained weights."""
    root = tmp_path_factory.mktemp("precision")
    photos = make_photos(root / "photos", per_class=7)
    full = pipeline.extract(str(photos), cache_dir=root / "cache", **JOB)
    half = pipeline.extract(str(photos), cache_dir=root / "cache", store_dtype="float16", **JOB)
    return photos, full, half


def x_of(made) -> np.ndarray:
    return pipeline.open_cache(made.path).x.numpy()


def test_an_extraction_reports_the_errors_of_all_rows(both):
    _, full, half = both
    error, relative = measured(x_of(full), x_of(half))
    assert error > 0
    assert half.rounding is not None
    assert half.rounding["rows"] == 21
    assert half.rounding["max_abs_error"] == pytest.approx(error, rel=1e-6)
    assert half.rounding["max_relative_error"] == pytest.approx(relative, rel=1e-6)
    assert half.rounding["predictions_changed"] is half.rounding["judged_by"] is None
    assert open_entry(Path(half.path)).manifest["rounding"] == half.to_json()["rounding"] == half.rounding
    assert full.rounding is None
    assert "rounding" not in open_entry(Path(full.path)).manifest


def test_a_finished_entry_tells_what_its_rounding_was(both):
    photos, _, half = both
    again = pipeline.extract(str(photos), cache_dir=Path(half.path).parent, store_dtype="float16", **JOB)
    assert (again.computed, again.rounding) == (0, half.rounding)


def test_changed_predictions_of_a_trained_head_are_counted(both, tmp_path):
    photos, full, half = both
    exact, stored = x_of(full), x_of(half).astype(np.float32)
    row, column = np.unravel_index(np.abs(stored - exact).argmax(), exact.shape)
    middle = (exact[row, column] + stored[row, column]) / 2  # a class border between a feature and what is kept of it
    weight = torch.zeros(2, 1024)
    weight[1, column] = 1
    space = open_entry(Path(full.path)).space
    head = LinearHead(weight, torch.tensor([float(middle), 0.0]), ("a", "b"), space.to_json(), space.sha256)
    save_run(tmp_path / "runs", "border", {"space_sha256": space.sha256}, head.to_files())
    changed = int(((exact[:, column] > middle) != (stored[:, column] > middle)).sum())
    asked = []

    def find_judge(wanted):
        asked.append(wanted)
        return newest_judge(tmp_path / "runs", wanted)

    made = pipeline.extract(
        str(photos), cache_dir=tmp_path / "cache", store_dtype="float16", find_judge=find_judge, **JOB
    )
    assert made.rounding is not None
    assert made.rounding == {**half.rounding, "predictions_changed": changed, "judged_by": "0001-border"}
    assert changed >= 1
    assert [space.store_dtype for space in asked] == ["float16"]
    pipeline.extract(str(photos), cache_dir=tmp_path / "cache", find_judge=find_judge, **JOB)
    assert len(asked) == 1  # of float32 nobody is asked


@pytest.mark.parametrize("age", [-(10**18), 10**18], ids=["remembered", "too young to be remembered"])
def test_rows_of_an_interrupted_extraction_are_measured_too(both, tmp_path, monkeypatch, age):
    photos, _, half = both
    monkeypatch.setattr("pipeline.store.statindex.GRANULARITY_NS", age)

    def stop(progress):
        if progress.computed > 8:
            raise KeyboardInterrupt

    job = {"cache_dir": tmp_path, "store_dtype": "float16", **JOB}
    with pytest.raises(KeyboardInterrupt):
        pipeline.extract(str(photos), on_progress=stop, **job)
    made = pipeline.extract(str(photos), **job)
    assert 0 < made.computed < 21
    assert made.rounding == half.rounding


def test_rows_taken_from_the_cache_are_not_measured_again(both, tmp_path):
    photos, _, half = both
    (photos / "corn").rename(photos / "maize")
    try:
        made = pipeline.extract(str(photos), cache_dir=Path(half.path).parent, store_dtype="float16", **JOB)
    finally:
        (photos / "maize").rename(photos / "corn")
    assert made.computed == 0
    assert made.rounding is not None
    assert (made.rounding["rows"], made.rounding["max_abs_error"]) == (0, 0.0)


def scaled_weights(path: Path, factor: float) -> Path:
    """The weights with every feature times `factor`: the last scaling before the pooling is linear in it."""
    tensors = load_file(WEIGHTS)
    for name in ("conv5.1.weight", "conv5.1.bias"):
        tensors[name] = tensors[name] * factor
    save_file(tensors, path)
    return path


def test_an_image_whose_features_overflow_is_named_and_float32_takes_it(both, tmp_path):
    photos, full, _ = both
    largest = x_of(full).max(axis=1)
    second, first = np.sort(largest)[-2:]
    factor = 65520 / float(np.sqrt(first * second))
    weights = scaled_weights(tmp_path / "large.safetensors", factor)
    job = {**JOB, "weights": str(weights), "cache_dir": tmp_path / "cache"}
    with pytest.raises(DataError, match="1 rows have features that are not finite") as caught:
        pipeline.extract(str(photos), store_dtype="float16", **job)
    assert pipeline.open_cache(full.path).ids[int(largest.argmax())] in caught.value.message
    assert "use float32" in caught.value.hint
    assert not list((tmp_path / "cache").glob("*/entry.json"))
    assert pipeline.extract(str(photos), **job).rows == 21


def test_features_that_are_infinite_in_float32_already_are_named_too(both, tmp_path):
    weights = scaled_weights(tmp_path / "infinite.safetensors", float("inf"))
    job = {**JOB, "weights": str(weights), "cache_dir": tmp_path / "cache"}
    with pytest.raises(DataError, match="not finite"):
        pipeline.extract(str(both[0]), store_dtype="float16", **job)


def test_the_command_says_what_float16_costs_and_whom_it_asked(cli, both, tmp_path):
    photos, full, half = both
    options = ["--backbone", JOB["backbone"], "--weights", WEIGHTS, "--image-size", 32, "--workers", 1]
    wanted = f"float16 against float32 over 21 rows: largest error {half.rounding['max_abs_error']:.2e}, relative "
    made = cli("extract", photos, *options, "--store-dtype", "float16")
    assert made.code == 0, made.err
    assert wanted in made.err
    assert "no head of this feature space yet" in made.err
    pipeline.train_head(full.path, runs_dir=tmp_path / "elsewhere", epochs=1)
    made = cli("extract", photos, *options, "--store-dtype", "float16", "--restart", "--runs-dir", "elsewhere")
    assert wanted in made.err
    assert "of run 0001 changed" in made.err
    shown = cli("extract", photos, *options, "--store-dtype", "float16", "--json")
    assert json.loads(shown.out)["rounding"]["judged_by"] == "0001"
