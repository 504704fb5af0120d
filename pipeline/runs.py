"""Runs: one folder each under `runs/`, whole or absent, numbered in order. Imports neither torch nor scikit-learn."""

import contextlib
import json
import os
import re
import secrets
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.digest import is_sealed, seal
from pipeline.errors import DataError, UsageError
from pipeline.store.commit import make_folder, replace_file, sync_folder, write_new

RUN, FORMAT, FORMAT_VERSION = "run.json", "pipeline-run", 1
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,79}")


@dataclass(frozen=True)
class Run:
    """A trained head on disk with its settings, metrics and provenance."""

    path: Path
    body: dict[str, Any]

    @property
    def id(self) -> str:
        """The folder's name: a number, and the user's name for it."""
        return self.path.name


def check_name(name: str) -> None:
    """Refuse run names that are no plain file names."""
    if name and not NAME.fullmatch(name):
        raise UsageError(
            f"run name {name!r}: use letters, digits, dots, dashes and underscores, 80 at most",
        )


def save_run(root: Path, name: str, body: dict[str, Any], files: Mapping[str, bytes]) -> Run:
    """Write a run's folder under the next free number; it appears whole or not at all."""
    check_name(name)
    make_folder(root)
    folder = root / f".tmp-{os.getpid()}-{secrets.token_hex(4)}"
    folder.mkdir()
    body = {**body, "format": FORMAT, "format_version": FORMAT_VERSION}
    try:
        for file, data in files.items():
            write_new(folder / file, data)
        write_new(folder / RUN, json.dumps(seal(body), indent=1, allow_nan=False).encode() + b"\n")
        sync_folder(folder)
        goal = _take_number(root, name, folder)
        sync_folder(root)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return Run(goal, seal(body))


def _take_number(root: Path, name: str, folder: Path) -> Path:
    """Rename a finished folder to the next free number, trying again if another process takes it first."""
    while True:
        goal = root / _next_id(root, name)
        try:
            os.rename(folder, goal)  # a folder with files in it is never replaced
        except OSError:
            if not goal.exists():
                raise
        else:
            return goal


def _next_id(root: Path, name: str) -> str:
    numbers = [int(match[0]) for path in root.iterdir() if (match := re.match(r"\d+", path.name))]
    return f"{max(numbers, default=0) + 1:04d}" + (f"-{name}" if name else "")


def list_runs(root: Path) -> list[Run]:
    """Return the readable runs under `root` in order."""
    found = []
    for path in sorted(root.glob(f"*/{RUN}")):
        with contextlib.suppress(DataError):
            found.append(open_run(path.parent))
    return found


def open_run(path: Path) -> Run:
    """Open the run in a folder.

    Raises:
        DataError: if its description is missing or damaged.
    """
    try:
        body = json.loads((path / RUN).read_bytes())
    except (OSError, ValueError) as error:
        raise DataError(f"{path / RUN} cannot be read: {error}") from error
    if not isinstance(body, dict) or not is_sealed(body):
        raise DataError(f"{path / RUN} is damaged: its content does not match its own SHA-256")
    return Run(path, body)


def find_run(root: Path, name: str) -> Run:
    """Return the run a user means by a unique prefix of its id, a path, or `latest`.

    Raises:
        DataError: if none or several fit.
    """
    if (Path(name) / RUN).is_file():
        return open_run(Path(name))
    folders = sorted(path.parent for path in root.glob(f"*/{RUN}"))
    if name == "latest" and folders:
        return open_run(folders[-1])
    fitting = [folder for folder in folders if name and folder.name.startswith(name)]
    exact = [folder for folder in folders if folder.name == name]
    if len(exact or fitting) == 1:
        return open_run((exact or fitting)[0])
    if fitting:
        raise DataError(f"run {name!r} is not unique: {', '.join(folder.name for folder in fitting[:5])}")
    there = ", ".join(folder.name for folder in folders[-5:]) or "nothing"
    raise DataError(
        f"no run {name!r} under {root}; there is {there}", "Make one: pipeline train-head CACHE; list: pipeline runs"
    )


def record_evaluation(run: Run, name: str, result: Mapping[str, Any]) -> None:
    """Keep an evaluation in the run's folder as `evaluation-<name>.json`; the newest of a name stays."""
    data = json.dumps(seal(dict(result)), indent=1, allow_nan=False).encode() + b"\n"
    replace_file(run.path / f"evaluation-{name}.json", data)


def read_evaluations(run: Run) -> dict[str, dict[str, Any]]:
    """Return the evaluations kept in a run's folder by name."""
    found = {}
    for path in sorted(run.path.glob("evaluation-*.json")):
        with contextlib.suppress(OSError, ValueError):
            body = json.loads(path.read_bytes())
            if is_sealed(body):
                found[path.stem.removeprefix("evaluation-")] = body
    return found
