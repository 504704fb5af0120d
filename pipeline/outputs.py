"""Files that a user asks for: refused before any work where they cannot be, and whole or absent afterwards."""

import csv
import io
from collections.abc import Iterable, Sequence
from pathlib import Path

from pipeline.errors import UsageError, nearest
from pipeline.store.commit import disk_errors, new_file


def check_output(path: Path, endings: Sequence[str], *, overwrite: bool | None = None) -> None:
    """Refuse a file that cannot be written.

    Args:
        path: the file.
        endings: those that are known, such as `.csv`.
        overwrite: whether it may be replaced; None where a command has no option for that.

    Raises:
        UsageError: if its ending is not known, or it is there.
    """
    ending = path.suffix.lower()
    if ending not in endings:
        raise UsageError(
            f"{path}: unknown ending {ending or 'of no kind'!r}.{nearest(ending, endings)}",
            f"Known: {', '.join(endings)}",
        )
    if path.exists() and not overwrite:
        way_out = "" if overwrite is None else ", or pass --overwrite"
        raise UsageError(f"{path} exists", f"Name another file{way_out}.")


def csv_text(header: Sequence[object], rows: Iterable[Sequence[object]]) -> str:
    """Return a table as CSV, a line a row."""
    cells = [header, *rows]
    # The csv module leaves a lone carriage return unquoted, which readers take for the end of a line.
    odd = any("\r" in cell for row in cells for cell in row if isinstance(cell, str))
    file = io.StringIO()
    csv.writer(file, lineterminator="\n", quoting=csv.QUOTE_ALL if odd else csv.QUOTE_MINIMAL).writerows(cells)
    return file.getvalue()


def write_output(path: Path, data: str | bytes) -> None:
    """Write a new file; it has its name when all of it is written.

    Raises:
        UsageError: if it is there.
        CacheError: if the disk is full or cannot be written.
    """
    content = data.encode() if isinstance(data, str) else data
    with new_file(path) as temporary, disk_errors(path, len(content)):
        temporary.write_bytes(content)
