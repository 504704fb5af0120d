"""A million rows in more than a hundred shards: memory, descriptors, resuming and reading do not suffer from size."""

import os
import subprocess
import sys
import time

import pytest
import scale
from harness import FULL, in_child

ROWS, SHARD_ROWS = (1_000_000, 8192) if FULL else (10_000, 512)
LIMIT = 1800.0 if FULL else 120.0
GROWTH = 1.05
"""Memory after any shard over memory when a tenth of them was made."""
RESUME_SECONDS = 30.0
OF_HASHING = 0.6
"""The share of SHA-256's own speed at which an entry must be read, verified."""


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("scale")


@pytest.fixture(scope="module")
def extracted(root):
    """What was noted while all shards were made; nothing is published yet."""
    outcome = in_child(lambda: scale.make_shards(root, ROWS, SHARD_ROWS), LIMIT)
    assert outcome.code == 0, outcome.error
    return outcome.result


@pytest.fixture(scope="module")
def published(root, extracted):
    """What was noted by a second process, which found all shards and published the entry."""
    outcome = in_child(lambda: scale.resume(root, ROWS, SHARD_ROWS), LIMIT)
    assert outcome.code == 0, outcome.error
    return outcome.result


def megabytes(number: float) -> str:
    return f"{number / 1e6:,.0f} MB"


def seconds(phases: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:.1f} s" for name, value in phases.items())


def test_memory_and_descriptors_stay_the_same_from_shard_to_shard(extracted, tally):
    memory, descriptors = extracted["memory"], extracted["descriptors"]
    assert len(memory) == -(-ROWS // SHARD_ROWS)
    warm = len(memory) // 10
    grown = max(memory[warm:]) / memory[warm]
    first, last = megabytes(memory[warm]), megabytes(memory[-1])
    tally(f"rows in {len(memory)} shards", ROWS, seconds(extracted["seconds"]))
    tally("rows: memory after a tenth of the shards, and at the end", ROWS, f"{first}, {last}, most {grown:.3f} times")
    assert grown <= GROWTH
    assert len(set(descriptors[1:])) == 1, descriptors


def test_a_resume_finds_all_shards_in_seconds(published, tally):
    spent = published["seconds"]
    tally("rows found by a resume, and published", ROWS, seconds(spent))
    more = published["peak"] - published["before"]
    tally(
        "rows published: memory before, and more at most", ROWS, f"{megabytes(published['before'])}, {megabytes(more)}"
    )
    if FULL:
        assert spent["prepare"] + spent["missing"] < RESUME_SECONDS


def test_an_entry_is_read_verified_nearly_as_fast_as_it_can_be_hashed(published, tally):
    outcome = in_child(lambda: scale.read_speeds(scale.Path(published["entry"]), 5), LIMIT)
    assert outcome.code == 0, outcome.error
    speeds = outcome.result
    share = speeds["read"] / speeds["hash"]
    figures = f"{megabytes(speeds['read'])} a second of one core, {share:.2f} of SHA-256's {megabytes(speeds['hash'])}"
    tally("bytes read and verified", speeds["bytes"], figures)
    if FULL:  # small shards, as in a sample, spend their time elsewhere
        assert share >= OF_HASHING


@pytest.mark.parametrize("command", ["ls", "info"])
def test_a_large_entry_is_listed_at_once(root, published, command, tally):
    started = time.perf_counter()
    arguments = [sys.executable, "-m", "pipeline", "cache", command, "--cache-dir", str(root)]
    said = subprocess.run(arguments, capture_output=True, text=True, timeout=LIMIT, check=True, env=os.environ).stdout
    spent = time.perf_counter() - started
    assert f"{ROWS:,}" in said
    tally(f"rows in an entry shown by `cache {command}`", ROWS, f"{spent:.2f} s with the start of Python")
