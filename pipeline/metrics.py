"""Metrics of a classifier from logits and labels: scikit-learn's, and three it lacks."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

ECE_BINS = 15
MATRIX_CLASSES = 100
"""Classes up to which a confusion matrix is given: one of 1,000 has a million numbers, nearly all of them 0."""
MOST_CONFUSIONS = 10_000
Z_95 = 1.959963984540054


def classification_metrics(logits: np.ndarray, y: np.ndarray, classes: tuple[str, ...]) -> dict[str, Any]:
    """Return all metrics of logits (n, c) for labels (n,), as plain JSON fields.

    Balanced accuracy and macro-F1 average over the classes that occur in `y`. Top-5 accuracy is 1 where there
    are at most five classes. NLL is taken from the logits: scikit-learn's log_loss clips probabilities.
    `confusions` are [true, predicted, rows] of errors, the most frequent first; `confusion_matrix` is None for more
    than MATRIX_CLASSES classes.
    """
    from scipy.special import log_softmax, softmax
    from sklearn import metrics

    labels = np.arange(len(classes))
    scores = logits.astype(np.float64)
    probabilities = softmax(scores, axis=1)
    predicted = logits.argmax(axis=1)
    present = np.unique(y)
    accuracy = float((predicted == y).mean())
    recall = metrics.recall_score(y, predicted, labels=present, average="macro", zero_division=0.0)
    top5 = metrics.top_k_accuracy_score(y, probabilities, k=5, labels=labels) if len(classes) > 5 else 1.0
    return {
        "accuracy": accuracy,
        "accuracy_ci95": list(wilson_interval(int((predicted == y).sum()), len(y))),
        "balanced_accuracy": float(recall),
        "top5_accuracy": float(top5),
        "macro_f1": float(metrics.f1_score(y, predicted, labels=present, average="macro", zero_division=0.0)),
        "nll": float(-log_softmax(scores, axis=1)[np.arange(len(y)), y].mean()),
        "brier": float(((probabilities - np.eye(len(classes))[y]) ** 2).sum(axis=1).mean()),
        "ece": expected_calibration_error(probabilities, y),
        "confusion_matrix": metrics.confusion_matrix(y, predicted, labels=labels).tolist()
        if len(classes) <= MATRIX_CLASSES
        else None,
        "confusions": confusions(y, predicted),
        "classes": list(classes),
    }


def confusions(y: np.ndarray, predicted: np.ndarray) -> list[list[int]]:
    """Return [true, predicted, rows] of the most frequent errors, by labels and predictions (n,)."""
    wrong = predicted != y
    pairs, counts = np.unique(np.stack([y[wrong], predicted[wrong]], axis=1), axis=0, return_counts=True)
    order = np.argsort(-counts, kind="stable")[:MOST_CONFUSIONS]
    return [[*pair, n] for pair, n in zip(pairs[order].tolist(), counts[order].tolist(), strict=True)]


def wilson_interval(right: int, n: int) -> tuple[float, float]:
    """Return the 95 % score interval of a proportion: E. B. Wilson, JASA 22 (1927) 209."""
    share, z2 = right / n, Z_95**2
    centre = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = Z_95 / (1 + z2 / n) * math.sqrt(share * (1 - share) / n + z2 / (4 * n * n))
    return max(0.0, centre - half), min(1.0, centre + half)


def expected_calibration_error(probabilities: np.ndarray, y: np.ndarray) -> float:
    """Return the calibration error of probabilities (n, c) for labels (n,): see `calibration_error`."""
    return calibration_error(probabilities.max(axis=1), probabilities.argmax(axis=1) == y)


def calibration_error(confidence: np.ndarray, right: np.ndarray) -> float:
    """Return the mean gap between confidence and accuracy over 15 equal-width bins, weighted by their size.

    Guo et al., "On Calibration of Modern Neural Networks" (ICML 2017), equation 3.
    """
    gaps = np.bincount(confidence_bins(confidence), right - confidence, ECE_BINS)
    return float(np.abs(gaps).sum() / len(right))


@dataclass(frozen=True)
class ReliabilityBin:
    """The rows of one bin of confidence."""

    bin: int
    n: int
    accuracy: float
    confidence: float
    """The mean."""


def reliability_bins(confidence: np.ndarray, right: np.ndarray) -> list[ReliabilityBin]:
    """Return the bins that have rows of a reliability diagram.

    Args:
        confidence: probability of the predicted class (n,).
        right: whether it was the true one (n,) bool.
    """
    bins = confidence_bins(confidence)
    count = np.bincount(bins, minlength=ECE_BINS)
    hits, sums = np.bincount(bins, right, ECE_BINS), np.bincount(bins, confidence, ECE_BINS)
    return [
        ReliabilityBin(b, int(count[b]), float(hits[b] / count[b]), float(sums[b] / count[b]))
        for b in np.flatnonzero(count).tolist()
    ]


def confidence_bins(confidence: np.ndarray) -> np.ndarray:
    """Return the bin (n,) int64 of each probability (n,)."""
    return np.minimum((confidence * ECE_BINS).astype(np.int64), ECE_BINS - 1)


def per_class_metrics(y: np.ndarray, predicted: np.ndarray, classes: tuple[str, ...]) -> list[dict[str, Any]]:
    """Return for each class that occurs in labels or predictions (n,): `class`, `n`, `precision`, `recall`, `f1`.

    Precision of a class that was never predicted is 0, and so is recall of one without rows.
    """
    from sklearn.metrics import precision_recall_fscore_support

    places = np.union1d(y, predicted)
    found = precision_recall_fscore_support(y, predicted, labels=places, zero_division=0.0)
    names = ("precision", "recall", "f1")
    return [
        {
            "class": classes[place],
            "n": int(n),
            **{name: float(share) for name, share in zip(names, shares, strict=True)},
        }
        for place, n, shares in zip(places.tolist(), found[3], np.stack(found[:3], axis=1), strict=True)
    ]
