"""The recipe of a head: which solver, and its options. The defaults are the reference experiment's."""

import math
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, get_args

from pipeline.errors import UsageError, nearest

Solver = Literal["minibatch", "exact", "ridge", "knn", "centroid"]
Optimizer = Literal["adam", "adamw", "sgd"]
ClassWeight = Literal["none", "balanced"]
Sampling = Literal["shuffle", "balanced"]
Schedule = Literal["constant", "cosine"]

LARGEST = 1e37
"""Rate beyond which its products with weights are no float32 any more."""
SMALLEST_L2, LARGEST_L2 = 1e-100, 1e100
"""Beyond these, and beyond their inverses as C, arithmetic has no numbers for what follows from them."""
EVERYWHERE = ("solver", "standardize", "l2_norm")
OPTIONS: dict[str, tuple[str, ...]] = {
    "minibatch": (
        *("optimizer", "lr", "epochs", "batch_size", "weight_decay", "momentum", "dropout", "seed"),
        *("hidden", "label_smoothing", "class_weight", "sampling", "schedule", "warmup_epochs", "early_stopping"),
    ),
    "exact": ("l2", "C", "class_weight"),
    "ridge": ("l2", "class_weight"),
    "knn": ("k", "temperature"),
    "centroid": (),
}
"""Which options belong to which solver, beside those that go everywhere."""


@dataclass(frozen=True)
class HeadSettings:
    """The recipe. docs/HEADS.md has the formula of every option."""

    solver: Solver = "minibatch"
    standardize: bool = False
    l2_norm: bool = False
    optimizer: Optimizer = "adam"
    lr: float = 1e-3
    epochs: int = 5
    batch_size: int = 64
    weight_decay: float = 0.0
    momentum: float = 0.0
    """Of SGD."""
    dropout: float = 0.0
    """Share of features, or of hidden units, zeroed in training."""
    seed: int = 0
    hidden: int = 0
    """Units of a hidden layer; 0 is a linear head."""
    label_smoothing: float = 0.0
    class_weight: ClassWeight = "none"
    sampling: Sampling = "shuffle"
    schedule: Schedule = "constant"
    warmup_epochs: int = 0
    early_stopping: int = 0
    """Epochs without a lower validation loss after which training stops; 0 goes on to the end."""
    l2: float | None = None
    """Weight of |W|^2 / 2 beside the mean loss. None: 1 / n for exact, chosen on validation rows for ridge."""
    C: float | None = None
    """scikit-learn's: l2 = 1 / (C n)."""
    k: int = 20
    temperature: float = 0.07

    def __post_init__(self) -> None:
        self._check_choices()
        self._check_numbers()
        changed = [field.name for field in fields(self) if getattr(self, field.name) != field.default]
        _refuse_foreign(self.solver, changed)
        for message, wrong in {
            "momentum goes with --optimizer sgd": self.momentum and self.optimizer != "sgd",
            "--l2 and --C say the same: give one of them": self.l2 is not None and self.C is not None,
            "--class-weight balanced and --sampling balanced both even out the classes: choose one": (
                self.class_weight == self.sampling == "balanced"
            ),
            f"warmup-epochs must be below epochs ({self.epochs})": self.warmup_epochs >= max(1, self.epochs),
            "k-NN goes by cosine, which takes the length of rows away: leave out --l2-norm": (
                self.solver == "knn" and self.l2_norm and not self.standardize
            ),
        }.items():
            if wrong:
                raise UsageError(message)

    def _check_choices(self) -> None:
        choices: dict[str, Any] = {
            "solver": Solver,
            "optimizer": Optimizer,
            "class_weight": ClassWeight,
            "sampling": Sampling,
            "schedule": Schedule,
        }
        for name, known in choices.items():
            asked, names = getattr(self, name), get_args(known)
            if asked not in names:
                hint = f"Known: {', '.join(names)}"
                raise UsageError(f"unknown {_dashed(name)} {asked!r}.{nearest(str(asked), names)}", hint)

    def _check_numbers(self) -> None:
        for message, fine in {
            "lr must be above 0 and at most 1e37": 0 < self.lr <= LARGEST,
            "epochs must be at least 1": self.epochs >= 1,
            "batch-size must be at least 1": self.batch_size >= 1,
            "weight-decay must be at least 0 and at most 1e37": 0 <= self.weight_decay <= LARGEST,
            "momentum must be at least 0 and below 1": 0 <= self.momentum < 1,
            "dropout must be at least 0 and below 1": 0 <= self.dropout < 1,
            "seed must be at least 0 and below 2^63": 0 <= self.seed < 2**63,
            "hidden must be at least 0": self.hidden >= 0,
            "label-smoothing must be at least 0 and below 1": 0 <= self.label_smoothing < 1,
            "warmup-epochs must be at least 0": self.warmup_epochs >= 0,
            "early-stopping must be at least 0": self.early_stopping >= 0,
            "l2 must be from 1e-100 to 1e100": self.l2 is None or SMALLEST_L2 <= self.l2 <= LARGEST_L2,
            "C must be from 1e-100 to 1e100": self.C is None or SMALLEST_L2 <= self.C <= LARGEST_L2,
            "k must be at least 1": self.k >= 1,
            "temperature must be above 0 and finite": 0 < self.temperature < math.inf,
        }.items():
            if not fine:
                raise UsageError(message)

    @classmethod
    def of(cls, base: "HeadSettings | None" = None, **given: Any) -> "HeadSettings":  # noqa: ANN401 - fields of it
        """Return settings with the options that a user gave; one that does not belong to the solver is refused.

        The constructor can only see values that are no defaults.

        Raises:
            UsageError: naming the first option that is unknown, without meaning, or another solver's.
        """
        known = [field.name for field in fields(cls)]
        for name in given:
            if name not in known:
                raise UsageError(f"unknown head setting {name!r}.{nearest(name, known)}", f"Known: {', '.join(known)}")
        solver = given.get("solver", base.solver if base is not None else cls.solver)
        if solver in OPTIONS:
            _refuse_foreign(solver, list(given))
        return cls(**{**({} if base is None else asdict(base)), **given})

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON fields: those that belong to the solver."""
        kept = (*EVERYWHERE, *OPTIONS[self.solver])
        return {name: value for name, value in asdict(self).items() if name in kept}


def width_neutral(dim: int) -> HeadSettings:
    """Return logistic regression at its optimum on standardised features `dim` wide, with C = 1 / dim.

    With weights of that variance logits have variance 1 whatever the width and the number of rows: none is favoured.
    """
    return HeadSettings(solver="exact", standardize=True, C=1 / dim)


def _refuse_foreign(solver: str, given: list[str]) -> None:
    for name in given:
        if name not in (*EVERYWHERE, *OPTIONS[solver]):
            owners = " or ".join(owner for owner, options in OPTIONS.items() if name in options)
            mine = ", ".join(f"--{_dashed(option)}" for option in OPTIONS[solver]) or "no options of its own"
            raise UsageError(
                f"--{_dashed(name)} does not go with --solver {solver}, it belongs to --solver {owners}",
                f"{solver} takes {mine}.",
            )


def _dashed(name: str) -> str:
    return name.replace("_", "-")
