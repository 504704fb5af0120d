"""The views of an entry: found among the entries beside it by their content, and read for training."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import count
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from pipeline.backbones.augment import Augment
from pipeline.errors import CacheError, DataError, UsageError
from pipeline.features import Features, read_features
from pipeline.heads.rows import pick
from pipeline.heads.viewed import ViewedRows
from pipeline.memory import free_memory
from pipeline.store.catalog import list_entries
from pipeline.store.entry import Entry, open_entry
from pipeline.streaming import MEMORY_SHARE, Stream, StreamedRows, check_vectors, open_features

if TYPE_CHECKING:
    from torch import Tensor

HowMany = int | Literal["all"]
"""Views an image, the plain one included."""


@dataclass(frozen=True)
class Views:
    """An entry of plain images and those of their views."""

    augment: str
    """As `backbones.augment.Augment` spells it."""
    entries: tuple[Entry, ...]
    """By number of the view, the plain one first."""

    def __len__(self) -> int:
        return len(self.entries)

    def __str__(self) -> str:
        return f"{len(self)} views of {self.augment}"

    def to_json(self) -> dict[str, Any]:
        """Return what a run says of the views it was trained on."""
        return {
            "count": len(self),
            "augment": self.augment,
            "entries": [{"id": entry.id, "manifest_sha256": entry.digest} for entry in self.entries],
        }


def check_plain(entry: Entry) -> None:
    """Refuse an entry of augmented views for what is bound to an entry: new images come plain.

    Raises:
        UsageError: naming the entry of the plain images.
    """
    steps, number = entry.space.view
    if number:
        plain = entry.id_in(entry.space.of_view("", 0))
        raise UsageError(
            f"cache entry {entry.id} holds view {number} of {steps}; a head is bound to plain images, as new ones come",
            f"Name their entry, {plain}, and say --views all.",
        )


def find_views(entry: Entry, how_many: HowMany, augment: str | None = None) -> Views:
    """Return an entry with the views that lie beside it; of one augmentation, which needs no name if it is the only.

    Raises:
        UsageError: if the entry holds views itself, or there are views of several augmentations and none is named.
        CacheError: if there are fewer views than asked for.
    """
    check_plain(entry)
    if how_many != "all" and how_many < 2:
        raise UsageError(f"views must be at least 2, or all, not {how_many}")
    steps = str(Augment.parse(augment)) if augment is not None else _only_augment(entry, how_many)
    there = list(_beside(entry, steps))
    wanted = len(there) if how_many == "all" else how_many
    if len(there) < max(2, wanted):
        found = "1 view" if len(there) == 1 else f"{len(there)} views"
        raise CacheError(
            f"cache entry {entry.id} has {found} of {steps} under {entry.path.parent}, {how_many} are asked for",
            _how_to_make(entry, steps, how_many),
        )
    return Views(steps, tuple(there[:wanted]))


def _only_augment(entry: Entry, how_many: HowMany) -> str:
    others = [other for other in list_entries(entry.path.parent) if other.space.of_view("", 0) == entry.space]
    known = sorted({other.space.view[0] for other in others if other.space.view[1]})
    if len(known) > 1:  # of other samples, perhaps, which only their sample tables tell
        known = sorted({other.space.view[0] for other in others if other.space.view[1] and _is_view(entry, other)})
    if len(known) == 1:
        return known[0]
    if known:
        raise UsageError(
            f"cache entry {entry.id} has views of several augmentations: {' and '.join(known)}", "Say which: --augment."
        )
    raise CacheError(
        f"cache entry {entry.id} has no views of its images under {entry.path.parent}",
        _how_to_make(entry, "hflip,crop:0.8-1", how_many),
    )


def _is_view(entry: Entry, other: Entry) -> bool:
    return other.id == entry.id_in(other.space)


def _beside(entry: Entry, steps: str) -> Iterator[Entry]:
    """Yield the entry itself and its views in order, until one is missing."""
    yield entry
    for number in count(1):
        path = entry.path.parent / entry.id_in(entry.space.of_view(steps, number))
        if not path.exists():
            return
        yield open_entry(path)


def _how_to_make(entry: Entry, steps: str, how_many: HowMany) -> str:
    asked = f"--views {4 if how_many == 'all' else how_many} --augment {steps}"
    made = str(entry.manifest.get("command", ""))
    if made.startswith("pipeline extract") and "--views" not in made:
        return f"Make them: {made} {asked}"
    return f"Make them with the entry's own options: pipeline extract {entry.manifest['source']['spec']} … {asked}"


def open_for_training(
    entry: Entry, how_many: HowMany, augment: str | None, stream: Stream
) -> "tuple[Features, Tensor | StreamedRows | ViewedRows, Views | None]":
    """Return an entry's samples and its features, with views or without; and the views, None of plain images.

    Raises:
        UsageError: if the entry holds views itself, views are to stream, or as `find_views`.
        CacheError, DataError: as `find_views`, `read_views` and `open_features`.
    """
    check_plain(entry)
    if how_many == 1:
        if augment is not None:
            raise UsageError("--augment needs --views: plain images are not augmented", "Add --views all.")
        return *open_features(entry, stream), None
    if stream == "always":
        raise UsageError("--stream always does not go with --views: views are kept in memory", "Leave out one of them.")
    views = find_views(entry, how_many, augment)
    features, x = read_views(views)
    return features, x, views


def read_views(views: Views) -> tuple[Features, ViewedRows]:
    """Read views into memory, verified: of the plain images all rows, of the others those that may train.

    Raises:
        DataError: if they do not fit the free memory, or are not of the same samples.
        CacheError: if a file is missing or damaged.
    """
    import torch

    check_vectors(views.entries[0])
    features = read_features(views.entries[0])
    rows = np.flatnonzero(features.split != "test") if len(features.split) else np.arange(len(features))
    n, d = features.x.shape
    total = n + (len(views) - 1) * len(rows)
    _check_fits(views, total * d, features.x.element_size())
    every = torch.empty(total, d, dtype=features.x.dtype)
    every[:n] = features.x
    chosen = torch.from_numpy(rows)
    for number, entry in enumerate(views.entries[1:]):
        first = n + number * len(rows)
        view = read_features(entry)
        _check_same(view, features.ids)
        torch.index_select(view.x, 0, chosen, out=every[first : first + len(rows)])
    return replace(features, x=every[:n]), ViewedRows(every, n, rows, len(views))


def _check_same(view: Features, ids: Sequence[str]) -> None:
    """Refuse a view of which other rows are usable: an image that was read for one and could not be for another."""
    if view.ids != ids:
        raise DataError(
            f"cache entry {view.cache} has {len(view):,} usable rows, its plain images {len(ids):,}",
            "Some images could be used in one of them only: see skipped.csv of both, and extract with --restart.",
        )


def _check_fits(views: Views, numbers: int, itemsize: int) -> None:
    free, plain = free_memory(), views.entries[0]
    if 4 * numbers > MEMORY_SHARE * free:
        raise DataError(
            f"{len(views)} views of {plain.rows:,} rows x {plain.dim:,} features need "
            f"{numbers * itemsize / 1e9:.1f} GB of memory, too much for the {free / 1e9:.1f} GB that are free",
            "Views do not stream. Take fewer --views, or extract fewer images with --limit.",
        )


def rows_by_view(views: Views, rows: np.ndarray, stream: Stream) -> "Iterator[Tensor | StreamedRows]":
    """Yield the features (m, d) of some rows, which rise, in each view in turn; one view is open at a time."""
    ids: Sequence[str] = ()
    for entry in views.entries:
        features, x = open_features(entry, stream)
        ids = ids or features.ids
        _check_same(features, ids)
        yield pick(x, rows)
