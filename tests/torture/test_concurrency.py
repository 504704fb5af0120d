"""Many processes extract into one cache at once: all succeed with the same entry, byte for byte as one alone."""

import random
import shutil
import signal
import time

import pytest
from harness import FULL, Child, in_child, run_extract, trials
from writers import (
    WAIT,
    check_cache,
    damage_a_shard,
    remembering,
    remove_leftovers_of,
    results,
    shared_world,
    start_writers,
)

MODES = ("damaged", "overlapping", "killed", "restart", "plain")


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return shared_world(tmp_path_factory.getbasetemp())


def race(world, cache, mode: str, writers: int, rng: random.Random) -> int:
    """Let writers loose on a cache and check what becomes of it. Return the rows computed by all of them."""
    cache.mkdir()
    if mode == "damaged" or (mode == "restart" and rng.random() < 0.5):
        shutil.copytree(world.cache / world.id, cache / world.id)
    if mode == "damaged":
        damage_a_shard(cache, world.id, rng)
    sources = [world.photos] * writers
    if mode == "overlapping":
        sources = [world.photos, world.others] + [rng.choice([world.photos, world.others]) for _ in sources[2:]]
    seconds = world.seconds * max(1.0, writers / 2)
    # Every other time files are remembered as soon as they were read, so that writers find finished entries.
    wrap = remembering if rng.random() < 0.5 else None
    begun = start_writers(sources, cache, rng, spread=seconds / 2, restart=mode == "restart", wrap=wrap)
    outcomes = []
    if mode == "killed":
        victim = begun.pop(rng.randrange(writers))
        time.sleep(max(0.0, victim.begins + rng.uniform(0.0, seconds) - time.monotonic()))
        victim.child.kill()
        assert victim.child.end(WAIT).code in (0, -signal.SIGKILL)
    outcomes += [writer.child.end(WAIT) for writer in begun]
    if mode == "killed":
        remove_leftovers_of(cache, victim.child.pid)
        last = in_child(lambda: run_extract(world.photos, cache), WAIT)
        assert last.code or last.result["computed"] == 0
        outcomes.append(last)

    ids = {world.photos: world.id, world.others: world.others_id}
    ended = results(outcomes)
    assert sorted(result["cache"] for result in ended) == sorted(ids[source] for source in sources)
    check_cache(cache, world.expected(*{ids[source] for source in sources}), aside=mode == "damaged")
    shutil.rmtree(cache)
    return sum(result["computed"] for result in ended)


@pytest.mark.parametrize("writers", [2, 4, 8, 16] if FULL else [2, 4])
def test_writers_of_one_entry_all_succeed_and_leave_what_one_alone_leaves(world, writers, tmp_path, tally):
    most = {}
    runs = trials(2, 50)
    for run in range(runs):
        mode = MODES[(run + writers) % len(MODES)]
        computed = race(world, tmp_path / f"cache-{run}", mode, writers, random.Random(f"{writers} {run}"))
        most[mode] = max(most.get(mode, 0.0), computed / world.rows)
    waste = ", ".join(f"{mode} {times:.1f}" for mode, times in sorted(most.items()))
    tally(
        f"runs of {writers} writers on one cache", runs, f"0 differences; each row computed so often at most: {waste}"
    )


def test_the_check_sees_a_leftover_a_changed_byte_and_what_was_not_expected(world, tmp_path):
    cache = tmp_path / "cache"
    shutil.copytree(world.cache, cache)
    expected = world.expected(world.id, world.others_id)
    check_cache(cache, expected)
    for name in (f"{world.id}/.tmp-1-00000000-x", ".tmp-1-00000000-x", "plans/x", "quarantine", "index/x"):
        (cache / name).mkdir()
        with pytest.raises(AssertionError):
            check_cache(cache, expected)
        (cache / name).rmdir()
    check_cache(cache, expected)
    with pytest.raises(AssertionError):
        check_cache(cache, world.expected(world.id))
    damage_a_shard(cache, world.id, random.Random(0))
    with pytest.raises(AssertionError):
        check_cache(cache, expected)


def test_a_writer_that_fails_is_seen(world, tmp_path):
    def fail() -> None:
        raise OSError("no")

    with pytest.raises(AssertionError, match="OSError: no"):
        results([Child(fail).end()])
