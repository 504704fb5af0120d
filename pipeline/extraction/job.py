"""What is to be done: the listing, the backbone's space, the pinned recipe, and what is known already."""

import logging
from collections.abc import Hashable
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.backbones.backbone import Backbone
from pipeline.engines.resizing import DeviceResize
from pipeline.errors import CacheError
from pipeline.extraction.careful import Trial
from pipeline.extraction.deviation import CheckedEngine, Deviation, checked_engine
from pipeline.extraction.precision import Judge
from pipeline.extraction.recipe import Wishes, check_runs_here, pinned_recipe, recipe_device
from pipeline.extraction.together import SharedPass
from pipeline.loading.batch import Batch
from pipeline.loading.loader import Loader, auto_workers
from pipeline.sources.source import TEST, TRAIN, Listing, Payload, Source
from pipeline.sources.split import drawn
from pipeline.store.commit import remove_leftovers
from pipeline.store.graphs import GraphFolder
from pipeline.store.key import FeatureSpace, Recipe, entry_id
from pipeline.store.prune import work_leftovers
from pipeline.store.record import Record
from pipeline.store.rows import RowIndex, index_rows
from pipeline.store.shard import ShardRows
from pipeline.store.statindex import StatIndex
from pipeline.store.work import WorkFolder

if TYPE_CHECKING:
    import torch
    from torch import nn

logger = logging.getLogger(__name__)

SPLIT_SEED = 0
SPAN = 1 << 16
"""Rows that are looked for at a time."""
WHOLE_SIDE = 512
"""Pixels a side up to which images go whole to a device that resizes; larger ones are resized by the workers."""


