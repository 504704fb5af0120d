"""What a sweep tries: every value of a grid with every other."""

import itertools
from dataclasses import dataclass, replace
from typing import Any

from pipeline.errors import UsageError, nearest
from pipeline.heads.settings import HeadSettings

SOLVERS = ("minibatch", "exact", "ridge")
TRANSFORMS: dict[str, dict[str, Any]] = {
    "plain": {},
    "standardize": {"standardize": True},
    "l2-norm": {"l2_norm": True},
    "l2-norm+standardize": {"l2_norm": True, "standardize": True},
}
"""What may be done to features in front of a head, as fields of HeadSettings."""
RATES = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2)
DECAYS = (0.0, 1e-5, 1e-4, 1e-3)
L2S = tuple(10.0**exponent for exponent in range(-6, 2))
"""Of exact and ridge, on features of unit variance."""


@dataclass(frozen=True)
class Grid:
    """What is tried: every value with every other."""

    lr: tuple[float, ...] = RATES
    weight_decay: tuple[float, ...] = DECAYS
    l2: tuple[float, ...] = L2S
    C: tuple[float, ...] = ()
    """scikit-learn's; in the place of `l2`."""
    transforms: tuple[str, ...] = ("plain", "standardize")
    seeds: tuple[int, ...] = (0,)
    """Of minibatch heads."""

    def settings(self, base: HeadSettings) -> list[HeadSettings]:
        """Return a recipe for every point, in a fixed order; the seed is the first.

        Raises:
            UsageError: if a value is out of range, or a transform is unknown.
        """
        for name in self.transforms:
            if name not in TRANSFORMS:
                raise UsageError(
                    f"unknown transform {name!r}.{nearest(name, TRANSFORMS)}", f"Known: {', '.join(TRANSFORMS)}"
                )
        if base.solver == "minibatch":
            axes: dict[str, tuple[float, ...]] = {"lr": self.lr, "weight_decay": self.weight_decay}
        else:
            axes = {"C": self.C} if self.C else {"l2": self.l2}
        empty = [name for name, values in {**axes, "transforms": self.transforms}.items() if not values]
        if empty:
            raise UsageError(f"nothing to try for {', '.join(empty)}")
        common: dict[str, Any] = {"seed": self.seeds[0]} if base.solver == "minibatch" else {}
        return [
            replace(base, **{**common, **TRANSFORMS[transform], **dict(zip(axes, values, strict=True))})
            for transform in dict.fromkeys(self.transforms)
            for values in itertools.product(*(dict.fromkeys(tried) for tried in axes.values()))
        ]


def grid_of(grid: Grid | None, settings: HeadSettings | None, changes: dict[str, Any]) -> tuple[Grid, HeadSettings]:
    """Return the grid and the rest of the recipe, telling the fields of one from those of the other.

    Raises:
        UsageError: if a field is unknown, or belongs to another solver.
    """
    axes = {key: tuple(value) for key, value in changes.items() if key in Grid.__dataclass_fields__}
    base = HeadSettings.of(settings, **{key: value for key, value in changes.items() if key not in axes})
    if base.solver not in SOLVERS:
        close = nearest(base.solver, SOLVERS)
        raise UsageError(f"sweep has no solver {base.solver!r}.{close}", f"It has {', '.join(SOLVERS)}.")
    foreign = ("l2", "C") if base.solver == "minibatch" else ("lr", "weight_decay", "seeds")
    for key in axes:
        if key in foreign:
            raise UsageError(f"--{key.replace('_', '-')} does not go with --solver {base.solver}")
    if "l2" in axes and "C" in axes:
        raise UsageError("--l2 and --C say the same: give one of them")
    made = replace(grid or Grid(), **axes)
    if not made.seeds or any(seed < 0 for seed in made.seeds):
        raise UsageError(f"seeds must be numbers from 0 on, not {list(made.seeds)}")
    return replace(made, seeds=tuple(dict.fromkeys(made.seeds))), base
