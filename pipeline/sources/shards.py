"""WebDataset shards: tar files in which an image and its label have names that differ after the first dot alone.

`000017.jpg` and `000017.cls` are one sample, `000017`; `000017.json` may hold its label and more. Images are read in
place, by offset and size.
"""

import json
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.errors import DataError, nearest
from pipeline.sources.facts import Facts, member_facts
from pipeline.sources.groups import folder_groups, folder_level
from pipeline.sources.members import Archive, Member, open_archive
from pipeline.sources.names import EXTENSIONS, SPLIT_NAMES, label_text, number_labels, some
from pipeline.sources.reading import PLAIN, Reading
from pipeline.sources.source import TRAIN, UNLABELLED, FilePayload, Listing

IMAGES = tuple(extension[1:] for extension in EXTENSIONS)
MAX_LABEL_BYTES = 1 << 20
SPLIT = re.compile(rf"({'|'.join(sorted(SPLIT_NAMES, key=len, reverse=True))})(?![a-z])", re.IGNORECASE)
"""How the name of a shard, or of the folder it lies in, begins that belongs to a split."""


@dataclass
class _Sample:
    """Members of one key."""

    archive: Archive
    image: Member | None = None
    label: Member | None = None
    fields: Member | None = None


@dataclass(frozen=True)
class _Found:
    """All samples of all shards, and what was passed over."""

    samples: dict[str, _Sample] = field(default_factory=dict)
    splits: list[int] = field(default_factory=list)
    without_image: list[str] = field(default_factory=list)


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
        sample = self._found.samples.get(sample_id)
        if sample is None or sample.image is None:
            raise DataError(f"no shard of {self.given} has a sample {sample_id}", "Have the shards changed?")
        return FilePayload(str(sample.archive.path), (sample.image.offset, sample.image.size))

    def listing(self) -> Listing:
        """List the samples, shard by shard. Images are not opened.

        Raises:
            DataError: if a shard cannot be used, or a sample has no label, two images, or a key that others have.
        """
        found = self._found
        if not found.samples:
            raise DataError(f"{self.given} has no images in it (looked for {' '.join(EXTENSIONS)})")
        ids = list(found.samples)
        labels, groups = self._told(ids)
        classes: tuple[str, ...] = ()
        numbers = np.full(len(ids), UNLABELLED, np.int64)
        if not self.reading.unlabelled:
            numbers, classes = number_labels(labels)
        notes: tuple[str, ...] = ()
        if found.without_image:
            few = some(found.without_image)
            notes = (f"{len(found.without_image):,} keys in the shards have no image and are left out: {few}",)
        if folder_level(self.reading.group_by) is not None:
            groups = folder_groups(ids, self.reading.group_by)
        splits = np.array(found.splits, np.int8)
        if self.reading.unlabelled:
            splits[:] = TRAIN
        return Listing(ids, numbers, splits, classes, self._facts(), notes, groups)

    def _facts(self) -> np.ndarray:
        facts: list[Facts] = [
            member_facts(sample.archive.facts, sample.image.offset)
            for sample in self._found.samples.values()
            if sample.image is not None
        ]
        return np.array(facts, np.int64).reshape(-1, 4)

    @cached_property
    def _found(self) -> _Found:
        found = _Found()
        splits = _splits_of(self.paths)
        names = {number: name for name, number in reversed(SPLIT_NAMES.items())}
        for path, split in zip(self.paths, splits, strict=True):
            prefix = "" if split is None else f"{names[split]}/"
            for key, sample in _samples(open_archive(path)).items():
                sample_id = prefix + key
                if sample.image is None:
                    found.without_image.append(sample_id)
                    continue
                if sample_id in found.samples:
                    other = found.samples[sample_id].archive.path
                    raise DataError(f"{path} and {other} both have a sample {key}", "Keys must be unique.")
                found.samples[sample_id] = sample
                found.splits.append(TRAIN if split is None else split)
        return found

    def _told(self, ids: Sequence[str]) -> tuple[list[str], list[str] | None]:
        """Return labels and groups, as far as they are wanted, from the small members beside the images."""
        group_field = self.reading.group_by if folder_level(self.reading.group_by) is None else None
        labels: list[str] = []
        groups: list[str] = []
        samples = self._found.samples
        at = 0
        while at < len(ids):  # a shard at a time
            archive = samples[ids[at]].archive
            end = next((row for row in range(at, len(ids)) if samples[ids[row]].archive is not archive), len(ids))
            here = ids[at:end]
            if group_field is not None:
                groups += [
                    _field(archive, key, value, group_field) for key, value in _documents(archive, here, samples)
                ]
            if not self.reading.unlabelled:
                labels += self._labels(archive, here)
            at = end
        return labels, groups if group_field is not None else None

    def _labels(self, archive: Archive, ids: Sequence[str]) -> list[str]:
        samples = self._found.samples
        name = self.reading.label_column
        from_fields = name is not None or samples[ids[0]].label is None
        if from_fields:
            documents = _documents(archive, ids, samples)
            return [_field(archive, key, value, name or "label") for key, value in documents]
        members = [samples[key].label for key in ids]
        missing = [key for key, member in zip(ids, members, strict=True) if member is None]
        if missing:
            raise DataError(f"{archive.path}: {len(missing):,} samples have no .cls: {some(missing)}", NO_LABEL)
        there = [member for member in members if member is not None]
        _check_small(archive, there)
        texts = [data.decode("utf-8", "replace").strip() for data in archive.read(there)]
        empty = [key for key, text in zip(ids, texts, strict=True) if not label_text(text) or "�" in text]
        if empty:
            raise DataError(f"{archive.path}: {len(empty):,} labels in .cls are no text: {some(empty)}", NO_LABEL)
        return texts


NO_LABEL = "A label is text or an integer in KEY.cls, or a field of KEY.json (--label-column); or pass --unlabelled."


def _documents(archive: Archive, ids: Sequence[str], samples: dict[str, _Sample]) -> list[tuple[str, dict[str, Any]]]:
    members = [samples[key].fields for key in ids]
    missing = [key for key, member in zip(ids, members, strict=True) if member is None]
    if missing:
        what = "neither .cls nor .json" if samples[missing[0]].label is None else "no .json"
        raise DataError(f"{archive.path}: {len(missing):,} samples have {what}: {some(missing)}", NO_LABEL)
    there = [member for member in members if member is not None]
    _check_small(archive, there)
    found = []
    for key, data in zip(ids, archive.read(there), strict=True):
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
        sample = found.setdefault(key, _Sample(archive))
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
