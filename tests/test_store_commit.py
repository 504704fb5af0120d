"""Files are whole or absent, whatever the disk answers; sealed JSON shows every changed byte."""

import errno
import json
import os
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from pipeline.digest import seal
from pipeline.errors import CacheError, UsageError
from pipeline.store import commit
from pipeline.store.commit import (
    LEFTOVER_SECONDS,
    leftovers,
    make_folder,
    new_file,
    publish_file,
    publish_link,
    read_json,
    remove_folder,
    remove_leftovers,
    replace_file,
    temporary_folder,
    temporary_name,
    write_json,
    write_new,
)

BODY = {"name": "tiny", "rows": 12, "score": 12.3456, "list": [1, 2, None], "on": True, "nested": {"é": "\udcff"}}


def names(folder) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def failing(code: int, calls: list | None = None):
    def fail(*arguments, **options):
        if calls is not None:
            calls.append(arguments)
        raise OSError(code, os.strerror(code))

    return fail


def test_make_folder_makes_parents_and_accepts_what_is_there(tmp_path):
    make_folder(tmp_path / "a" / "b" / "c")
    make_folder(tmp_path / "a" / "b" / "c")
    assert (tmp_path / "a" / "b" / "c").is_dir()


def test_write_new_writes_a_read_only_file_of_all_bytes(tmp_path):
    data = np.random.default_rng(0).bytes(10_000)
    write_new(tmp_path / "file", memoryview(data))
    assert (tmp_path / "file").read_bytes() == data
    assert (tmp_path / "file").stat().st_mode & 0o222 == 0


def test_write_new_refuses_a_name_that_exists_and_keeps_its_bytes(tmp_path):
    (tmp_path / "file").write_bytes(b"old")
    with pytest.raises(FileExistsError):
        write_new(tmp_path / "file", b"new")
    assert (tmp_path / "file").read_bytes() == b"old"


def test_short_writes_are_continued(tmp_path, monkeypatch):
    write = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: write(descriptor, data[:7]))
    write_new(tmp_path / "file", bytes(range(100)))
    assert (tmp_path / "file").read_bytes() == bytes(range(100))


@pytest.mark.parametrize("call", ["write", "fsync"])
@pytest.mark.parametrize("put", [replace_file, publish_file, write_new])
def test_a_failing_disk_leaves_nothing_behind(tmp_path, monkeypatch, put, call):
    monkeypatch.setattr(os, call, failing(errno.EIO))
    with pytest.raises((OSError, CacheError), match=os.strerror(errno.EIO)):
        put(tmp_path / "file", b"data")
    assert names(tmp_path) == []


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
@pytest.mark.parametrize("put", [replace_file, publish_file])
def test_a_full_disk_is_said_with_its_bytes_and_leaves_nothing_behind(tmp_path, monkeypatch, put, code):
    (tmp_path / "kept").write_bytes(b"before")
    write, written = os.write, []

    def fill(descriptor, data):
        if written:
            raise OSError(code, os.strerror(code))
        written.append(write(descriptor, data[:100]))
        return written[0]

    monkeypatch.setattr(os, "write", fill)
    with pytest.raises(CacheError, match=r"disk is full: 1,234 bytes more .*file") as caught:
        put(tmp_path / "file", bytes(1234))
    assert "kept" in caught.value.hint
    assert written == [100]
    assert names(tmp_path) == ["kept"]


@pytest.mark.parametrize("code", [errno.EROFS, errno.EACCES, errno.EPERM])
def test_a_cache_that_cannot_be_written_is_said(tmp_path, monkeypatch, code):
    monkeypatch.setattr(os, "open", failing(code))
    with pytest.raises(CacheError, match="cannot write") as caught:
        publish_file(tmp_path / "file", b"data")
    assert "--cache-dir" in caught.value.hint


def test_temporary_names_lie_beside_the_goal_and_differ(tmp_path):
    one, two = temporary_name(tmp_path / "file"), temporary_name(tmp_path / "file")
    assert one.parent == two.parent == tmp_path
    assert one != two
    assert one.name.startswith(".tmp-")


def test_replace_file_replaces_a_read_only_file(tmp_path):
    replace_file(tmp_path / "file", b"one")
    replace_file(tmp_path / "file", b"two")
    assert (tmp_path / "file").read_bytes() == b"two"
    assert names(tmp_path) == ["file"]


