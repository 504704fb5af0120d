"""Readers while entries are made, replaced and removed: complete and right features, or a clear error."""

import contextlib
import hashlib
import io
import json
import random
import shutil
import time

import numpy as np
import pytest
from harness import Child, run_extract, trials
from writers import WAIT, check_cache, results, shared_world

import pipeline
from pipeline.cli import main
from pipeline.errors import CacheError
from pipeline.store.commit import remove_folder
from pipeline.store.prune import plan_pruning

READERS, WRITERS = 8, 2


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return shared_world(tmp_path_factory.getbasetemp())


def fingerprint(features: pipeline.Features) -> str:
    """The digest of all that a reader is given."""
    state = hashlib.sha256()
    for array in (features.x.numpy(), features.y.numpy(), features.digests):
        state.update(np.ascontiguousarray(array).tobytes())
    state.update(json.dumps([features.ids, features.classes, features.split.tolist(), features.space]).encode())
    return state.hexdigest()


def read(cache, prints: dict[str, str], rng: random.Random, seconds: float) -> dict[str, int]:
    """Read and list for so many seconds; raise at the first thing that is wrong."""
    counts = {"read": 0, "refused": 0, "listed": 0}
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        time.sleep(rng.uniform(0.0, 0.05))  # else the writers hardly get to write
        what = rng.choice(["latest", "listing", *prints])
        if what == "listing":
            counts["listed"] += 1
            found = {entry["cache"] for entry in listing(cache)}
            assert found <= set(prints), found
            continue
        try:
            features = pipeline.open_cache(what, cache_dir=cache)
        except CacheError:
            counts["refused"] += 1
            continue
        assert what in ("latest", features.cache)
        assert fingerprint(features) == prints[features.cache]
        counts["read"] += 1
    return counts


def listing(cache) -> list[dict]:
    """What `pipeline cache ls --json` prints."""
    said = io.StringIO()
    with contextlib.redirect_stdout(said), pytest.raises(SystemExit) as ended:
        main(["cache", "ls", "--json", "--cache-dir", str(cache)])
    assert not ended.value.code, said.getvalue()
    return json.loads(said.getvalue())["entries"]


def write(cache, sources: list, rng: random.Random, seconds: float) -> dict[str, int]:
    """Extract one folder or the other, now and then anew, for so many seconds."""
    counts = {"written": 0}
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        run_extract(rng.choice(sources), cache, restart=rng.random() < 0.2)
        counts["written"] += 1
    return counts


def remove(cache, pause: float, rng: random.Random, seconds: float) -> dict[str, int]:
    """Remove entries, as `cache rm` and `cache prune` do, for so many seconds."""
    counts = {"removed": 0}
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        time.sleep(rng.uniform(0.0, pause))
        going = plan_pruning(cache, keep=rng.choice([0, 1]))
        if rng.random() < 0.5:
            going.carry_out()
        else:
            for entry in going.entries:
                remove_folder(entry.path)
        counts["removed"] += len(going.entries)
    return counts


def test_readers_see_whole_and_right_entries_or_a_clear_error_while_entries_come_and_go(world, tmp_path, tally):
    cache = tmp_path / "cache"
    prints = {
        name: fingerprint(pipeline.open_cache(name, cache_dir=world.cache)) for name in (world.id, world.others_id)
    }
    sources = [world.photos, world.others]
    seconds = trials(4, 180)

    def child(number: int, work, *arguments) -> Child:
        return Child(lambda: work(cache, *arguments, random.Random(number), seconds), core=number)

    shutil.copytree(world.cache, cache)
    children = [child(number, write, sources) for number in range(WRITERS)]
    children += [child(number, read, prints) for number in range(WRITERS, WRITERS + READERS)]
    children += [child(WRITERS + READERS, remove, 4 * world.seconds)]
    counts: dict[str, int] = {}
    for said in results([one.end(WAIT) for one in children]):
        for name, number in said.items():
            counts[name] = counts.get(name, 0) + number
    for name in ("read", "listed", "written", "removed"):
        assert counts[name], f"nothing was {name}"

    for source in sources:  # and the cache is none the worse for it
        results([Child(lambda source=source: run_extract(source, cache)).end(WAIT)])
    check_cache(cache, world.expected(*prints))
    tally(
        f"reads by {READERS} readers during {counts['written']} extractions and {counts['removed']} removals",
        counts["read"],
        f"all right; {counts['refused']:,} more refused clearly, {counts['listed']:,} listings",
    )


def test_what_is_being_worked_on_is_never_taken_for_old(world, tmp_path, tally):
    cache = tmp_path / "cache"
    seconds = trials(2, 30)

    def prune() -> int:
        until, times = time.monotonic() + seconds, 0
        while time.monotonic() < until:
            found = plan_pruning(cache, older_than=3600)
            assert (found.entries, found.unfinished, found.rubbish) == ([], [], [])
            times += 1
        return times

    def extract() -> dict[str, int]:
        return write(cache, [world.photos], random.Random(0), seconds)

    children = [Child(extract, core=0), Child(prune, core=1)]
    written, times = results([child.end(WAIT) for child in children])
    tally(f"looks for what is old during {written['written']} extractions", times, "nothing found")
