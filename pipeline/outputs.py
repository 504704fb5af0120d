"""Files that a user asks for: refused before any work where they cannot be, and whole or absent afterwards."""

from collections.abc import Sequence
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


def write_output(path: Path, data: str | bytes) -> None:
    """Write a new file; it has its name when all of it is written.

    Raises:
        UsageError: if it is there.
        CacheError: if the disk is full or cannot be written.
    """
    content = data.encode() if isinstance(data, str) else data
    with new_file(path) as temporary, disk_errors(path, len(content)):
        temporary.write_bytes(content)