def test_replace_file_that_fails_keeps_the_old_bytes(tmp_path, monkeypatch):
    replace_file(tmp_path / "file", b"one")
    monkeypatch.setattr(os, "replace", failing(errno.EIO))
    with pytest.raises((OSError, CacheError), match=os.strerror(errno.EIO)):
        replace_file(tmp_path / "file", b"two")
    assert (tmp_path / "file").read_bytes() == b"one"
    assert names(tmp_path) == ["file"]


def test_publish_file_takes_a_free_name_once(tmp_path):
    assert publish_file(tmp_path / "file", b"one") is True
    assert publish_file(tmp_path / "file", b"two") is False
    assert (tmp_path / "file").read_bytes() == b"one"
    assert names(tmp_path) == ["file"]


def test_of_many_writers_exactly_one_wins_and_its_bytes_are_whole(tmp_path):
    barrier, won = threading.Barrier(8), []

    def write(number: int) -> None:
        barrier.wait()
        if publish_file(tmp_path / "file", bytes([number]) * 5000):
            won.append(number)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1
    assert (tmp_path / "file").read_bytes() == bytes(won) * 5000
    assert names(tmp_path) == ["file"]


def test_publish_syncs_the_file_before_it_has_its_name_and_the_folder_after(tmp_path, monkeypatch):
    events = []
    fsync, link = os.fsync, os.link

    def note_fsync(descriptor):
        folder = os.path.isdir(f"/proc/self/fd/{descriptor}") if os.path.isdir("/proc/self/fd") else None
        events.append(("sync", folder))
        fsync(descriptor)

    def note_link(*arguments, **options):
        events.append(("link", None))
        link(*arguments, **options)

    monkeypatch.setattr(os, "fsync", note_fsync)
    monkeypatch.setattr(os, "link", note_link)
    publish_file(tmp_path / "file", b"data")
    assert [event for event, _ in events] == ["sync", "link", "sync"]
    assert events[0][1] in (False, None)
    assert events[2][1] in (True, None)


def test_publish_link_shares_the_bytes(tmp_path):
    write_new(tmp_path / "twin", b"data")
    assert publish_link(tmp_path / "twin", tmp_path / "file") is True
    assert (tmp_path / "file").samefile(tmp_path / "twin")
    assert publish_link(tmp_path / "twin", tmp_path / "file") is False


@pytest.mark.parametrize("code", sorted(commit.NO_LINKS))
def test_where_links_are_refused_the_bytes_are_copied(tmp_path, monkeypatch, code):
    tried = []
    monkeypatch.setattr(os, "link", failing(code, tried))
    write_new(tmp_path / "twin", b"data")
    assert publish_link(tmp_path / "twin", tmp_path / "file") is True
    assert tried
    assert not (tmp_path / "file").samefile(tmp_path / "twin")
    assert (tmp_path / "file").read_bytes() == b"data"
    assert publish_link(tmp_path / "twin", tmp_path / "file") is False
    assert publish_file(tmp_path / "file", b"other") is False
    assert publish_file(tmp_path / "more", b"more") is True
    assert (tmp_path / "file").read_bytes() == b"data"
    assert names(tmp_path) == ["file", "more", "twin"]


def test_a_link_that_fails_for_another_reason_is_no_copy(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "link", failing(errno.EIO))
    with pytest.raises((OSError, CacheError), match=os.strerror(errno.EIO)):
        publish_file(tmp_path / "file", b"data")
    assert names(tmp_path) == []


def test_a_copy_that_cannot_take_its_name_leaves_nothing_behind(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "link", failing(errno.EXDEV))
    monkeypatch.setattr(os, "replace", failing(errno.EIO))
    write_new(tmp_path / "twin", b"data")
    with pytest.raises((OSError, CacheError), match=os.strerror(errno.EIO)):
        publish_link(tmp_path / "twin", tmp_path / "file")
    assert names(tmp_path) == ["twin"]


def test_a_disk_that_fills_up_while_copying_is_said_with_its_bytes(tmp_path, monkeypatch):
    write_new(tmp_path / "twin", bytes(1234))
    monkeypatch.setattr(os, "link", failing(errno.EXDEV))
    monkeypatch.setattr(os, "write", failing(errno.ENOSPC))
    with pytest.raises(CacheError, match=r"disk is full: 1,234 bytes"):
        publish_link(tmp_path / "twin", tmp_path / "file")


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EACCES])
def test_a_folder_that_cannot_be_made_is_said_like_a_file(tmp_path, monkeypatch, code):
    monkeypatch.setattr(os, "mkdir", failing(code))
    with pytest.raises(CacheError):
        make_folder(tmp_path / "new")


