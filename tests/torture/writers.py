"""Processes that share one cache: what they read, how they are started, and what must hold when they are done."""

import functools
import random
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py  # noqa: F401 - imported here so that no child has to
import torchvision  # noqa: F401
from conftest import make_photos
from harness import Child, Outcome, entry_bytes, photos_in, run_extract

from pipeline.progress import Progress
from pipeline.store import statindex
from pipeline.store.commit import TEMPORARY
from pipeline.store.entry import open_entry
from pipeline.store.verify import find_damage

WAIT = 300.0
"""Seconds for a child on a machine where sixteen of them and others share two cores."""


@dataclass(frozen=True)
class World:
    """Two folders that share images, a cache with the entries of both, and one with work in progress."""

    photos: Path
    others: Path
    cache: Path
    begun: Path
    """A cache in which the extraction of `photos` has come halfway."""
    id: str
    others_id: str
    rows: int
    """Usable rows of `photos`."""
    seconds: float
    """How long one extraction takes alone."""

    def expected(self, *ids: str) -> dict[str, dict[str, bytes]]:
        """The bytes of entries by id."""
        return {name: entry_bytes(self.cache / name) for name in ids}


@functools.cache
def shared_world(folder: Path) -> World:
    """Make the folders, and the entries each by itself; once for all tests, which change nothing of it."""
    folder = folder / "world"
    photos = photos_in(folder / "photos", per_class=6)
    others = make_photos(folder / "others", per_class=8)
    for image in others.glob("*/0[0-2].jpg"):
        image.unlink()  # 9 of those left are in `photos` too, under other names; 6 are not
    extractions = [
        Child(lambda: remembering(lambda: run_extract(photos, folder / "cache")), core=0),
        Child(lambda: run_extract(others, folder / "alone"), core=1),
        Child(lambda: run_extract(photos, folder / "begun", on_progress=_stop_halfway), core=1),
    ]
    outcomes = [child.end(WAIT) for child in extractions]
    assert "_HalfwayError" in outcomes.pop().error
    first, other = results(outcomes)
    shutil.copytree(folder / "alone" / other["cache"], folder / "cache" / other["cache"])
    return World(
        photos,
        others,
        folder / "cache",
        folder / "begun",
        first["cache"],
        other["cache"],
        first["rows"],
        outcomes[0].seconds,
    )


class _HalfwayError(Exception):
    pass


def _stop_halfway(progress: Progress) -> None:
    if progress.done > progress.total / 2:
        raise _HalfwayError


def remembering(work: Callable[[], Any]) -> Any:
    """Let a child remember digests of files made a moment ago, as of files that lay there for seconds."""
    statindex.GRANULARITY_NS = -(10**18)
    return work()


@dataclass
class Writer:
    """A child that extracts, and when it begins."""

    child: Child
    begins: float


def start_writers(
    sources: list[Path],
    cache: Path,
    rng: random.Random,
    *,
    spread: float,
    restart: bool = False,
    wrap: Callable[[Callable[[], Any]], Any] | None = None,
) -> list[Writer]:
    """Start a child for each source, delayed at random within `spread` seconds.

    With `restart` the last one begins anew whatever it finds; `wrap(extract)` runs the extraction.
    """

    def work(source: Path, begin: float, anew: bool) -> Any:
        time.sleep(max(0.0, begin - time.monotonic()))
        return (wrap or _call)(lambda: run_extract(source, cache, restart=anew))

    started = []
    for number, source in enumerate(sources):
        begin = time.monotonic() + rng.uniform(0.0, spread)
        anew = restart and number == len(sources) - 1
        started.append(Writer(Child(functools.partial(work, source, begin, anew), core=number), begin))
    return started


def _call(work: Callable[[], Any]) -> Any:
    return work()


def results(outcomes: list[Outcome]) -> list[dict[str, Any]]:
    """The results of children, all of which must have come to a good end."""
    for outcome in outcomes:
        assert outcome.code == 0, outcome.error or f"exit code {outcome.code}"
    return [outcome.result for outcome in outcomes]


def check_cache(cache: Path, expected: dict[str, dict[str, bytes]], *, aside: bool = False) -> None:
    """Assert that a cache holds these entries, whole and byte for byte, nothing unfinished, and no rubbish.

    With `aside` there may be files that were set aside.
    """
    known = {*expected, "plans", "index", *(["quarantine"] if aside else [])}
    found = {path.name for path in cache.iterdir()}
    rubbish = [path for path in cache.rglob("*") if path.name.startswith(TEMPORARY)]
    rubbish += [path for path in cache.glob("index/*") if path.suffix != ".stat"]
    rubbish += [*cache.glob("plans/*"), *(cache / name for name in found - known)]
    assert not rubbish, f"left behind: {sorted(str(path.relative_to(cache)) for path in rubbish)}"
    assert set(expected) <= found, f"missing: {set(expected) - found}"
    for name, files in expected.items():
        damage = find_damage(open_entry(cache / name))
        assert not damage, f"damaged: {damage}"
        there = entry_bytes(cache / name)
        other = {file for file in files | there if files.get(file) != there.get(file)}
        assert not other, f"entry {name} differs in {sorted(other)}"


def remove_leftovers_of(cache: Path, pid: int) -> int:
    """Remove what a killed process may leave: temporary names with its id. Return how many there were."""
    found = [path for path in cache.rglob(f"{TEMPORARY}{pid}-*")]
    for path in found:
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    return len(found)


def damage_a_shard(cache: Path, name: str, rng: random.Random) -> None:
    """Flip a bit of a shard of an entry."""
    path = rng.choice(sorted((cache / name / "shards").iterdir()))
    data = bytearray(path.read_bytes())
    data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    path.unlink()  # not in place: the file may be shared with another entry
    path.write_bytes(data)
