"""Runs: one folder each under `runs/`, whole or absent, numbered in order. Imports neither torch nor scikit-learn."""

import contextlib
import math
import os
import re
import secrets
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.calibration import Calibration
from pipeline.digest import seal
from pipeline.errors import CacheError, DataError, UsageError, nearest
from pipeline.store.commit import disk_errors, make_folder, read_json, sync_folder, write_json, write_new
from pipeline.store.fields import Fields, check_fields

RUN, FORMAT, FORMAT_VERSION = "run.json", "pipeline-run", 1
FIELDS: Fields = {
    "cache": dict,
    "source": dict,
    "backbone": dict,
    "classes": list,
    "settings": dict,
    "created": str,
    "metrics": (dict, type(None)),
}
SECTIONS: dict[str, Fields] = {
    "cache": {"id": str, "path": str},
    "source": {"spec": str},
    "backbone": {"name": str},
    "metrics": {"accuracy": (int, float)},
}
SETTINGS: dict[str, Fields] = {
    "minibatch": {"optimizer": str, "lr": (int, float), "epochs": int},
    "exact": {},
    "ridge": {},
    "knn": {"k": int},
    "centroid": {},
    "own": {},
    "finetune": {"lr": (int, float), "backbone_lr": (int, float), "epochs": int},
}
"""What this package reads of a run, and of its settings by solver; the rest is for people."""
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
    with disk_errors(root, sum(map(len, files.values()))):
        return _save_run(root, name, body, files)


def _save_run(root: Path, name: str, body: dict[str, Any], files: Mapping[str, bytes]) -> Run:
    make_folder(root)
    folder = root / f".tmp-{os.getpid()}-{secrets.token_hex(4)}"
    folder.mkdir()
    body = {**body, "format": FORMAT, "format_version": FORMAT_VERSION}
    try:
        for file, data in files.items():
            write_new(folder / file, data)
        write_json(folder / RUN, body, replace=False)
        sync_folder(folder)
        goal = _take_number(root, name, folder)
        sync_folder(root)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return Run(goal, seal(body))


def _take_number(root: Path, name: str, folder: Path) -> Path:
    """Rename a finished folder to the next free number, whatever other processes do.

    The number itself is taken by a hidden folder, since runs with different names would not collide.
    """
    number = max((_number(path.name.removeprefix(".number-")) for path in root.iterdir()), default=0)
    while True:
        number += 1
        try:
            (root / f".number-{number:04d}").mkdir()
        except FileExistsError:
            continue
        try:
            # It may have been taken, used and given back since the folder was listed.
            if any(_number(path.name) == number for path in root.iterdir()):
                continue
            goal = root / (f"{number:04d}" + (f"-{name}" if name else ""))
            os.rename(folder, goal)
            return goal
        finally:
            (root / f".number-{number:04d}").rmdir()


def list_runs(root: Path) -> list[Run]:
    """Return the readable runs under `root` in order."""
    found = []
    for folder in _run_folders(root):
        with contextlib.suppress(DataError):
            found.append(open_run(folder))
    return found


def _run_folders(root: Path) -> list[Path]:
    """Return run folders by number; half-made ones are hidden."""
    folders = [path.parent for path in root.glob(f"*/{RUN}") if not path.parent.name.startswith(".")]
    return sorted(folders, key=lambda folder: (_number(folder.name), folder.name))


def _number(name: str) -> int:
    match = re.match(r"\d+", name)
    return int(match[0]) if match else 0


def open_run(path: Path) -> Run:
    """Open the run in a folder.

    Raises:
        DataError: if its description is missing or damaged.
    """
    try:
        body = read_json(path / RUN)
    except FileNotFoundError:
        raise DataError(f"no run at {path}: it has no {RUN}", "`pipeline runs` lists all.") from None
    except CacheError as error:
        raise DataError(error.message, "Train the head again; a run's other files may still be whole.") from error
    if (body.get("format"), body.get("format_version")) != (FORMAT, FORMAT_VERSION):
        raise DataError(f"{path / RUN} is of version {body.get('format_version')!r}, expected {FORMAT_VERSION}")
    return Run(path, body)


def check_run(run: Run) -> None:
    """Refuse a run whose description lacks what `evaluate` and `runs` read of it; it may come from anyone.

    Raises:
        DataError: naming the file and the field.
    """
    where = str(run.path / RUN)
    try:
        check_fields(run.body, FIELDS, where)
        for section, fields in SECTIONS.items():
            if run.body[section] is not None:
                check_fields(run.body[section], fields, f"{where}: {section}")
        check_fields(run.body["settings"], SETTINGS[solver_of(run)], f"{where}: settings")
    except CacheError as error:
        raise DataError(error.message) from error