def test_json_comes_back_as_it_was_with_its_seal(tmp_path):
    assert write_json(tmp_path / "a.json", BODY, replace=False) is True
    assert read_json(tmp_path / "a.json") == seal(BODY)


def test_json_is_the_same_bytes_for_the_same_body(tmp_path):
    for name in ("a.json", "b.json"):
        write_json(tmp_path / name, BODY, replace=False)
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()


def test_json_takes_a_name_once_unless_it_replaces(tmp_path):
    path = tmp_path / "a.json"
    assert write_json(path, {"turn": 1}, replace=False) is True
    assert write_json(path, {"turn": 2}, replace=False) is False
    assert read_json(path)["turn"] == 1
    assert write_json(path, {"turn": 3}, replace=True) is True
    assert read_json(path)["turn"] == 3


def test_json_refuses_what_has_no_digest_and_writes_nothing(tmp_path):
    with pytest.raises(TypeError, match="cannot take the digest"):
        write_json(tmp_path / "a.json", {"bad": float("nan")}, replace=False)
    assert names(tmp_path) == []


def test_json_that_is_missing_is_missing(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_json(tmp_path / "a.json")


def test_any_byte_of_json_changed_in_any_way_is_seen(tmp_path):
    write_json(tmp_path / "a.json", BODY, replace=False)
    data, path = (tmp_path / "a.json").read_bytes(), tmp_path / "b.json"
    rng = np.random.default_rng(0)
    for place in range(len(data)):
        value = rng.choice([data[place] ^ (1 << int(rng.integers(8))), ord("e"), ord(" "), ord("9")])
        damaged = data[:place] + bytes([value]) + data[place + 1 :]
        if damaged != data:
            path.write_bytes(damaged)
            with pytest.raises(CacheError, match=r"b\.json"):
                read_json(path)


def test_json_cut_short_or_made_longer_is_seen(tmp_path):
    write_json(tmp_path / "a.json", BODY, replace=False)
    data, path = (tmp_path / "a.json").read_bytes(), tmp_path / "b.json"
    for other in [
        *(data[:length] for length in range(0, len(data), 3)),
        data[:-1],
        data + b" ",
        data + b"\n",
        b" " + data,
        data + data,
    ]:
        path.write_bytes(other)
        with pytest.raises(CacheError, match=r"b\.json"):
            read_json(path)


@pytest.mark.parametrize(
    "text",
    [
        b"[]",
        b"null",
        b'"text"',
        b"{}",
        b'{"a": NaN, "sha256": ""}',
        b'{"a": 1, "a": 2}',
        b"\xff\xfe{}",
        b"[" * 100_000,
        b"1" * 10_000,
        json.dumps(BODY).encode(),
        json.dumps(seal(BODY)).encode(),
    ],
    ids=lambda text: text[:12].decode("latin-1"),
)
def test_json_that_we_did_not_write_is_refused(tmp_path, text):
    (tmp_path / "a.json").write_bytes(text)
    with pytest.raises(CacheError, match=r"a\.json"):
        read_json(tmp_path / "a.json")


def test_json_that_is_nested_deeply_is_refused(tmp_path):
    for depth in (100, *range(850, 1000), 3000, 20_000):
        (tmp_path / "a.json").write_bytes(b'{"a": ' + b"[" * depth + b"]" * depth + b"}")
        with pytest.raises(CacheError, match=r"a\.json"):
            read_json(tmp_path / "a.json")


def test_json_that_is_a_folder_is_refused(tmp_path):
    with pytest.raises(CacheError, match="cannot be read"):
        read_json(tmp_path)


def test_json_that_is_too_large_is_refused_unread(tmp_path, monkeypatch):
    monkeypatch.setattr(commit, "MAX_JSON_BYTES", 100)
    write_json(tmp_path / "a.json", {"text": "x" * 200}, replace=False)
    with pytest.raises(CacheError, match=r"a\.json"):
        read_json(tmp_path / "a.json")


# --- files too large for memory ---


def test_a_new_file_has_its_name_once_all_of_it_is_there(tmp_path):
    with new_file(tmp_path / "a" / "b" / "file") as temporary:
        temporary.write_bytes(b"data")
        assert names(tmp_path / "a" / "b") == [temporary.name]
        assert temporary.name.startswith(".tmp-")
    assert (tmp_path / "a" / "b" / "file").read_bytes() == b"data"
    assert names(tmp_path / "a" / "b") == ["file"]


def test_a_new_file_is_durable_before_it_has_its_name(tmp_path, monkeypatch):
    events = []
    fsync, rename, link = os.fsync, os.rename, os.link
    monkeypatch.setattr(os, "fsync", lambda *a, **k: (events.append("sync"), fsync(*a, **k)))
    monkeypatch.setattr(os, "rename", lambda *a, **k: (events.append("name"), rename(*a, **k)))
    monkeypatch.setattr(os, "link", lambda *a, **k: (events.append("name"), link(*a, **k)))
    with new_file(tmp_path / "file") as temporary:
        temporary.write_bytes(b"data")
    assert events == ["sync", "name", "sync"]


@pytest.mark.parametrize(
    "make",
    [lambda p: p.write_bytes(b"mine"), lambda p: p.symlink_to("gone"), Path.mkdir],
    ids=["file", "link", "folder"],
)
def test_a_new_file_does_not_take_a_name_that_exists(tmp_path, make):
    make(tmp_path / "file")
    with pytest.raises(UsageError, match="file exists"), new_file(tmp_path / "file"):
        pytest.fail("the body must not run")
    assert names(tmp_path) == ["file"]


def test_a_new_file_does_not_take_a_name_that_somebody_else_took_meanwhile(tmp_path):
    with pytest.raises(UsageError, match="file exists"), new_file(tmp_path / "file") as temporary:
        temporary.write_bytes(b"ours")
        (tmp_path / "file").write_bytes(b"theirs")
    assert (tmp_path / "file").read_bytes() == b"theirs"
    assert names(tmp_path) == ["file"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError, OSError, FileNotFoundError])
