"""Findings that belong to a run: of the very data that it was trained on."""

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from pipeline.errors import DataError
from pipeline.findings import Finding
from pipeline.runs import Run

T = TypeVar("T")


def finding_of_run(
    folder: Path, kind: Finding, run: Run, missing: list[str], read: Callable[[Path], T], digest: Callable[[T], str]
) -> T | None:
    """Return a finding in a folder; None where there is none, or it is of other data than the run's, which is said.

    Args:
        folder: where findings are.
        kind: which is wanted.
        run: whose page it is for.
        missing: what the page has to do without; added to.
        read: reads the finding.
        digest: its manifest's SHA-256.
    """
    if not (folder / kind.file).is_file():
        return None
    try:
        found = read(folder)
    except DataError as error:
        missing.append(f"No {kind.what}: {error.message}.")
        return None
    if digest(found) != run.body["cache"]["manifest_sha256"]:
        missing.append(f"No {kind.what}: the one in {folder} is of other data than this run was trained on.")
        return None
    return found
