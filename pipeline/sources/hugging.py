"""Hugging Face data sets: from the hub by name, from a folder that `save_to_disk` made, or objects in memory.

Images are taken as the encoded bytes they are stored as, not decoded: a digest is then that of the original file.
"""

import hashlib
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.errors import DataError, nearest
from pipeline.sources.groups import folder_level
from pipeline.sources.names import SPLIT_NAMES, LabelNumbers, Noted, label_text, load_extra, some
from pipeline.sources.numbered import NumberedIds
from pipeline.sources.reading import Reading
from pipeline.sources.source import TRAIN, UNLABELLED, BytesPayload, Listing
from pipeline.textcolumn import ColumnBuilder, TextColumn

QUIET = {"HF_HUB_DISABLE_TELEMETRY": "1", "HF_UPDATE_DOWNLOAD_COUNTS": "0"}
"""Usage reports of the libraries, switched off before they are imported."""
MARKS = ("dataset_dict.json", "state.json")
"""A folder made by `save_to_disk` has one of these."""
TAKES = frozenset({"image_column", "label_column", "group_by", "unlabelled"})
"""Fields of `Reading` that mean something here."""
BATCH, SMALL_BATCH = 256, 1 << 14
"""Rows in memory at the same time: of images, of labels and groups."""


@dataclass(frozen=True)
class Part:
    """One split: `rows` is a datasets.Dataset whose images are not decoded."""

    name: str
    split: int
    rows: Any


