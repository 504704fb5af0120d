"""The columns of a table file: CSV, TSV or Parquet, as lists of values with the place each came from."""

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.errors import DataError, nearest
from pipeline.sources.names import load_extra, some

PARQUET = (".parquet", ".pq")
DELIMITERS = {".csv": ",", ".tsv": "\t", ".tab": "\t"}
TABLES = (*DELIMITERS, *PARQUET)
"""Extensions of files that are tables."""


@dataclass(frozen=True)
class Columns:
    """Columns of a table by name, n values each."""

    path: Path
    values: dict[str, list[Any]]
    lines: Sequence[int]
    """Of each row: the line it ends on, counted from 1, or the row's number in Parquet."""
    unit: str
    """What `lines` counts: `line` or `row`."""

    def where(self, row: int) -> str:
        """Return the place of a row, for messages."""
        return f"{self.path} {self.unit} {self.lines[row]}"

    def places(self, rows: Sequence[int]) -> str:
        """Return the places of some rows, for messages."""
        return f"{self.unit} " + some(str(self.lines[row]) for row in rows)

    def named(self, wanted: str | None, default: str, option: str) -> str | None:
        """Return the column a user asked for, or the default one if it is there.

        Raises:
            DataError: if what was asked for is not there.
        """
        if wanted is None:
            return default if default in self.values else None
        if wanted not in self.values:
            raise DataError(
                f"{self.path} has no column {wanted!r} ({option}).{nearest(wanted, self.values)}",
                f"It has {some(self.values, 20)}.",
            )
        return wanted


def read_columns(path: Path) -> Columns:
    """Read a table; a file of another extension is taken for CSV.

    Raises:
        DataError: if it cannot be read, is not UTF-8, is ragged, or has no rows.
        PipelineError: if it is Parquet and pyarrow is not installed.
    """
    suffix = path.suffix.lower()
    try:
        found = _parquet(path) if suffix in PARQUET else _text(path, DELIMITERS.get(suffix, ","))
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from error
    if not found.lines:
        raise DataError(f"{path} has no rows", "A table has a header and one line an image: path,label")
    return found


def _text(path: Path, delimiter: str) -> Columns:
    rows: list[list[str]] = []
    lines: list[int] = []
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, delimiter=delimiter, strict=True)
            header = next(reader, [])
            for row in reader:
                if not row:  # an empty line
                    continue
                if len(row) != len(header):
                    raise DataError(
                        f"{path} line {reader.line_num} has {len(row)} fields, the header {len(header)}",
                        'Text with commas in it stands in quotes: "a,b".',
                    )
                rows.append(row)
                lines.append(reader.line_num)
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8: {error.reason}", "Save it as UTF-8.") from error
    except csv.Error as error:
        raise DataError(f"{path} line {reader.line_num} is not CSV: {error}") from error
    if len(set(header)) < len(header):
        twice = sorted({name for name in header if header.count(name) > 1})
        raise DataError(f"{path} has two columns of one name: {some(twice)}", "Rename one.")
    values = zip(*rows, strict=True) if rows else ((),) * len(header)
    return Columns(path, {name: list(column) for name, column in zip(header, values, strict=True)}, lines, "line")


def _parquet(path: Path) -> Columns:
    parquet = load_extra("pyarrow.parquet", "parquet", f"the Parquet table {path}")
    try:
        table = parquet.read_table(str(path), partitioning=None)
        values = {name: table.column(name).to_pylist() for name in table.column_names}
    except (ValueError, KeyError) as error:  # what pyarrow raises for damaged files is a ValueError
        raise DataError(f"{path} is not a Parquet table: {str(error).splitlines()[0]}") from error
    return Columns(path, values, range(table.num_rows), "row")
