"""Outcomes against scikit-learn, intervals that cover, paired tests against SciPy and by hand, temperatures."""

import numpy as np
import pytest
import torch
from scipy.special import softmax
from sklearn import metrics

from pipeline.calibration import Calibration, vote_smoothing
from pipeline.errors import DataError
from pipeline.heads.calibration import fit_temperature, fit_vote_temperature
from pipeline.intervals import METRICS, intervals, metric_of, resample, value_of
from pipeline.metrics import calibration_error, classification_metrics, per_class_metrics
from pipeline.outcomes import Outcomes, outcomes_of, read_outcomes, write_outcomes
from pipeline.paired import aligned, holm, mcnemar, standings
from pipeline.runs import record_evaluation, save_run


def made_up(n: int = 400, c: int = 4, seed: int = 0, lift: float = 1.5, temperature: float | None = None) -> Outcomes:
    rng = np.random.default_rng(seed)
    y = np.random.default_rng(99).integers(0, c, n)
    logits = rng.normal(0, 1, (n, c)).astype(np.float32)
    logits[np.arange(n), y] += lift
    return outcomes_of(
        logits,
        y,
        None if temperature is None else Calibration(temperature),
        classes=tuple("abcdefgh"[:c]),
        ids=tuple(map(str, range(n))),
        digests=digests(n),
    )


def digests(n: int) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (n, 32), dtype=np.uint8)


def logits_like(n: int, c: int, seed: int = 3) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    y = rng.integers(0, c, n)
    logits = rng.normal(0, 1, (n, c)).astype(np.float32)
    logits[np.arange(n), y] += 1
    return logits, y


def test_outcomes_hold_all_that_metrics_need():
    logits, y = logits_like(300, 8)
    names = tuple("abcdefgh")
    one = outcomes_of(logits, y, Calibration(2.0), classes=names, ids=tuple(map(str, range(300))), digests=digests(300))
    wanted = classification_metrics(logits, y, names)
    for metric in METRICS:
        assert value_of(one, metric) == pytest.approx(wanted[metric], abs=1e-12), metric
    assert (one.rank < 5).mean() == pytest.approx(wanted["top5_accuracy"])
    assert np.array_equal(one.rank == 0, one.right)
    shares = softmax(logits.astype(np.float64) / 2, axis=1)
    assert one.calibrated is not None
    assert one.calibrated.brier.mean() == pytest.approx(((shares - np.eye(8)[y]) ** 2).sum(1).mean())
    assert one.calibrated.nll.mean() == pytest.approx(metrics.log_loss(y, shares))
    assert one.calibrated.confidence == pytest.approx(shares.max(1))


def test_brier_of_two_classes_is_twice_scikit_learns():
    logits, y = logits_like(200, 2)
    found = classification_metrics(logits, y, ("a", "b"))["brier"]
    assert found == pytest.approx(2 * metrics.brier_score_loss(y, softmax(logits.astype(float), axis=1)[:, 1]))


def test_ties_are_broken_as_the_prediction_breaks_them():
    one = outcomes_of(
        np.zeros((2, 3)), np.array([0, 2]), None, classes=("a", "b", "c"), ids=("0", "1"), digests=digests(2)
    )
    assert one.rank.tolist() == [0, 2]
    assert one.right.tolist() == [True, False]


def test_metrics_of_a_resample_are_those_of_its_rows():
    one = made_up(60, 5)
    rows = np.random.default_rng(5).integers(0, 60, 60)
    weights = np.bincount(rows, minlength=60)[None]
    y, predicted = one.y[rows], one.predicted[rows]
    assert metric_of(one, "macro_f1")(weights)[0] == pytest.approx(
        metrics.f1_score(y, predicted, labels=np.unique(y), average="macro", zero_division=0.0)
    )
    assert metric_of(one, "balanced_accuracy")(weights)[0] == pytest.approx(
        metrics.recall_score(y, predicted, labels=np.unique(y), average="macro")
    )
    assert metric_of(one, "ece")(weights)[0] == pytest.approx(calibration_error(one.confidence[rows], one.right[rows]))