@dataclass
class Job:
    """An extraction, ready for `extract_shard`. The engine and the loader start when they are first needed."""

    root: Path
    source: Source
    listing: Listing
    backbone: Backbone
    space: FeatureSpace
    recipe: Recipe
    wishes: Wishes
    work: WorkFolder
    digests: np.ndarray
    """Image digests (n, 32) uint8 as far as they are known."""
    known: np.ndarray
    """Which of them are known (n,) bool."""
    doubted: set[int] = field(default_factory=set)
    """Committed shards that turned out to be damaged: only their bytes tell that they are whole again."""
    restart: bool = False
    """Whether finished entries are left unused and replaced."""
    seconds: dict[str, float] = field(default_factory=lambda: {"loading": 0.0, "forward": 0.0, "writing": 0.0})
    checked_versions: set[tuple[str, ...]] = field(default_factory=set)
    """Versions of torch, torchvision and Pillow whose rows were compared with this installation's."""
    requested: dict[int, list[int]] = field(default_factory=dict)
    """Rows asked of the loader by shard number."""
    rehash: bool = False
    """Whether files are read again although their stat fields are known."""
    entries_seen: frozenset[tuple[str, int]] = frozenset()
    """`entry_stamps` when the job was prepared: what was published since may be this extraction, by another process."""
    judge: Judge | None = None
    """A head whose predictions tell what rounding to the stored dtype costs."""
    shared: SharedPass | None = None
    """What the jobs of other layers in the same pass have computed."""
    trial: Trial | None = None
    """What is known of the images of a shard that has lost workers."""
    deviation: Deviation | None = None
    """How far the engine is from the untouched module, once a batch was computed."""
    engine_why: str = ""
    """Why this engine, for people."""
    images_per_second: float | None = None
    """Of the engine's bare forward pass, if it was measured."""
    engines: dict[tuple[Hashable, ...], CheckedEngine] = field(default_factory=dict)
    """Those started already, which the jobs of other views of the same images share."""

    @property
    def shards(self) -> int:
        """How many shards the entry has."""
        return -(-len(self.listing) // self.recipe.shard_rows)

    def span(self, number: int) -> slice:
        """Return the listing rows of a shard."""
        first = number * self.recipe.shard_rows
        return slice(first, min(first + self.recipe.shard_rows, len(self.listing)))

    def rows_known(self) -> int:
        """Return how many rows lie in the cache already, as far as that is known without opening images."""
        return sum(self._known_in(first) for first in range(0, len(self.listing), SPAN))

    def _known_in(self, first: int) -> int:
        span = slice(first, first + SPAN)
        if not self.known[span].any():  # so that nothing is looked for, as long as nothing is known
            return 0
        return int((self.known[span] & (self.rows.find(self.digests[span])[:, 0] >= 0)).sum())

    def rows_to_compute(self) -> int:
        """Return how many rows are to be computed at most: a file not read yet may turn out to be known."""
        return len(self.listing) - self.rows_known()

    def payload(self, row: int) -> Payload:
        """Return the way to the pixels of a listing row."""
        return self.source.payload(self.listing.ids[row])

    @cached_property
    def rows(self) -> RowIndex:
        """Rows of this space that already lie in the cache; with `restart` only those of this extraction."""
        if self.restart:
            return RowIndex(self.space)
        return index_rows(
            self.root,
            self.space,
            recipe=self.recipe,
            engine_only=self.wishes.engine != "auto",
            work=self.work,
            digests_of=self.told_digests,
        )

    @property
    def device(self) -> "torch.device":
        """Where the recipe computes; of several such devices the one asked for.

        Raises:
            CacheError: if the work was started on a device that is not here.
        """
        return recipe_device(self.recipe, self.wishes)

    @cached_property
    def engine(self) -> CheckedEngine:
        """The engine of the recipe, on its device; its first batch is compared with the untouched module's.

        Raises:
            CacheError: as `pinned_engine`.
        """
        return self.pinned_engine(self.backbone.network, self.graphs)

    def pinned_engine(self, network: "nn.Module", graphs: str) -> CheckedEngine:
        """Return the engine of the recipe for a network, whose graphs are kept under a name of their own.

        Raises:
            CacheError: if the work was started with an engine that does not run here, or is of another version.
        """
        check_runs_here(self.recipe)
        return self._checked(self.recipe.engine, network, graphs)

    def make_engine(self, name: str) -> CheckedEngine:
        """Return an engine for this backbone, on the recipe's device and in the dtype asked for."""
        return self._checked(name, self.backbone.network, self.graphs)

    @property
    def graphs(self) -> str:
        """What the network's graphs are kept under: the same for all views of an image."""
        return self.space.of_view("", 0).sha256

    def _checked(self, name: str, network: "nn.Module", graphs: str) -> CheckedEngine:
        key = (name, graphs, str(self.device), self.recipe.threads, self.recipe.batch_size)
        if key not in self.engines:
            self.engines[key] = checked_engine(
                name,
                network,
                self.backbone.preprocess,
                self.device,
                dtype=self.space.dtype,
                threads=self.recipe.threads,
                graphs=GraphFolder(self.root, graphs),
            )
        return self.engines[key]

    def set_batch_size(self, batch_size: int) -> None:
        """Take another batch size; shards still end with a batch. Only before the recipe is pinned."""
        rows = max(batch_size, self.recipe.shard_rows // batch_size * batch_size)
        if batch_size != self.recipe.batch_size:
            self.recipe = replace(self.recipe, batch_size=batch_size, shard_rows=rows)
            self.__dict__.pop("engine", None)
            self.engines.clear()

    def features(self, pixels: np.ndarray) -> np.ndarray:
        """Return float32 features (b, *row_shape) of uint8 images (b, h, w, 3)."""
        found = self.engine.features(pixels)
        self.deviation = self.engine.deviations[0] if self.engine.deviations else None
        return found

    @cached_property
    def loader(self) -> Loader:
        """The loading processes; images whose rows lie in the cache are hashed but not decoded."""
        return self._start_loader(self.rows.keys)

    @cached_property
    def plain_loader(self) -> Loader:
        """Loading processes that decode every image, for rows that could not be had from the cache after all."""
        return self._start_loader(None)

    @cached_property
    def resizing(self) -> DeviceResize | None:
        """What resizes on the device, if a user wants that.

        Raises:
            UsageError: if it does not know the filter these weights want.
        """
        if self.wishes.resize == "workers":
            return None
        return DeviceResize(self.backbone.preprocess, self.device)

    def finished(self, batch: Batch) -> Batch:
        """Return a batch whose images are all resized: pixels (b, crop, crop, 3)."""
        if self.resizing is None:
            return batch
        crop = self.backbone.preprocess.crop
        pixels = batch.pixels[:, :crop, :crop].copy()
        for place, (height, width) in enumerate(batch.sizes[: len(batch.rows)].tolist()):
            if height:
                pixels[place] = self.resizing(batch.pixels[place, :height, :width])
        return replace(batch, pixels=pixels)

    def _start_loader(self, known: np.ndarray | None) -> Loader:
        return Loader(
            self.backbone.preprocess,
            batch_size=self.recipe.batch_size,
            workers=self.wishes.workers or max(1, auto_workers() // self.wishes.local_workers),
            known=known,
            whole=WHOLE_SIDE if self.resizing is not None else 0,
            image_timeout=self.wishes.image_timeout,
        )

    def begin(self) -> None:
        """Pin the recipe, or take over the one another process has pinned since; sweep what killed ones left.

        Raises:
            CacheError: if that is not what was asked for.
        """
        remove_leftovers(work_leftovers(self.root))
        pinned = self.work.pin(self.space, self.recipe, {"source": self.source.spec})
        if pinned != self.recipe:
            self.recipe = pinned_recipe(pinned, self.wishes)
            for name in ("engine", "resizing"):  # which may have been made for the recipe before
                self.__dict__.pop(name, None)
            self.look_again()

    def replace_with_new_rows(self) -> None:
        """Use no row that lies in the cache, and replace a finished entry."""
        self.restart = True
        self.look_again()

    def look_again(self) -> None:
        """Forget which rows lie in the cache, so that they are looked for anew."""
        self.__dict__.pop("rows", None)

    def committed(self, number: int) -> tuple[Record, ShardRows] | None:
        """Return a shard that is done and up to date with the files as they are now, else None."""
        record = self.work.record(number)
        span = self.span(number)
        if record is None or record.rows != span.stop - span.start:
            return None
        self.learn(record)
        try:
            rows = self.work.read_shard(record, self.space)
        except CacheError as error:
            logger.warning("%s; the shard is made again", error.message)
            return None
        fresh = self.known[span].all() and np.array_equal(rows.digests, self.digests[span])
        return (record, rows) if fresh else None

    def is_done(self, number: int) -> bool:
        """Tell whether a shard is committed and up to date, by its record and the size of its file.

        Its bytes are verified before any of them is used: by who copies rows from it, and when it is published.
        """
        record = self.work.outline(number) if self.known[self.span(number)].all() else self.work.record(number)
        if record is None:
            return False
        self.learn(record)  # another process may have committed it since the job was prepared
        if self._says_enough(record):
            return self.told_digests(record) is not None
        return self.committed(number) is not None

    def told_digests(self, record: Record) -> np.ndarray | None:
        """Return the digest column (n, 32) of a committed shard, if its record tells that it is this listing's."""
        span = self.span(record.shard)
        of_listing = (
            self._says_enough(record)
            and record.rows == span.stop - span.start
            and self.known[span].all()
            and record.is_of(self.digests[span])
        )
        return self.digests[span] if of_listing else None

    def _says_enough(self, record: Record) -> bool:
        return record.content is not None and record.shard not in self.doubted and self.work.has_shard(record)

    def missing(self) -> list[int]:
        """Return the numbers of the shards that are not done or not up to date."""
        there = set(self.work.numbers())  # one question for all: many workers ask it of one folder
        return [number for number in range(self.shards) if number not in there or not self.is_done(number)]

    def learn(self, record: Record) -> None:
        """Take over file digests from a commit record, so that files it covers are not read again."""
        span = self.span(record.shard)
        if self.listing.stats is None or self.rehash or not len(record.stats) or self.known[span].all():
            return
        digests, known = StatIndex(record.stats).lookup(self.listing.stats[span])
        self.digests[span][known] = digests[known]
        self.known[span] |= known

    def splits(self, digests: np.ndarray) -> tuple[np.ndarray, dict[str, Any] | None]:
        """Return the splits (n,) int8 and how they were derived, None where none were.

        A source that names a test split keeps it; one without labels needs none.
        """
        named, rule = self.listing.splits, self.split_rule
        if rule is None:
            return named, None
        fraction, groups = self.wishes.test_fraction, self.listing.groups
        test = drawn("test", SPLIT_SEED, fraction, digests, self.listing.ids, groups=groups)
        return np.where(test & (named == TRAIN), np.int8(TEST), named), rule

    @cached_property
    def split_rule(self) -> dict[str, Any] | None:
        """How splits are derived, None where none are."""
        if (self.listing.splits == TEST).any() or not self.wishes.test_fraction or not self.listing.classes:
            return None
        rule: dict[str, Any] = {"seed": SPLIT_SEED, "test_fraction": self.wishes.test_fraction}
        return rule if self.listing.groups is None else {**rule, "by": "group"}

    def final_id(self, digests: np.ndarray, splits: np.ndarray | None = None) -> str:
        """Return the entry's id once all image digests are known; `splits` as `splits` gave them, if it was asked."""
        listing = self.listing
        if splits is None:
            splits, _ = self.splits(digests)
        return entry_id(self.space, listing.classes, listing.ids, digests, listing.labels, splits, listing.groups)

    def close(self) -> None:
        """Stop the loading processes, if they were started, and forget what was asked of them."""
        self.requested.clear()
        for name in ("loader", "plain_loader"):
            if name in self.__dict__:
                self.__dict__.pop(name).close()
