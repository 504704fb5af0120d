"""How a head is trained, as one value; the defaults are the reference experiment's recipe."""

import math
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, get_args

from pipeline.errors import UsageError

Solver = Literal["minibatch", "exact", "ridge", "knn", "centroid"]
Optimizer = Literal["adam", "adamw", "sgd"]
ClassWeight = Literal["none", "balanced"]
Sampling = Literal["shuffled", "balanced"]
Schedule = Literal["constant", "cosine"]

OF_ALL = {"solver", "seed", "standardize", "l2_norm"}
OF_MINIBATCH = {
    *("optimizer", "lr", "epochs", "batch_size", "weight_decay", "momentum", "dropout", "hidden", "class_weight"),
    *("sampling", "label_smoothing", "schedule", "early_stopping"),
}
OF_SOLVER: dict[str, set[str]] = {
    "minibatch": OF_MINIBATCH,
    "exact": {"c", "class_weight"},
    "ridge": {"alpha"},
    "knn": {"k", "temperature"},
    "centroid": set(),
}
"""Which fields play a part."""


@dataclass(frozen=True)
class HeadSettings:
    """The recipe. A field that plays no part with the solver must be left at its default."""

    optimizer: Optimizer = "adam"
    lr: float = 1e-3
    epochs: int = 5
    batch_size: int = 64
    weight_decay: float = 0.0
    momentum: float = 0.0
    """Of SGD."""
    dropout: float = 0.0
    """Share of features zeroed in training; with `hidden` of hidden units."""
    seed: int = 0
    solver: Solver = "minibatch"
    standardize: bool = False
    """Features minus the train rows' mean, over their standard deviation."""
    l2_norm: bool = False
    """Features over their Euclidean length, before anything else."""
    hidden: int = 0
    """Units of one hidden layer; 0 for a linear head."""
    class_weight: ClassWeight = "none"
    """`balanced`: the loss of a class counts n / (c n_class) times."""
    sampling: Sampling = "shuffled"
    """`balanced`: batches are drawn with replacement, every class equally often."""
    label_smoothing: float = 0.0
    schedule: Schedule = "constant"
    """`cosine`: the rate falls to 0 over all steps."""
    early_stopping: int = 0
    """Epochs without a lower validation loss before training ends with the best epoch's weights; 0 for never."""
    c: float = 1.0
    """Of the exact solver, scikit-learn's C: C times the sum of losses plus half the squared norm of the weights."""
    alpha: float | None = None
    """Of ridge: squared errors plus alpha times the squared norm. None: the best of a path on validation rows."""
    k: int = 20
    """Of k-NN: neighbours."""
    temperature: float = 0.07
    """Of k-NN: a neighbour's vote weighs exp(cosine / temperature)."""

    def __post_init__(self) -> None:
        for name, kind in CHOICES.items():
            if getattr(self, name) not in get_args(kind):
                known = ", ".join(get_args(kind))
                raise UsageError(f"unknown {name.replace('_', '-')} {getattr(self, name)!r}", f"Known: {known}")
        checks = {
            "lr must be above 0 and finite": 0 < self.lr < math.inf,
            "epochs must be at least 1": self.epochs >= 1,
            "batch-size must be at least 1": self.batch_size >= 1,
            "weight-decay must be at least 0 and finite": 0 <= self.weight_decay < math.inf,
            "momentum must be at least 0 and below 1": 0 <= self.momentum < 1,
            "momentum goes with --optimizer sgd": not self.momentum or self.optimizer == "sgd",
            "dropout must be at least 0 and below 1": 0 <= self.dropout < 1,
            "seed must be at least 0": 0 <= self.seed < 2**63,
            "hidden must be at least 0": self.hidden >= 0,
            "label-smoothing must be at least 0 and below 1": 0 <= self.label_smoothing < 1,
            "early-stopping must be at least 0": self.early_stopping >= 0,
            "C must be above 0 and finite": 0 < self.c < math.inf,
            "alpha must be above 0 and finite": self.alpha is None or 0 < self.alpha < math.inf,
            "k must be at least 1": self.k >= 1,
            "temperature must be above 0 and finite": 0 < self.temperature < math.inf,
        }
        for message, fine in checks.items():
            if not fine:
                raise UsageError(message)
        self._refuse_what_plays_no_part()

    def _refuse_what_plays_no_part(self) -> None:
        used = OF_ALL | OF_SOLVER[self.solver]
        for item in fields(self):
            if item.name not in used and getattr(self, item.name) != item.default:
                flag = "C" if item.name == "c" else item.name.replace("_", "-")
                others = ", ".join(name for name, taken in OF_SOLVER.items() if item.name in taken)
                raise UsageError(
                    f"{flag} {getattr(self, item.name)} plays no part with --solver {self.solver}",
                    f"It goes with --solver {others}.",
                )

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON fields."""
        return asdict(self)

    def said(self) -> str:
        """Return what makes this recipe, in a few words for people."""
        shown = {name: getattr(self, name) for name in ("standardize", "l2_norm") if getattr(self, name)}
        if self.solver == "minibatch":
            shown |= {"batch": self.batch_size, "epochs": self.epochs, "seed": self.seed}
            usual = HeadSettings()
            more = sorted(OF_MINIBATCH - {"optimizer", "lr", "epochs", "batch_size"})
            shown |= {name: getattr(self, name) for name in more if getattr(self, name) != getattr(usual, name)}
            kind = f"{'mlp' if self.hidden else 'linear'} · {self.optimizer} · lr {self.lr:g}"
        else:
            kind = {"exact": "linear · exact logistic regression", "ridge": "linear · ridge regression"}.get(
                self.solver, {"knn": "k nearest neighbours", "centroid": "nearest centroid"}.get(self.solver, "")
            )
            shown |= {name: getattr(self, name) for name in sorted(OF_SOLVER[self.solver])}
            if self.solver == "ridge" and self.alpha is None:
                shown["alpha"] = "chosen on validation rows"
        return " · ".join([kind, *(_word(name, value) for name, value in shown.items())])


CHOICES: dict[str, Any] = {
    "solver": Solver,
    "optimizer": Optimizer,
    "class_weight": ClassWeight,
    "sampling": Sampling,
    "schedule": Schedule,
}


def _word(name: str, value: object) -> str:
    name = name.replace("_", " ")
    if value is True:
        return name
    return f"{name} {value:g}" if isinstance(value, float) else f"{name} {value}"