@pytest.mark.parametrize("written", [True, False])
def test_a_new_file_that_is_not_finished_leaves_nothing_behind(tmp_path, error, written):
    with pytest.raises((error, CacheError)), new_file(tmp_path / "file") as temporary:
        if written:
            temporary.write_bytes(b"half")
        raise error
    assert names(tmp_path) == []


@pytest.mark.parametrize("code", [errno.EIO, errno.ENOSPC])
@pytest.mark.parametrize("call", ["fsync", "rename"])
def test_a_new_file_that_cannot_be_made_durable_leaves_nothing_behind(tmp_path, monkeypatch, call, code):
    monkeypatch.setattr(os, call, failing(code))
    monkeypatch.setattr(os, "link", failing(code))
    with pytest.raises(CacheError, match=r"file"), new_file(tmp_path / "file") as temporary:
        temporary.write_bytes(b"data")
    assert names(tmp_path) == []


@pytest.mark.parametrize("code", sorted(commit.NO_LINKS))
def test_a_new_file_needs_no_links(tmp_path, monkeypatch, code):
    monkeypatch.setattr(os, "link", failing(code))
    with new_file(tmp_path / "file") as temporary:
        temporary.write_bytes(b"data")
    assert (tmp_path / "file").read_bytes() == b"data"
    assert names(tmp_path) == ["file"]