@dataclass(frozen=True)
class HuggingSource:
    """Images in the columns of data sets. Ids are `<split>/<index>`, or `<index>` where there is one part."""

    kind: str
    location: str
    parts: tuple[Part, ...]
    image_column: str
    reading: Reading
    files_under: str | None
    """Images that are not in the data set itself but in files must lie below this folder; None for any."""
    notes: tuple[str, ...] = ()

    @property
    def spec(self) -> str:
        """The location, prefixed."""
        return f"{self.kind}:{self.location}"

    @property
    def folder(self) -> None:
        """No folder of images: their digests are computed whenever they are listed."""
        return

    def describe(self) -> dict[str, Any]:
        """Name the data set and how it is read."""
        return {"kind": self.kind, "location": self.location, **self.reading.described()}

    def listing(self) -> Listing:
        """List the samples part by part, and take the digests of their encoded images.

        Raises:
            DataError: if there is no column of labels, or one that holds none.
        """
        ids = TextColumn(self._ids)
        digests = np.zeros((len(ids), 32), np.uint8)
        row = 0
        for part in self.parts:
            for batch in part.rows.select_columns([self.image_column]).iter(BATCH):
                for image in batch[self.image_column]:
                    data = self._encoded(image, ids[row])
                    if data:
                        digests[row] = np.frombuffer(hashlib.sha256(data).digest(), np.uint8)
                    row += 1
        labels, classes = self._labels(ids)
        splits = np.concatenate([np.full(len(part.rows), part.split, np.int8) for part in self.parts])
        if self.reading.unlabelled:
            splits[:] = TRAIN
        return Listing(ids, labels, splits, classes, None, self.notes, self._groups(ids), digests)

    def payload(self, sample_id: str) -> BytesPayload:
        """Return the encoded image; no bytes where a row has none.

        Raises:
            DataError: if there is no such sample.
        """
        place = self._ids.place(sample_id)
        if place is None:
            raise DataError(f"{self.spec} has no sample {sample_id}", "Has the data set changed?")
        part, index = place
        return BytesPayload(self._encoded(self.parts[part].rows[index][self.image_column], sample_id))

    @property
    def _ids(self) -> NumberedIds:
        return NumberedIds([part.name for part in self.parts], [len(part.rows) for part in self.parts])

    def _encoded(self, image: Any, sample_id: str) -> bytes:  # noqa: ANN401 - bytes, or a dict of them and a path
        data, path = (image.get("bytes"), image.get("path")) if isinstance(image, dict) else (image, None)
        if data is None and path is not None:
            real = os.path.realpath(path)
            if self.files_under is not None and not real.startswith(self.files_under + os.sep):
                raise DataError(f"{self.spec}: sample {sample_id} is the file {path}, outside of the data set")
            try:
                return Path(real).read_bytes()
            except OSError as error:
                raise DataError(f"{self.spec}: sample {sample_id}: {path}: {error.strerror or error}") from error
        if data is None:
            return b""
        if not isinstance(data, bytes):
            raise DataError(
                f"{self.spec}: column {self.image_column!r} holds {type(data).__name__}, not encoded images",
                "Name the column of images with --image-column.",
            )
        return data

    def _labels(self, ids: TextColumn) -> tuple[np.ndarray, tuple[str, ...]]:
        if self.reading.unlabelled:
            return np.full(len(ids), UNLABELLED, np.int64), ()
        column = self._label_column()
        labels = LabelNumbers()
        wrong = _take(labels, self._label_values(column), ids)
        if wrong.count:
            raise DataError(
                f"{self.spec}: {wrong.count:,} samples have no label in column {column!r}: {some(wrong.first)}",
                "A label is text or an integer; --unlabelled takes the images without.",
            )
        names = getattr(self.parts[-1].rows.features[column], "names", None)
        return labels.numbered(names if names is not None and set(labels.names) <= set(names) else None)

    def _label_values(self, column: str) -> Iterator[Any]:
        """Yield the label of every sample: of a column that has names for its numbers the name."""
        for part, value in self._values(column):
            names = getattr(part.rows.features[column], "names", None)
            yield value if names is None else names[value] if value is not None and value >= 0 else None

    def _values(self, column: str) -> Iterator[tuple[Part, Any]]:
        """Yield the part and the value of every sample in a column of small values."""
        for part in self.parts:
            for batch in part.rows.select_columns([column]).iter(SMALL_BATCH):
                for value in batch[column]:
                    yield part, value

    def _label_column(self) -> str:
        features = self.parts[0].rows.features
        wanted = self.reading.label_column
        if wanted is None:
            classes = [name for name, feature in features.items() if getattr(feature, "names", None) is not None]
            wanted = "label" if "label" in features else classes[0] if len(classes) == 1 else None
        return _column(self.spec, self.parts, wanted, "label", "--label-column")

    def _groups(self, ids: TextColumn) -> TextColumn | None:
        group_by = self.reading.group_by
        if group_by is None:
            return None
        if folder_level(group_by) is not None:
            raise DataError(f"{self.spec} has no folders to group by", "Name a column: --group-by patient.")
        _column(self.spec, self.parts, group_by, "group", "--group-by")
        groups = ColumnBuilder()
        wrong = _take(groups, (value for _, value in self._values(group_by)), ids)
        if wrong.count:
            raise DataError(f"{self.spec}: {wrong.count:,} samples have no group in {group_by!r}: {some(wrong.first)}")
        return TextColumn.built(groups)


def _take(texts: LabelNumbers | ColumnBuilder, values: Iterable[Any], ids: TextColumn) -> Noted[str]:
    """Append the text of every sample's value; return the ids of samples whose value is none."""
    wrong = Noted[str]()
    for row, value in enumerate(values):
        text = label_text(value)
        if text is None:
            wrong.add(ids[row])
        else:
            texts.append(text)
    return wrong


def hugging_source(text: str, reading: Reading) -> HuggingSource:
    """Open `NAME[:CONFIG]` of the hub, or a folder made by `save_to_disk`, which needs no network.

    Raises:
        DataError: if it cannot be opened, or has no column of images.
        PipelineError: if `datasets` is not installed.
    """
    path = Path(text).expanduser()
    if path.exists():
        if not any((path / mark).is_file() for mark in MARKS):
            raise DataError(f"{path} is no data set made by save_to_disk: it has no {' or '.join(MARKS)}")
        real = str(path.resolve())
        return _source("hf", real, _load(text, real), reading, real)
    if text.startswith((".", "/", "~")):
        raise DataError(f"no folder {path}", "Check the path.")
    opened = _load(text, None)
    cache = _library(text).config.HF_CACHE_HOME
    return _source("hf", text, opened, reading, os.path.realpath(cache))


