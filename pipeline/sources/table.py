"""Tables that name image files: `path,label` and, if they like, `split` and `group`."""

import os
import posixpath
import stat
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.errors import DataError
from pipeline.sources.columns import Columns, read_columns
from pipeline.sources.facts import Facts, file_facts
from pipeline.sources.groups import folder_groups, folder_level
from pipeline.sources.names import label_text, number_labels, some, split_number
from pipeline.sources.reading import PLAIN, Reading
from pipeline.sources.source import TRAIN, UNLABELLED, FilePayload, Listing


@dataclass(frozen=True)
class TableSource:
    """Images that a table names, below `root`; ids are their paths relative to it."""

    path: Path
    data_root: Path | None = None
    """What paths are relative to; by default the table's folder."""
    follow_symlinks: bool = False
    reading: Reading = PLAIN

    @cached_property
    def _path(self) -> Path:
        # A link to a table stands for it where the link is, with the images beside it.
        return self.path.parent.resolve() / self.path.name

    @property
    def spec(self) -> str:
        """The table's path, prefixed."""
        return f"table:{self._path}"

    @cached_property
    def folder(self) -> str:
        """The real path of what the table's paths are relative to."""
        return str((self.data_root or self._path.parent).resolve())

    def describe(self) -> dict[str, Any]:
        """Name the table, how it is read, and what its paths are relative to."""
        root = {"data_root": self.folder} if self.data_root is not None else {}
        return {"kind": "table", "location": str(self._path), **root, **self.reading.described()}

    def payload(self, sample_id: str) -> FilePayload:
        """Return the file."""
        return FilePayload(os.path.join(self.folder, sample_id))

    def listing(self) -> Listing:
        """List the images in the table's order.

        Raises:
            DataError: if a column or a file is missing, a label is empty, a split is unknown, a path is there twice
                or leads out of the root.
        """
        table = read_columns(self._path)
        ids = self._ids(table)
        facts = self._facts(table, ids)
        labels, classes = self._labels(table)
        return Listing(
            ids,
            labels,
            self._splits(table),
            classes,
            np.array(facts, np.int64).reshape(-1, 4),
            groups=self._groups(table, ids),
        )

    def _required(self, table: Columns, wanted: str | None, default: str, option: str, hint: str) -> list[Any]:
        name = table.named(wanted, default, option)
        if name is None:
            raise DataError(
                f"{table.path} has no column {default!r}; it has {some(table.values, 20)}",
                f"Name the one meant with {option}{hint}.",
            )
        return table.values[name]

    def _ids(self, table: Columns) -> list[str]:
        values = self._required(table, self.reading.path_column, "path", "--path-column", "")
        ids = [self._relative(table, row, value) for row, value in enumerate(values)]
        first: dict[str, int] = {}
        for row, sample_id in enumerate(ids):
            if first.setdefault(sample_id, row) != row:
                raise DataError(
                    f"{table.path} names {sample_id} twice: {table.places([first[sample_id], row])}",
                    "Each image has one line.",
                )
        return ids

    def _relative(self, table: Columns, row: int, value: object) -> str:
        """Return a path relative to the root."""
        if not isinstance(value, str) or not value or "\0" in value:
            raise DataError(f"{table.where(row)}: {value!r} is no path")
        path = value
        if path.startswith("/"):
            if not path.startswith(self.folder.rstrip("/") + "/"):
                raise DataError(
                    f"{table.where(row)}: {path} does not lie in {self.folder}",
                    "Name a folder that holds all images with --data-root.",
                )
            path = path[len(self.folder.rstrip("/")) + 1 :]
        if ".." in path.split("/"):
            raise DataError(
                f"{table.where(row)}: {path} leads out of {self.folder}",
                "Name a folder that holds all images with --data-root, and give paths without `..`.",
            )
        return posixpath.normpath(path)

    def _facts(self, table: Columns, ids: list[str]) -> list[Facts]:
        """Return the stat fields of all files; refuse what is missing, no file, or linked to outside the root."""
        facts: list[Facts] = []
        missing: list[int] = []
        folders: set[str] = set()
        for row, sample_id in enumerate(ids):
            path = os.path.join(self.folder, sample_id)
            try:
                found = os.lstat(path)
                linked = stat.S_ISLNK(found.st_mode)
                found = os.stat(path) if linked else found
            except (OSError, ValueError):
                missing.append(row)
                continue
            if not stat.S_ISREG(found.st_mode):
                raise DataError(f"{table.where(row)}: {sample_id} is not a regular file")
            folder = os.path.dirname(path)
            if not self.follow_symlinks and (linked or folder not in folders):
                self._refuse_link_out(table, row, path)
                folders.add(folder)
            facts.append(file_facts(found))
        if missing:
            raise DataError(
                f"{len(missing):,} of the {len(ids):,} files that {table.path} names are not in {self.folder}: "
                f"{some(ids[row] for row in missing)} ({table.places(missing)})",
                "Correct the table, or say with --data-root what its paths are relative to.",
            )
        return facts

    def _refuse_link_out(self, table: Columns, row: int, path: str) -> None:
        real = os.path.realpath(path)
        if not real.startswith(self.folder.rstrip("/") + "/"):
            raise DataError(
                f"{table.where(row)}: {path} leads out of {self.folder} by a symbolic link, to {real}",
                "Pass --follow-symlinks if that is meant.",
            )

    def _labels(self, table: Columns) -> tuple[np.ndarray, tuple[str, ...]]:
        if self.reading.unlabelled:
            return np.full(len(table.lines), UNLABELLED, np.int64), ()
        hint = ", or pass --unlabelled"
        values = self._required(table, self.reading.label_column, "label", "--label-column", hint)
        labels = [label_text(value) for value in values]
        wrong = [row for row, label in enumerate(labels) if label is None]
        if wrong:
            raise DataError(
                f"{table.path} has {len(wrong):,} labels that are empty or no names, like {values[wrong[0]]!r} "
                f"({table.places(wrong)})",
                "A label is text or an integer; --unlabelled takes the images without.",
            )
        return number_labels([label for label in labels if label is not None])

    def _splits(self, table: Columns) -> np.ndarray:
        name = table.named(self.reading.split_column, "split", "--split-column")
        if name is None or self.reading.unlabelled:
            return np.full(len(table.lines), TRAIN, np.int8)
        known: dict[object, int] = {}
        for row, value in enumerate(table.values[name]):
            if value not in known:
                known[value] = split_number(str(value), table.where(row))
        return np.array([known[value] for value in table.values[name]], np.int8)

    def _groups(self, table: Columns, ids: list[str]) -> list[str] | None:
        group_by = self.reading.group_by
        if folder_level(group_by) is not None:
            return folder_groups(ids, group_by)
        name = table.named(group_by, "group", "--group-by")
        if name is None:
            return None
        groups = [label_text(value) for value in table.values[name]]
        wrong = [row for row, group in enumerate(groups) if group is None]
        if wrong:
            raise DataError(
                f"{table.path} has {len(wrong):,} rows without a group in column {name!r} ({table.places(wrong)})",
                "Give an image that belongs to none a name of its own.",
            )
        return [group for group in groups if group is not None]
