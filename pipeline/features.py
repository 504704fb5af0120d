"""The value that leaves the cache: features with labels, ids, classes and splits, ready for any head."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.errors import DataError
from pipeline.store.catalog import find_entry, mark_used
from pipeline.store.entry import Entry
from pipeline.store.key import SPLITS
from pipeline.store.samples import SampleTable
from pipeline.textcolumn import column_of

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, repr=False)
class Features:
    """Usable samples of a cache entry, in source order, verified.

    `Features(x, y, classes)` works too, for features that come from anywhere else.
    """

    x: "Tensor"
    """(n, d) float32 or float16, or (n, *row_shape) for cut-points."""
    y: "Tensor"
    """(n,) int64, positions in `classes`; -1 where the source has no labels."""
    classes: tuple[str, ...]
    ids: Sequence[str] = field(default_factory=list)
    """Of an entry a TextColumn, which reads like a list and holds no Python string."""
    split: np.ndarray = field(default_factory=lambda: np.empty(0, "<U5"))
    """(n,) of `train`, `val`, `test`."""
    digests: np.ndarray = field(default_factory=lambda: np.empty((0, 32), np.uint8))
    """Image digests (n, 32) uint8."""
    cache: str = ""
    """Id of the entry, and the SHA-256 of its manifest, which names these very bytes."""
    cache_digest: str = ""
    space: dict[str, Any] = field(default_factory=dict)
    space_sha256: str = ""
    groups: Sequence[str] = field(default_factory=list)
    """What must stay on one side of a split, one a sample; empty where the source names none."""

    def __len__(self) -> int:
        return len(self.y)

    def __repr__(self) -> str:
        counts = ", ".join(
            f"{name} {int((self.split == name).sum()):,}" for name in SPLITS if (self.split == name).any()
        )
        kind = str(self.x.dtype).removeprefix("torch.")
        return (
            f"Features({self.cache or 'no cache'}: x {tuple(self.x.shape)} {kind}, "
            f"{len(self.classes)} classes, {counts or 'no splits'})"
        )

    def rows(self, split: str) -> np.ndarray:
        """Return positions (m,) int64 of a split's samples; all of them for features without splits."""
        if not len(self.split):
            return np.arange(len(self))
        return np.flatnonzero(self.split == split)

    @cached_property
    def images(self) -> np.ndarray:
        """A number (n,) int64 for each row, the same for rows of one image digest."""
        keys = np.ascontiguousarray(self.digests).view("V32").ravel()
        return np.unique(keys, return_inverse=True)[1]

    def numpy(self, split: str | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Return (x, y) as numpy arrays, of one split or of all, as scikit-learn takes them."""
        if split is None:
            return self.x.numpy(), self.y.numpy()
        rows = self.rows(split)
        return self.x.numpy()[rows], self.y.numpy()[rows]


def open_cache(cache: str | Path = "latest", *, cache_dir: str | Path = "cache") -> Features:
    """Read a cache entry, every byte verified, into one contiguous tensor.

    Args:
        cache: a unique prefix of its id, its path, or `latest`.
        cache_dir: the cache root.

    Raises:
        CacheError: if there is no such entry, or a file of it is missing or damaged (it is named).
    """
    features = read_features(find_entry(Path(cache_dir), str(cache)))
    # Plain lists, as notebooks and json expect them; this package itself holds ids compressed.
    return replace(features, ids=list(features.ids), groups=list(features.groups))


def read_features(entry: Entry) -> Features:
    """Read an entry's usable rows, verified."""
    import torch

    mark_used(entry)

    table = entry.read_samples()
    kept = table.usable
    entry.check_sizes()
    x = np.empty((int(kept.sum()), *entry.space.row_shape), entry.space.store_dtype)
    filled = 0
    for first, shard in entry.read_shards(table):
        span = slice(first, first + len(shard.status))
        rows = shard.features if kept[span].all() else shard.features[kept[span]]
        x[filled : filled + len(rows)] = rows
        filled += len(rows)
    if not filled:
        raise DataError(f"cache entry {entry.id} has no usable rows")
    return features_of(entry, table, torch.from_numpy(x))


def features_of(entry: Entry, table: SampleTable, x: "Tensor") -> Features:
    """Return the usable samples of an entry with their features `x` (n, *row_shape)."""
    import torch

    names, kept = np.array(SPLITS), table.usable
    return Features(
        x,
        torch.from_numpy(table.labels[kept]),
        entry.classes,
        _kept(table.ids, kept),
        names[table.splits[kept]],
        table.digests[kept],
        entry.id,
        entry.digest,
        dict(entry.manifest["space"]),
        entry.space.sha256,
        _kept(table.groups, kept) if table.groups is not None else [],
    )


def _kept(texts: Sequence[str], kept: np.ndarray) -> Sequence[str]:
    return texts if kept.all() else column_of(texts).take(np.flatnonzero(kept))