def hugging_objects(name: str, opened: Any, reading: Reading) -> HuggingSource:  # noqa: ANN401 - datasets' classes
    """Take a datasets.Dataset or a dict of them; `name` goes into the manifest."""
    reading.check(TAKES, "a Hugging Face data set")
    return _source("python", name, opened, reading, None)


def _library(text: str) -> Any:  # noqa: ANN401 - a package without types that are worth having here
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    return load_extra("datasets", "hf", f"the Hugging Face data set {text}")


def _load(text: str, folder: str | None) -> Any:  # noqa: ANN401 - datasets' classes
    library = _library(text)
    name, _, config = text.partition(":")
    try:
        return library.load_from_disk(folder) if folder is not None else library.load_dataset(name, config or None)
    except Exception as error:
        said = str(error).strip() or type(error).__name__
        hint = (
            "Is it whole? Save it again."
            if folder is not None
            else "Check the name, the configuration and the network."
        )
        raise DataError(f"the Hugging Face data set {text} cannot be opened: {said.splitlines()[0]}", hint) from error


def _source(kind: str, location: str, opened: Any, reading: Reading, files_under: str | None) -> HuggingSource:  # noqa: ANN401
    library = _library(location)
    spec = f"{kind}:{location}"
    found = dict(opened.items()) if isinstance(opened, dict) else {str(opened.split or "train"): opened}
    known = {name: rows for name, rows in found.items() if name.lower() in SPLIT_NAMES}
    if not known and len(found) == 1:
        known = {"train": next(iter(found.values()))}
    if not known:
        raise DataError(f"{spec} has the splits {some(found)}, none of {', '.join(SPLIT_NAMES)}")
    others = sorted(set(found) - set(known)) if len(found) > 1 else []
    notes = (f"splits of other names are left out: {some(others)}",) if others else ()
    parts = tuple(Part(name, SPLIT_NAMES[name.lower()], rows.with_format(None)) for name, rows in known.items())
    column = _image_column(spec, parts, reading, library)
    undecoded = library.Image(decode=False)
    parts = tuple(
        Part(part.name, part.split, part.rows.cast_column(column, undecoded))
        if isinstance(part.rows.features[column], library.Image)
        else part
        for part in sorted(parts, key=lambda part: part.split)
    )
    return HuggingSource(kind, location, parts, column, reading, files_under, notes)


def _image_column(spec: str, parts: tuple[Part, ...], reading: Reading, library: Any) -> str:  # noqa: ANN401
    features = parts[0].rows.features
    wanted = reading.image_column
    if wanted is None:
        images = [name for name, feature in features.items() if isinstance(feature, library.Image)]
        wanted = images[0] if len(images) == 1 else "image" if "image" in features else None
    return _column(spec, parts, wanted, "image", "--image-column")


def _column(spec: str, parts: tuple[Part, ...], wanted: str | None, what: str, option: str) -> str:
    for part in parts:
        names = list(part.rows.features)
        if wanted is None or wanted not in names:
            asked = f"column {wanted!r}" if wanted is not None else f"single column of {what}s"
            raise DataError(
                f"{spec} has no {asked} in {part.name}; it has {some(names, 20)}."
                f"{nearest(wanted, names) if wanted is not None else ''}",
                f"Name it with {option}.",
            )
    assert wanted is not None
    return wanted


def saved_by_datasets(path: Path) -> bool:
    """Tell whether a folder was made by `save_to_disk`."""
    return (path / MARKS[0]).is_file() or ((path / MARKS[1]).is_file() and (path / "dataset_info.json").is_file())


def is_hugging(opened: object) -> bool:
    """Tell whether an object is a datasets.Dataset or a DatasetDict, without importing the library."""
    return type(opened).__module__.partition(".")[0] == "datasets"
