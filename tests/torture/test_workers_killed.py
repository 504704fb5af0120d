"""Workers killed at random and replaced, until the extraction that they share is done."""

import os
from pathlib import Path

from conftest import make_photos
from fleet import run_fleet
from harness import trials

PER_CLASS, SHARD_ROWS = 40, 8


def shard_bytes(result) -> list[bytes]:
    return [path.read_bytes() for path in sorted(Path(result["path"], "shards").iterdir())]


def test_workers_killed_at_random_cost_the_shards_they_were_at(tmp_path, tally):
    kills = int(os.environ.get("PIPELINE_KILLS", trials(quick=4, full=30)))
    photos, log = make_photos(tmp_path / "photos", per_class=PER_CLASS), tmp_path / "log"
    (alone,) = run_fleet(photos, tmp_path / "alone", [None])
    results = run_fleet(
        photos,
        tmp_path / "cache",
        ["0/3", "1/3", "2/3"],
        kills=kills,
        every=0.25,
        environment={"SLEEPY_SECONDS": "0.15", "SLEEPY_LOG": str(log)},
    )
    killed = results.count(None)
    assert {result["cache"] for result in results if result} == {alone["cache"]}
    assert shard_bytes(next(result for result in results if result)) == shard_bytes(alone)
    assert killed >= min(kills, 3)
    passes = [int(line.split()[1]) for line in log.read_text().splitlines()]
    assert sum(passes) <= 3 * PER_CLASS + SHARD_ROWS * killed
    tally("workers killed at random", killed, "the same bytes, at most the shards in flight computed again")
