"""An extraction in progress: `plans/<plan>/` with the pinned recipe and a commit record for each shard.

A shard is done when its record has its name: the shard's bytes are durable before that. Everything here is
correct without locks: names are taken with `link`, equal work gives equal bytes, and whoever comes second
compares. The folder goes when the entry is published; a process that still works on it finds the rows there.
"""

import contextlib
import logging
import os
import re
import secrets
import stat
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from pipeline.digest import sha256_bytes
from pipeline.errors import CacheError
from pipeline.store.commit import (
    disk_errors,
    make_folder,
    publish_file,
    publish_link,
    read_json,
    remove_folder,
    replace_file,
    sync_folder,
    write_json,
)
from pipeline.store.fields import check_fields
from pipeline.store.key import SHORT, FeatureSpace, Recipe
from pipeline.store.record import Record, digests_sha256
from pipeline.store.shard import ShardRows, read_shard, shard_bytes

logger = logging.getLogger(__name__)

T = TypeVar("T")
Mark = tuple[int, int]

PLAN, RECORDS, SHARDS = "plan.json", "records", "shards"
PLAN_FORMAT, FORMAT_VERSION = "pipeline-plan", 1
TRIES = 100
"""How often a commit starts over because another process finished and removed the folder meanwhile, each once."""


class WorkFolder:
    """The folder of one extraction in progress under a cache root."""

    def __init__(self, root: Path, plan: str) -> None:
        self.path = root / "plans" / plan[:SHORT]
        self.plan = plan
        self._pinning: dict[str, Any] | None = None
        """What `pin` wrote, to be written again if another process removes the folder."""
        self._outlines: dict[int, tuple[Mark, Record]] = {}
        """Records without their stat rows, by shard, each with its mark."""

    def pinned(self) -> Recipe | None:
        """Return the recipe work was started with, or None if it has not started."""
        body = self._plan()
        return None if body is None else Recipe.from_json(body["recipe"])

    def _plan(self) -> dict[str, Any] | None:
        try:
            body = read_json(self.path / PLAN)
        except FileNotFoundError:
            return None
        if (body.get("format"), body.get("format_version"), body.get("plan")) != (
            PLAN_FORMAT,
            FORMAT_VERSION,
            self.plan,
        ):
            raise CacheError(
                f"{self.path} belongs to another extraction or another version of this package",
                f"Delete it: rm -r '{self.path}'",
            )
        check_fields(body, {"recipe": dict}, str(self.path / PLAN))
        return body

    def pin(self, space: FeatureSpace, recipe: Recipe, about: dict[str, Any]) -> Recipe:
        """Start work with `recipe`, or join work already started. Return the recipe that holds."""
        body: dict[str, Any] = {
            "format": PLAN_FORMAT,
            "format_version": FORMAT_VERSION,
            "plan": self.plan,
            "recipe": recipe.to_json(),
            "space": space.to_json(),
            "about": about,
            "token": secrets.token_hex(8),
        }
        self._pinning = body
        self._publishing(lambda: None)
        there = self._plan() or body
        self._pinning = {**body, "recipe": there["recipe"], "token": there.get("token", "")}
        return Recipe.from_json(there["recipe"])

    @property
    def token(self) -> str:
        """What tells this work from other work on the same plan, before and after; empty until it is pinned.

        An entry says in its manifest which work it came of: others who were at it find it so.
        """
        return str(self._pinning["token"]) if self._pinning is not None else ""

    def record(self, number: int) -> Record | None:
        """Return shard `number`'s commit record, or None if it is not done or its record is damaged."""
        self._outlines.pop(number, None)
        mark = self.mark(number)
        try:
            record = Record.from_json(read_json(self._record_path(number)))
        except FileNotFoundError:
            return None
        except CacheError as error:
            logger.warning("%s; shard %d is made again", error.message, number)
            return None
        if record.shard != number:
            return None
        if mark is not None:
            self._outlines[number] = (mark, record.outline())
        return record

    def outline(self, number: int) -> Record | None:
        """Return what `record` does without its stat rows; it is read again only if another was written since."""
        held = self._outlines.get(number)
        if held is not None and held[0] == self.mark(number):
            return held[1]
        record = self.record(number)
        return None if record is None else record.outline()

    def records(self) -> list[Record]:
        """Return the commit records of all shards that are done, in order."""
        return list(self.each_record())

    def each_record(self) -> Iterator[Record]:
        """Yield the commit records of all shards that are done, in order: together they can be large."""
        return (record for record in map(self.record, self.numbers()) if record is not None)

    def outlines(self) -> list[Record]:
        """Return the records of all shards that are done, in order, without their stat rows."""
        return [record for record in map(self.outline, self.numbers()) if record is not None]

    def mark(self, number: int) -> Mark | None:
        """Return what tells a shard's commit record from one written later, None if there is none to be read."""
        try:
            found = self._record_path(number).stat()
        except OSError:  # what is wrong with it, reading it says
            return None
        return found.st_ino, found.st_mtime_ns

    def numbers(self) -> list[int]:
        """Return which shards have a commit record, in order, by their names alone."""
        return _record_numbers(self.path)

    def has_shard(self, record: Record) -> bool:
        """Tell whether a committed shard's file is there and of its size; its bytes are not looked at."""
        try:
            found = self.shard_path(record).lstat()
        except OSError:
            return False
        return stat.S_ISREG(found.st_mode) and found.st_size == record.size

    def read_shard(self, record: Record, space: FeatureSpace) -> ShardRows:
        """Return a committed shard's rows, verified."""
        return read_shard(self.shard_path(record), record.sha256, record.size, space)

    def shard_path(self, record: Record) -> Path:
        """Return where a committed shard's bytes lie."""
        return self.path / SHARDS / f"{record.sha256}.h5"

    def commit(
        self,
        number: int,
        space: FeatureSpace,
        rows: ShardRows,
        *,
        bad: dict[int, str],
        stats: np.ndarray,
        computed: int,
        reused: int,
        facts: dict[str, Any],
        equal: Mapping[str, Path],
        stale: str | None,
    ) -> Record:
        """Make a shard durable, then its record. Return the record that holds.

        `equal` maps SHA-256 of shards elsewhere in the cache to their files: the same bytes are linked and
        not written again. `stale` is the SHA-256 in a record that is known to be out of date and gives way.
        """
        data = shard_bytes(space, rows)
        record = Record(
            number,
            sha256_bytes(data),
            len(data),
            len(rows.status),
            computed,
            reused,
            bad,
            stats,
            {**facts, "host": os.uname().nodename, "created": datetime.now(UTC).isoformat(timespec="seconds")},
            digests_sha256(rows.digests),
        )

        def publish() -> Record:
            self._publish_bytes(data, record.sha256, equal)
            return self._publish_record(record, stale)

        return self._publishing(publish)

    def _publishing(self, publish: Callable[[], T]) -> T:
        """Call `publish` with the folders in place, again if another process removes them under it."""
        for left in reversed(range(TRIES)):
            try:
                make_folder(self.path / RECORDS, self.path.parent.parent)
                make_folder(self.path / SHARDS, self.path / SHARDS)
                if self._pinning is not None and not (self.path / PLAN).exists():
                    write_json(self.path / PLAN, self._pinning, replace=False)
                return publish()
            except FileNotFoundError:
                if not left:
                    raise
        raise AssertionError("unreachable")

    def _publish_bytes(self, data: bytes, sha256: str, equal: Mapping[str, Path]) -> None:
        path = self.path / SHARDS / f"{sha256}.h5"
        if path.exists():
            if not _holds(path, data):
                replace_file(path, data)
            else:
                with disk_errors(path, 0):
                    sync_folder(path.parent)  # another process may have given the name just now
            return
        twin = equal.get(sha256)
        if twin is not None and _holds(twin, data) and publish_link(twin, path):
            return
        publish_file(path, data)

    def _publish_record(self, record: Record, stale: str | None) -> Record:
        path = self._record_path(record.shard)
        if write_json(path, record.to_json(), replace=False):
            return record
        there = self.record(record.shard)
        if there is None or there.sha256 == stale:
            if there is not None and there.sha256 == record.sha256:  # how these bytes were made stays as it was
                record = replace(record, computed=there.computed, reused=there.reused, facts=there.facts)
            write_json(path, record.to_json(), replace=True)
            return record
        if there.sha256 != record.sha256:
            logger.warning(
                "shard %d: another process committed other bytes for the same work; its rows are kept",
                record.shard,
            )
        return there

    def discard(self) -> None:
        """Remove the folder; another process that still works on it starts its next commit anew."""
        with contextlib.suppress(CacheError):
            remove_folder(self.path)

    def _record_path(self, number: int) -> Path:
        return self.path / RECORDS / f"{number:05d}.json"


