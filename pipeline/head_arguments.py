"""What an experiment file asks of stage 2: the arguments of `train_head`, or of `sweep` or `finetune`.

Which it is, is said by a section [sweep] or [finetune].
"""

from typing import Any

from pipeline.config import Config
from pipeline.errors import UsageError
from pipeline.finetuning.settings import FinetuneSettings
from pipeline.heads.grid import TRANSFORMS, grid_of
from pipeline.heads.settings import HeadSettings

ROWS = ("val_fraction", "split_seed", "views", "augment", "stream", "name")
"""Fields of [head] that are no settings of a head."""


def train_arguments(config: Config) -> dict[str, Any]:
    """Return the recipe and the other arguments of `train_head`.

    Raises:
        UsageError: if the recipe makes no sense.
    """
    try:
        return {"settings": HeadSettings.of(**_given(config)), **_rows(config)}
    except UsageError as error:
        raise UsageError(f"head: {error.message}", error.hint) from error


def sweep_arguments(config: Config) -> dict[str, Any]:
    """Return the grid, the rest of the recipe and the other arguments of `sweep`.

    What [sweep] does not list is tried with the one value that [head] gives it, or, where it gives none, with those
    that `sweep` tries by itself. What both have is [sweep]'s.

    Raises:
        UsageError: if a value makes no sense, or another solver's is given.
    """
    assert config.sweep is not None
    axes = config.sweep.model_dump(exclude_unset=True)
    selection: dict[str, Any] = {key: axes.pop(key) for key in ("folds", "refit") if key in axes}
    base = _given(config)
    fixed = _fixed(base)
    if axes.keys() & {"l2", "C"}:  # which say the same
        fixed = {key: value for key, value in fixed.items() if key not in ("l2", "C")}
    try:
        grid, settings = grid_of(None, None, {**base, **fixed, **axes})
        grid.settings(settings)
    except UsageError as error:
        raise UsageError(f"sweep: {error.message}", error.hint) from error
    return {"grid": grid, "settings": settings, **_rows(config), **selection}


def finetune_arguments(config: Config) -> dict[str, Any]:
    """Return the recipe and the other arguments of `finetune`.

    Raises:
        UsageError: if the recipe makes no sense.
    """
    assert config.finetune is not None
    others = (*ROWS, "checkpoint_seconds")
    try:
        settings = FinetuneSettings.of(**config.finetune.model_dump(exclude=set(others)))
    except UsageError as error:
        raise UsageError(f"finetune: {error.message}", error.hint) from error
    return {"settings": settings, **config.finetune.model_dump(include=set(others))}


def _fixed(base: dict[str, Any]) -> dict[str, tuple[Any, ...]]:
    """Take the fields that a grid has out of a recipe, each as a list of its one value."""
    fixed: dict[str, tuple[Any, ...]] = {}
    for key, axis in (("lr", "lr"), ("weight_decay", "weight_decay"), ("l2", "l2"), ("C", "C"), ("seed", "seeds")):
        if key in base:
            fixed[axis] = (base.pop(key),)
    steps = {key: base.pop(key) for key in ("l2_norm", "standardize") if key in base}
    if steps:
        done = {key: True for key, on in steps.items() if on}
        fixed["transforms"] = tuple(name for name, fields in TRANSFORMS.items() if fields == done)
    return fixed


def _given(config: Config) -> dict[str, Any]:
    """Return the settings that the file has: defaults are not given, another solver's would be refused."""
    return config.head.model_dump(exclude=set(ROWS), exclude_unset=True)


def _rows(config: Config) -> dict[str, Any]:
    return config.head.model_dump(include=set(ROWS))