def solver_of(run: Run) -> str:
    """Return how a run's head was found; runs from before there was a choice do not say.

    Raises:
        DataError: if it is none that this package knows.
    """
    solver = run.body["settings"].get("solver", "minibatch")
    if not isinstance(solver, str) or solver not in SETTINGS:
        raise DataError(f"{run.path / RUN}: solver {solver!r} is not one of {', '.join(SETTINGS)}")
    return solver


def calibration_of(run: Run) -> Calibration | None:
    """Return what makes calibrated probabilities of a run's logits; None where nothing was held out for it.

    Raises:
        DataError: if its temperature is no number above 0, or its smoothing none in [0, 1).
    """
    calibration = run.body.get("calibration")
    if calibration is None:
        return None
    found = calibration if isinstance(calibration, dict) else {}
    temperature, smoothing = found.get("temperature"), found.get("smoothing", 0.0)
    if not isinstance(temperature, float) or not 0 < temperature < math.inf:
        raise DataError(f"{run.path / RUN}: calibration.temperature {temperature!r} is no number above 0")
    if not isinstance(smoothing, float) or not 0 <= smoothing < 1:
        raise DataError(f"{run.path / RUN}: calibration.smoothing {smoothing!r} is no number from 0 to 1")
    return Calibration(temperature, smoothing)


def find_run(root: Path, name: str) -> Run:
    """Return the run a user means by a unique prefix of its id, the name it was given, a path, or `latest`.

    Raises:
        DataError: if none or several fit.
    """
    folders = _run_folders(root)
    if name == "latest" and folders:
        return open_run(folders[-1])
    exact = [folder for folder in folders if folder.name == name]
    begun = [folder for folder in folders if name and folder.name.startswith(name)]
    named = [folder for folder in folders if name and folder.name.partition("-")[2] == name]
    fitting = exact or begun or named
    if len(fitting) == 1:
        return open_run(fitting[0])
    if not fitting:  # ids before paths: a folder that happens to lie here must not take a run's name
        with contextlib.suppress(OSError, ValueError):  # a name too long for a file, or with a NUL, is no path
            if (Path(name) / RUN).is_file():
                return open_run(Path(name))
    if fitting:
        raise DataError(
            f"run {name!r} is not unique: {', '.join(folder.name for folder in fitting[:5])}", "Give more of its id."
        )
    there = ", ".join(folder.name for folder in folders[-5:]) or "nothing"
    raise DataError(f"no run {name!r} under {root}; there is {there}", _what_else(root, name, folders))


def _what_else(root: Path, name: str, folders: list[Path]) -> str:
    """Return what to do where no run has a name: it may be a slip of the pen, or a cache entry's."""
    close = nearest(name, [folder.name for folder in folders]).strip()
    of_entry = [run.id for run in list_runs(root) if name and _entry_id(run).startswith(name.lower())]
    if of_entry:
        shown = ", ".join(of_entry[-5:])
        return f"{name} is a cache entry: name a run of it, {shown}{', …' if len(of_entry) > 5 else ''}"
    return f"{close} Make one: pipeline train-head CACHE; list: pipeline runs".strip()


def _entry_id(run: Run) -> str:
    cache = run.body.get("cache")
    return str(cache.get("id", "")) if isinstance(cache, dict) else ""


def record_evaluation(run: Run, name: str, result: Mapping[str, Any]) -> None:
    """Keep an evaluation in the run's folder as `evaluation-<name>.json`; the newest of a name stays.

    Raises:
        CacheError: if the folder cannot be written.
    """
    write_json(run.path / f"evaluation-{name}.json", dict(result), replace=True)


def read_evaluations(run: Run) -> dict[str, dict[str, Any]]:
    """Return the evaluations kept in a run's folder by name."""
    found = {}
    for path in sorted(run.path.glob("evaluation-*.json")):
        with contextlib.suppress(CacheError, FileNotFoundError):
            found[path.stem.removeprefix("evaluation-")] = read_json(path)
    return found


def group_id(run: Run) -> str | None:
    """Return the id of the group a run belongs to, None of one trained alone."""
    group = run.body.get("group")
    found = group.get("id") if isinstance(group, dict) else None
    return found if isinstance(found, str) else None