def test_intervals_hold_the_value_and_are_as_wide_as_theory_says():
    logits, y = logits_like(900, 6)
    one = outcomes_of(logits, y, None, classes=tuple("abcdef"), ids=("",) * 900, digests=digests(900))
    figures = classification_metrics(logits, y, tuple("abcdef"))
    found = intervals(one, figures)
    assert found["accuracy"] == figures["accuracy_ci95"]
    for name in (*METRICS[:-1], "top5_accuracy"):
        low, high = found[name]
        assert low < figures[name] < high, name
    low, high = found["nll"]
    assert (high - low) / 2 == pytest.approx(1.96 * one.nll.std() / 30, rel=0.1)
    assert found["ece"][0] >= 0
    assert intervals(one, figures) == found
    assert set(intervals(one.take(np.array([0])), figures)) == {"accuracy", "top5_accuracy"}


def test_interval_of_macro_f1_holds_the_truth_where_classes_are_many():
    rng, n, c = np.random.default_rng(4), 3000, 300
    y, other = rng.integers(0, c, n), rng.integers(0, c, n)
    logits = np.eye(c, dtype=np.float32)[np.where(rng.random(n) < 0.7, y, other)]
    truth = 0.7 + 0.3 / c  # all classes alike: precision and recall are this share
    one = outcomes_of(logits, y, None, classes=tuple(map(str, range(c))), ids=("",) * n, digests=digests(n))
    (drawn,) = resample(n, metric_of(one, "macro_f1"))
    assert np.quantile(drawn.values, 0.975) < truth
    low, high = drawn.interval()
    assert low < truth < high


def test_intervals_stay_in_the_range_of_their_metric():
    y = np.arange(40) % 4
    logits = 50 * np.eye(4, dtype=np.float32)[y]
    logits[0] = logits[1]
    names = tuple("abcd")
    one = outcomes_of(logits, y, None, classes=names, ids=("",) * 40, digests=digests(40))
    found = intervals(one, classification_metrics(logits, y, names))
    assert all(0 <= low <= high for low, high in found.values())
    assert all(found[name][1] <= 1 for name in ("balanced_accuracy", "macro_f1", "ece"))
    assert standings([[one]], "macro_f1")[0].interval == tuple(found["macro_f1"])


def test_bootstrap_p_is_small_only_for_what_is_not_zero():
    rng = np.random.default_rng(0)
    for shift, small in ((0.0, False), (0.5, True)):
        values = rng.normal(shift, 1, 200)
        (drawn,) = resample(200, lambda weights, values=values: weights @ values / 200)
        assert (drawn.p < 0.01) is small
        assert drawn.value == pytest.approx(values.mean())


def test_mcnemar_and_holm_by_hand():
    one, other = np.array([1, 1, 1, 1, 1, 0], bool), np.array([0, 0, 0, 0, 1, 0], bool)
    assert mcnemar(one, other) == pytest.approx(2 / 16)
    assert mcnemar(one, one) == 1
    assert holm([0.01, 0.04, 0.03, 0.5]) == pytest.approx([0.04, 0.09, 0.09, 0.5])
    assert holm([]) == []


def test_standings_are_paired_whatever_the_order_of_rows():
    good, bad = made_up(lift=2.5), made_up(lift=1.0, seed=7)
    shuffled = bad.take(np.random.default_rng(2).permutation(400))
    found = standings([[one] for one in aligned([bad, good], ["bad", "good"])], "accuracy")
    again = standings([[one] for one in aligned([shuffled, good], ["bad", "good"])], "accuracy")
    assert found == again
    worse, best = found
    assert best.difference is None
    assert worse.difference == pytest.approx(bad.right.mean() - good.right.mean())
    assert worse.difference_interval is not None
    assert worse.difference_interval[1] < 0
    assert worse.p == mcnemar(bad.right, good.right) < 0.001
    assert worse.p_holm == worse.p


