"""Features that stay on disk: the rows of an entry larger than memory, a few MB at a time, every byte verified.

One pass when they are opened verifies whole shards and takes the SHA-256 of each slice of them (`store.slices`);
every later read is verified by these. What is read next is read while what is there is used.

The shuffle of an epoch, seeded: the slices of each shard are put in random order and dealt evenly over the epoch;
of what comes to lie in one block the rows are put in random order. Shuffling whole shards would not do: the rows of
a folder lie class by class, so a block of a few shards has a few classes. docs/HEADS.md has the figures.
"""

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import islice
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np

from pipeline.errors import DataError, UsageError
from pipeline.features import Features, features_of, read_features
from pipeline.memory import free_memory
from pipeline.store.catalog import mark_used
from pipeline.store.entry import Entry
from pipeline.store.slices import Slice, read_slice, slice_entry

if TYPE_CHECKING:
    import torch
    from torch import Tensor

Stream = Literal["auto", "always", "never"]
"""Whether features stay on disk; auto: if they would fill too much of the free memory."""
BLOCK_BYTES = 64 << 20
"""Rows that are shuffled together: 256 slices, enough for each class to be in a block about as often as in all."""
MIXED_BATCHES = 16
"""Batches that are gathered from a block at once."""
READERS = 2
"""Chunks read ahead, and threads that read them: hashing and reading release Python's lock."""
MEMORY_SHARE = 0.3
"""Of the free memory, that features in memory may need: a solver keeps up to two changed copies beside them."""


@dataclass(frozen=True)
class Piece:
    """Some rows of a slice."""

    part: Slice
    rows: np.ndarray
    """Their places in the slice (m,) int64, rising."""


