"""The core loop: `extract_shard(job, number)` makes one shard whole, whoever calls it and however often."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from pipeline.errors import DataError
from pipeline.extraction.careful import KILLS
from pipeline.extraction.compat import trust_rows
from pipeline.extraction.job import Job
from pipeline.extraction.precision import Rounding
from pipeline.loading.batch import Batch
from pipeline.loading.loader import Loader
from pipeline.loading.worker import BAD as BAD_IMAGE
from pipeline.loading.worker import KNOWN
from pipeline.store.record import Record
from pipeline.store.rows import ShardRef
from pipeline.store.shard import BAD, USABLE, ShardRows
from pipeline.store.statindex import ROW, stat_rows
from pipeline.threads import cpu_threads
from pipeline.versions import versions

OnRows = Callable[[int, int, int], None]
"""Called with how many more rows were computed, reused, skipped."""


@dataclass
class _Shard:
    """A shard being made. Rows are counted from the shard's first."""

    rows: ShardRows
    first: int
    """The listing row that is its first."""
    bad: dict[int, str] = field(default_factory=dict)
    stats: list[np.ndarray] = field(default_factory=list)
    computed: int = 0
    reused: int = 0
    first_of: dict[bytes, int] = field(default_factory=dict)
    """The row that is computed for a digest."""
    copies: list[tuple[int, int]] = field(default_factory=list)
    """(row, row it equals) of images that occur twice in the shard."""
    rounding: Rounding | None = None
    """What storing in less than float32 costs."""


@dataclass
class _Assembly:
    """Images gathered from batches that were only partly needed, until they fill a batch."""

    pixels: np.ndarray
    rows: list[int] = field(default_factory=list)


def extract_shard(job: Job, number: int, on_rows: OnRows | None = None) -> Record:
    """Make shard `number` and commit it; if it is done already, return its record.

    Idempotent and independent of other shards: any process may call it, in any order, again after a crash.

    Raises:
        DataError: if a feature is not finite, naming the images.
        CacheError: if the disk is full or cannot be written.
    """
    started = time.perf_counter()
    before = job.work.record(number)
    done = job.committed(number)
    if done is not None:
        drop_request(job, number)
        return done[0]
    request_shard(job, number)
    span = job.span(number)
    shard = _Shard(_empty_rows(job, span.stop - span.start), span.start)
    if job.space.store_dtype != "float32":
        shard.rounding = Rounding()
    report = on_rows or (lambda *_: None)

    asked = set(job.requested.pop(number))
    there = [row for row in range(span.start, span.stop) if row not in asked]
    lost = _take_shared(job, shard, _take_known(job, shard, there, report), report)
    if asked:
        lost += _take_loaded(job, shard, job.loader, len(asked), report)
    if lost:
        job.plain_loader.request(lost, job.payload)
        _take_loaded(job, shard, job.plain_loader, len(lost), report)

    for row, twin in shard.copies:
        shard.rows.features[row] = shard.rows.features[twin]
    _check_finite(job, shard)
    if job.shared is not None:
        job.shared.bad |= {span.start + row: reason for row, reason in shard.bad.items()}
        job.shared.stats += shard.stats
    written = time.perf_counter()
    record = job.work.commit(
        number,
        job.space,
        shard.rows,
        bad=shard.bad,
        stats=np.concatenate([np.empty(0, ROW), *shard.stats]),
        computed=shard.computed,
        reused=shard.reused,
        facts={
            "recipe": job.recipe.to_json(),
            "versions": versions(),
            "seconds": written - started,
            **({"rounding": shard.rounding.to_json()} if shard.rounding is not None else {}),
            **({"deviation": job.deviation.to_json()} if shard.computed and job.deviation is not None else {}),
        },
        equal=job.rows.paths_by_sha256(),
        stale=before.sha256 if before else None,
    )
    job.seconds["writing"] += time.perf_counter() - written
    reference = ShardRef(job.work.shard_path(record), record.sha256, record.size, job.recipe.to_json(), versions())
    job.rows.add(reference, shard.rows.digests, shard.rows.status == USABLE)
    return record


