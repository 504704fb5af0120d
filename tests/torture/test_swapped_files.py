"""Good files in wrong places: of another shard, another entry, another plan, an earlier time."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from small_cache import (
    CLASSES,
    FOLDER,
    PLAN,
    RECIPE,
    SPACE,
    SmallCache,
    commit,
    make_cache,
    make_rows,
    make_stats,
    other_space,
    overwrite,
    plain,
)

from pipeline.errors import CacheError
from pipeline.features import read_features
from pipeline.store.entry import open_entry
from pipeline.store.rows import index_rows
from pipeline.store.shard import shard_bytes
from pipeline.store.statindex import StatIndex, index_path
from pipeline.store.verify import find_damage
from pipeline.store.work import WorkFolder, list_work


@pytest.fixture
def cache(tmp_path) -> SmallCache:
    return make_cache(tmp_path / "cache", seeds=(0, 1), work_seeds=(2, 3))


def swap(one: Path, two: Path) -> None:
    first, second = one.read_bytes(), two.read_bytes()
    overwrite(one, second)
    overwrite(two, first)


def test_any_two_files_that_changed_places_are_seen(cache, tally):
    """All pairs, of one kind or not: neither is taken for the other."""
    readers = list(cache.readers().items())
    content = {path: path.read_bytes() for path, _ in readers}
    done = 0
    for number, (one, read_one) in enumerate(readers):
        for two, read_two in readers[number + 1 :]:
            swap(one, two)
            assert read_one() is None, f"{one.name} is {two.name}"
            assert read_two() is None, f"{two.name} is {one.name}"
            swap(one, two)
            done += 1
    assert all(path.read_bytes() == data for path, data in content.items())
    assert all(read() is not None for _, read in readers)
    tally("pairs of files that changed places", done, "all detected")


def test_an_entry_under_the_name_of_another_is_refused(tmp_path, cache, tally):
    other = make_cache(tmp_path / "other", seeds=(5, 6)).entry
    shutil.rmtree(cache.entry.path)
    shutil.copytree(other.path, cache.entry.path)
    with pytest.raises(CacheError, match="not its own"):
        open_entry(cache.entry.path)
    tally("entries under another's name", 1, "refused")


def test_any_file_of_another_entry_is_refused(tmp_path, cache, tally):
    other = make_cache(tmp_path / "other", seeds=(5, 6)).entry
    done = 0
    for path in sorted(path for path in cache.entry.path.rglob("*") if path.is_file()):
        name = path.relative_to(cache.entry.path)
        data = path.read_bytes()
        theirs = (other.path / name).read_bytes()
        if theirs == data:  # two ledgers may be equal
            continue
        overwrite(path, theirs)
        if path.name == "entry.json":
            with pytest.raises(CacheError):
                open_entry(cache.entry.path)
        else:
            assert [item.path for item in find_damage(cache.entry)] == [path]
            with pytest.raises(CacheError):
                [cache.entry.read_samples(), cache.entry.skipped(), *cache.entry.read_shards()]
        overwrite(path, data)
        done += 1
    assert done >= 4
    tally("files of another entry", done, "all refused")


def test_the_manifest_of_an_earlier_time_does_not_fit_newer_files(tmp_path, cache):
    """The same images extracted again, with other features: the same id, so the same folder."""
    again = make_cache(tmp_path / "again", seeds=(0, 1))
    shard = again.entry.shard_path(0)
    rows = again.entry.read_shard(0)
    overwrite(shard, shard_bytes(SPACE, type(rows)(rows.features + 1, rows.digests, rows.status)))
    with pytest.raises(CacheError, match=r"00000\.h5 is damaged"):
        read_features(open_entry(again.entry.path))


def test_shards_of_another_space_are_refused_under_their_own_name(cache):
    made = cache.records[0]
    data = shard_bytes(other_space(), make_rows(2))
    assert len(data) == made.size
    overwrite(cache.work.shard_path(made), data)
    with pytest.raises(CacheError, match="damaged"):
        cache.work.read_shard(made, SPACE)


def test_two_records_that_changed_places_do_not_count(cache, tally):
    records = cache.work.path / "records"
    swap(records / "00000.json", records / "00001.json")
    assert cache.work.records() == []
    tally("records that changed places", 2, "none counted")


def test_a_record_put_back_names_its_own_rows_or_none(cache, tally):
    """An older record of a shard that was committed again: its rows come back whole, or nothing; never a mixture."""
    path = cache.work.path / "records" / "00000.json"
    older = path.read_bytes()
    was = cache.work.record(0)
    newer = commit(cache.work, 0, make_rows(9), stale=was.sha256)
    assert plain(cache.work.read_shard(newer, SPACE)) == plain(make_rows(9))
    overwrite(path, older)
    back = cache.work.record(0)
    assert back.sha256 == was.sha256
    assert plain(cache.work.read_shard(back, SPACE)) == plain(make_rows(2))
    assert commit(cache.work, 0, make_rows(9), stale=back.sha256).sha256 == newer.sha256  # and it gives way again
    overwrite(path, older)
    cache.work.shard_path(was).unlink()
    with pytest.raises(CacheError, match="is missing"):
        cache.work.read_shard(cache.work.record(0), SPACE)
    tally("older records put back", 2, "their own rows or an error")


@pytest.mark.parametrize("name", ["²", "٣", "x", "-1", "1e3", "9" * 200, " 0", "00000 "], ids=ascii)
def test_a_stray_name_among_the_records_is_passed_over(cache, name):
    shutil.copy(cache.work.path / "records" / "00000.json", cache.work.path / "records" / f"{name}.json")
    assert [made.shard for made in cache.work.records()] == [0, 1]
    assert len(list_work(cache.root)) == 1


def test_the_plan_of_another_extraction_is_refused(tmp_path, cache):
    other = WorkFolder(tmp_path / "other", "ef" * 32)
    other.pin(SPACE, RECIPE, {})
    overwrite(cache.work.path / "plan.json", (other.path / "plan.json").read_bytes())
    with pytest.raises(CacheError, match="another extraction"):
        cache.work.pinned()
    with pytest.raises(CacheError):
        WorkFolder(cache.root, PLAN).pin(SPACE, RECIPE, {})


def test_a_stat_index_put_back_knows_nothing_of_files_changed_since(cache, tally):
    path = index_path(cache.root, FOLDER)
    older = path.read_bytes()
    rows = make_stats()
    changed = rows.copy()
    changed["mtime"] += 1
    changed["ctime"] += 1
    changed["digest"] ^= 255
    StatIndex(rows).updated(changed).save(cache.root, FOLDER)
    overwrite(path, older)
    stats = np.column_stack([changed[name] for name in ("inode", "size", "mtime", "ctime")])
    digests, known = StatIndex.load(cache.root, FOLDER).lookup(stats)
    assert not known.any()
    assert not digests.any()
    tally("older stat indexes put back", 1, "nothing known of changed files")


def test_rows_are_never_taken_from_a_shard_in_another_place(cache):
    """The search for rows goes by digests in the shard itself: swapped shards give no rows, not wrong ones."""
    swap(cache.entry.shard_path(0), cache.entry.shard_path(1))
    index = index_rows(cache.root, SPACE, recipe=RECIPE, engine_only=False)
    for seed in range(4):
        rows = make_rows(seed)
        out = np.zeros((len(rows.status), *SPACE.row_shape), np.float32)
        had = index.fetch(index.find(rows.digests), rows.digests, out)
        assert had.any() == (seed >= 2)  # those of the work in progress
        assert (out[had] == rows.features[had]).all()


def test_labels_of_another_time_are_refused_though_the_shards_are_the_same(tmp_path, cache):
    """A table over the same shards with other labels is another entry."""
    table = cache.entry.read_samples()
    relabelled = type(table)(**{**vars(table), "labels": (table.labels + 1) % len(CLASSES)})
    overwrite(cache.entry.path / "samples.h5", relabelled.to_bytes())
    with pytest.raises(CacheError, match="damaged"):
        cache.entry.read_samples()
