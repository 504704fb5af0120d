"""What lies in the place of a file and is another thing: refused at once, not followed, not waited for."""

import functools
import logging
import os
import resource
import shutil
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from harness import in_child, trials
from small_cache import RECIPE, SPACE, SmallCache, make_cache
from watch import MB, Hung, hung_after, memory, needs_proc, one_arena

from pipeline.store.catalog import list_entries
from pipeline.store.rows import index_rows
from pipeline.store.verify import find_damage
from pipeline.store.work import list_work

PATIENCE = 3.0
"""Seconds after which a reading hangs."""


@pytest.fixture
def cache(tmp_path) -> SmallCache:
    return make_cache(tmp_path / "cache", seeds=(0, 1), work_seeds=(2, 3))


def empty(path: Path, twin: Path) -> None:
    path.write_bytes(b"")


def folder(path: Path, twin: Path) -> None:
    path.mkdir()


def full_folder(path: Path, twin: Path) -> None:
    shutil.copytree(twin.parent, path)


def pipe(path: Path, twin: Path) -> None:
    os.mkfifo(path)


def listening(path: Path, twin: Path) -> None:
    # The path of a socket may have 107 bytes, which a temporary folder's may exceed.
    here = os.open(path.parent, os.O_RDONLY)
    os.fchdir(here)
    os.close(here)
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(path.name)


def link_to_the_same_bytes(path: Path, twin: Path) -> None:
    path.symlink_to(twin)


def dangling_link(path: Path, twin: Path) -> None:
    path.symlink_to(twin.with_name("nowhere"))


def link_to_itself(path: Path, twin: Path) -> None:
    path.symlink_to(path.name)


def link_to_a_pipe(path: Path, twin: Path) -> None:
    os.mkfifo(twin.with_name("pipe"))
    path.symlink_to(twin.with_name("pipe"))


def link_to_zeros_without_end(path: Path, twin: Path) -> None:
    path.symlink_to("/dev/zero")


def zeros_without_end(path: Path, twin: Path) -> None:
    os.mknod(path, 0o666 | 0o020000, os.makedev(1, 5))


def terabytes_of_nothing(path: Path, twin: Path) -> None:
    with path.open("xb") as file:
        file.truncate(8 << 40)


STRANGE: list[Callable[[Path, Path], None]] = [
    empty,
    folder,
    full_folder,
    pipe,
    listening,
    link_to_the_same_bytes,
    dangling_link,
    link_to_itself,
    link_to_a_pipe,
    link_to_zeros_without_end,
    zeros_without_end,
    terabytes_of_nothing,
]


def timed(read: Callable[[], Any]) -> tuple[str, float]:
    """Tell how a reading ended, and after how many seconds."""
    start = time.monotonic()
    try:
        with hung_after(PATIENCE):
            said = "refused" if read() is None else "accepted"
    except Hung:
        said = "hung"
    except Exception as error:  # noqa: BLE001 - told to the parent
        said = f"{type(error).__name__}: {error}"
    return said, time.monotonic() - start


def replaced(
    cache: SmallCache,
    paths: list[Path],
    make: Callable[[Path, Path], None],
    readings: Callable[[Path], dict[str, Callable[[], Any]]],
) -> list[tuple[str, str, float, int]]:
    """Put something strange in the place of each of some files in turn and read.

    Returns (which reading of which file, how it ended, seconds, bytes asked for so far), nothing where the strange
    thing is not to be had.
    """
    logging.disable()
    one_arena()
    found = []
    before = memory("VmSize")
    # What would take all memory gets this much and fails.
    resource.setrlimit(resource.RLIMIT_AS, (before + 1024 * MB, before + 1024 * MB))
    for number, path in enumerate(paths):
        aside, twin = cache.root.with_name(f"aside-{number}"), cache.root.with_name(f"twins-{number}") / "file"
        twin.parent.mkdir()
        shutil.copyfile(path, twin)
        reads = readings(path)
        path.rename(aside)
        try:
            make(path, twin)
        except OSError:
            return []
        for name, read in reads.items():
            found.append((f"{name} with {path.name}", *timed(read), memory("VmPeak") - before))
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
        aside.rename(path)
    return found


def judge(
    cache: SmallCache,
    paths: list[Path],
    readings: Callable[[Path], dict[str, Callable[[], Any]]],
    *,
    expected: str,
    seconds: float,
    most: int,
) -> int:
    """Do it with everything strange. Return the number of readings, all of which ended as they should."""
    needs_proc()
    problems, done = [], 0
    for make in STRANGE:
        outcome = in_child(functools.partial(replaced, cache, paths, make, readings))
        assert outcome.code == 0, f"{make.__name__}: {outcome.error}"
        for name, said, took, grown in outcome.result:
            done += 1
            if said != expected or took > seconds or grown > most:
                problems.append(f"{make.__name__}: {name}: {said} after {took:.1f} s, {grown / MB:.0f} MB")
        for left in (*cache.root.parent.glob("aside-*"), *cache.root.parent.glob("twins-*")):
            shutil.rmtree(left)
    assert not problems, "\n".join(problems)
    return done


def test_in_the_place_of_any_file_it_is_refused_at_once(cache, tally):
    readers = cache.readers()
    done = judge(
        cache, list(readers), lambda path: {"reading": readers[path]}, expected="refused", seconds=1.0, most=64 * MB
    )
    assert done >= 8 * len(readers)
    tally("folders, pipes, sockets, devices, links, holes in the place of files", done, "all refused, none followed")


def test_whoever_looks_through_the_root_goes_on(cache, tally):
    """Listings, repairs and the search for rows neither hang nor fall over one strange file."""
    walks = {
        "list_entries": lambda: list(list_entries(cache.root)),
        "list_work": lambda: list_work(cache.root),
        "find_damage": lambda: find_damage(cache.entry),
        "records": cache.work.records,
        "index_rows": lambda: index_rows(cache.root, SPACE, recipe=RECIPE, engine_only=False),
    }
    paths = list(cache.readers())[:: trials(3, 1)]
    done = judge(cache, paths, lambda path: walks, expected="accepted", seconds=2.0, most=128 * MB)
    tally("walks through a root with one of them", done, "all went on")


def test_the_readings_above_would_tell(cache):
    """The other way round: reading without care follows links, waits for pipes and takes all memory."""

    def careless(path: Path) -> dict[str, Callable[[], Any]]:
        return {"reading": path.read_bytes}

    def ends(make: Callable[[Path, Path], None]) -> set[str]:
        outcome = in_child(functools.partial(replaced, cache, list(cache.readers()), make, careless))
        for left in cache.root.parent.glob("twins-*"):
            shutil.rmtree(left)
        return {said.split(":")[0] for _, said, _, _ in outcome.result}

    assert ends(link_to_the_same_bytes) == {"accepted"}
    assert ends(terabytes_of_nothing) == {"MemoryError"}
