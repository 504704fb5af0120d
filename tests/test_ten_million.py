"""What lets ten million files be extracted, at a few thousand: no object for each, and no shard read to resume.

Sizes are counted by `tracemalloc`, which also counts numpy's arrays; nothing is timed.
"""

import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from images import write_shards

from pipeline.benchmark.listing import committing, job_of, make_files, make_table
from pipeline.benchmark.numbered import NumberedImages
from pipeline.extraction.publish import publish
from pipeline.launch.plan import plan_of
from pipeline.sources.arrays import ArrayPart, ArraySource
from pipeline.sources.folder import FolderSource
from pipeline.sources.reading import Reading
from pipeline.sources.resolve import open_source
from pipeline.sources.source import TRAIN
from pipeline.store.commit import write_json

FEW, MANY = 1_000, 3_000
OBJECTS = 0.05
"""Live blocks of memory that a file more may cost: a Python string, tuple or integer would be one."""
BYTES = 64
"""Bytes that a listed file may cost: a label takes 8, a digest 32, one `str` of such a path 80."""
ROWS, SHARD_ROWS = 5_000, 2048
"""Of an extraction in three shards."""


def a_table(root: Path, rows: int):
    make_files(root, 1000)
    make_table(root, rows, 1000)
    return open_source(f"{root}/table.csv")


def a_folder(root: Path, rows: int):
    make_files(root, rows)
    return FolderSource(root / "photos", reading=Reading(group_by="folder:1"))


def shards(root: Path, rows: int):
    make_files(root, rows)
    write_shards(root / "tars", [(path, "ab"[row % 2]) for row, path in enumerate(sorted(root.glob("photos/*/*")))])
    return open_source(f"{root}/tars")


def arrays(root: Path, rows: int):
    part = ArrayPart(TRAIN, np.zeros((rows, 1, 1), np.uint8), np.arange(rows) % 3)
    return ArraySource("zeros", "torchvision", (("train", part),), ("a", "b", "c"))


def cost(make) -> tuple[int, int]:
    """Return how many blocks and bytes are live more once `make` has returned what it made."""
    tracemalloc.start()
    try:
        before = tracemalloc.take_snapshot()
        made = make()
        after = tracemalloc.take_snapshot()
    finally:
        tracemalloc.stop()
    assert made
    found = after.compare_to(before, "filename")
    return sum(item.count_diff for item in found), sum(item.size_diff for item in found)


@pytest.mark.parametrize("kind", [a_table, a_folder, shards, arrays])
def test_a_listing_holds_no_object_for_each_file(tmp_path, kind):
    few, many = (kind(tmp_path / str(rows), rows) for rows in (FEW, MANY))
    few.listing()  # what the first call alone costs
    (blocks, size), (more_blocks, more_size) = cost(few.listing), cost(many.listing)
    assert more_blocks - blocks < OBJECTS * (MANY - FEW)
    assert more_size - size < BYTES * (MANY - FEW)
    assert len(many.listing()) == MANY


def test_planning_holds_no_object_for_each_file(tmp_path):
    few, many = 2 * FEW, 2 * MANY  # of two classes and more
    for rows in (few, many):
        a_table(tmp_path / str(rows), rows)
    plan_of(job_of(str(tmp_path / str(few))), None)

    def planned(rows: int):
        job = job_of(str(tmp_path / str(rows)))
        return job, plan_of(job, None), job.missing()

    (blocks, size), (more_blocks, more_size) = (cost(lambda rows=rows: planned(rows)) for rows in (few, many))
    assert more_blocks - blocks < OBJECTS * (many - few)
    assert more_size - size < BYTES * (many - few)


@pytest.fixture
def committed(tmp_path):
    """A folder in which all three shards of an extraction are committed."""
    a_table(tmp_path, ROWS)
    committing(str(tmp_path), 1.0)()
    return tmp_path


def shard_files(job) -> list[Path]:
    return [job.work.shard_path(job.work.record(number)) for number in range(job.shards)]


def test_a_resume_goes_by_records_and_sizes_and_publishing_by_bytes(committed):
    job = job_of(str(committed))
    assert job.missing() == []
    assert job.rows_known() == ROWS
    whole = [path.read_bytes() for path in shard_files(job)]
    for path in shard_files(job)[1:]:
        path.chmod(0o644)
        path.write_bytes(bytes(path.stat().st_size))
    job = job_of(str(committed))
    assert job.missing() == []
    assert publish(job, skip_bad=False, command="") is None
    assert job.missing() == [1, 2]
    committing(str(committed), 1.0)()  # finds nothing missing
    for number in (1, 2):
        shard_files(job)[number].write_bytes(whole[number])
    assert job.missing() == []
    entry = publish(job, skip_bad=False, command="")
    assert entry is not None
    assert [entry.shard_path(number).read_bytes() for number in range(3)] == whole


def test_a_shard_of_another_size_or_gone_is_made_again(committed):
    job = job_of(str(committed))
    first, _, third = shard_files(job)
    first.unlink()
    third.chmod(0o644)
    third.write_bytes(third.read_bytes()[:-1])
    assert job.missing() == [0, 2]
    assert job_of(str(committed)).rows_known() >= 1000


def test_files_that_changed_since_make_their_shards_stale(committed):
    (committed / "photos/n00000000/img_000007.JPEG").write_bytes(b"another")
    job = job_of(str(committed))
    assert job.missing() == [0, 1]  # rows 7, 1007, … 4007 name it
    assert not job.known[7]
    assert job.known[8]


def test_older_records_have_their_shards_read(committed):
    job = job_of(str(committed))
    path = job.work.path / "records" / "00001.json"
    old = job.work.record(1).to_json()
    assert len(old.pop("digests_sha256")) == 64
    write_json(path, old, replace=True)
    assert job.work.record(1).content is None
    assert job_of(str(committed)).missing() == []
    shard = shard_files(job)[1]
    shard.chmod(0o644)
    shard.write_bytes(bytes(shard.stat().st_size))
    assert job_of(str(committed)).missing() == [1]


def test_a_record_is_read_once_as_long_as_its_file_is_the_same(committed):
    work = job_of(str(committed)).work
    held = work.outline(0)
    assert work.outline(0) is held
    assert len(held.stats) == 0
    assert len(work.record(0).stats) == SHARD_ROWS
    write_json(work.path / "records" / "00000.json", {**work.record(0).to_json(), "computed": 5}, replace=True)
    assert (held.computed, work.outline(0).computed) == (SHARD_ROWS, 5)
    (work.path / "records" / "00000.json").unlink()
    assert work.outline(0) is None


def test_numbered_images_are_listed_without_objects(tmp_path):
    (blocks, _), (more, _) = cost(NumberedImages(FEW).listing), cost(NumberedImages(MANY).listing)
    assert more - blocks < OBJECTS * (MANY - FEW)
