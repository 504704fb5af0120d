"""From committed shards to a finished entry, which appears whole or not at all."""

import contextlib
import logging
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.errors import CacheError, DataError
from pipeline.extraction.job import Job
from pipeline.extraction.precision import Rounding
from pipeline.extraction.sides import warn_empty_classes, warn_groups
from pipeline.store.catalog import list_entries
from pipeline.store.commit import sync_given_names
from pipeline.store.entry import Entry, open_entry
from pipeline.store.key import SHORT
from pipeline.store.publish import publish_entry
from pipeline.store.record import Record
from pipeline.store.samples import SampleTable, skipped_csv
from pipeline.store.shard import USABLE
from pipeline.store.statindex import ROW, StatIndex
from pipeline.store.verify import find_changed, set_aside, still_damaged
from pipeline.versions import versions

logger = logging.getLogger(__name__)

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
    warn_empty_classes(job.listing, done.table.splits, done.table.usable)
    warn_groups(job.listing, done.table.splits)
    goal = job.root / done.id[:SHORT]
    save_stat_index(job, job.work.each_record())  # first: who sees the entry then knows its files
    entry = None if job.restart else whole_entry(job.root, goal)
    if entry is None:
        paths = [job.work.shard_path(record) for record in done.records]
        ledger = skipped_csv(done.table.ids, done.reasons)
        try:
            entry = publish_entry(
                job.root, _manifest(job, done, command), paths, done.table, ledger, replace=job.restart
            )
        except FileNotFoundError:
            # Another process has published the entry and removed the shards: the next round finds it.
            return whole_entry(job.root, goal)
    job.work.discard()
    return entry


def whole_entry(root: Path, path: Path) -> Entry | None:
    """Return the entry at `path` if every byte of it is as committed; damaged files are set aside."""
    if not path.exists():
        return None
    try:
        entry = open_entry(path)
    except CacheError:
        return _reopened(root, path)
    damage = find_changed(entry)
    sync_given_names(root)
    # Another process may have put a whole entry there since: what is set aside is looked at once more.
    for item in still_damaged(entry, damage):
        set_aside(root, item.path)
    return None if damage else entry


def _reopened(root: Path, path: Path) -> Entry | None:
    """Return the entry that another process has put in a damaged one's place just now, else set that aside."""
    try:
        open_entry(path)
    except CacheError:
        if path.exists():
            set_aside(root, path)
        return None
    return whole_entry(root, path)


def published_entry(job: Job) -> Entry | None:
    """Return the entry that another process has published of the same work or content, None if there is none.

    Whoever published it has verified every byte: only sizes are compared again.
    """
    token = job.work.token
    entry = next((one for one in list_entries(job.root) if token and one.manifest.get("work") == token), None)
    if entry is None and not job.restart and job.known.all():
        with contextlib.suppress(CacheError):
            entry = open_entry(job.root / job.final_id(job.digests)[:SHORT])
    if entry is not None:
        try:
            entry.check_sizes()
        except CacheError:  # damaged or removed since
            return None
    return entry


def refuse_images(job: Job, *, skip_bad: bool) -> None:
    """Refuse unusable images as `publish` does, by the commit records alone, if all are there."""
    bad: dict[int, str] = {}
    for number in () if skip_bad else range(job.shards):
        record = job.work.outline(number)
        if record is None:
            return
        bad |= {job.span(number).start + row: why for row, why in record.bad.items()}
    check_images([(job.listing.ids[row], bad[row]) for row in sorted(bad)], len(job.listing), skip_bad=skip_bad)


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
    """Read all committed shards back; None if any is missing, damaged or out of date."""
    records: list[Record] = []
    reasons: dict[int, str] = {}
    digests = job.digests if job.known.all() else job.digests.copy()
    status = np.full(len(job.listing), USABLE, np.uint8)
    for number in range(job.shards):
        found = job.work.outline(number)
        span = job.span(number)
        if found is None or found.rows != span.stop - span.start:
            return None
        try:
            rows = job.work.read_shard(found, job.space)
        except CacheError as error:
            logger.warning("%s; the shard is made again", error.message)
            job.doubted.add(number)
            continue
        known = job.known[span]
        if not np.array_equal(rows.digests[known], job.digests[span][known]):
            return None  # another process saw other files: what it committed is not this listing
        digests[span], status[span] = rows.digests, rows.status
        reasons |= {span.start + row: reason for row, reason in found.bad.items()}
        records.append(found)
    if len(records) < job.shards:
        return None
    splits, rule = job.splits(digests)
    table = SampleTable(job.listing.ids, digests, job.listing.labels, splits, status, job.listing.groups)
    return _Done(records, table, reasons, rule, job.final_id(digests, splits))


def _manifest(job: Job, done: _Done, command: str) -> dict[str, Any]:
    """Return the fields of the manifest that the store does not know by itself."""
    rounding = _rounding(done.records)
    deviation = _deviation(done.records)
    return {
        **({"rounding": rounding.to_json()} if rounding is not None else {}),
        **({"deviation": deviation} if deviation is not None else {}),
        "id": done.id,
        "space": job.space.to_json(),
        "space_sha256": job.space.sha256,
        "backbone": {"name": job.backbone.name, "weights": job.backbone.weights},
        "source": {**job.source.describe(), "spec": job.source.spec},
        "classes": list(job.listing.classes),
        "split_rule": done.split_rule,
        "shards": [
            {
                "sha256": record.sha256,
                "bytes": record.size,
                "rows": record.rows,
                "recipe": job.recipe.to_json(),
                "facts": record.facts,
            }
            for record in done.records
        ],
        "recipe": job.recipe.to_json(),
        "work": job.work.token,
        "versions": versions(),
        "command": command,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _rounding(records: list[Record]) -> Rounding | None:
    """Return what storing in less than float32 cost over all rows computed for these shards."""
    measured = [Rounding(**record.facts["rounding"]) for record in records if "rounding" in record.facts]
    total = Rounding()
    for part in measured:
        total.merge(part)
    return total if measured else None


def _deviation(records: list[Record]) -> dict[str, Any] | None:
    """Return the largest deviation of an engine from the plain module that any process measured for these shards."""
    measured = [record.facts["deviation"] for record in records if "deviation" in record.facts]
    return max(measured, key=lambda one: float(one["relative"]), default=None)


def save_stat_index(job: Job, records: Iterable[Record]) -> None:
    """Remember the digests of the files that `records` read, for the next extraction of this source."""
    read = bytearray()
    for record in records:
        read += record.stats.tobytes()
    if read and job.source.folder is not None:
        index = StatIndex.load(job.root, job.source.folder).updated(np.frombuffer(read, ROW))
        del read  # 64 bytes a file
        index.save(job.root, job.source.folder)
