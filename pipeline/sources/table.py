"""Tables that name image files: `path,label` and, if they like, `split` and `group`."""

import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.sources.columns import Columns, open_columns
from pipeline.sources.facts import Stats
from pipeline.sources.groups import folder_groups, folder_level
from pipeline.sources.reading import PLAIN, Reading
from pipeline.sources.source import TRAIN, UNLABELLED, FilePayload, Listing
from pipeline.sources.tablerows import Groups, Labels, Paths, Splits, Wanted


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
        """List the images in the table's order, row by row: no list of all rows is made.

        Raises:
            DataError: if a column or a file is missing, a label is empty, a split is unknown, a path is there twice
                or leads out of the root.
        """
        table = open_columns(self._path)
        wanted = self._wanted(table)
        paths = Paths(table, self.folder, follow_symlinks=self.follow_symlinks)
        labels, splits, groups = Labels(table), Splits(table), Groups(table, wanted.group)
        for line, (path, label, split, group) in table.rows(wanted.names()):
            paths.add(line, path)
            if wanted.label is not None:
                labels.add(line, label)
            if wanted.split is not None:
                splits.add(line, split)
            if wanted.group is not None:
                groups.add(line, group)
        ids = paths.finished()
        unlabelled: tuple[np.ndarray, tuple[str, ...]] = np.full(len(ids), UNLABELLED, np.int64), ()
        numbers, classes = unlabelled if wanted.label is None else labels.finished()
        by_folder = self.reading.group_by if folder_level(self.reading.group_by) is not None else None
        return Listing(
            ids,
            numbers,
            splits.finished() if wanted.split is not None else np.full(len(ids), TRAIN, np.int8),
            classes,
            Stats.of_paths(ids, self.folder),
            groups=groups.finished() if wanted.group is not None else folder_groups(ids, by_folder),
        )

    def _wanted(self, table: Columns) -> Wanted:
        said = self.reading
        hint = ", or pass --unlabelled"
        path = table.required(said.path_column, "path", "--path-column")
        return Wanted(
            path,
            None if said.unlabelled else table.required(said.label_column, "label", "--label-column", hint),
            None if said.unlabelled else table.named(said.split_column, "split", "--split-column"),
            None if folder_level(said.group_by) is not None else table.named(said.group_by, "group", "--group-by"),
        )
