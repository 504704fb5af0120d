"""A column of texts, like the ids of a source: held as a few bytes each, and made into Python strings when asked for.

Ten million paths as a list of `str` take about 900 MB. Neighbours are alike, so blocks of them are held compressed.
"""

import zlib
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from typing import overload

import numpy as np

BLOCK = 256
"""Texts that are compressed together: one of them costs the unpacking of all, about 20 microseconds."""
PART = 64
"""Blocks that are turned into fixed-length bytes together."""
LEVEL = 1
"""zlib's fastest. A higher one takes three times as long for a tenth less."""


class TextColumn(Sequence[str]):
    """Texts in a fixed order. None holds a NUL, which ends each of them where they are hashed or compressed.

    Bytes that are not UTF-8, which file names may have, are kept: they come back as surrogate escapes.
    """

    def __init__(self, texts: Iterable[str] = ()) -> None:
        column = ColumnBuilder()
        column.extend(texts)
        self._hold(column)

    @classmethod
    def built(cls, builder: "ColumnBuilder") -> "TextColumn":
        """Return the column of all that `builder` was given."""
        column = cls.__new__(cls)
        column._hold(builder)
        return column

    def _hold(self, builder: "ColumnBuilder") -> None:
        self._packed, self._count, self.longest = builder.finished()
        self._last: tuple[int, list[bytes]] = (-1, [])

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, key: int) -> str: ...
    @overload
    def __getitem__(self, key: slice) -> "TextColumn": ...
    def __getitem__(self, key: int | slice) -> "str | TextColumn":
        if isinstance(key, slice):
            return self.take(range(self._count)[key])
        row = key if key >= 0 else key + self._count
        if not 0 <= row < self._count:
            raise IndexError(f"row {key} of {self._count:,}")
        return bytes_text(self._block(row // BLOCK)[row % BLOCK])

    def __iter__(self) -> Iterator[str]:
        for block in self.blocks():
            for data in block[:-1].split(b"\0"):
                yield bytes_text(data)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, TextColumn):
            return self._count == len(other) and self._packed == other._packed
        if not isinstance(other, Sequence) or isinstance(other, str | bytes):
            return NotImplemented
        return self._count == len(other) and all(one == two for one, two in zip(self, other, strict=True))

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        few = ", ".join(map(repr, self[:3]))
        return f"<{self._count:,} texts: {few}{', …' if self._count > 3 else ''}>"

    def __contains__(self, text: object) -> bool:
        return isinstance(text, str) and self._find(text) is not None

    def index(self, value: str, start: int = 0, stop: int | None = None) -> int:
        """Return the first row of a text, found in logarithmic time; the first call sorts the hashes of all.

        Raises:
            ValueError: if it is not there, or not between `start` and `stop`.
        """
        row = self._find(value)
        if row is None or row not in range(self._count)[start:stop]:
            raise ValueError(f"{value!r} is not in the column")
        return row

    def blocks(self) -> Iterator[bytes]:
        """Yield the bytes of all texts, some hundred at a time, each text ended by a NUL."""
        return map(zlib.decompress, self._packed)

    def take(self, rows: Iterable[int]) -> "TextColumn":
        """Return the column of some rows, in their order; quick where that is mostly ascending."""
        column = ColumnBuilder()
        for row in rows:
            column.append_bytes(self._block(row // BLOCK)[row % BLOCK])
        return TextColumn.built(column)

    @property
    def dtype(self) -> np.dtype:
        """What holds each of the texts: `S` and the bytes of the longest, at least 1."""
        return np.dtype(f"S{max(1, self.longest)}")

    def parts(self) -> Iterator[np.ndarray]:
        """Yield the texts as fixed-length bytes (m,), some thousands at a time."""
        for first in range(0, len(self._packed), PART):
            blocks = map(zlib.decompress, self._packed[first : first + PART])
            yield np.array([data for block in blocks for data in block[:-1].split(b"\0")], self.dtype)

    def fixed(self) -> np.ndarray:
        """Return the texts as fixed-length bytes (n,)."""
        return np.concatenate([np.empty(0, self.dtype), *self.parts()])

    def repeated(self) -> tuple[int, int] | None:
        """Return the first row whose text an earlier row has, as (earlier row, row); None if all differ."""
        hashes = np.sort(self._hashes())
        twice = np.unique(hashes[1:][hashes[1:] == hashes[:-1]])
        if not len(twice):
            return None
        first: dict[str, int] = {}
        for row in np.flatnonzero(np.isin(self._hashes(), twice)).tolist():
            earlier = first.setdefault(self[row], row)
            if earlier != row:
                return earlier, row
        return None

    def _block(self, number: int) -> list[bytes]:
        held, texts = self._last
        if held != number:
            texts = zlib.decompress(self._packed[number])[:-1].split(b"\0")
            self._last = (number, texts)
        return texts

    def _hashes(self) -> np.ndarray:
        return np.fromiter((hash(data) for block in self.blocks() for data in block[:-1].split(b"\0")), np.int64)

    @cached_property
    def _sorted(self) -> tuple[np.ndarray, np.ndarray]:
        hashes = self._hashes()
        order = np.argsort(hashes, kind="stable").astype(np.int32 if self._count < 1 << 31 else np.int64)
        return hashes[order], order

    def _find(self, text: str) -> int | None:
        hashes, order = self._sorted
        wanted = text_bytes(text)
        at, end = (int(np.searchsorted(hashes, hash(wanted), side)) for side in ("left", "right"))
        return next((int(row) for row in order[at:end] if self[int(row)] == text), None)


class ColumnBuilder:
    """Takes texts one after the other; `TextColumn.built` makes the column."""

    def __init__(self) -> None:
        self._packed: list[bytes] = []
        self._waiting: list[bytes] = []
        self._longest = 0

    def __len__(self) -> int:
        return len(self._packed) * BLOCK + len(self._waiting)

    def append(self, text: str) -> None:
        """Take one more text."""
        self.append_bytes(text_bytes(text))

    def append_bytes(self, data: bytes) -> None:
        """Take one more text as bytes."""
        self._waiting.append(data)
        if len(self._waiting) == BLOCK:
            self._pack()

    def extend(self, texts: Iterable[str]) -> None:
        """Take several more."""
        for text in texts:
            self.append(text)

    def finished(self) -> tuple[list[bytes], int, int]:
        """Return the compressed blocks, the number of texts, and the bytes of the longest."""
        count = len(self)
        if self._waiting:
            self._pack()
        return self._packed, count, self._longest

    def _pack(self) -> None:
        block = b"\0".join(self._waiting) + b"\0"
        if block.count(b"\0") != len(self._waiting):
            raise ValueError("a text holds a NUL")
        self._longest = max(self._longest, *map(len, self._waiting))
        self._packed.append(zlib.compress(block, LEVEL))
        self._waiting.clear()


def column_of(texts: Sequence[str]) -> TextColumn:
    """Return texts as a column; one that is a column is returned itself."""
    return texts if isinstance(texts, TextColumn) else TextColumn(texts)


def text_bytes(text: str) -> bytes:
    """Return a text as bytes; file names that are not UTF-8 come back unchanged with `bytes_text`."""
    return text.encode("utf-8", "surrogateescape")


def bytes_text(data: bytes) -> str:
    """Return the text that `text_bytes` made `data` from."""
    return data.decode("utf-8", "surrogateescape")
