"""Metrics against scikit-learn, and the two it lacks against known values."""

import json

import numpy as np
import pytest
import torch
from sklearn import metrics

from pipeline.metrics import classification_metrics, expected_calibration_error, wilson_interval


def made_up(n: int, c: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
    rng = np.random.default_rng(seed)
    y = rng.choice(c, n, p=np.arange(1, c + 1) / np.arange(1, c + 1).sum())
    logits = rng.normal(0, 1, (n, c)).astype(np.float32)
    logits[np.arange(n), y] += 1.2
    return logits, y, tuple(f"class {index}" for index in range(c))


@pytest.mark.parametrize("c", [2, 3, 5, 8])
def test_metrics_are_scikit_learns(c):
    logits, y, classes = made_up(400, c)
    found = classification_metrics(logits, y, classes)
    predicted = logits.argmax(1)
    probabilities = torch.softmax(torch.from_numpy(logits).double(), 1).numpy()
    assert found["accuracy"] == pytest.approx(metrics.accuracy_score(y, predicted))
    assert found["balanced_accuracy"] == pytest.approx(metrics.balanced_accuracy_score(y, predicted))
    assert found["macro_f1"] == pytest.approx(metrics.f1_score(y, predicted, average="macro"))
    assert found["nll"] == pytest.approx(metrics.log_loss(y, probabilities), rel=1e-9)
    assert found["nll"] == pytest.approx(
        float(torch.nn.functional.cross_entropy(torch.from_numpy(logits).double(), torch.from_numpy(y))), rel=1e-9
    )
    assert found["confusion_matrix"] == metrics.confusion_matrix(y, predicted).tolist()
    assert all(found["confusion_matrix"][true][said] == n for true, said, n in found["confusions"])
    assert sum(n for _, _, n in found["confusions"]) == (predicted != y).sum()
    top5 = np.mean([label in np.argsort(row)[-5:] for row, label in zip(logits, y, strict=True)])
    assert found["top5_accuracy"] == pytest.approx(top5)
    assert found["classes"] == list(classes)
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert 0.3 < found["accuracy"] < 1


def test_classes_that_do_not_occur_are_not_averaged_over_but_keep_their_row():
    logits = np.eye(7, dtype=np.float32)[[0, 0, 3, 6]] * 4
    y = np.array([0, 0, 3, 3])
    found = classification_metrics(logits, y, tuple("abcdefg"))
    assert found["accuracy"] == 0.75
    assert found["balanced_accuracy"] == 0.75
    assert found["macro_f1"] == pytest.approx((1 + 2 / 3) / 2)
    assert np.array(found["confusion_matrix"]).shape == (7, 7)
    assert found["confusion_matrix"][3][6] == 1


def test_one_row_of_one_class_has_metrics():
    found = classification_metrics(np.array([[0.0, 2.0, 1.0]], np.float32), np.array([1]), ("a", "b", "c"))
    assert found["accuracy"] == found["balanced_accuracy"] == found["macro_f1"] == found["top5_accuracy"] == 1.0
    assert found["accuracy_ci95"][0] < 0.3


def test_loss_of_a_confident_mistake_is_its_cross_entropy():
    found = classification_metrics(np.array([[100.0, 0.0], [0.0, 1.0]], np.float32), np.array([1, 1]), ("a", "b"))
    assert found["nll"] == pytest.approx((100 + np.log1p(np.exp(-1))) / 2, rel=1e-6)


@pytest.mark.parametrize(
    ("right", "n", "low", "high"),
    [
        (0, 10, 0.0, 0.2775328),  # Newcombe 1998 and R's prop.test(correct = FALSE)
        (10, 10, 0.7224672, 1.0),
        (81, 263, 0.2552912, 0.3662237),  # Newcombe, Statistics in Medicine 17 (1998), table I: 0.2553, 0.3662
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
        (5, 10, 0.2365931, 0.7634069),
    ],
)
def test_wilson_interval_has_known_values(right, n, low, high):
    assert wilson_interval(right, n) == pytest.approx((low, high), abs=6e-5)


def test_wilson_interval_holds_the_share_and_narrows():
    for right in range(0, 51, 5):
        low, high = wilson_interval(right, 50)
        assert 0 <= low <= right / 50 <= high <= 1
    assert wilson_interval(5000, 10_000)[1] - wilson_interval(5000, 10_000)[0] < 0.02


def test_calibration_error_is_the_mean_gap_of_its_bins():
    rng = np.random.default_rng(0)
    probabilities = rng.dirichlet(np.ones(4) * 0.5, 500)
    y = rng.integers(0, 4, 500)
    confidence, right = probabilities.max(1), probabilities.argmax(1) == y
    expected = 0.0
    for index in range(15):
        inside = (confidence > index / 15) & (confidence <= (index + 1) / 15)
        if inside.any():
            expected += inside.mean() * abs(right[inside].mean() - confidence[inside].mean())
    assert expected_calibration_error(probabilities, y) == pytest.approx(expected)
    assert expected > 0.1


def test_calibration_error_of_simple_cases():
    assert expected_calibration_error(np.array([[1.0, 0.0], [0.0, 1.0]]), np.array([0, 1])) == 0
    assert expected_calibration_error(np.array([[1.0, 0.0], [0.0, 1.0]]), np.array([1, 0])) == 1
    four = np.array([[0.75, 0.25]] * 4)
    assert expected_calibration_error(four, np.array([0, 0, 0, 1])) == pytest.approx(0)
    assert expected_calibration_error(four, np.array([0, 0, 1, 1])) == pytest.approx(0.25)


def test_of_many_classes_only_the_errors_are_listed():
    random = np.random.default_rng(0)
    c, y = 1200, np.repeat(np.arange(1200), 2)
    logits = random.normal(size=(len(y), c)).astype(np.float32)
    logits[np.arange(len(y)), y] += 6
    logits[0] = logits[1] = np.eye(c)[7] * 20  # both images of class 0 taken for class 7
    found = classification_metrics(logits, y, tuple(map(str, range(c))))
    predicted = logits.argmax(axis=1)
    assert found["confusion_matrix"] is None
    assert found["confusions"][0] == [0, 7, 2]
    assert sum(n for _, _, n in found["confusions"]) == (predicted != y).sum()
    assert all(true != said for true, said, _ in found["confusions"])
    assert found["confusions"] == sorted(found["confusions"], key=lambda one: (-one[2], one[0], one[1]))
