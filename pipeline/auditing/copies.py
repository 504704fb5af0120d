"""Pairs of rows with one picture: by digest, and by looking at the images that are close in features."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pipeline.auditing.duplicates import Pair, exact_duplicates
from pipeline.auditing.near import near_duplicates
from pipeline.errors import DataError
from pipeline.features import Features
from pipeline.origin import open_images
from pipeline.progress import Stages, silent
from pipeline.sources.source import Source
from pipeline.store.entry import Entry


@dataclass(frozen=True)
class Images:
    """Where images are now, as `evaluate --end-to-end` takes it; the default is where they were."""

    source: Any = None
    data_root: str | Path | None = None
    follow_symlinks: bool = False
    workers: int | None = None


@dataclass(frozen=True)
class Copies:
    """Pairs, and how far they were looked for."""

    pairs: Sequence[Pair]
    checked: Literal["confirmed", "features", "no"]
    note: str = ""


def find_copies(entry: Entry, features: Features, images: Images, *, near: bool, stages: Stages = silent) -> Copies:
    """Return exact duplicates and, with `near`, near ones: unconfirmed where no images are to be had.

    Raises:
        DataError: if images are not where `images.source` says, or are not those of the entry any more.
    """
    exact = exact_duplicates(features)
    if not near:
        return Copies(exact, "no", "not asked for")
    source, note = _open(entry, images)
    try:
        found = near_duplicates(features, source, workers=images.workers, stages=stages)
    except DataError as error:
        raise DataError(error.message, f"{error.hint} With --no-near no image is read.") from error
    return Copies([*exact, *found], "features" if source is None else "confirmed", note)


def _open(entry: Entry, images: Images) -> tuple[Source | None, str]:
    try:
        return open_images(entry, images.source, data_root=images.data_root, follow_symlinks=images.follow_symlinks), ""
    except DataError as error:
        if images.source is not None:
            raise
        return None, error.message
