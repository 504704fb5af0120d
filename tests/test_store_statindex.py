"""Remembered file digests: exact matches only, nothing racy, every damaged byte seen."""

import errno
import os

import numpy as np
import pytest

from pipeline.store.statindex import GRANULARITY_NS, MAGIC, ROW, StatIndex, index_path, stat_rows

FOLDER = "/photos"
NOW = 10**18


def make_stats(n: int, seed: int = 0, first_inode: int = 100) -> np.ndarray:
    """Columns inode, size, mtime, ctime of files that are old, in no order of inodes."""
    rng = np.random.default_rng(seed)
    times = rng.integers(NOW - 10**15, NOW - 10**14, (n, 2))
    return np.column_stack([first_inode + rng.permutation(n), rng.integers(1, 10**6, n), times]).astype(np.int64)


def make_digests(n: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (n, 32), np.uint8)


def make_rows(n: int, seed: int = 0) -> np.ndarray:
    return stat_rows(make_stats(n, seed), make_digests(n, seed), np.full(n, NOW))


def test_an_empty_index_knows_nothing():
    digests, known = StatIndex().lookup(make_stats(3))
    assert digests.shape == (3, 32)
    assert not known.any()
    assert not digests.any()
    assert StatIndex(make_rows(5)).lookup(make_stats(0))[1].shape == (0,)


def test_files_are_found_in_any_order():
    stats, digests = make_stats(200), make_digests(200)
    order = np.random.default_rng(5).permutation(200)
    found, known = StatIndex(make_rows(200)).lookup(stats[order])
    assert known.all()
    assert (found == digests[order]).all()


def test_files_never_seen_are_not_known():
    strangers = make_stats(50)
    strangers[:, 0] = np.concatenate([np.arange(25), 10**6 + np.arange(25)])
    found, known = StatIndex(make_rows(50)).lookup(np.concatenate([strangers, make_stats(50)]))
    assert known.tolist() == [False] * 50 + [True] * 50
    assert not found[:50].any()


@pytest.mark.parametrize("column", [0, 1, 2, 3], ids=["inode", "size", "mtime", "ctime"])
@pytest.mark.parametrize("step", [-1, 1])
def test_a_file_with_any_other_stat_field_is_not_known(column, step):
    index = StatIndex(stat_rows(np.array([[7, 100, 1000, 1000]]), make_digests(1), np.array([NOW])))
    stats = np.array([[7, 100, 1000, 1000]])
    assert index.lookup(stats)[1].all()
    stats[0, column] += step
    digests, known = index.lookup(stats)
    assert not known.any()
    assert not digests.any()


@pytest.mark.parametrize("column", [2, 3], ids=["mtime", "ctime"])
@pytest.mark.parametrize(
    ("age", "kept"),
    [(GRANULARITY_NS + 1, True), (GRANULARITY_NS, False), (1, False), (0, False), (-(10**9), False)],
)
def test_files_as_new_as_their_reading_are_not_remembered(column, age, kept):
    stats = np.array([[1, 10, NOW - 10**12, NOW - 10**12], [2, 20, NOW - 10**12, NOW - 10**12]])
    stats[1, column] = NOW - age
    rows = stat_rows(stats, make_digests(2), np.array([NOW, NOW]))
    assert rows["inode"].tolist() == ([1, 2] if kept else [1])


def test_each_file_is_judged_by_its_own_reading():
    stats = np.array([[1, 10, NOW, NOW], [2, 10, NOW, NOW]])
    rows = stat_rows(stats, make_digests(2), np.array([NOW, NOW + 10**10]))
    assert rows["inode"].tolist() == [2]
    assert (rows["digest"][0] == make_digests(2)[1]).all()


def test_newer_rows_replace_older_ones_of_the_same_inodes():
    old = make_rows(10)
    new = old[3:6].copy()
    new["mtime"] += 5
    new["digest"] ^= 255
    index = StatIndex(old).updated(new)
    assert len(index.rows) == 10
    assert (np.diff(index.rows["inode"]) > 0).all()
    stats = np.column_stack([old[name] for name in ("inode", "size", "mtime", "ctime")])
    assert index.lookup(stats)[1].tolist() == [not 3 <= n < 6 for n in range(10)]
    stats[3:6, 2] += 5
    found, known = index.lookup(stats)
    assert known.all()
    assert (found[3:6] == new["digest"]).all()
    assert (found[6:] == old["digest"][6:]).all()


