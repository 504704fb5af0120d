"""What was found out about a cache entry lies in one folder: the lists of `audit`, the curve of `learn-curve`."""

from pathlib import Path

from pipeline.errors import UsageError

AUDIT, CURVE = "audit.json", "learning-curve.json"


def findings_folder(runs_dir: str | Path, cache: str) -> Path:
    """Return the usual folder of an entry's findings: `audits/<entry id>` beside the runs."""
    return Path(runs_dir).parent / "audits" / cache


def check_findings(folder: Path) -> None:
    """Refuse, before any work, a folder that holds something else than findings.

    Raises:
        UsageError: if it does.
    """
    if not folder.exists():
        return
    if not folder.is_dir():
        raise UsageError(f"{folder} is no folder", "Name another folder.")
    if any(folder.iterdir()) and not any((folder / name).is_file() for name in (AUDIT, CURVE)):
        raise UsageError(
            f"{folder} holds neither an audit nor a learning curve, but something else", "Name another folder."
        )