def test_a_new_file_in_a_file_or_with_a_name_too_long_is_one_clear_line(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    for path in (tmp_path / "file" / "new", tmp_path / ("x" * 300), tmp_path / ("x" * 250)):
        with pytest.raises((CacheError, UsageError)), new_file(path) as temporary:
            temporary.write_bytes(b"data")
    assert names(tmp_path) == ["file"]


# --- removing ---


def make(folder: Path) -> Path:
    make_folder(folder)
    return folder


def test_a_folder_that_is_removed_is_gone_with_all_in_it(tmp_path):
    (tmp_path / "kept").write_bytes(b"")
    write_json(make(tmp_path / "a" / "b") / "a.json", BODY, replace=False)
    (tmp_path / "a" / "link").symlink_to(tmp_path / "kept")
    remove_folder(tmp_path / "a")
    assert names(tmp_path) == ["kept"]
    remove_folder(tmp_path / "a")  # another process was quicker


def test_a_folder_that_is_removed_is_hidden_at_once(tmp_path, monkeypatch):
    make(tmp_path / "a")
    seen = []
    monkeypatch.setattr(commit.shutil, "rmtree", lambda path, **_: seen.append((path.name, names(tmp_path))))
    remove_folder(tmp_path / "a")
    assert seen == [(seen[0][0], [seen[0][0]])]
    assert seen[0][0].startswith(".tmp-")
    assert seen[0][0].endswith("-a")


@pytest.mark.parametrize("kind", ["file", "link", "dangling link"])
def test_what_lies_in_the_place_of_a_folder_is_removed_too(tmp_path, kind):
    make(tmp_path / "kept" / "inner")
    if kind == "file":
        (tmp_path / "a").write_bytes(b"x")
    else:
        (tmp_path / "a").symlink_to("kept" if kind == "link" else "gone")
    remove_folder(tmp_path / "a")
    assert names(tmp_path) == ["kept"]
    assert names(tmp_path / "kept") == ["inner"]


@pytest.mark.parametrize("code", [errno.EACCES, errno.EROFS, errno.EIO])
def test_a_folder_that_may_not_be_removed_is_said_and_stays(tmp_path, monkeypatch, code):
    make(tmp_path / "a" / "b")
    monkeypatch.setattr(os, "rename", failing(code))
    with pytest.raises(CacheError, match="cannot write .*a"):
        remove_folder(tmp_path / "a")
    assert (tmp_path / "a" / "b").is_dir()


def test_a_temporary_folder_is_gone_unless_it_was_renamed(tmp_path):
    with temporary_folder(tmp_path / "root") as folder:
        (folder / "file").write_bytes(b"x")
        assert folder.name.startswith(".tmp-")
    assert names(tmp_path / "root") == []
    with temporary_folder(tmp_path / "root") as folder:
        folder.rename(tmp_path / "root" / "kept")
    assert names(tmp_path / "root") == ["kept"]
    with pytest.raises(KeyboardInterrupt), temporary_folder(tmp_path / "root") as folder:
        raise KeyboardInterrupt
    assert names(tmp_path / "root") == ["kept"]


# --- what killed processes left ---


def old(path: Path, seconds: float) -> Path:
    at = time.time() - seconds
    os.utime(path, (at, at), follow_symlinks=False)
    return path


def test_temporary_files_are_leftovers_once_they_are_old(tmp_path):
    for name, age in ((".tmp-1-young", 0.9), (".tmp-1-old", 1.1), ("other", 100), (".hidden", 100), (".tmp", 100)):
        (tmp_path / name).write_bytes(b"x")
        old(tmp_path / name, age * LEFTOVER_SECONDS)
    assert leftovers([tmp_path]) == [tmp_path / ".tmp-1-old"]
    assert leftovers([tmp_path], older_than=2 * LEFTOVER_SECONDS) == []
    assert leftovers([tmp_path], older_than=0.5 * LEFTOVER_SECONDS) == [
        tmp_path / ".tmp-1-old",
        tmp_path / ".tmp-1-young",
    ]


def test_a_temporary_folder_is_as_young_as_the_youngest_file_in_it(tmp_path):
    for name, age in (("busy", 0), ("left", 2)):
        folder = make(tmp_path / f".tmp-1-{name}")
        (folder / "a").write_bytes(b"x")
        (folder / "b").write_bytes(b"x")
        old(folder / "a", 2 * LEFTOVER_SECONDS)
        old(folder / "b", age * LEFTOVER_SECONDS)
        old(folder, 2 * LEFTOVER_SECONDS)
    assert leftovers([tmp_path]) == [tmp_path / ".tmp-1-left"]


def test_folders_that_are_not_there_or_no_folders_have_no_leftovers(tmp_path):
    (tmp_path / "file").write_bytes(b"x")
    assert leftovers([tmp_path / "gone", tmp_path / "file", tmp_path / "file" / "inner"]) == []


def test_leftovers_are_removed_and_links_among_them_not_followed(tmp_path):
    make(tmp_path / "kept" / "inner")
    make(tmp_path / ".tmp-1-folder" / "inner")
    (tmp_path / ".tmp-1-file").write_bytes(b"x")
    (tmp_path / ".tmp-1-link").symlink_to("kept")
    (tmp_path / ".tmp-1-dangling").symlink_to("gone")
    found = [tmp_path / name for name in names(tmp_path) if name.startswith(".tmp-")]
    remove_leftovers([*found, tmp_path / ".tmp-1-gone"])
    assert names(tmp_path) == ["kept"]
    assert names(tmp_path / "kept") == ["inner"]


def test_leftovers_that_may_not_be_removed_stay(tmp_path, monkeypatch):
    (tmp_path / ".tmp-1-file").write_bytes(b"x")
    monkeypatch.setattr(os, "unlink", failing(errno.EACCES))
    remove_leftovers([tmp_path / ".tmp-1-file"])
    assert names(tmp_path) == [".tmp-1-file"]
