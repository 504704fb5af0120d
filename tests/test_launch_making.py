"""Shards of a pass, made in whatever order a worker is told or finds."""

import os
import time

import pytest
from conftest import make_photos

from pipeline.benchmark.numbered import NumberedImages, null_backbone
from pipeline.extraction.prepare import prepare
from pipeline.extraction.recipe import Wishes
from pipeline.launch.crews import Alone, Shared
from pipeline.launch.jobs import run_jobs
from pipeline.launch.making import Maker
from pipeline.launch.queue import Queue
from pipeline.launch.share import Share
from pipeline.launch.sharing import make_shared
from pipeline.progress import ignore
from pipeline.sources.folder import FolderSource
from pipeline.store.claims import Claims

WISHES = Wishes(batch_size=4, shard_rows=8, workers=1, engine="reference", device="cpu", test_fraction=0.0)


@pytest.fixture
def maker(tmp_path):
    """Four shards to be made, and the job they are of."""
    job = prepare(NumberedImages(32), null_backbone(), root=tmp_path / "cache", wishes=WISHES)
    job.begin()
    made = Maker([job])
    assert made.missing() == [0, 1, 2, 3]
    yield made
    job.close()


def test_what_was_asked_for_ahead_may_be_made_later_or_never(maker):
    """A worker whose work was removed, or published by others, turns to other shards than it had in mind."""
    (job,) = maker.jobs
    maker.make(0, ahead=1)
    maker.make(3, ahead=2)
    assert list(job.requested) == [2]
    maker.make(1)
    assert not job.requested
    maker.make(1, ahead=2)  # which is made already
    maker.make(2)
    assert (maker.tallies[0].computed, maker.tallies[0].elsewhere) == (32, 0)
    for number in range(4):
        record = job.work.record(number)
        rows = job.work.read_shard(record, job.space)
        assert (rows.digests == job.digests[job.span(number)]).all()


def test_a_worker_sets_the_next_shard_of_its_run_aside_but_none_that_others_would_wait_for(maker):
    with Claims(maker.jobs[0].work.path) as claims:
        queue = Queue(maker, Share(0, 2), claims)
        assert [queue.ahead(), queue.ahead(), queue.ahead()] == [0, 1, None]
        assert queue.other() == 3  # the far end of the run of a worker that has not come
        assert sorted(claims.held) == ["0", "1", "3"]


def test_a_shard_that_another_worker_holds_is_left_to_it_and_one_that_it_has_made_is_counted(maker):
    (job,) = maker.jobs
    with Claims(job.work.path) as others, Claims(job.work.path) as claims:
        others.take("0")
        others.take("1")
        queue = Queue(maker, Share(0, 2), claims)
        assert queue.ahead() == 3
        Maker([job]).make(0)
        others.release("0")
        assert queue.other() == 2
        assert (maker.left().tolist(), maker.tallies[0].elsewhere) == ([1, 2, 3], 8)


def test_what_others_committed_since_a_worker_looked_is_not_made_again(tmp_path, monkeypatch):
    """Others go on while a worker starts: what they say of files in their records is believed then too."""
    monkeypatch.setattr("pipeline.store.statindex.GRANULARITY_NS", -(10**18))
    photos = FolderSource(make_photos(tmp_path / "photos", per_class=8))
    jobs = [prepare(photos, null_backbone(), root=tmp_path / "cache", wishes=WISHES) for _ in range(3)]
    quick, late, led = (Maker([job]) for job in jobs)
    try:
        for job in jobs:
            job.begin()
        assert quick.missing() == [0, 1, 2]
        quick.make(0)
        quick.make(1)
        assert late.missing() == [2]
        led.make(1)
        assert [made.tallies[0].computed for made in (quick, late, led)] == [16, 0, 0]
    finally:
        for job in jobs:
            job.close()


def test_images_of_an_entry_whose_files_were_touched_are_read_by_one_worker_each(tmp_path, monkeypatch):
    monkeypatch.setattr("pipeline.store.statindex.GRANULARITY_NS", -(10**18))
    photos = FolderSource(make_photos(tmp_path / "photos", per_class=8))
    first = prepare(photos, null_backbone(), root=tmp_path / "cache", wishes=WISHES)
    (before,) = run_jobs([first], Alone(), False, "test", None, ignore, time.perf_counter())
    for path in tmp_path.rglob("*.jpg"):
        os.utime(path)
    jobs = [prepare(photos, null_backbone(), root=tmp_path / "cache", wishes=WISHES) for _ in range(2)]
    for job in jobs:
        job.begin()
    one, other = map(Maker, [[job] for job in jobs])
    with Claims(jobs[1].work.path) as claims:
        late = Queue(other, Share(1, 2), claims)
        make_shared(one, Share(0, 2), claims.patience)
        assert (late.any(), late.over) == (None, True)
    assert (one.tallies[0].computed, one.tallies[0].reused) == (0, 24)
    assert (other.tallies[0].reused, other.tallies[0].elsewhere) == (0, 24)
    for index, job in enumerate(jobs):
        (end,) = run_jobs([job], Shared(Share(index, 2)), False, "test", None, ignore, time.perf_counter())
        assert (end.cache, end.computed) == (before.cache, 0)
    assert list((tmp_path / "cache" / "plans").iterdir()) == []
    for job in (first, *jobs):
        job.close()


def test_an_entry_published_since_a_worker_looked_is_found(tmp_path, monkeypatch):
    monkeypatch.setattr("pipeline.store.statindex.GRANULARITY_NS", -(10**18))
    photos = FolderSource(make_photos(tmp_path / "photos", per_class=8))
    late, quick = (prepare(photos, null_backbone(), root=tmp_path / "cache", wishes=WISHES) for _ in range(2))
    first, second = (
        run_jobs([job], Shared(Share(0, 2)), False, "test", None, ignore, time.perf_counter()) for job in (quick, late)
    )
    assert (first[0].computed, second[0].computed, second[0].cache) == (24, 0, first[0].cache)
    assert not any(late.seconds.values())
    quick.close()


def test_a_led_worker_suspects_no_image_because_others_are_at_the_same_shard(maker):
    """Two drivers may lead workers on one extraction: a claim is of a lost worker only if its driver says so."""
    (job,) = maker.jobs
    with Claims(job.work.path) as theirs, Claims(job.work.path) as ours:
        theirs.take("0")
        theirs.update("0", deaths=5, trying=(3,), strikes={3: 1})  # carefully at an image, and alive
        maker.make_led(0, ours, lost=())
        assert job.work.record(0).bad == {}
        assert "0" in theirs.held
        theirs.take("1")
        theirs.update("1", deaths=5, trying=(11,), strikes={11: 1})
        maker.make_led(1, ours, lost=[theirs.holder.token])
        assert list(job.work.record(1).bad) == [11 - 8]