def test_seeds_stand_by_their_mean():
    seeds, other = [made_up(seed=seed) for seed in range(3)], made_up(seed=9, lift=1.4)
    ordered = aligned([*seeds, other], ["0", "1", "2", "other"])
    for metric in ("accuracy", "nll"):
        group, _ = standings([ordered[:3], ordered[3:]], metric)
        assert group.value == pytest.approx(np.mean([value_of(one, metric) for one in seeds]))


def test_other_rows_are_refused_with_how_many_are_shared():
    one = made_up()
    with pytest.raises(DataError, match=r"400 and 300, of which 300"):
        aligned([one, one.take(np.arange(300))], ["0001", "0002"])


def test_outcomes_are_kept_and_damage_is_seen(tmp_path):
    run = save_run(tmp_path, "", {"metrics": None}, {})
    with pytest.raises(DataError, match="no evaluation 'test'") as error:
        read_outcomes(run)
    assert f"pipeline evaluate {run.path}" in error.value.hint
    with pytest.raises(DataError, match="no evaluation 'val-77c0'") as error:
        read_outcomes(run, "val-77c0")
    assert error.value.hint.endswith("--split val --cache 77c0")
    one = made_up(temperature=1.7)
    record_evaluation(run, "test", {"outcomes": write_outcomes(run, "test", one)})
    found = read_outcomes(run)
    assert (found.ids, found.classes) == (one.ids, one.classes)
    assert all(np.array_equal(getattr(found, name), getattr(one, name)) for name in ("digests", "y", "rank", "nll"))
    assert found.calibrated is not None
    assert found.calibrated.temperature == 1.7
    path = run.path / "evaluation-test.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.chmod(0o644)
    path.write_bytes(data)
    with pytest.raises(DataError, match="is not what evaluation-test.json was made of"):
        read_outcomes(run)


@pytest.mark.parametrize("factor", [0.2, 1.0, 5.0])
def test_temperature_is_found_again(factor):
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 2, (4000, 5))
    y = np.array([rng.choice(5, p=row) for row in softmax(logits, axis=1)])
    found = fit_temperature(torch.from_numpy(factor * logits), torch.from_numpy(y))
    assert found == pytest.approx(factor, rel=0.08)
    assert fit_vote_temperature(torch.from_numpy(factor * logits), torch.from_numpy(y)) == pytest.approx(
        factor, rel=0.06
    )


def test_smoothed_votes_are_one_vote_more_spread_over_all_classes():
    logits = np.log(np.array([[0.6, 0.4, 1e-30, 1e-30], [1.0, 1e-30, 1e-30, 1e-30]]))
    found = softmax(Calibration(smoothing=vote_smoothing(5)).scale(logits), axis=1)
    assert found == pytest.approx(np.array([[3.25, 2.25, 0.25, 0.25], [5.25, 0.25, 0.25, 0.25]]) / 6)
    assert np.array_equal(Calibration(2.0).scale(logits), logits / 2)


def test_rows_that_are_all_right_give_no_endless_certainty():
    logits, y = torch.tensor([[3.0, 0.0, 0.0]]).repeat(50, 1), torch.zeros(50, dtype=torch.int64)
    temperature = fit_temperature(logits, y)
    confidence = torch.softmax(logits / temperature, 1)[0, 0]
    assert confidence == pytest.approx(51 / 52, abs=1e-4)


def test_classes_are_scikit_learns():
    one = made_up(50, 4)
    table = per_class_metrics(one.y, one.predicted, one.classes)
    assert [row["class"] for row in table] == list(one.classes)
    assert sum(row["n"] for row in table) == 50
    wanted = metrics.f1_score(one.y, one.predicted, average=None)
    assert [row["f1"] for row in table] == pytest.approx(wanted)
