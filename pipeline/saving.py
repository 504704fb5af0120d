"""Heads that were trained elsewhere, saved as runs; and what every run says of where it comes from."""

import shlex
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.heads.head import Head
from pipeline.heads.own import own_head
from pipeline.runs import Run, check_name, save_run
from pipeline.store.catalog import find_entry
from pipeline.store.entry import Entry
from pipeline.versions import versions
from pipeline.views import check_plain

if TYPE_CHECKING:
    from numpy.typing import ArrayLike
    from torch import nn


def save_head(
    head: "nn.Module | tuple[ArrayLike, ArrayLike]",
    cache: str | Path = "latest",
    *,
    name: str = "",
    settings: dict[str, Any] | None = None,
    cache_dir: str | Path = "cache",
    runs_dir: str | Path = "runs",
) -> Run:
    """Save a head of your own as a run, so that `evaluate`, `predict` and `export` take it.

    It is bound to the feature space and the class names of the entry it was trained on; nothing checks that it was
    trained on it, or that its outputs are in the order of `features.classes`.

    Args:
        head: an `nn.Linear`; an `nn.Sequential` of Linear, ReLU, Linear, with Dropout between or not; or a pair of
            weight (c, d) and bias (c,), such as scikit-learn's `(coef_, intercept_)`. Of two classes a single row
            (1, d), as scikit-learn has it, is the second's logit against 0.
        cache: the entry: a unique prefix of its id, its path, or `latest`.
        name: goes behind the run's number.
        settings: what you want remembered of its training, as plain JSON fields.
        cache_dir: the cache root.
        runs_dir: where runs are kept.

    Raises:
        UsageError: if the entry holds augmented views; or if the head is of another form, or of another shape than the
            entry's features and classes ask for.
        CacheError: if there is no such entry.
    """
    check_name(name)
    entry = find_entry(Path(cache_dir), str(cache))
    check_plain(entry)
    found = own_head(head, entry.classes, dict(entry.manifest["space"]), entry.space.sha256, entry.space.row_shape)
    body = {
        **provenance(entry, found, name),
        "settings": {**(settings or {}), "solver": "own"},
        "solver": {},
        "epochs": [],
        "metrics": None,
    }
    return save_run(Path(runs_dir), name, body, found.to_files())


def provenance(entry: Entry, head: Head, name: str, command: str | None = None) -> dict[str, Any]:
    """Return what a run says of the entry its head belongs to, and of this process."""
    return {
        "name": name,
        "cache": {"id": entry.id, "path": str(entry.path.resolve()), "manifest_sha256": entry.digest},
        "source": entry.manifest["source"],
        "backbone": entry.manifest["backbone"],
        "space_sha256": head.space_sha256,
        "classes": list(head.classes),
        "versions": versions(),
        "command": command if command is not None else shlex.join(["pipeline", *sys.argv[1:]]),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
    }
