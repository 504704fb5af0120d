"""Tables as CSV text that every reader reads back as it was."""

import csv
import io
from collections.abc import Callable, Iterable, Sequence
from typing import IO

Row = Sequence[object]


def csv_writer(file: "IO[str]") -> Callable[[Row], object]:
    """Return what writes a row to a text file as one line.

    The csv module leaves a lone carriage return unquoted, which readers take for the end of a line: of a row with
    one, everything is quoted.
    """
    plain = csv.writer(file, lineterminator="\n")
    quoted = csv.writer(file, lineterminator="\n", quoting=csv.QUOTE_ALL)

    def write(row: Row) -> object:
        odd = any("\r" in cell for cell in row if isinstance(cell, str))
        return (quoted if odd else plain).writerow(row)

    return write


def csv_text(header: Row, rows: Iterable[Row]) -> str:
    """Return a table as CSV, a line a row."""
    file = io.StringIO()
    write = csv_writer(file)
    for row in (header, *rows):
        write(row)
    return file.getvalue()
