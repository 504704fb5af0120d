"""What the rows of a table say, taken one after the other: paths, labels, splits and groups, each checked."""

import os
import posixpath
import stat
from array import array
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.errors import DataError
from pipeline.sources.columns import Columns
from pipeline.sources.names import LabelNumbers, Noted, label_text, some, split_number
from pipeline.textcolumn import ColumnBuilder, TextColumn

DATA_ROOT = "Name a folder that holds all images with --data-root"


@dataclass(frozen=True)
class Wanted:
    """Names of the columns that are read; None for what the table does not say."""

    path: str
    label: str | None
    split: str | None
    group: str | None

    def names(self) -> list[str]:
        """Return four names, that of the paths in place of each that is None: its values are passed over."""
        return [name or self.path for name in (self.path, self.label, self.split, self.group)]


class Paths:
    """Paths relative to a root: of files that are there, and in it."""

    def __init__(self, table: Columns, root: str, *, follow_symlinks: bool) -> None:
        self.table = table
        self.root = root
        self.inside = root.rstrip("/") + "/"
        self.follow_symlinks = follow_symlinks
        self._column = ColumnBuilder()
        self._missing = Noted[tuple[str, int]]()
        self._folders: set[str] = set()
        """Folders that are known to lie in the root."""

    def add(self, line: int, value: object) -> None:
        """Take the next row's path.

        Raises:
            DataError: if it is none, leads out of the root, or is no regular file.
        """
        path = self._relative(line, value)
        self._check(line, path)
        self._column.append(path)

    def finished(self) -> TextColumn:
        """Return all paths.

        Raises:
            DataError: if one is there twice, or files are missing.
        """
        column = TextColumn.built(self._column)
        twice = column.repeated()
        if twice is not None:
            raise DataError(
                f"{self.table.path} names {column[twice[0]]} twice: {self.table.places(self.table.lines(twice))}",
                "Each image has one line.",
            )
        if self._missing.count:
            paths, lines = zip(*self._missing.first, strict=True)
            raise DataError(
                f"{self._missing.count:,} of the {len(column):,} files that {self.table.path} names are not in "
                f"{self.root}: {some(paths)} ({self.table.places(lines)})",
                "Correct the table, or say with --data-root what its paths are relative to.",
            )
        return column

    def _relative(self, line: int, value: object) -> str:
        if not isinstance(value, str) or not value or "\0" in value:
            raise DataError(f"{self.table.where(line)}: {value!r} is no path")
        path = value
        if path.startswith("/"):
            if not path.startswith(self.inside):
                raise DataError(f"{self.table.where(line)}: {path} does not lie in {self.root}", f"{DATA_ROOT}.")
            path = path[len(self.inside) :]
        if ".." in path and ".." in path.split("/"):
            raise DataError(
                f"{self.table.where(line)}: {path} leads out of {self.root}",
                f"{DATA_ROOT}, and give paths without `..`.",
            )
        return posixpath.normpath(path)

    def _check(self, line: int, sample_id: str) -> None:
        """Note a file that is missing; refuse what is no file, or linked to outside the root."""
        path = self.inside + sample_id
        try:
            found = os.lstat(path)
            linked = stat.S_ISLNK(found.st_mode)
            found = os.stat(path) if linked else found
        except (OSError, ValueError):
            self._missing.add((sample_id, line))
            return
        if not stat.S_ISREG(found.st_mode):
            raise DataError(f"{self.table.where(line)}: {sample_id} is not a regular file")
        folder = sample_id.rpartition("/")[0]
        if not self.follow_symlinks and (linked or folder not in self._folders):
            self._refuse_link_out(line, path)
            self._folders.add(folder)

    def _refuse_link_out(self, line: int, path: str) -> None:
        real = os.path.realpath(path)
        if not real.startswith(self.inside):
            raise DataError(
                f"{self.table.where(line)}: {path} leads out of {self.root} by a symbolic link, to {real}",
                "Pass --follow-symlinks if that is meant.",
            )


class Labels:
    """Class names."""

    def __init__(self, table: Columns) -> None:
        self.table = table
        self._numbers = LabelNumbers()
        self._wrong = Noted[tuple[int, Any]]()

    def add(self, line: int, value: object) -> None:
        """Take the next row's label."""
        text = label_text(value)
        if text is None:
            self._wrong.add((line, value))
        else:
            self._numbers.append(text)

    def finished(self) -> tuple[np.ndarray, tuple[str, ...]]:
        """Return positions (n,) int64 in the class names, and these.

        Raises:
            DataError: if labels are missing.
        """
        if self._wrong.count:
            lines, values = zip(*self._wrong.first, strict=True)
            raise DataError(
                f"{self.table.path} has {self._wrong.count:,} labels that are empty or no names, like {values[0]!r} "
                f"({self.table.places(lines)})",
                "A label is text or an integer; --unlabelled takes the images without.",
            )
        return self._numbers.numbered()


class Splits:
    """Splits by name."""

    def __init__(self, table: Columns) -> None:
        self.table = table
        self._known: dict[object, int] = {}
        self._numbers = array("b")

    def add(self, line: int, value: object) -> None:
        """Take the next row's split.

        Raises:
            DataError: if it is not known.
        """
        if value not in self._known:
            self._known[value] = split_number(str(value), self.table.where(line))
        self._numbers.append(self._known[value])

    def finished(self) -> np.ndarray:
        """Return splits (n,) int8."""
        return np.frombuffer(self._numbers, np.int8)


class Groups:
    """Names of groups, in the column `name`."""

    def __init__(self, table: Columns, name: str | None) -> None:
        self.table = table
        self.name = name
        self._column = ColumnBuilder()
        self._wrong = Noted[int]()

    def add(self, line: int, value: object) -> None:
        """Take the next row's group."""
        text = label_text(value)
        if text is None:
            self._wrong.add(line)
        else:
            self._column.append(text)

    def finished(self) -> TextColumn:
        """Return all names.

        Raises:
            DataError: if rows have none.
        """
        if self._wrong.count:
            raise DataError(
                f"{self.table.path} has {self._wrong.count:,} rows without a group in column {self.name!r} "
                f"({self.table.places(self._wrong.first)})",
                "Give an image that belongs to none a name of its own.",
            )
        return TextColumn.built(self._column)