def test_an_update_of_an_empty_index_is_the_update():
    assert (StatIndex().updated(make_rows(4)).rows == np.sort(make_rows(4), order="inode")).all()
    assert len(StatIndex(make_rows(4)).updated(np.empty(0, ROW)).rows) == 4


def test_an_index_comes_back_from_disk(tmp_path):
    StatIndex(make_rows(30)).save(tmp_path, FOLDER)
    back = StatIndex.load(tmp_path, FOLDER)
    assert (back.rows == StatIndex(make_rows(30)).rows).all()
    assert back.lookup(make_stats(30))[1].all()


def test_an_index_is_the_same_bytes_for_the_same_files(tmp_path):
    rows = make_rows(30)
    StatIndex(rows).save(tmp_path / "a", FOLDER)
    StatIndex(rows[::-1]).save(tmp_path / "b", FOLDER)
    assert index_path(tmp_path / "a", FOLDER).read_bytes() == index_path(tmp_path / "b", FOLDER).read_bytes()


def test_saving_again_replaces_and_an_empty_index_can_be_saved(tmp_path, caplog):
    StatIndex(make_rows(30)).save(tmp_path, FOLDER)
    StatIndex().save(tmp_path, FOLDER)
    assert len(StatIndex.load(tmp_path, FOLDER).rows) == 0
    assert not caplog.records


def test_each_source_folder_has_its_own_index(tmp_path):
    StatIndex(make_rows(3)).save(tmp_path, FOLDER)
    assert len(StatIndex.load(tmp_path, "/other").rows) == 0
    odd = b"/photos/\xff".decode("utf-8", "surrogateescape")
    StatIndex(make_rows(2)).save(tmp_path, odd)
    assert len(StatIndex.load(tmp_path, odd).rows) == 2
    assert len(StatIndex.load(tmp_path, FOLDER).rows) == 3


def test_a_missing_index_is_empty_without_a_word(tmp_path, caplog):
    assert len(StatIndex.load(tmp_path, FOLDER).rows) == 0
    assert not caplog.records


def test_a_changed_byte_anywhere_makes_the_index_empty(tmp_path, caplog):
    StatIndex(make_rows(20)).save(tmp_path, FOLDER)
    path = index_path(tmp_path, FOLDER)
    data = path.read_bytes()
    path.unlink()
    rng = np.random.default_rng(0)
    head = len(MAGIC) + 65
    for place in [*range(head), *rng.integers(head, len(data), 150).tolist(), len(data) - 1]:
        damaged = bytearray(data)
        damaged[place] ^= 1 << int(rng.integers(8))
        path.write_bytes(damaged)
        caplog.clear()
        assert len(StatIndex.load(tmp_path, FOLDER).rows) == 0
        assert "damaged" in caplog.text


def test_an_index_cut_short_or_made_longer_is_empty(tmp_path, caplog):
    StatIndex(make_rows(5)).save(tmp_path, FOLDER)
    path = index_path(tmp_path, FOLDER)
    data = path.read_bytes()
    path.unlink()
    for other in [*(data[:length] for length in range(0, len(data), 7)), data[:-1], data + b"\0", data + data[-64:]]:
        path.write_bytes(other)
        caplog.clear()
        assert len(StatIndex.load(tmp_path, FOLDER).rows) == 0
        assert "damaged" in caplog.text


def test_a_cache_that_cannot_be_written_is_only_not_remembered(tmp_path, monkeypatch, caplog):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "write", full)
    StatIndex(make_rows(3)).save(tmp_path, FOLDER)
    assert "not remembered" in caplog.text
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_real_files_are_known_until_they_change(tmp_path):
    paths = [tmp_path / f"{n}" for n in range(3)]
    for path in paths:
        path.write_bytes(b"data")
        os.utime(path, ns=(NOW, NOW))

    def stats():
        found = [os.stat(path) for path in paths]
        return np.array([[s.st_ino, s.st_size, s.st_mtime_ns, s.st_ctime_ns] for s in found])

    later = int(stats()[:, 3].max()) + GRANULARITY_NS + 1
    index = StatIndex().updated(stat_rows(stats(), make_digests(3), np.full(3, later)))
    assert index.lookup(stats())[1].all()
    paths[1].write_bytes(b"more data")
    assert index.lookup(stats())[1].tolist() == [True, False, True]
    paths[2].write_bytes(b"DATA")
    os.utime(paths[2], ns=(NOW, NOW))  # same size and mtime, as an image editor may leave them: ctime tells
    assert index.lookup(stats())[1].tolist() == [True, False, False]
