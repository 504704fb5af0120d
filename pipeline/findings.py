"""What was found out about a cache entry lies in one folder: the lists of `audit`, the curve of `learn-curve`."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.errors import CacheError, DataError, UsageError
from pipeline.store.commit import make_folder, read_json, write_json

FORMAT_VERSION = 1
MOST_VALUES = 20_000_000
"""In a file of findings: a suspect has 8, a pair 11, and a large entry has hundreds of thousands."""


@dataclass(frozen=True)
class Finding:
    """A kind of finding: its file in the folder, and what people call it."""

    file: str
    format: str
    what: str
    command: str
    """That makes one."""


AUDIT = Finding("audit.json", "pipeline-audit", "audit", "pipeline audit CACHE")
CURVE = Finding("learning-curve.json", "pipeline-learning-curve", "learning curve", "pipeline learn-curve CACHE")


def findings_folder(runs_dir: str | Path, cache: str) -> Path:
    """Return the usual folder of an entry's findings: `audits/<entry id>` beside the runs."""
    return Path(runs_dir).parent / "audits" / cache


def check_findings(folder: Path) -> None:
    """Refuse, before any work, a folder that holds something else than findings, or cannot be written.

    Raises:
        UsageError: if it does.
    """
    there = next(one for one in (folder, *folder.absolute().parents) if one.exists())
    if not there.is_dir():
        raise UsageError(f"{there} is no folder", "Name another folder.")
    if not os.access(there, os.W_OK | os.X_OK):
        raise UsageError(f"{there} cannot be written", "Name another folder.")
    if there == folder and any(folder.iterdir()) and not has_findings(folder):
        raise UsageError(
            f"{folder} holds neither an audit nor a learning curve, but something else", "Name another folder."
        )


def has_findings(folder: Path) -> bool:
    """Tell whether a finding of any kind is in a folder."""
    return any((folder / kind.file).is_file() for kind in (AUDIT, CURVE))


def write_finding(folder: Path, kind: Finding, body: dict[str, Any]) -> None:
    """Write a finding into a folder, in place of one that is there; readers see the old one or the new.

    Raises:
        CacheError: if the folder cannot be written.
    """
    make_folder(folder)
    write_json(folder / kind.file, {"format": kind.format, "format_version": FORMAT_VERSION, **body}, replace=True)


def read_finding(folder: str | Path, kind: Finding) -> dict[str, Any]:
    """Return a finding's fields.

    Raises:
        DataError: if there is none, it is damaged, or of another version.
    """
    path = Path(folder) / kind.file
    again = f"Make it again: {kind.command}"
    try:
        body = read_json(path, most_values=MOST_VALUES)
    except FileNotFoundError:
        missing = f"no {kind.what} at {folder}: it has no {kind.file}"
        raise DataError(missing, f"Make one: {kind.command}") from None
    except CacheError as error:
        raise DataError(error.message, again) from error
    if (body.get("format"), body.get("format_version")) != (kind.format, FORMAT_VERSION):
        raise DataError(f"{path} is of version {body.get('format_version')!r}, expected {FORMAT_VERSION}", again)
    return body
