"""The columns of a table file: CSV, TSV or Parquet, row by row with the place each came from."""

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from operator import itemgetter
from pathlib import Path
from typing import Any

from pipeline.errors import DataError, nearest
from pipeline.sources.names import load_extra, some

PARQUET = (".parquet", ".pq")
DELIMITERS = {".csv": ",", ".tsv": "\t", ".tab": "\t"}
TABLES = (*DELIMITERS, *PARQUET)
"""Extensions of files that are tables."""
BATCH = 1 << 14
"""Rows of a Parquet table in memory at the same time."""


@dataclass(frozen=True)
class Columns:
    """A table's columns by name. Rows are read as they are asked for, and none is held."""

    path: Path
    names: tuple[str, ...]

    @property
    def unit(self) -> str:
        """What rows are found by: `line`, the one a row ends on counted from 1, or in Parquet `row`, from 0."""
        return "row" if _is_parquet(self.path) else "line"

    def where(self, line: int) -> str:
        """Return the place of a row, for messages."""
        return f"{self.path} {self.unit} {line}"

    def places(self, lines: Sequence[int]) -> str:
        """Return the places of some rows, for messages."""
        return f"{self.unit} " + some(map(str, lines))

    def named(self, wanted: str | None, default: str, option: str) -> str | None:
        """Return the column a user asked for, or the default one if it is there.

        Raises:
            DataError: if what was asked for is not there.
        """
        if wanted is None:
            return default if default in self.names else None
        if wanted not in self.names:
            raise DataError(
                f"{self.path} has no column {wanted!r} ({option}).{nearest(wanted, self.names)}",
                f"It has {some(self.names, 20)}.",
            )
        return wanted

    def required(self, wanted: str | None, default: str, option: str, hint: str = "") -> str:
        """Return the column a user asked for, or the default one.

        Raises:
            DataError: if it is not there.
        """
        name = self.named(wanted, default, option)
        if name is None:
            raise DataError(
                f"{self.path} has no column {default!r}; it has {some(self.names, 20)}",
                f"Name the one meant with {option}{hint}.",
            )
        return name

    def rows(self, names: Sequence[str]) -> Iterator[tuple[int, tuple[Any, ...]]]:
        """Yield (line or row number, values) of every row, of the columns `names`, of which one can be there twice.

        Raises:
            DataError: if the table cannot be read, is not UTF-8, is ragged, or has no rows.
        """
        line = None
        found = _parquet_rows(self.path, names) if _is_parquet(self.path) else _text_rows(self.path, self.names, names)
        for line, values in found:
            yield line, values
        if line is None:
            raise _no_rows(self.path)

    def lines(self, rows: Sequence[int]) -> list[int]:
        """Return the line of each of some rows (m,), ascending and counted from 0: the table is read once more."""
        wanted, found = set(rows), self.rows(self.names[:1])
        return [line for row, (line, _) in enumerate(islice(found, max(rows) + 1)) if row in wanted]


def open_columns(path: Path) -> Columns:
    """Read a table's header; a file of another extension is taken for CSV.

    Raises:
        DataError: if it cannot be read, is not UTF-8, has two columns of one name, or has nothing in it.
        PipelineError: if it is Parquet and pyarrow is not installed.
    """
    if _is_parquet(path):
        return Columns(path, _parquet_names(path))
    _, header = next(_fields(path), (0, []))
    if not header:
        raise _no_rows(path)
    if len(set(header)) < len(header):
        twice = sorted({name for name in header if header.count(name) > 1})
        raise DataError(f"{path} has two columns of one name: {some(twice)}", "Rename one.")
    return Columns(path, tuple(header))


def _is_parquet(path: Path) -> bool:
    return path.suffix.lower() in PARQUET


def _no_rows(path: Path) -> DataError:
    return DataError(f"{path} has no rows", "A table has a header and one line an image: path,label")


def _unreadable(path: Path, error: OSError) -> DataError:
    return DataError(f"{path} cannot be read: {error.strerror or error}")


def _text_rows(path: Path, header: Sequence[str], names: Sequence[str]) -> Iterator[tuple[int, tuple[str, ...]]]:
    places = [header.index(name) for name in names]
    take = itemgetter(*places) if len(places) > 1 else lambda row: (row[places[0]],)
    for line, row in islice(_fields(path), 1, None):
        if len(row) != len(header):
            raise DataError(
                f"{path} line {line} has {len(row)} fields, the header {len(header)}",
                'Text with commas in it stands in quotes: "a,b".',
            )
        yield line, take(row)


def _fields(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Yield the line that a row ends on and its fields, the header first; empty lines are nothing."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, delimiter=DELIMITERS.get(path.suffix.lower(), ","), strict=True)
            yield 1, next(reader, [])
            for row in reader:
                if row:
                    yield reader.line_num, row
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8: {error.reason}", "Save it as UTF-8.") from error
    except csv.Error as error:
        raise DataError(f"{path} line {reader.line_num} is not CSV: {error}") from error
    except OSError as error:
        raise _unreadable(path, error) from error


def _parquet_names(path: Path) -> tuple[str, ...]:
    parquet = load_extra("pyarrow.parquet", "parquet", f"the Parquet table {path}")
    try:
        with parquet.ParquetFile(str(path)) as file:
            return tuple(file.schema_arrow.names)
    except OSError as error:
        raise _unreadable(path, error) from error
    except (ValueError, KeyError) as error:  # what pyarrow raises for damaged files is a ValueError
        raise _damaged(path, error) from error


def _parquet_rows(path: Path, names: Sequence[str]) -> Iterator[tuple[int, tuple[Any, ...]]]:
    parquet = load_extra("pyarrow.parquet", "parquet", f"the Parquet table {path}")
    row = 0
    try:
        with parquet.ParquetFile(str(path)) as file:
            for batch in file.iter_batches(BATCH, columns=list(dict.fromkeys(names))):
                values = [batch.column(name).to_pylist() for name in names]
                for taken in zip(*values, strict=True):
                    yield row, taken
                    row += 1
    except OSError as error:
        raise _unreadable(path, error) from error
    except (ValueError, KeyError) as error:
        raise _damaged(path, error) from error


def _damaged(path: Path, error: Exception) -> DataError:
    return DataError(f"{path} is not a Parquet table: {str(error).splitlines()[0]}")