@dataclass(frozen=True, eq=False)
class StreamedRows:
    """Feature rows (n, *row_shape) on disk, with what solvers use of a tensor: `shape`, `device`, `len` and `split`."""

    entry: Entry
    pieces: tuple[Piece, ...]
    device: "torch.device"
    """Where chunks are handed out."""
    change: "Callable[[Tensor], Tensor] | None" = None
    """Done to every chunk (m, *row_shape)."""

    @cached_property
    def _ends(self) -> np.ndarray:
        return np.cumsum([len(piece.rows) for piece in self.pieces], dtype=np.int64)

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    @property
    def shape(self) -> tuple[int, ...]:
        """(n, *row_shape): (n, d) of vectors."""
        return len(self), *self.entry.space.row_shape

    def to(self, device: "torch.device") -> "StreamedRows":
        """Return the same rows, handed out on a device."""
        return replace(self, device=device)

    def mapped(self, change: "Callable[[Tensor], Tensor]") -> "StreamedRows":
        """Return the rows with each chunk changed; a change there is already comes first."""
        first = self.change
        return replace(self, change=change if first is None else lambda chunk: change(first(chunk)))

    def select(self, rows: np.ndarray) -> "StreamedRows":
        """Return some rows (m,), given by rising positions; slices that have none of them are not read.

        Raises:
            ValueError: if positions do not rise.
        """
        if len(rows) and not (np.diff(rows) > 0).all():
            raise ValueError("rows of a stream are taken in their order")
        starts = self._ends - [len(piece.rows) for piece in self.pieces]
        parts = np.split(rows, np.searchsorted(rows, starts[1:]))
        chosen = zip(self.pieces, parts, starts, strict=True)
        kept = (Piece(piece.part, piece.rows[part - start]) for piece, part, start in chosen if len(part))
        return replace(self, pieces=tuple(kept))

    def split(self, size: int, /) -> "Iterator[Tensor]":
        """Yield consecutive chunks (size, *row_shape), the last perhaps smaller, as `Tensor.split` gives them.

        Raises:
            CacheError: if a file is not what it was when the rows were opened.
        """
        import torch

        n = len(self)
        for chunk in _ahead(self._read, ((first, min(first + size, n)) for first in range(0, n, size))):
            tensor = torch.from_numpy(chunk).to(self.device)
            yield tensor if self.change is None else self.change(tensor)

    def shuffled(self, generator: "torch.Generator", batch_size: int) -> "Iterator[tuple[Tensor, Tensor]]":
        """Yield all rows in the random order this module describes, at most MIXED_BATCHES batches at a time.

        Yields:
            Positions (m,) int64 on the CPU, and features (m, *row_shape).
        """
        import torch

        order = self._dealt(generator).tolist()
        starts = (self._ends - [len(piece.rows) for piece in self.pieces]).tolist()
        dealt = replace(self, pieces=tuple(self.pieces[place] for place in order))
        places = [torch.arange(starts[place], starts[place] + len(self.pieces[place].rows)) for place in order]
        positions = torch.cat(places)
        # Blocks, and what is gathered from them, end where batches do. Of maps a batch may be as large as a block.
        batch_bytes = self.entry.space.row_bytes * batch_size
        step = min(MIXED_BATCHES, max(1, BLOCK_BYTES // batch_bytes)) * batch_size
        size = max(1, BLOCK_BYTES // (self.entry.space.row_bytes * step)) * step
        for block, found in zip(dealt.split(size), positions.split(size), strict=True):
            mixed = torch.randperm(len(found), generator=generator)
            for part in mixed.split(step):
                yield found[part], block.index_select(0, part.to(block.device))

    def _dealt(self, generator: "torch.Generator") -> "Tensor":
        """Return the pieces in an order in which each shard's come at random, and evenly between all others'."""
        import torch

        shards = np.array([piece.part.shard for piece in self.pieces])
        _, counts = np.unique(shards, return_counts=True)
        keys = [(torch.randperm(k, generator=generator) + torch.rand(k, generator=generator)) / k for k in counts]
        places = torch.from_numpy(np.argsort(shards, kind="stable"))
        return places[torch.cat(keys).argsort(stable=True)]

    def _read(self, first: int, stop: int) -> np.ndarray:
        out = np.empty((stop - first, *self.entry.space.row_shape), self.entry.space.store_dtype)
        at, filled = int(np.searchsorted(self._ends, first, side="right")), 0
        while filled < len(out):
            piece, end = self.pieces[at], int(self._ends[at])
            start = end - len(piece.rows)
            rows = piece.rows[max(0, first - start) : stop - start]
            out[filled : filled + len(rows)] = read_slice(self.entry, piece.part)[rows]
            at, filled = at + 1, filled + len(rows)
        return out


@dataclass(frozen=True)
class StreamedFeatures:
    """An entry whose samples are in memory and whose features are not."""

    samples: Features
    """Labels, ids, splits; its `x` is on torch's `meta` device, a shape and a dtype without data."""
    x: StreamedRows


def stream_features(entry: Entry) -> StreamedFeatures:
    """Open an entry's usable rows (n, *row_shape), after one pass that verifies every byte.

    Raises:
        CacheError: if a file of it is missing or damaged (it is named).
        DataError: if there are no usable rows.
    """
    import torch

    mark_used(entry)
    table = entry.read_samples()
    kept = table.usable
    entry.check_sizes()
    parts = slice_entry(entry, table)
    usable = ((part, np.flatnonzero(kept[part.first : part.first + part.rows])) for part in parts)
    rows = StreamedRows(entry, tuple(Piece(part, rows) for part, rows in usable if len(rows)), torch.device("cpu"))
    if not len(rows):
        raise DataError(f"cache entry {entry.id} has no usable rows")
    dtype = torch.from_numpy(np.empty(0, entry.space.store_dtype)).dtype
    return StreamedFeatures(features_of(entry, table, torch.empty(rows.shape, dtype=dtype, device="meta")), rows)


def open_features(entry: Entry, stream: Stream = "auto") -> "tuple[Features, Tensor | StreamedRows]":
    """Return an entry's samples, and its features (n, d) in memory or streamed, as heads take them.

    Raises:
        UsageError: if `stream` is not one of its words, or rows are no vectors.
        CacheError, DataError: as `stream_features` and `read_features`.
    """
    check_vectors(entry)
    return open_rows(entry, stream)


def open_rows(entry: Entry, stream: Stream = "auto") -> "tuple[Features, Tensor | StreamedRows]":
    """Return an entry's samples, and its rows (n, *row_shape) of any shape in memory or streamed.

    Raises:
        UsageError: if `stream` is not one of its words.
        CacheError, DataError: as `stream_features` and `read_features`.
    """
    if stream not in get_args(Stream):
        raise UsageError(f"unknown stream {stream!r}", f"Known: {', '.join(get_args(Stream))}")
    if stream == "always" or (stream == "auto" and needs_streaming(entry)):
        opened = stream_features(entry)
        return opened.samples, opened.x
    features = read_features(entry)
    return features, features.x


def features_in_memory(entry: Entry, user: str) -> Features:
    """Read an entry's features (n, d) for what cannot stream; `user` says in an error who that is (`an audit`).

    Raises:
        UsageError: if rows are no vectors.
        DataError: if they do not fit the free memory.
        CacheError: as `read_features`.
    """
    check_vectors(entry)
    if needs_streaming(entry):
        raise DataError(
            f"cache entry {entry.id} has {entry.rows:,} rows x {entry.dim:,} features, too much for the free memory, "
            f"in which {user} keeps them",
            "Extract fewer images with --limit, or use a machine with more memory.",
        )
    return read_features(entry)


def check_vectors(entry: Entry) -> None:
    """Refuse rows that are no vectors (d,).

    Raises:
        UsageError: saying what they are.
    """
    if len(entry.space.row_shape) != 1:
        raise UsageError(
            f"cache entry {entry.id} holds rows {tuple(entry.space.row_shape)}, a head needs (d,)",
            f"`pipeline finetune {entry.id}` trains the layers behind them too; or extract with --pool avg.",
        )


def needs_streaming(entry: Entry) -> bool:
    """Return whether an entry's features would take more than MEMORY_SHARE of the free memory.

    That is as float32, but of rows that are no vectors as they are stored: of these no changed copy is made.
    """
    row_bytes = 4 * entry.dim if len(entry.space.row_shape) == 1 else entry.space.row_bytes
    return row_bytes * entry.rows > MEMORY_SHARE * free_memory()


def _ahead(read: Callable[[int, int], np.ndarray], spans: Iterator[tuple[int, int]]) -> Iterator[np.ndarray]:
    """Yield what is read of each span in order, READERS of them read ahead."""
    with ThreadPoolExecutor(READERS) as pool:
        waiting = deque(pool.submit(read, *span) for span in islice(spans, READERS))
        while waiting:
            found = waiting.popleft().result()
            waiting.extend(pool.submit(read, *span) for span in islice(spans, 1))
            yield found
