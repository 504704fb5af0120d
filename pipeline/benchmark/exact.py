"""(d) Logistic regression to its optimum against scikit-learn's."""

import warnings
from functools import partial
from typing import TYPE_CHECKING, Any

from pipeline.benchmark.features import features_of, standardized
from pipeline.benchmark.figures import SECONDS, TIMES, Claim, Figure
from pipeline.benchmark.timing import OnStep, interleaved, ratio, seconds_of, silent
from pipeline.heads.logistic import TOLERANCE, Optimum, solve_logistic

if TYPE_CHECKING:
    from torch import Tensor

MAX_ITERATIONS = 1_000
GOALS, ASKED = {"raw": 10.0, "standardised": 5.0}, (50_000, 1280, 10)
"""What is asked, and of which sizes."""
STRENGTHS = (1.0, 0.01)


def measure_exact(
    *,
    rows: int = 50_000,
    dim: int = 1280,
    classes: int = 10,
    max_iterations: int = MAX_ITERATIONS,
    repeats: int = 3,
    features: str = "",
    on_step: OnStep = silent,
) -> Claim:
    """Measure both on the same float32 features, for each C; the objective each reaches stands beside."""
    x, y, what = features_of(rows, dim, classes, features)
    rows, dim, classes = len(x), x.shape[1], int(y.max()) + 1
    goals = GOALS if (rows, dim, classes) == ASKED else {}
    figures: list[Figure] = []
    notes: list[str] = []
    for name, seen in (("raw", x), ("standardised", standardized(x))):
        for strength in STRENGTHS:
            solved: dict[str, Any] = {}
            work = {
                "ours": partial(_ours, seen, y, classes, strength, solved),
                "scikit-learn": partial(_scikit, seen, y, strength, max_iterations, solved),
            }
            on_step(f"{name}, C = {strength:g}")
            found = interleaved({key: seconds_of(one) for key, one in work.items()}, repeats, on_step)
            label = f"{name}, C = {strength:g}"
            times = ratio(found["scikit-learn"], found["ours"])
            figures += [
                Figure(f"{label}: exact", SECONDS, found["ours"]),
                Figure("  scikit-learn", SECONDS, found["scikit-learn"]),
                Figure("  how many times sooner", TIMES, times, goals.get(name)),
            ]
            notes.append(_said(label, seen, y, strength, solved, max_iterations))
    conditions = {"rows": rows, "dim": dim, "classes": classes, "max_iterations": max_iterations, "repeats": repeats}
    title = f"logistic regression to its optimum · {rows:,} x {dim:,} x {classes} · {what}"
    return Claim("d", title, tuple(figures), conditions, tuple(notes))


def _ours(x: "Tensor", y: "Tensor", classes: int, strength: float, solved: dict[str, Any]) -> None:
    solved["ours"] = solve_logistic(x, y, classes, 1 / (strength * len(x)))


def _scikit(x: "Tensor", y: "Tensor", strength: float, max_iterations: int, solved: dict[str, Any]) -> None:
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # the note says how far it came
        solved["scikit-learn"] = LogisticRegression(C=strength, max_iter=max_iterations).fit(x.numpy(), y.numpy())


def _said(label: str, x: "Tensor", y: "Tensor", strength: float, solved: dict[str, Any], most: int) -> str:
    """Return what both reached."""
    import torch
    from torch.nn import functional

    optimum: Optimum = solved["ours"]
    other = solved["scikit-learn"]
    weight, bias = torch.from_numpy(other.coef_).double(), torch.from_numpy(other.intercept_).double()
    loss = sum(
        float(functional.cross_entropy(part.double() @ weight.T + bias, labels, reduction="sum"))
        for part, labels in zip(x.split(8192), y.split(8192), strict=True)
    )
    theirs = loss / len(x) + float(weight.square().sum()) / (2 * strength * len(x))
    iterations = int(other.n_iter_[0])
    capped = " (the cap)" if iterations >= most else ""
    return (
        f"{label}: objective {optimum.objective:.8f} in {optimum.products} products, gradient "
        f"{optimum.gradient_norm_ratio:.1e} of the start's (asked {TOLERANCE:.0e}); scikit-learn {theirs:.8f} in "
        f"{iterations:,} iterations{capped}"
    )
