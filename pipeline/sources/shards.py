"""WebDataset shards: tar files in which an image and its label have names that differ after the first dot alone.

`000017.jpg` and `000017.cls` are one sample, `000017`; `000017.json` may hold its label and more. Images are read in
place, by offset and size.
"""

import json
import os
import re
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.errors import DataError, nearest
from pipeline.sources.facts import Facts, Stats, member_facts
from pipeline.sources.groups import folder_groups, folder_level
from pipeline.sources.members import Archive, Member, open_archive
from pipeline.sources.names import EXTENSIONS, SPLIT_NAMES, LabelNumbers, Noted, label_text, some
from pipeline.sources.reading import PLAIN, Reading
from pipeline.sources.source import TRAIN, UNLABELLED, FilePayload, Listing
from pipeline.textcolumn import ColumnBuilder, TextColumn

IMAGES = tuple(extension[1:] for extension in EXTENSIONS)
MAX_LABEL_BYTES = 1 << 20
SPLIT = re.compile(rf"({'|'.join(sorted(SPLIT_NAMES, key=len, reverse=True))})(?![a-z])", re.IGNORECASE)
"""How the name of a shard, or of the folder it lies in, begins that belongs to a split."""


@dataclass
class _Sample:
    """Members of one key in one archive."""

    image: Member | None = None
    label: Member | None = None
    fields: Member | None = None


@dataclass(frozen=True)
class _Shard:
    """One archive's samples by key: objects, which are let go before the next archive is opened."""

    archive: Archive
    prefix: str
    """What stands before a key in its id: the split, where shards are named by it."""
    split: int
    samples: dict[str, _Sample]


@dataclass(frozen=True)
class _Told:
    """What is said of the samples of all archives so far."""

    labels: LabelNumbers = field(default_factory=LabelNumbers)
    groups: ColumnBuilder = field(default_factory=ColumnBuilder)
    splits: "array[int]" = field(default_factory=lambda: array("b"))
    without_image: Noted[str] = field(default_factory=Noted[str])


@dataclass(frozen=True)
class _Places:
    """Where the images of all samples lie."""

    ids: TextColumn
    archives: Sequence[Archive]
    """Without their members."""
    archive: np.ndarray
    """(n,) int32, positions in `archives`."""
    spans: np.ndarray
    """(n, 2) int64, offset and size in bytes."""

    def payload(self, row: int) -> FilePayload:
        """Return the image of a sample."""
        offset, size = self.spans[row].tolist()
        return FilePayload(str(self.archives[self.archive[row]].path), (offset, size))

    def facts(self, rows: Iterable[int]) -> Iterator[Facts]:
        """Yield the facts of some samples' images, as the archives were when they were listed."""
        for row in rows:
            yield member_facts(self.archives[self.archive[row]].facts, int(self.spans[row, 0]))


