"""Which rows train, which choose. Test rows do neither."""

import logging
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from pipeline.errors import DataError, UsageError
from pipeline.features import Features
from pipeline.sources.split import drawn, folds

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Rows:
    """Positions in the features: `train` (n,), `val` (m,), disjoint, neither holding test rows."""

    train: np.ndarray
    val: np.ndarray
    rule: dict[str, Any] | None
    """How the validation rows were drawn, None where the source names them."""


def choose_rows(features: Features, *, val_fraction: float = 0.1, split_seed: int = 0, refit: bool = False) -> Rows:
    """Take the source's validation rows, or draw them from train by hash of seed and image digest, or group.

    With `refit`, when everything is chosen already, validation rows train too and there are none.

    Raises:
        UsageError: if the fraction is out of range.
        DataError: if there are no labels, no train rows, or these are not of two classes.
    """
    if refit:
        both = choose_rows(features, val_fraction=0)
        return Rows(np.sort(np.concatenate([both.train, both.val])), np.empty(0, np.int64), {"refit": True})
    if not features.classes:
        raise DataError(
            f"cache entry {features.cache} has no labels: there is nothing to learn from it",
            f"Extract a labelled source to train on; of this one: pipeline predict RUN --cache {features.cache}",
        )
    if not 0 <= val_fraction < 1:
        raise UsageError(f"val-fraction must be at least 0 and below 1, not {val_fraction}")
    train, val, rule = features.rows("train"), features.rows("val"), None
    if not len(features.split):
        train, val = np.arange(len(features)), np.empty(0, np.int64)
    if not len(train):
        there = ", ".join(sorted(set(features.split.tolist()))) or "nothing"
        raise DataError(
            f"cache entry {features.cache} has no train split; it has {there}",
            "Extract a source with a train folder, or one without split folders.",
        )
    if not len(val) and val_fraction:
        if len(features.digests):
            groups = [features.groups[row] for row in train.tolist()] if features.groups else None
            mine = drawn("val", split_seed, val_fraction, features.digests[train], groups=groups)
            if groups is not None:
                _warn_lone_group(groups, mine)
        else:
            mine = np.random.default_rng(split_seed).random(len(train)) < val_fraction
        train, val = train[~mine], train[mine]
        rule = {"val_fraction": val_fraction, "split_seed": split_seed}
    labels = np.unique(features.y.numpy()[train])
    if len(labels) < 2:
        names = ", ".join(features.classes[label] for label in labels)
        found = (
            f"the {len(train):,} train rows have only one class ({names})" if names else "no row is left to train on"
        )
        raise DataError(f"{found}: nothing to learn")
    return Rows(train, val, rule)


def choose_folds(features: Features, count: int, split_seed: int = 0) -> list[Rows]:
    """Divide train rows, and validation rows the source names, into folds by hash of image digest or group.

    Returns for each fold its rows as `val` and those of the others as `train`, less the images that are in both because
    they are in two groups.

    Raises:
        UsageError: if there are fewer than two folds.
        DataError: if a fold is empty or leaves train rows of one class, or as `choose_rows`.
    """
    if count < 2:
        raise UsageError(f"folds must be at least 2, not {count}")
    rows = choose_rows(features, refit=True).train
    if len(features.digests):
        groups = [features.groups[row] for row in rows.tolist()] if features.groups else None
        fold = folds(split_seed, count, features.digests[rows], groups)
    else:
        fold = np.random.default_rng(split_seed).integers(0, count, len(rows))
    rule = {"folds": count, "split_seed": split_seed}
    y, made = features.y.numpy(), []
    for number in range(count):
        one = without_copies(features, Rows(rows[fold != number], rows[fold == number], rule))
        if not len(one.val) or len(np.unique(y[one.train])) < 2:
            raise DataError(
                f"fold {number + 1} of {count} has {len(one.val)} of {len(rows)} rows: too few images or groups",
                "Use fewer --folds, or a --val-fraction.",
            )
        made.append(one)
    return made


def without_copies(features: Features, rows: Rows) -> Rows:
    """Leave out of the train rows the images that are among the validation rows."""
    if not len(features.digests):
        return rows
    held = features.images[rows.val]
    return replace(rows, train=rows.train[~np.isin(features.images[rows.train], held)])


def _warn_lone_group(groups: list[str], mine: np.ndarray) -> None:
    sides = (("train", ~mine), ("validation", mine))
    for name, here in sides:
        there = {groups[row] for row in np.flatnonzero(here).tolist()}
        if len(there) < 2:
            logger.warning(
                "of %d groups %s on the validation side: %s rows are %s; another --split-seed draws others",
                len(set(groups)),
                f"{len({groups[row] for row in np.flatnonzero(mine).tolist()})} came",
                name,
                f"one group ({there.pop()})" if there else "none",
            )
