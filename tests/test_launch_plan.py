"""What is said before any work: what is known, what is to be computed, whether it fits; and what asking leaves."""

import json
import os
import re
import shutil
import time
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
from conftest import SPACE, make_image, make_photos
from entries import everything

import pipeline
from pipeline.backbones.backbone import load_backbone
from pipeline.errors import CacheError, UsageError
from pipeline.extraction.prepare import prepare
from pipeline.extraction.recipe import Wishes
from pipeline.launch.plan import Plan, check_disk
from pipeline.sources.resolve import open_source
from pipeline.store.entry import open_entry
from pipeline.store.statindex import StatIndex

JOB = {**SPACE, "batch_size": 4, "shard_rows": 8, "workers": 1, "test_fraction": 0.3}


class Stopped(Exception):
    pass


def plan_for(photos: Path, cache: Path, **options) -> Plan:
    """The plan, and no more."""
    plans = []

    def on_plan(plan):
        plans.append(plan)
        raise Stopped

    with pytest.raises(Stopped):
        pipeline.extract(str(photos), cache_dir=cache, on_plan=on_plan, **{**JOB, **options})
    assert len(plans) == 1
    return plans[0]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """21 photos, old enough to be remembered, and a cache with their finished entry. Do not change them."""
    root = tmp_path_factory.mktemp("plan")
    photos = make_photos(root / "photos", per_class=7)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pipeline.store.statindex.GRANULARITY_NS", -(10**18))
        result = pipeline.extract(str(photos), cache_dir=root / "cache", **JOB)
    return photos, result


@pytest.fixture
def cache(made, tmp_path) -> Path:
    """A copy of the cache that a test may change."""
    return Path(shutil.copytree(Path(made[1].path).parent, tmp_path / "cache"))


def test_a_new_extraction_is_planned_and_nothing_is_written(made, tmp_path):
    photos, _ = made
    plan = plan_for(photos, tmp_path / "nowhere" / "cache")
    assert (plan.source, plan.kind, plan.samples, plan.classes) == (str(photos), "folder", 21, 3)
    assert (plan.state, plan.cache, plan.shards, plan.shards_done) == ("new", "", 3, 0)
    assert (plan.rows_known, plan.rows_to_compute) == (0, 21)
    assert (plan.row_shape, plan.batch_size, plan.store_dtype) == ((1024,), 4, "float32")
    assert plan.bytes == 21 * 1024 * 4
    assert plan.free_bytes > 0
    assert plan.splits == {}  # drawn by content, which nobody has read yet
    assert "fraction 0.3" in plan.split_rule
    assert list(tmp_path.iterdir()) == []
    json.dumps(asdict(plan))


def test_half_the_bytes_are_planned_for_float16(made, tmp_path):
    assert plan_for(made[0], tmp_path, store_dtype="float16").bytes == 21 * 1024 * 2


def test_a_finished_entry_leaves_nothing_to_compute(made, cache):
    before = everything(cache)
    plan = plan_for(made[0], cache)
    assert (plan.state, plan.cache, plan.shards_done) == ("complete", made[1].cache, 3)
    assert (plan.rows_known, plan.rows_to_compute) == (21, 0)
    assert plan.splits == made[1].splits
    assert everything(cache) == before


def test_new_images_are_what_is_left_to_compute_at_most(made, cache, tmp_path, remembered):
    photos = Path(shutil.copytree(made[0], tmp_path / "photos"))
    assert plan_for(photos, cache).rows_to_compute == 21  # nobody has read these files yet
    assert pipeline.extract(str(photos), cache_dir=cache, **JOB).computed == 0
    make_image(99).save(photos / "beet" / "new.jpg")
    plan = plan_for(photos, cache)
    assert (plan.state, plan.rows_known, plan.rows_to_compute, plan.shards_done) == ("new", 21, 1, 0)
    (photos / "beet" / "new.jpg").unlink()
    (photos / "corn" / "00.jpg").unlink()
    plan = plan_for(photos, cache)
    assert (plan.state, plan.rows_known, plan.rows_to_compute) == ("new", 20, 0)


def test_named_splits_are_told_before_any_image_is_read(tmp_path):
    make_photos(tmp_path / "photos" / "train", per_class=2)
    make_photos(tmp_path / "photos" / "test", per_class=1)
    plan = plan_for(tmp_path / "photos", tmp_path / "cache")
    assert (plan.splits, plan.split_rule) == ({"train": 6, "test": 3}, "named by the source")


def test_interrupted_work_is_planned_as_resumed_with_what_is_left(made, tmp_path, remembered):
    def stop(progress):
        if progress.computed > 8:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pipeline.extract(str(made[0]), cache_dir=tmp_path, on_progress=stop, **JOB)
    plan = plan_for(made[0], tmp_path)
    assert (plan.state, plan.shards_done, plan.shards) == ("resumed", 1, 3)
    assert (plan.rows_known, plan.rows_to_compute) == (8, 13)
    assert plan_for(made[0], tmp_path, restart=True).state == "new"


