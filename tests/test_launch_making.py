"""Shards of a pass, made in whatever order a worker is told or finds."""

import pytest

from pipeline.benchmark.numbered import NumberedImages, null_backbone
from pipeline.extraction.prepare import prepare
from pipeline.extraction.recipe import Wishes
from pipeline.launch.making import Maker

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
    assert maker.tallies[0].computed == 32
    for number in range(4):
        record = job.work.record(number)
        rows = job.work.read_shard(record, job.space)
        assert (rows.digests == job.digests[job.span(number)]).all()
