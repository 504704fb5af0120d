"""Python data sets given to `extract` as objects: anything with `__len__` and `__getitem__` -> (image, label)."""

import hashlib
import os
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.digest import array_digest
from pipeline.errors import DataError, UsageError
from pipeline.sources.facts import Facts, Stats, path_facts
from pipeline.sources.groups import folder_groups
from pipeline.sources.hugging import hugging_objects, is_hugging
from pipeline.sources.names import EXTENSIONS, LabelNumbers, label_text, some, split_number
from pipeline.sources.numbered import NumberedIds
from pipeline.sources.reading import PLAIN, Reading
from pipeline.sources.source import (
    UNLABELLED,
    ArrayPayload,
    BytesPayload,
    FilePayload,
    Listing,
    Payload,
    Source,
)
from pipeline.textcolumn import TextColumn

READING = frozenset({"group_by", "unlabelled"})
DROP = "Drop the transform (ToTensor, Normalize, …): images are wanted as the data set has them."


@dataclass(frozen=True)
class Part:
    """One split's data set."""

    name: str
    split: int
    rows: Any

    @cached_property
    def files(self) -> list[str] | None:
        """Paths of the images where the data set names them, as torchvision's ImageFolder does in `samples`."""
        samples = getattr(self.rows, "samples", None)
        if not isinstance(samples, list) or not samples or len(samples) != len(self.rows):
            return None
        paths = [item[0] for item in samples if isinstance(item, tuple) and len(item) == 2]
        return [os.fspath(path) for path in paths] if len(paths) == len(samples) and _are_images(paths) else None

    def label_of_file(self, index: int) -> Any:  # noqa: ANN401 - whatever the data set makes of it
        """Return the label that the data set gives to one of its files."""
        label, change = self.rows.samples[index][1], getattr(self.rows, "target_transform", None)
        return label if change is None else change(label)

    @property
    def classes(self) -> tuple[str, ...] | None:
        """Class names, also those of a data set that this one is a Subset of."""
        inner = getattr(self.rows, "dataset", None)
        names = getattr(self.rows, "classes", None) or getattr(inner, "classes", None)
        return tuple(str(name) for name in names) if names else None


@dataclass(frozen=True)
class DatasetSource:
    """Data sets in this process. Ids are positions, or paths below the folder of all files, after `<split>/`."""

    name: str
    parts: tuple[Part, ...]
    reading: Reading = PLAIN

    @property
    def spec(self) -> str:
        """The name, prefixed; it opens nothing: only the program that made the data set can make it again."""
        return f"python:{self.name}"

    @cached_property
    def folder(self) -> str | None:
        """The folder that holds all files, None for images that are not in files."""
        if any(part.files is None for part in self.parts):
            return None
        return os.path.commonpath(
            {os.path.dirname(os.path.abspath(path)) for part in self.parts for path in part.files or ()}
        )

    def describe(self) -> dict[str, Any]:
        """Name the data set; what is in it is said by the image digests."""
        return {"kind": "python", "location": self.name, **self.reading.described()}

    def listing(self) -> Listing:
        """List all samples, each of which is asked for once unless the data set names its files.

        Raises:
            DataError: if an image or a label is of a kind that cannot be used.
        """
        ids, labels = self._ids, LabelNumbers()
        digests = np.zeros((0 if self.folder is not None else len(ids), 32), np.uint8)
        for row, (part, index) in enumerate(self._samples()):
            if self.folder is not None:
                label = part.label_of_file(index)
            else:
                image, label = self._item(part, index)
                digest = _digest(_payload(image, self._where(part, index)))
                digests[row] = np.frombuffer(digest, np.uint8)
            if not self.reading.unlabelled:
                labels.append(self._class_name(part, label))
        unlabelled: tuple[np.ndarray, tuple[str, ...]] = np.full(len(ids), UNLABELLED, np.int64), ()
        numbers, classes = unlabelled if self.reading.unlabelled else labels.numbered(self._told_classes())
        return Listing(
            ids,
            numbers,
            np.concatenate([np.full(len(part.rows), part.split, np.int8) for part in self.parts]),
            classes,
            Stats(len(ids), self._facts) if self.folder is not None else None,
            self._notes(),
            folder_groups(ids, self.reading.group_by),
            digests if self.folder is None else None,
        )

    def payload(self, sample_id: str) -> Payload:
        """Return the sample's image.

        Raises:
            DataError: if there is no such sample.
        """
        place = self._numbers.place(sample_id) if self.folder is None else self._place_of_file(sample_id)
        if place is None:
            raise DataError(f"{self.spec} has no sample {sample_id}", "Is this the data set that was extracted?")
        part, index = self.parts[place[0]], place[1]
        if self.folder is not None and part.files is not None:
            return FilePayload(os.path.abspath(part.files[index]))
        return _payload(self._item(part, index)[0], self._where(part, index))

    @cached_property
    def _ids(self) -> TextColumn:
        if self.folder is None:
            return TextColumn(self._numbers)
        ids = TextColumn(os.path.relpath(path, self.folder) for part in self.parts for path in part.files or ())
        twice = ids.repeated()
        if twice is not None:
            raise DataError(f"{self.spec} has the image {ids[twice[0]]} twice", "Each image is one sample.")
        return ids

    @property
    def _numbers(self) -> NumberedIds:
        return NumberedIds([part.name for part in self.parts], [len(part.rows) for part in self.parts])

    def _samples(self) -> Iterator[tuple[Part, int]]:
        """Yield (part, index in it) of every sample."""
        return ((part, index) for part in self.parts for index in range(len(part.rows)))

    def _place_of_file(self, sample_id: str) -> tuple[int, int] | None:
        return self._place(self._ids.index(sample_id)) if sample_id in self._ids else None

    def _place(self, row: int) -> tuple[int, int]:
        """Return (part, index in it) of a row."""
        starts = list(accumulate((len(part.rows) for part in self.parts), initial=0))
        part = bisect_right(starts, row) - 1
        return part, row - starts[part]

    def _where(self, part: Part, index: int) -> str:
        return f"{self.spec}, {part.name}, item {index}"

    def _item(self, part: Part, index: int) -> tuple[Any, Any]:
        item = part.rows[index]
        if isinstance(item, tuple | list) and len(item) >= 2:
            return item[0], item[1]
        if self.reading.unlabelled:
            return item[0] if isinstance(item, tuple | list) and item else item, None
        raise DataError(
            f"{self._where(part, index)} is {_kind(item)}, not (image, label)", "Pass unlabelled=True for images alone."
        )

    def _told_classes(self) -> tuple[str, ...] | None:
        """Return the class names that all parts agree on, None where they do not."""
        told = {part.classes for part in self.parts}
        classes = next(iter(told)) if len(told) == 1 else None
        return classes if classes is not None and len(set(classes)) == len(classes) else None

    def _class_name(self, part: Part, label: Any) -> str:  # noqa: ANN401 - whatever a data set has
        if getattr(label, "ndim", None) == 0 and hasattr(label, "item"):  # a number of numpy's or torch's
            label = label.item()
        name = label_text(label)
        if name is None:
            raise DataError(
                f"{self.spec}, {part.name}: a label is {_kind(label)}, not text or an integer",
                "Single labels only; or pass unlabelled=True.",
            )
        if part.classes is None or (isinstance(label, str) and label in part.classes):
            return name
        if isinstance(label, str) or not 0 <= int(label) < len(part.classes):
            raise DataError(f"{self.spec}, {part.name}: label {name} is not one of {len(part.classes)} classes")
        return part.classes[int(label)]

    def _facts(self, rows: Iterable[int]) -> Iterator[Facts]:
        for row in rows:
            part, index = self._place(row)
            files = self.parts[part].files
            assert files is not None
            yield path_facts(files[index])

    def _notes(self) -> tuple[str, ...]:
        dropped = self.folder is not None and any(getattr(part.rows, "transform", None) for part in self.parts)
        return ("images are read from the data set's files; its transform plays no part",) if dropped else ()


