"""(f) Reading an entry, every byte verified, against reading and against hashing the same bytes."""

import hashlib
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from pipeline.benchmark.figures import BYTES_A_SECOND, SHARE, Claim, Figure
from pipeline.benchmark.numbered import extract_numbers
from pipeline.benchmark.timing import OnStep, interleaved, ratio, seconds_of, silent
from pipeline.store.entry import READERS, Entry, open_entry


def measure_reading(*, rows: int = 50_000, dim: int = 1280, repeats: int = 7, on_step: OnStep = silent) -> Claim:
    """Measure on an entry of `rows` x `dim` float32 that was just written, so that the disk takes no part.

    Raw reading and hashing have the same number of threads as the reader.
    """
    with tempfile.TemporaryDirectory(prefix="pipeline-benchmark-") as folder:
        on_step(f"writing {rows:,} rows x {dim:,} features")
        entry = open_entry(Path(extract_numbers(Path(folder), rows, dim).path))
        paths = [entry.shard_path(number) for number in range(len(entry.shards))]
        data = [path.read_bytes() for path in paths]
        size = sum(map(len, data))
        with ThreadPoolExecutor(READERS) as pool:
            work: dict[str, Callable[[], object]] = {
                "raw read": lambda: list(pool.map(_length, paths)),
                "SHA-256 of bytes in memory": lambda: list(pool.map(_hashed, data)),
                "verified read": lambda: _read(entry),
            }
            found = interleaved({name: seconds_of(one) for name, one in work.items()}, repeats, on_step)
    rates = {name: spread.map(lambda seconds: size / seconds) for name, spread in found.items()}
    read = rates["verified read"]
    figures = [
        *(Figure(name, BYTES_A_SECOND, rate) for name, rate in rates.items()),
        Figure("verified read over SHA-256", SHARE, ratio(read, rates["SHA-256 of bytes in memory"])),
        Figure("verified read over raw read", SHARE, ratio(read, rates["raw read"])),
    ]
    conditions = {"rows": rows, "dim": dim, "bytes": size, "shards": len(paths), "threads": READERS}
    title = f"reading an entry · {rows:,} rows x {dim:,} · {size / 1e6:,.0f} MB in {len(paths)} shards, in memory"
    return Claim("f", title, tuple(figures), {**conditions, "repeats": repeats})


def _length(path: Path) -> int:
    return len(path.read_bytes())


def _hashed(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _read(entry: Entry) -> None:
    """Read every row; what was read is dropped shard by shard."""
    rows = sum(len(shard.status) for _, shard in entry.read_shards())
    assert rows == entry.rows