def drop_request(job: Job, number: int) -> None:
    """Throw away what was asked of the loader for a shard that is not made now.

    Of several such shards in the order in which they were asked for: the loader keeps it.
    """
    for _ in range(-(-len(job.requested.pop(number, [])) // job.recipe.batch_size)):
        job.loader.release(job.loader.next_batch())


def request_shard(job: Job, number: int) -> None:
    """Ask the loader for the images that shard `number` needs read, unless that was done already.

    Called for the next shard while one is being made, it keeps the workers busy in between.
    """
    if number in job.requested:
        return
    span = job.span(number)
    places = job.rows.find(job.digests[span])
    needed = ~job.known[span] | (places[:, 0] < 0)
    rows = [row for row in (np.flatnonzero(needed) + span.start).tolist() if not _is_shared(job, row)]
    job.requested[number] = rows
    if rows:
        job.loader.request(rows, job.payload)


def _is_shared(job: Job, row: int) -> bool:
    """Tell whether another layer's job of this pass has computed a listing row, or found its image unusable."""
    shared = job.shared
    return shared is not None and (row in shared.bad or shared.row(job, job.digests[row].tobytes()) is not None)


def _take_shared(job: Job, shard: _Shard, rows: list[int], report: OnRows) -> list[int]:
    """Take what another layer's job of this pass has computed. Return the rows that are left."""
    taken = [row for row in rows if _is_shared(job, row)]
    if job.shared is None or not taken:
        return rows
    shard.stats = list(job.shared.stats)
    seen: set[bytes] = set()
    for row in taken:
        digest = job.digests[row].tobytes()
        if row in job.shared.bad:
            shard.rows.status[row - shard.first] = BAD
            shard.bad[row - shard.first] = job.shared.bad[row]
            report(0, 0, 1)
            continue
        features = job.shared.row(job, digest)
        assert features is not None
        _keep(job, shard, features[None], np.array([row - shard.first]))
        new = digest not in seen  # an image that occurs twice was computed once
        seen.add(digest)
        shard.computed += new
        shard.reused += not new
        report(int(new), int(not new), 0)
    return [row for row in rows if not _is_shared(job, row)]


def _empty_rows(job: Job, n: int) -> ShardRows:
    return ShardRows(
        np.zeros((n, *job.space.row_shape), job.space.store_dtype),
        np.zeros((n, 32), np.uint8),
        np.full(n, USABLE, np.uint8),
    )


def _take_known(job: Job, shard: _Shard, rows: list[int], report: OnRows) -> list[int]:
    """Copy rows whose image digests and features are known; nothing is opened but shards.

    Returns the rows that could not be had: their shard turned out to be damaged, or not to be trusted.
    """
    if not rows:
        return []
    at = np.array(rows)
    shard.rows.digests[at - shard.first] = job.digests[at]
    features = np.zeros((len(at), *job.space.row_shape), job.space.store_dtype)
    had = job.rows.fetch(trust_rows(job, at, job.rows.find(job.digests[at])), job.digests[at], features)
    shard.rows.features[at[had] - shard.first] = features[had]
    shard.reused += int(had.sum())
    report(0, int(had.sum()), 0)
    return [int(row) for row in at[~had]]


def _take_loaded(job: Job, shard: _Shard, loader: Loader, count: int, report: OnRows) -> list[int]:
    """Take `count` requested images from a loader; compute those that no row is known for.

    Returns the rows that the loader knew and did not decode, but whose features could not be had.
    """
    size = job.backbone.preprocess.crop
    assembly = _Assembly(np.zeros((job.recipe.batch_size, size, size, 3), np.uint8))
    lost: list[int] = []
    while count:
        waited = time.perf_counter()
        batch = job.finished(loader.next_batch())
        job.seconds["loading"] += time.perf_counter() - waited
        count -= len(batch.rows)
        first, end = shard.first, shard.first + len(shard.rows.status)
        if count < 0 or not first <= min(batch.rows) <= max(batch.rows) < end:
            raise AssertionError(f"rows {batch.rows[0]} to {batch.rows[-1]} came for the shard that begins at {first}")
        wanted = _sort_out(job, shard, batch, lost, report)
        if wanted:
            _compute_batch(job, shard, batch, wanted, assembly, report)
        loader.release(batch)
    if assembly.rows:
        assembly.pixels[len(assembly.rows) :] = 0
        _forward(job, shard, assembly.pixels, list(enumerate(assembly.rows)), report)
    return lost


def _sort_out(job: Job, shard: _Shard, batch: Batch, lost: list[int], report: OnRows) -> list[int]:
    """Record digests and bad images, copy rows that are known. Return the places that must be computed."""
    digests = np.stack([np.frombuffer(item.digest or bytes(32), np.uint8) for item in batch.loaded])
    rows = np.array(batch.rows)
    shard.rows.digests[rows - shard.first] = digests
    _remember(job, shard, batch, rows, digests)

    features = np.zeros((len(rows), *job.space.row_shape), job.space.store_dtype)
    had = job.rows.fetch(trust_rows(job, rows, job.rows.find(digests)), digests, features)
    condemned = job.trial.condemned if job.trial is not None else frozenset()
    wanted = []
    for place, item in enumerate(batch.loaded):
        row = int(rows[place]) - shard.first
        if item.outcome == BAD_IMAGE or (int(rows[place]) in condemned and not had[place]):
            shard.rows.status[row] = BAD
            shard.bad[row] = item.reason or KILLS
        elif had[place]:
            shard.rows.features[row] = features[place]
        elif item.outcome == KNOWN:
            lost.append(int(rows[place]))
            continue
        elif (twin := shard.first_of.setdefault(item.digest or b"", row)) != row:
            shard.copies.append((row, twin))
            had[place] = True
        else:
            wanted.append(place)
    shard.reused += int(had.sum())
    report(0, int(had.sum()), sum(int(row) - shard.first in shard.bad for row in rows))
    return wanted


def _remember(job: Job, shard: _Shard, batch: Batch, rows: np.ndarray, digests: np.ndarray) -> None:
    """Note stat fields of files as they were when read, and their digests."""
    read = [place for place, item in enumerate(batch.loaded) if item.digest]
    if job.listing.stats is None:
        at = rows[read]
        moved = at[job.known[at] & (job.digests[at] != digests[read]).any(axis=1)]
        if len(moved):
            raise DataError(
                f"sample {job.listing.ids[int(moved[0])]} gives another image each time it is asked for",
                "Drop the random transform of the data set: each image has one row of features.",
            )
    job.digests[rows[read]], job.known[rows[read]] = digests[read], True
    kept = [place for place in read if batch.loaded[place].facts is not None]
    if kept:
        facts = np.array([batch.loaded[place].facts for place in kept], np.int64)
        read_ns = np.array([batch.loaded[place].read_ns for place in kept], np.int64)
        shard.stats.append(stat_rows(facts, digests[kept], read_ns))


def _compute_batch(
    job: Job, shard: _Shard, batch: Batch, wanted: list[int], assembly: _Assembly, report: OnRows
) -> None:
    """Run the network on the wanted places: on the batch as it lies if most are, else on gathered ones."""
    rows = [batch.rows[place] - shard.first for place in wanted]
    bad = sum(item.outcome == BAD_IMAGE for item in batch.loaded)
    if len(wanted) + bad == len(batch.rows):
        batch.pixels[len(batch.rows) :] = 0
        _forward(job, shard, batch.pixels, list(zip(wanted, rows, strict=True)), report)
        return
    for place, row in zip(wanted, rows, strict=True):
        assembly.pixels[len(assembly.rows)] = batch.pixels[place]
        assembly.rows.append(row)
        if len(assembly.rows) == job.recipe.batch_size:
            _forward(job, shard, assembly.pixels, list(enumerate(assembly.rows)), report)
            assembly.rows.clear()


def _forward(job: Job, shard: _Shard, pixels: np.ndarray, rows: list[tuple[int, int]], report: OnRows) -> None:
    """Compute features of a full batch; `rows` pairs places in it with rows of the shard."""
    if job.trial is None:
        _pass(job, shard, pixels, rows, report)
        return
    pairs = {shard.first + row: (place, row) for place, row in rows}
    for group in job.trial.apart(list(pairs)):
        some = np.zeros_like(pixels)
        places = [pairs[row][0] for row in group]
        some[places] = pixels[places]
        with job.trial.computing(group):
            _pass(job, shard, some, [pairs[row] for row in group], report)


def _pass(job: Job, shard: _Shard, pixels: np.ndarray, rows: list[tuple[int, int]], report: OnRows) -> None:
    """Run the network once."""
    started = time.perf_counter()
    with cpu_threads(job.recipe.threads):
        if job.shared is None:
            features = job.features(pixels)
        else:
            digests = [(place, shard.rows.digests[row].tobytes()) for place, row in rows]
            features = job.shared.forward(job, pixels, digests)
    places, at = (np.array(column) for column in zip(*rows, strict=True))
    _keep(job, shard, features[places], at)
    shard.computed += len(rows)
    job.seconds["forward"] += time.perf_counter() - started
    report(len(rows), 0, 0)


def _keep(job: Job, shard: _Shard, features: np.ndarray, at: np.ndarray) -> None:
    """Store features (m, *row_shape) float32 in rows `at` (m,) of the shard."""
    with np.errstate(over="ignore"):  # too large for float16: infinity, which `_check_finite` refuses by name
        stored = features.astype(job.space.store_dtype, copy=False)
    shard.rows.features[at] = stored
    if shard.rounding is not None:
        shard.rounding.add(features, stored, job.judge)


def _check_finite(job: Job, shard: _Shard) -> None:
    finite = np.isfinite(shard.rows.features.reshape(len(shard.rows.status), -1)).all(axis=1)
    if finite.all():
        return
    wrong = (np.flatnonzero(~finite) + shard.first).tolist()
    some = ", ".join(job.listing.ids[row] for row in wrong[:5]) + (", …" if len(wrong) > 5 else "")
    raise DataError(
        f"{len(wrong)} rows have features that are not finite (NaN or infinity): {some}",
        "Are the weights whole? With --store-dtype float16 the values may be too large: use float32.",
    )