def _holds(path: Path, data: bytes) -> bool:
    try:
        return path.stat().st_size == len(data) and path.read_bytes() == data
    except OSError:
        return False


def _record_numbers(folder: Path) -> list[int]:
    """Return which shards have a commit record, by their names alone."""
    try:
        names = [Path(name) for name in os.listdir(folder / RECORDS)]
    except FileNotFoundError:  # not begun, or finished by another process
        return []
    except OSError as error:
        raise CacheError(f"{folder / RECORDS} cannot be read: {error.strerror or error}") from error
    return sorted(int(name.stem) for name in names if name.suffix == ".json" and re.fullmatch("[0-9]+", name.stem))


def list_work(root: Path) -> list[dict[str, Any]]:
    """Return what is in progress under `root`: the plan's fields with `path` and `done` shards."""
    found = []
    for path in sorted(root.glob(f"plans/[!.]*/{PLAN}")):
        with contextlib.suppress(CacheError, FileNotFoundError):
            body = read_json(path)
            check_fields(body, {"plan": str, "recipe": dict, "space": dict, "about": dict}, str(path))
            Recipe.from_json(body["recipe"])
            FeatureSpace.from_json(body["space"])
            found.append({**body, "path": path.parent, "done": len(_record_numbers(path.parent))})
    return found