@dataclass(frozen=True)
class ShardsSource:
    """Samples in tar files, in their order. Ids are the keys, after `<split>/` where shards are named by split."""

    given: str
    """What a user typed, made absolute."""
    paths: tuple[Path, ...]
    reading: Reading = PLAIN

    @property
    def spec(self) -> str:
        """What was given, prefixed."""
        return f"tar:{self.given}"

    @cached_property
    def folder(self) -> str:
        """The real path of the folder that holds all shards."""
        return os.path.commonpath([path.parent.resolve() for path in self.paths])

    def describe(self) -> dict[str, Any]:
        """Name the shards and how they are read."""
        return {"kind": "tar", "location": self.given, **self.reading.described()}

    def payload(self, sample_id: str) -> FilePayload:
        """Return the place of the sample's image in its shard.

        Raises:
            DataError: if no shard has it any more.
        """
        try:
            row = self._places.ids.index(sample_id)
        except ValueError:
            raise DataError(f"no shard of {self.given} has a sample {sample_id}", "Have the shards changed?") from None
        return self._places.payload(row)

    def listing(self) -> Listing:
        """List the samples, shard by shard. Images are not opened.

        Raises:
            DataError: if a shard cannot be used, or a sample has no label, two images, or a key that others have.
        """
        told = _Told()
        places = self._scan(partial(self._note, told))
        self.__dict__["_places"] = places  # so that the headers are not read once more
        ids, without = places.ids, told.without_image
        if not len(ids):
            raise DataError(f"{self.given} has no images in it (looked for {' '.join(EXTENSIONS)})")
        plain: tuple[np.ndarray, tuple[str, ...]] = np.full(len(ids), UNLABELLED, np.int64), ()
        labels, classes = plain if self.reading.unlabelled else told.labels.numbered()
        splits = np.full(len(ids), TRAIN, np.int8) if self.reading.unlabelled else np.array(told.splits, np.int8)
        said = f"{without.count:,} keys in the shards have no image and are left out: {some(without.first)}"
        return Listing(
            ids,
            labels,
            splits,
            classes,
            Stats(len(ids), places.facts),
            (said,) if without.count else (),
            TextColumn.built(told.groups) if self._group_field else folder_groups(ids, self.reading.group_by),
        )

    @property
    def _group_field(self) -> str | None:
        """The field of KEY.json that names groups, None where none does."""
        return self.reading.group_by if folder_level(self.reading.group_by) is None else None

    def _note(self, told: _Told, shard: _Shard) -> None:
        """Take labels and groups, as far as they are wanted, from the small members beside the images."""
        samples = {shard.prefix + key: sample for key, sample in shard.samples.items()}
        for sample_id, sample in samples.items():
            if sample.image is None:
                told.without_image.add(sample_id)
        there = {sample_id: sample for sample_id, sample in samples.items() if sample.image is not None}
        told.splits.extend([shard.split] * len(there))
        if self._group_field and there:
            for sample_id, fields in _documents(shard.archive, there):
                told.groups.append(_field(shard.archive, sample_id, fields, self._group_field))
        if not self.reading.unlabelled and there:
            for label in self._labels(shard.archive, there):
                told.labels.append(label)

    @cached_property
    def _places(self) -> _Places:
        return self._scan(lambda _: None)

    def _scan(self, note: Callable[[_Shard], None]) -> _Places:
        """Read the headers of all shards in order; `note` sees each with its samples."""
        column = ColumnBuilder()
        archives: list[Archive] = []
        archive, spans = array("i"), array("q")
        for shard in self._shards():
            note(shard)
            for key, sample in shard.samples.items():
                if sample.image is not None:
                    column.append(shard.prefix + key)
                    archive.append(len(archives))
                    spans.extend((sample.image.offset, sample.image.size))
            archives.append(replace(shard.archive, members=[]))
        places = _Places(
            TextColumn.built(column),
            archives,
            np.frombuffer(archive, np.int32),
            np.frombuffer(spans, np.int64).reshape(-1, 2),
        )
        twice = places.ids.repeated()
        if twice is not None:
            one, other = (archives[places.archive[row]].path for row in reversed(twice))
            raise DataError(f"{one} and {other} both have a sample {places.ids[twice[0]]}", "Keys must be unique.")
        return places

    def _shards(self) -> Iterator[_Shard]:
        names = {number: name for name, number in reversed(SPLIT_NAMES.items())}
        for path, split in zip(self.paths, _splits_of(self.paths), strict=True):
            archive = open_archive(path)
            prefix = "" if split is None else f"{names[split]}/"
            yield _Shard(archive, prefix, TRAIN if split is None else split, _samples(archive))

    def _labels(self, archive: Archive, samples: dict[str, _Sample]) -> list[str]:
        name = self.reading.label_column
        if name is not None or next(iter(samples.values())).label is None:
            documents = _documents(archive, samples)
            return [_field(archive, key, value, name or "label") for key, value in documents]
        missing = [key for key, sample in samples.items() if sample.label is None]
        if missing:
            raise DataError(f"{archive.path}: {len(missing):,} samples have no .cls: {some(missing)}", NO_LABEL)
        there = [sample.label for sample in samples.values() if sample.label is not None]
        _check_small(archive, there)
        texts = [data.decode("utf-8", "replace").strip() for data in archive.read(there)]
        empty = [key for key, text in zip(samples, texts, strict=True) if not label_text(text) or "�" in text]
        if empty:
            raise DataError(f"{archive.path}: {len(empty):,} labels in .cls are no text: {some(empty)}", NO_LABEL)
        return texts


