"""Bytes read back: the right ones, of regular files, or an error that names the file. No link is followed."""

import io
import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.digest import sha256_bytes
from pipeline.errors import CacheError
from pipeline.store import verified
from pipeline.store.verified import read_sized, read_verified, read_whole

DATA = bytes(range(256)) * 40
SHA256 = sha256_bytes(DATA)

READERS: dict[str, Callable[[Path], object]] = {
    "verified": lambda path: read_verified(path, SHA256, len(DATA)),
    "sized": lambda path: read_sized(path, len(DATA)),
    "whole": lambda path: read_whole(path, 1 << 20),
}
each_reader = pytest.mark.parametrize("read", READERS.values(), ids=READERS)


@pytest.fixture
def path(tmp_path) -> Path:
    (tmp_path / "file").write_bytes(DATA)
    return tmp_path / "file"


@each_reader
def test_the_bytes_of_a_file_come_back(path, read):
    assert bytes(read(path)) == DATA


def test_bytes_that_were_verified_cannot_be_written(path):
    assert read_verified(path, SHA256, len(DATA)).readonly
    assert read_sized(path, len(DATA)).readonly


def test_an_empty_file_can_be_what_was_committed(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    assert bytes(read_verified(tmp_path / "file", sha256_bytes(b""), 0)) == b""
    assert read_whole(tmp_path / "file", 0) == b""


def test_other_bytes_of_the_same_size_are_refused(path):
    for place in (0, 100, len(DATA) - 1):
        damaged = bytearray(DATA)
        damaged[place] ^= 1
        path.write_bytes(damaged)
        with pytest.raises(CacheError, match="file is damaged: its bytes do not have the SHA-256") as caught:
            read_verified(path, SHA256, len(DATA))
        assert "pipeline extract" in caught.value.hint
        assert bytes(read_sized(path, len(DATA))) == damaged


@pytest.mark.parametrize("read", ["verified", "sized"])
@pytest.mark.parametrize("size", [0, 1, len(DATA) - 1, len(DATA) + 1])
def test_a_file_of_another_size_is_refused(path, read, size):
    path.write_bytes(DATA[:size].ljust(size, b"x"))
    with pytest.raises(CacheError, match=f"file is damaged: {size:,} bytes where {len(DATA):,} were committed"):
        READERS[read](path)


def test_a_size_that_cannot_be_is_compared_and_not_allocated(path):
    with pytest.raises(CacheError, match="were committed"):
        read_sized(path, 1 << 60)


def test_a_file_that_may_be_of_any_size_has_a_limit(path):
    assert read_whole(path, len(DATA)) == DATA
    with pytest.raises(CacheError, match=f"file has {len(DATA):,} bytes, more than the limit of {len(DATA) - 1:,}"):
        read_whole(path, len(DATA) - 1)
    with path.open("r+b") as file:
        file.truncate(1 << 40)
    with pytest.raises(CacheError, match="more than the limit"):
        read_whole(path, 1 << 30)


def test_a_missing_file_is_told_apart_where_it_may_be_missing(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_whole(tmp_path / "gone", 10)
    for read in (READERS["verified"], READERS["sized"]):
        with pytest.raises(CacheError, match="gone is missing"):
            read(tmp_path / "gone")


def folder(path: Path) -> None:
    path.mkdir()


def pipe(path: Path) -> None:
    os.mkfifo(path)


def listening(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(path.name)  # from its folder: paths of sockets must be short


def link(path: Path) -> None:
    path.with_name("other").write_bytes(DATA)
    path.symlink_to(path.with_name("other"))


def dangling_link(path: Path) -> None:
    path.symlink_to(path.with_name("nowhere"))


def link_to_itself(path: Path) -> None:
    path.symlink_to(path)


def link_to_a_device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def under_a_file(path: Path) -> None:
    path.parent.rmdir()
    path.parent.write_bytes(b"a file")


@each_reader
@pytest.mark.parametrize(
    "make",
    [folder, pipe, listening, link, dangling_link, link_to_itself, link_to_a_device, under_a_file],
    ids=lambda make: make.__name__,
)
def test_what_is_no_regular_file_is_refused_at_once(tmp_path, monkeypatch, read, make):
    (tmp_path / "folder").mkdir()
    monkeypatch.chdir(tmp_path / "folder")
    make(tmp_path / "folder" / "file")
    with pytest.raises(CacheError, match="file cannot be read"):
        read(tmp_path / "folder" / "file")


@each_reader
@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read_is_named(path, read):
    path.chmod(0)
    with pytest.raises(CacheError, match="file cannot be read: Permission denied"):
        read(path)


@each_reader
def test_a_disk_that_fails_is_named(path, monkeypatch, read):
    class Failing(io.FileIO):
        def readinto(self, buffer):
            raise OSError(5, "Input/output error")

        def readall(self):
            raise OSError(5, "Input/output error")

    monkeypatch.setattr(verified.io, "FileIO", Failing)
    with pytest.raises(CacheError, match="file cannot be read: Input/output error"):
        read(path)


@pytest.mark.parametrize("read", ["verified", "sized"])
def test_a_file_read_in_pieces_is_whole(path, monkeypatch, read):
    class Slow(io.FileIO):
        def readinto(self, buffer):
            return super().readinto(memoryview(buffer)[:7])

    monkeypatch.setattr(verified.io, "FileIO", Slow)
    assert bytes(READERS[read](path)) == DATA


@pytest.mark.parametrize("read", ["verified", "sized"])
def test_a_file_that_shrinks_while_it_is_read_is_refused(path, monkeypatch, read):
    class Shrinking(io.FileIO):
        def readinto(self, buffer):
            path.write_bytes(DATA[:100])
            return super().readinto(buffer)

    monkeypatch.setattr(verified.io, "FileIO", Shrinking)
    with pytest.raises(CacheError, match=f"file is damaged: 100 bytes where {len(DATA):,} were committed"):
        READERS[read](path)


@each_reader
def test_files_are_closed_whatever_happens(tmp_path, path, read):
    before = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else pytest.skip("no /proc")
    os.mkfifo(tmp_path / "pipe")
    for other in (path, tmp_path, tmp_path / "pipe", tmp_path / "gone"):
        for _ in range(5):
            try:
                read(other)
            except (CacheError, FileNotFoundError):
                pass
    assert len(os.listdir("/proc/self/fd")) == before
