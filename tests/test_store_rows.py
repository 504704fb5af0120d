"""Where rows already lie: found by content over many shards, never wrong, never from a damaged file."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import make_manifest

from pipeline.digest import sha256_bytes
from pipeline.store.key import FeatureSpace, Recipe, entry_id
from pipeline.store.publish import publish_entry
from pipeline.store.rows import OPEN_SHARDS, RowIndex, ShardRef, index_rows
from pipeline.store.samples import SampleTable, skipped_csv
from pipeline.store.shard import ShardRows, shard_bytes
from pipeline.store.statindex import ROW
from pipeline.store.work import WorkFolder

SPACE = FeatureSpace("torchvision/tiny", "0" * 64, "input:fc", "none", {"mean": [0.5]}, "float32", "float32", (4,))
RECIPE = Recipe("reference", "torch 2", "cpu", 2, 4, 8)
VERSIONS = {"torch": "2", "pillow": "13"}


def make_rows(seed: int, n: int = 5, bad: tuple[int, ...] = ()) -> ShardRows:
    rng = np.random.default_rng(seed)
    status = np.isin(np.arange(n), bad).astype(np.uint8)
    features = rng.normal(size=(n, 4)).astype(np.float32)
    features[status == 1] = 0
    return ShardRows(features, rng.integers(0, 256, (n, 32), np.uint8), status)


def put(folder: Path, rows: ShardRows, name: str) -> ShardRef:
    data = shard_bytes(SPACE, rows)
    (folder / name).write_bytes(data)
    return ShardRef(folder / name, sha256_bytes(data), len(data), RECIPE.to_json(), VERSIONS)


def make_index(folder: Path, shards: list[ShardRows]) -> RowIndex:
    index = RowIndex(SPACE)
    for number, rows in enumerate(shards):
        index.add(put(folder, rows, f"{number}.h5"), rows.digests, rows.status == 0)
    return index


def fetch(index: RowIndex, digests: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    out = np.full((len(digests), 4), np.nan, np.float32)
    return index.fetch(index.find(digests), digests, out), out


def damage(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.unlink()
    path.write_bytes(data)


def test_an_empty_index_finds_nothing():
    index = RowIndex(SPACE)
    digests = make_rows(0).digests
    assert (index.find(digests) == -1).all()
    assert index.find(digests[:0]).shape == (0, 2)
    assert index.keys.shape == (0,)
    assert not fetch(index, digests)[0].any()


@pytest.mark.parametrize("sizes", [[3] * 37, [40, 20, 10, 5, 2, 1], [1, 2, 4, 8, 16], [0, 5, 0, 0, 7, 0], [1]], ids=str)
def test_every_row_of_every_shard_is_found_where_it_lies(tmp_path, sizes):
    shards = [make_rows(seed, n) for seed, n in enumerate(sizes)]
    index = make_index(tmp_path, shards)
    assert len(index.keys) == sum(sizes)
    for number, rows in enumerate(shards):
        places = index.find(rows.digests)
        assert (places[:, 0] == number).all()
        assert places[:, 1].tolist() == list(range(len(rows.status)))
    order = np.random.default_rng(0).permutation(sum(sizes))
    had, out = fetch(index, np.concatenate([rows.digests for rows in shards])[order])
    assert had.all()
    assert (out == np.concatenate([rows.features for rows in shards])[order]).all()


def test_strangers_are_not_found_and_their_rows_not_touched(tmp_path):
    known = [make_rows(seed) for seed in range(9)]
    digests = np.concatenate([make_rows(100).digests, known[4].digests, make_rows(101).digests])
    had, out = fetch(make_index(tmp_path, known), digests)
    assert had.tolist() == [False] * 5 + [True] * 5 + [False] * 5
    assert np.isnan(out[~had]).all()
    assert (out[had] == known[4].features).all()


def test_many_shards_lie_in_few_segments(tmp_path):
    index = make_index(tmp_path, [make_rows(seed, 2) for seed in range(64)])
    assert len(index._segments) <= 7


@pytest.mark.parametrize("byte", [8, 20, 31])
def test_a_digest_that_shares_64_bits_with_another_is_not_taken_for_it(tmp_path, byte):
    shards = [make_rows(seed) for seed in range(3)]
    index = make_index(tmp_path, shards)
    twins = shards[1].digests.copy()
    twins[:, byte] ^= 1
    had, out = fetch(index, twins)
    assert not had.any()
    assert np.isnan(out).all()


def test_of_two_rows_that_share_64_bits_at_most_one_is_found_and_never_the_wrong_one(tmp_path):
    one, two = make_rows(0), make_rows(1)
    two.digests[:, :8] = one.digests[:, :8]
    index = make_index(tmp_path, [one, two])
    assert fetch(index, one.digests)[0].all()
    for rows in (one, two):
        had, out = fetch(index, rows.digests)
        assert (out[had] == rows.features[had]).all()


def test_digests_with_high_first_bytes_are_found(tmp_path):
    rows = make_rows(0, 4)
    rows.digests[:, 0] = [0x00, 0x7F, 0x80, 0xFF]
    assert fetch(make_index(tmp_path, [rows]), rows.digests)[0].all()


@pytest.mark.parametrize("sizes", [(5, 5), (9, 5)], ids=["merged", "apart"])
def test_what_is_known_already_stays(tmp_path, sizes):
    one, two = make_rows(0, sizes[0]), make_rows(1, sizes[1])
    two.digests[1:3] = one.digests[2:4]
    index = make_index(tmp_path, [one, two])
    assert index.find(one.digests[2:4]).tolist() == [[0, 2], [0, 3]]
    assert index.find(two.digests[3:4]).tolist() == [[1, 3]]


def test_bad_rows_are_not_found(tmp_path):
    rows = make_rows(0, bad=(1, 4))
    had, _ = fetch(make_index(tmp_path, [rows]), rows.digests)
    assert had.tolist() == [True, False, True, True, False]


def test_rows_of_a_damaged_shard_are_dropped_and_all_others_had(tmp_path, caplog):
    shards = [make_rows(seed) for seed in range(4)]
    index = make_index(tmp_path, shards)
    damage(tmp_path / "2.h5")
    digests = np.concatenate([rows.digests for rows in shards])
    had, out = fetch(index, digests)
    assert had.tolist() == [True] * 10 + [False] * 5 + [True] * 5
    assert np.isnan(out[10:15]).all()
    assert "2.h5 is damaged" in caplog.text
    assert "computed again" in caplog.text
    assert (index.find(shards[2].digests) == -1).all()
    assert len(index.keys) == 15
    assert fetch(index, digests)[0].sum() == 15


def test_shards_can_be_left_out(tmp_path):
    shards = [make_rows(seed) for seed in range(5)]
    index = make_index(tmp_path, shards)
    index.forget([1, 3])
    assert [fetch(index, rows.digests)[0].all() for rows in shards] == [True, False, True, False, True]
    index.forget([])
    assert len(index.keys) == 15


def test_an_index_all_of_whose_shards_are_gone_finds_nothing(tmp_path, caplog):
    rows = make_rows(0)
    index = make_index(tmp_path, [rows])
    (tmp_path / "0.h5").unlink()
    assert not fetch(index, rows.digests)[0].any()
    assert "0.h5 is missing" in caplog.text
    assert (index.find(rows.digests) == -1).all()
    assert index.keys.shape == (0,)
    fresh = make_rows(1)
    index.add(put(tmp_path, fresh, "fresh.h5"), fresh.digests, fresh.status == 0)
    assert fetch(index, fresh.digests)[0].all()


def test_more_shards_than_are_kept_open_can_be_read(tmp_path):
    shards = [make_rows(seed) for seed in range(2 * OPEN_SHARDS + 1)]
    index = make_index(tmp_path, shards)
    for _ in range(2):
        for rows in shards:
            had, out = fetch(index, rows.digests)
            assert had.all()
            assert (out == rows.features).all()
    assert len(index._open) <= OPEN_SHARDS


def test_shards_are_known_by_their_bytes(tmp_path):
    index = make_index(tmp_path, [make_rows(0), make_rows(1)])
    assert index.paths_by_sha256() == {ref.sha256: ref.path for ref in index.shards}
    assert len(index.paths_by_sha256()) == 2


def make_entry(root: Path, shards: list[ShardRows], recipe: Recipe = RECIPE, space: FeatureSpace = SPACE) -> Path:
    """Write a finished entry as `publish` does."""
    digests = np.concatenate([rows.digests for rows in shards])
    n = len(digests)
    ids = [f"{number}.jpg" for number in range(n)]
    table = SampleTable(ids, digests, np.zeros(n, int), np.zeros(n, int), np.concatenate([r.status for r in shards]))
    name = entry_id(space, ["all"], ids, digests, table.labels, table.splits)
    paths, listed = [], []
    for number, rows in enumerate(shards):
        data = shard_bytes(space, rows)
        paths.append(root / f"{name[:16]}-{number}.h5")
        paths[-1].write_bytes(data)
        facts = {"sha256": sha256_bytes(data), "bytes": len(data), "rows": len(rows.status)}
        listed.append({**facts, "recipe": recipe.to_json(), "facts": {"versions": VERSIONS}})
    body = make_manifest(id=name, space=space.to_json(), space_sha256=space.sha256, classes=["all"], shards=listed)
    entry = publish_entry(root, body, paths, table, skipped_csv(ids, {}))
    for path in paths:
        path.unlink()
    return entry.path


def make_work(root: Path, shards: list[ShardRows], recipe: Recipe = RECIPE, space: FeatureSpace = SPACE) -> WorkFolder:
    work = WorkFolder(root, "ab" * 32)
    work.pin(space, recipe, {"source": "photos"})
    for number, rows in enumerate(shards):
        none = {"bad": {}, "stats": np.empty(0, ROW), "computed": 0, "reused": 0, "facts": {"versions": VERSIONS}}
        work.commit(number, space, rows, **none, equal={}, stale=None)
    return work


def look(root: Path, recipe: Recipe = RECIPE, engine_only: bool = False, space: FeatureSpace = SPACE) -> RowIndex:
    return index_rows(root, space, recipe=recipe, engine_only=engine_only)


def test_rows_are_found_in_finished_entries_and_in_work_in_progress(tmp_path):
    entry, work = [make_rows(0), make_rows(1, 3, bad=(1,))], [make_rows(2), make_rows(3, bad=(0,))]
    make_entry(tmp_path, entry)
    make_work(tmp_path, work)
    index = look(tmp_path)
    for rows in entry + work:
        had, out = fetch(index, rows.digests)
        assert (had == (rows.status == 0)).all()
        assert (out[had] == rows.features[had]).all()
    assert len(index.shards) == 4
    assert all((ref.recipe, ref.versions) == (RECIPE.to_json(), VERSIONS) for ref in index.shards)


def test_a_cache_that_is_not_there_has_no_rows(tmp_path):
    assert len(look(tmp_path / "nothing").keys) == 0


@pytest.mark.parametrize("change", [{"weights": "1" * 64}, {"preprocess": {"mean": [0.25]}}, {"pool": "mean"}])
def test_rows_of_another_space_are_not_found(tmp_path, change):
    make_entry(tmp_path, [make_rows(0)])
    make_work(tmp_path, [make_rows(1)])
    index = look(tmp_path, space=replace(SPACE, **change))
    assert index.shards == []
    assert (index.find(np.concatenate([make_rows(0).digests, make_rows(1).digests])) == -1).all()


def test_a_space_with_a_tuple_in_it_finds_its_work(tmp_path):
    space = replace(SPACE, preprocess={"mean": (0.5,)})
    assert space.sha256 == SPACE.sha256
    make_work(tmp_path, [make_rows(0)], space=space)
    assert len(look(tmp_path, space=space).keys) == 5


def test_rows_of_the_same_recipe_come_first_and_other_engines_can_be_left_out(tmp_path):
    faster = replace(RECIPE, engine="faster")
    mine, theirs = make_rows(0), make_rows(1)
    theirs.digests[:3] = mine.digests[:3]
    make_entry(tmp_path, [theirs], recipe=faster)
    make_work(tmp_path, [mine])
    for recipe, first in ((RECIPE, mine), (faster, theirs)):
        had, out = fetch(look(tmp_path, recipe), mine.digests[:3])
        assert had.all()
        assert (out == first.features[:3]).all()
        only = look(tmp_path, recipe, engine_only=True)
        assert len(only.shards) == 1
        assert (len(only.keys), fetch(only, first.digests)[0].all()) == (5, True)


def test_rows_are_found_although_the_sample_table_is_damaged(tmp_path, caplog):
    shards = [make_rows(0), make_rows(1, bad=(2,)), make_rows(2)]
    folder = make_entry(tmp_path, shards)
    damage(folder / "samples.h5")
    damage(folder / "shards" / "00000.h5")
    index = look(tmp_path)
    assert "samples.h5 is damaged" in caplog.text
    assert "00000.h5 is damaged" in caplog.text
    assert not fetch(index, shards[0].digests)[0].any()
    assert fetch(index, shards[1].digests)[0].tolist() == [True, True, False, True, True]
    assert (fetch(index, shards[2].digests)[1] == shards[2].features).all()


def test_rows_are_found_although_the_sample_table_cannot_be_read(tmp_path):
    folder = make_entry(tmp_path, [make_rows(0)])
    (folder / "samples.h5").unlink()
    (folder / "samples.h5").mkdir()
    assert fetch(look(tmp_path), make_rows(0).digests)[0].all()


def test_damaged_work_costs_only_its_own_rows(tmp_path, caplog):
    shards = [make_rows(0), make_rows(1), make_rows(2)]
    work = make_work(tmp_path, shards)
    damage(work.shard_path(work.record(0)))
    damage(work.path / "records" / "00001.json")
    index = look(tmp_path)
    assert caplog.text.count("again") == 2
    assert [fetch(index, rows.digests)[0].all() for rows in shards] == [False, False, True]


def test_a_damaged_entry_is_passed_over(tmp_path):
    folder = make_entry(tmp_path, [make_rows(0)])
    make_entry(tmp_path, [make_rows(1)])
    damage(folder / "entry.json")
    index = look(tmp_path)
    assert not fetch(index, make_rows(0).digests)[0].any()
    assert fetch(index, make_rows(1).digests)[0].all()
