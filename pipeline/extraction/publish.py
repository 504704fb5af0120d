"""From committed shards to a finished entry, which appears whole or not at all."""

import contextlib
import os
import secrets
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.digest import sha256_bytes
from pipeline.errors import CacheError, DataError
from pipeline.extraction.job import Job
from pipeline.store.commit import make_folder, publish_link, sync_folder, write_json, write_new
from pipeline.store.entry import (
    FORMAT,
    FORMAT_VERSION,
    MANIFEST,
    SAMPLES,
    SHARDS,
    SKIPPED,
    Entry,
    SampleTable,
    open_entry,
    skipped_csv,
    usable,
)
from pipeline.store.key import SHORT, SPLITS
from pipeline.store.shard import ShardRows
from pipeline.store.statindex import StatIndex
from pipeline.store.verify import find_changed, set_aside
from pipeline.store.work import Record
from pipeline.versions import versions

SHOWN = 3


@dataclass(frozen=True)
class _Done:
    """All shards of a job, committed and read back."""

    records: list[Record]
    table: SampleTable
    reasons: dict[int, str]
    split_rule: dict[str, Any] | None
    id: str


def publish(job: Job, *, skip_bad: bool, command: str) -> Entry | None:
    """Publish the entry of a job. Return None if shards are missing (again): make them and call once more.

    Raises:
        DataError: if images could not be used and `skip_bad` is not set, or none could.
    """
    done = _gather(job)
    if done is None:
        return None
    skipped = [(done.table.ids[row], reason) for row, reason in sorted(done.reasons.items())]
    check_images(skipped, len(done.table.ids), skip_bad=skip_bad)
    job.warn_empty_classes(done.table.splits, usable(done.table))
    goal = job.root / done.id[:SHORT]
    entry = None if job.restart else whole_entry(job.root, goal)
    if entry is None:
        with _new_folder(job.root) as folder:
            try:
                _fill(folder, job, done, command)
            except FileNotFoundError:
                # Another process has published the entry and removed the shards: the next round finds it.
                return whole_entry(job.root, goal)
            if goal.exists():
                set_aside(job.root, goal)
            try:
                os.rename(folder, goal)
            except OSError:
                if not goal.exists():  # else another process has just published the same entry
                    raise
            sync_folder(job.root)
        entry = open_entry(goal)
    _save_stat_index(job, done.records)
    job.work.discard()
    return entry


def whole_entry(root: Path, path: Path) -> Entry | None:
    """Return the entry at `path` if every byte of it is as committed; damaged files are set aside."""
    if not path.exists():
        return None
    try:
        entry = open_entry(path)
    except CacheError:
        set_aside(root, path)
        return None
    damage = find_changed(entry)
    for item in damage:
        if item.path.exists():
            set_aside(root, item.path)
    return None if damage else entry


def check_images(skipped: list[tuple[str, str]], total: int, *, skip_bad: bool) -> None:
    """Refuse unusable images, (id, reason) each, unless they are to be skipped; refuse a source without others."""
    if not skipped:
        return
    some = "; ".join(f"{sample_id} {reason}" for sample_id, reason in skipped[:SHOWN])
    more = f"; and {len(skipped) - SHOWN:,} more" if len(skipped) > SHOWN else ""
    if len(skipped) == total:
        raise DataError(f"none of the {total:,} images can be used: {some}{more}", "Is this the right folder?")
    if not skip_bad:
        raise DataError(
            f"{len(skipped):,} of {total:,} images cannot be used: {some}{more}",
            "Mend or remove them, or pass --on-bad-image skip; what is computed already is kept.",
        )


def _gather(job: Job) -> _Done | None:
    """Read all committed shards back; None if one is missing or out of date."""
    records: list[Record] = []
    parts: list[ShardRows] = []
    reasons: dict[int, str] = {}
    for number in range(job.shards):
        found = job.work.record(number)
        span = job.span(number)
        if found is None or found.rows != span.stop - span.start:
            return None
        try:
            rows = job.work.read_shard(found, job.space)
        except CacheError:
            return None
        first, known = span.start, job.known[span]
        if not np.array_equal(rows.digests[known], job.digests[span][known]):
            return None  # another process saw other files: what it committed is not this listing
        reasons |= {first + row: reason for row, reason in found.bad.items()}
        records.append(found)
        parts.append(ShardRows(np.empty(0), rows.digests.copy(), rows.status.copy()))
    digests = np.concatenate([part.digests for part in parts])
    splits, rule = job.splits(digests)
    status = np.concatenate([part.status for part in parts])
    table = SampleTable(list(job.listing.ids), digests, job.listing.labels, splits, status)
    return _Done(records, table, reasons, rule, job.final_id(digests))


@contextlib.contextmanager
def _new_folder(root: Path) -> Iterator[Path]:
    """Make a folder under `root` with a name of its own; it is gone afterwards unless it was renamed."""
    folder = root / f".tmp-{os.getpid()}-{secrets.token_hex(4)}"
    make_folder(folder / SHARDS)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _fill(folder: Path, job: Job, done: _Done, command: str) -> None:
    """Write all files of an entry, the manifest last."""
    shards = []
    for number, record in enumerate(done.records):
        publish_link(job.work.shard_path(record), folder / SHARDS / f"{number:05d}.h5")
        shards.append(
            {
                "sha256": record.sha256,
                "bytes": record.size,
                "rows": record.rows,
                "recipe": job.recipe.to_json(),
                "facts": record.facts,
            }
        )
    samples = done.table.to_bytes()
    skipped = skipped_csv(done.table.ids, done.reasons)
    write_new(folder / SAMPLES, samples)
    write_new(folder / SKIPPED, skipped)
    ok = usable(done.table)
    counts = np.bincount(done.table.splits[ok], minlength=len(SPLITS)).tolist()
    body = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "id": done.id,
        "space": job.space.to_json(),
        "space_sha256": job.space.sha256,
        "backbone": {"name": job.backbone.name, "weights": job.backbone.weights},
        "source": {**job.source.describe(), "spec": job.source.spec},
        "classes": list(job.listing.classes),
        "rows": int(ok.sum()),
        "samples_listed": len(done.table.ids),
        "splits": {name: count for name, count in zip(SPLITS, counts, strict=True) if count},
        "split_rule": done.split_rule,
        "samples": {"sha256": sha256_bytes(samples), "bytes": len(samples)},
        "skipped": {"sha256": sha256_bytes(skipped), "bytes": len(skipped), "count": len(done.reasons)},
        "shards": shards,
        "recipe": job.recipe.to_json(),
        "versions": versions(),
        "command": command,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    write_json(folder / MANIFEST, body, replace=False)
    sync_folder(folder / SHARDS)
    sync_folder(folder)


def _save_stat_index(job: Job, records: list[Record]) -> None:
    new = [record.stats for record in records if len(record.stats)]
    if new and job.source.folder is not None:
        index = StatIndex.load(job.root, job.source.folder)
        index.updated(np.concatenate(new)).save(job.root, job.source.folder)