NO_LABEL = "A label is text or an integer in KEY.cls, or a field of KEY.json (--label-column); or pass --unlabelled."


def _documents(archive: Archive, samples: dict[str, _Sample]) -> list[tuple[str, dict[str, Any]]]:
    missing = [key for key, sample in samples.items() if sample.fields is None]
    if missing:
        what = "neither .cls nor .json" if samples[missing[0]].label is None else "no .json"
        raise DataError(f"{archive.path}: {len(missing):,} samples have {what}: {some(missing)}", NO_LABEL)
    there = [sample.fields for sample in samples.values() if sample.fields is not None]
    _check_small(archive, there)
    found = []
    for key, data in zip(samples, archive.read(there), strict=True):
        try:
            value = json.loads(data)
        except (ValueError, RecursionError) as error:
            raise DataError(f"{archive.path}: {key}.json is not JSON: {error}") from error
        if not isinstance(value, dict):
            raise DataError(f"{archive.path}: {key}.json holds no fields")
        found.append((key, value))
    return found


def _field(archive: Archive, key: str, fields: dict[str, Any], name: str) -> str:
    text = label_text(fields.get(name))
    if text is None:
        there = f"is {str(fields[name])[:40]!r}, no name" if name in fields else f"is not there.{nearest(name, fields)}"
        raise DataError(f"{archive.path}: {key}.json: field {name!r} {there}", f"It has {some(fields, 20)}.")
    return text


def _check_small(archive: Archive, members: list[Member]) -> None:
    large = [member.name for member in members if member.size > MAX_LABEL_BYTES]
    if large:
        raise DataError(f"{archive.path}: {large[0]} is larger than any label, {MAX_LABEL_BYTES:,} bytes")


def _samples(archive: Archive) -> dict[str, _Sample]:
    """Return the members of an archive by key: the path up to the first dot of the file's name."""
    found: dict[str, _Sample] = {}
    for member in archive.members:
        name = member.name.removeprefix("./")
        folder, _, file = name.rpartition("/")
        stem, dot, extension = file.partition(".")
        if not stem or not dot:
            continue
        key = f"{folder}/{stem}" if folder else stem
        if name.startswith("/") or ".." in key.split("/") or "\0" in key:
            raise DataError(f"{archive.path}: the name {member.name!r} leads out of the archive")
        sample = found.setdefault(key, _Sample())
        extension = extension.lower()
        if extension in IMAGES:
            if sample.image is not None:
                raise DataError(
                    f"{archive.path}: {key} has two images, {sample.image.name} and {member.name}",
                    "One image a key; others can be kept under KEY.<word>.jpg, which is passed over.",
                )
            sample.image = member
        elif extension == "cls":
            sample.label = member
        elif extension == "json":
            sample.fields = member
    return found


def _splits_of(paths: Sequence[Path]) -> list[int | None]:
    """Return the split each shard is named by, None for all of them if no shard is.

    Raises:
        DataError: if only some are.
    """
    splits: list[int | None] = []
    for path in paths:
        match = SPLIT.match(path.name) or SPLIT.fullmatch(path.parent.name)
        splits.append(None if match is None else SPLIT_NAMES[match[1].lower()])
    without = [str(path) for path, split in zip(paths, splits, strict=True) if split is None]
    if without and len(without) < len(paths):
        raise DataError(
            f"{len(without):,} of {len(paths):,} shards are not named by a split, as the others are: {some(without)}",
            f"Begin their names with {', '.join(SPLIT_NAMES)}, or give the others alone.",
        )
    return splits