def test_what_is_asked_for_is_new_rows_only(made, cache, monkeypatch):
    plan = plan_for(made[0], cache)
    check_disk([replace(plan, free_bytes=0)])
    half = replace(plan, rows_to_compute=10, samples=20, bytes=2000)
    check_disk([replace(half, free_bytes=1050)])
    with pytest.raises(CacheError, match=r"10 rows of features need 1,050 bytes, 1,049 are free") as caught:
        check_disk([replace(half, free_bytes=1049)])
    assert "pipeline cache prune" in caught.value.hint
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10, 10, 0))
    again = pipeline.extract(str(made[0]), cache_dir=cache, **JOB)
    assert again.computed == 0


def test_a_full_disk_is_said_before_the_first_image_is_read(made, tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10, 10, 0))
    with pytest.raises(CacheError, match="21 rows of features need"):
        pipeline.extract(str(made[0]), cache_dir=tmp_path / "cache", on_progress=pytest.fail, **JOB)
    assert not (tmp_path / "cache").exists()


# --- what asking for a finished entry leaves ---


def test_a_plan_that_a_killed_process_left_goes_with_the_next_hit(made, cache):
    job = prepare(
        open_source(str(made[0])),
        load_backbone(SPACE["backbone"], weights="none", image_size=32),
        root=cache,
        wishes=Wishes(batch_size=4, shard_rows=8),
    )
    job.begin()
    assert len(list((cache / "plans").iterdir())) == 1
    assert pipeline.extract(str(made[0]), cache_dir=cache, **JOB).computed == 0
    assert list((cache / "plans").iterdir()) == []


def test_a_hit_is_a_use_and_a_plan_is_none(made, cache):
    entry = cache / made[1].cache
    os.utime(entry, (10**9, 10**9))
    plan_for(made[0], cache)
    assert entry.stat().st_mtime == 10**9
    pipeline.extract(str(made[0]), cache_dir=cache, **JOB)
    assert time.time() - entry.stat().st_mtime < 60


def test_a_hit_is_a_use_even_if_all_files_had_to_be_read_for_it(made, cache):
    entry = cache / made[1].cache
    os.utime(entry, (10**9, 10**9))
    shutil.rmtree(cache / "index")
    result = pipeline.extract(str(made[0]), cache_dir=cache, **JOB)
    assert (result.cache, result.computed) == (entry.name, 0)
    assert time.time() - entry.stat().st_mtime < 60


# --- rehash ---


def test_what_is_remembered_wrongly_is_put_right_by_rehash(made, cache, remembered):
    photos, result = made
    index = StatIndex.load(cache, str(photos.resolve()))
    assert len(index.rows) == 21
    rows = index.rows.copy()
    rows["digest"][[0, 1]] = rows["digest"][[1, 0]]  # as if two files had been exchanged without a trace
    StatIndex(rows).save(cache, str(photos.resolve()))
    assert plan_for(photos, cache).cache != result.cache
    plan = plan_for(photos, cache, rehash=True)
    assert (plan.state, plan.rows_known, plan.rows_to_compute) == ("new", 0, 21)
    wrong = pipeline.extract(str(photos), cache_dir=cache, **JOB)
    assert wrong.cache != result.cache
    right = pipeline.extract(str(photos), cache_dir=cache, rehash=True, **JOB)
    assert (right.cache, right.computed, right.reused) == (result.cache, 0, 21)
    assert plan_for(photos, cache).cache == result.cache  # and remembered rightly from now on


def test_rehash_reads_a_file_that_an_interrupted_extraction_has_read(made, tmp_path, remembered):
    photos = Path(shutil.copytree(made[0], tmp_path / "photos"))

    def stop(progress):
        if progress.computed > 8:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pipeline.extract(str(photos), cache_dir=tmp_path / "cache", on_progress=stop, **JOB)
    assert plan_for(photos, tmp_path / "cache").rows_known == 8
    assert plan_for(photos, tmp_path / "cache", rehash=True).rows_known == 0
    result = pipeline.extract(str(photos), cache_dir=tmp_path / "cache", rehash=True, **JOB)
    assert (result.computed, result.reused) == (13, 8)
    entry, wanted = open_entry(Path(result.path)), open_entry(Path(made[1].path))
    assert [shard["sha256"] for shard in entry.shards] == [shard["sha256"] for shard in wanted.shards]
    assert np.array_equal(entry.read_samples().digests, wanted.read_samples().digests)


def test_more_shards_than_an_entry_lists_are_refused_before_work(made, tmp_path, monkeypatch):
    monkeypatch.setattr("pipeline.launch.plan.MAX_SHARDS", 2)
    with pytest.raises(UsageError, match="3 shards; an entry holds 2") as caught:
        pipeline.extract(str(made[0]), cache_dir=tmp_path, **JOB)
    (rows,) = re.findall(r"--shard-rows (\d+)", caught.value.hint)
    assert not list(tmp_path.iterdir())
    assert pipeline.extract(str(made[0]), cache_dir=tmp_path, **{**JOB, "shard_rows": int(rows)}).computed == 21