def dataset_source(opened: Any, name: str | None, reading: Reading) -> Source:  # noqa: ANN401 - any data set
    """Take a data set, or a dict of them by split, as a source.

    Raises:
        UsageError: if it is nothing of the kind.
        DataError: if a split is not known.
    """
    parts = dict(opened) if isinstance(opened, Mapping) else {"train": opened}
    first = next(iter(parts.values()), None)
    name = name or type(first).__name__
    if parts and all(is_hugging(rows) for rows in parts.values()):
        return hugging_objects(name, opened, reading)
    for rows in parts.values():
        if isinstance(rows, str | bytes) or not (hasattr(rows, "__len__") and hasattr(rows, "__getitem__")):
            raise UsageError(
                f"a source is a path, a name or a data set, not {_kind(rows)}",
                "A data set has __len__ and __getitem__; several go in a dict: {'train': …, 'test': …}.",
            )
    if not parts or not all(len(rows) for rows in parts.values()):
        raise DataError(f"python:{name} has no images" if not parts else f"python:{name} has a split without images")
    reading.check(READING, "a data set in Python")
    split = [Part(key, split_number(str(key), f"python:{name}"), rows) for key, rows in parts.items()]
    if len({part.split for part in split}) < len(split):
        raise DataError(f"python:{name} has two data sets for one split: {some(map(str, parts))}")
    return DatasetSource(name, tuple(sorted(split, key=lambda part: part.split)), reading)


def _are_images(paths: Sequence[object]) -> bool:
    return all(isinstance(path, str | os.PathLike) and str(path).lower().endswith(EXTENSIONS) for path in paths)


def _payload(image: Any, where: str) -> Payload:  # noqa: ANN401 - whatever a data set has
    if isinstance(image, bytes):
        return BytesPayload(image)
    if isinstance(image, str | os.PathLike):
        return FilePayload(os.path.abspath(image))
    if hasattr(image, "convert") and hasattr(image, "mode"):  # Pillow's images, of whatever class
        if image.mode in ("I", "F") or image.mode.startswith("I;"):
            raise DataError(f"{where} has pixels of mode {image.mode}, whose range is not known")
        image = np.asarray(image if image.mode in ("L", "RGB") else image.convert("RGB"))
    if not isinstance(image, np.ndarray):
        raise DataError(f"{where} is {_kind(image)}, not an image: Pillow's, uint8 pixels, a path or bytes", DROP)
    if image.ndim == 3 and image.shape[2] == 1:
        image = image[:, :, 0]
    if image.dtype != np.uint8 or not (image.ndim == 2 or (image.ndim == 3 and image.shape[2] == 3)) or not image.size:
        raise DataError(f"{where} is {_kind(image)}, not uint8 (h, w) or (h, w, 3)", DROP)
    return ArrayPayload(image)


def _digest(payload: Payload) -> bytes:
    """Return an image's digest; zeros for a file that cannot be read, which the loader then names."""
    if isinstance(payload, ArrayPayload):
        return array_digest(payload.array)
    if isinstance(payload, BytesPayload):
        return hashlib.sha256(payload.data).digest()
    try:
        return hashlib.sha256(Path(payload.path).read_bytes()).digest()
    except OSError:
        return bytes(32)


def _kind(value: object) -> str:
    shape, dtype = getattr(value, "shape", None), getattr(value, "dtype", None)
    what = type(value).__name__
    return f"a {what}" + (f" {dtype} {tuple(shape)}" if shape is not None and dtype is not None else "")
