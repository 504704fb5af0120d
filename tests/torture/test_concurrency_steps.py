"""Another process finishes, begins anew, replaces or removes between any two calls of this one: all of them in turn."""

import functools
import os
import random
import shutil
from pathlib import Path

import pytest
from between import act_before
from harness import FULL, Child, Outcome, in_child, run_extract
from unwritable import run_command
from writers import WAIT, World, check_cache, damage_a_shard, remembering, shared_world

import pipeline
from pipeline.errors import CacheError
from pipeline.store.commit import TEMPORARY, remove_folder

OLD, NEW = f"{TEMPORARY}1-0-old", f"{TEMPORARY}1-0-new"


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return shared_world(tmp_path_factory.getbasetemp())


def finish(world: World, cache: Path) -> None:
    """Publish the entry, unless it is there, and give up the unfinished one: what an extraction ends with."""
    give(world, cache)
    begin_anew(world, cache)


def begin_anew(_: World, cache: Path) -> None:
    """What an extraction with `--restart` begins with."""
    for plan in cache.glob("plans/[!.]*"):
        remove_folder(plan)


def take(world: World, cache: Path) -> None:
    """The first half of replacing an entry."""
    if (cache / world.id).exists():
        os.rename(cache / world.id, cache / OLD)


def give(world: World, cache: Path) -> None:
    """The second half."""
    if not (cache / world.id).exists():
        shutil.copytree(world.cache / world.id, cache / NEW)
        os.rename(cache / NEW, cache / world.id)
    shutil.rmtree(cache / OLD, ignore_errors=True)


def remove(world: World, cache: Path) -> None:
    """What `pipeline cache rm` does."""
    if (cache / world.id).exists():
        remove_folder(cache / world.id)


ACTS = {"finishes": [finish], "begins anew": [begin_anew], "replaces": [take, give], "removes": [remove]}

RACES = {
    "finishes what this one has begun": ("empty", "finishes", False),
    "begins anew what this one has begun": ("empty", "begins anew", False),
    "finishes what both have begun": ("begun", "finishes", False),
    "begins anew what both have begun": ("begun", "begins anew", False),
    "mends what this one mends": ("damaged", "finishes", False),
    "replaces what this one finds": ("finished", "replaces", False),
    "replaces what this one replaces": ("finished", "replaces", True),
    "removes what this one finds": ("finished", "removes", False),
    "removes what this one replaces": ("finished", "removes", True),
}
"""What is in the cache, what the other process does, and whether this one begins anew."""
NEVER = 10**9
FEW, MANY = 12, 80
"""About how many calls there are to choose from, in a sample: where the entry is found, and where it is made."""


def prepared(world: World, cache: Path, state: str, seed: int) -> None:
    """Make a cache that is empty, holds half of the work, the finished entry, or one with a damaged shard."""
    if state == "begun":
        shutil.copytree(world.begun, cache)
        return
    cache.mkdir()
    if state != "empty":
        for name in (world.id, "index"):
            shutil.copytree(world.cache / name, cache / name)
    if state == "damaged":
        damage_a_shard(cache, world.id, random.Random(seed))


def start(world: World, cache: Path, race: str, step: int) -> Child:
    """Start an extraction into `cache` that is interfered with before its call number `step`."""
    state, act, restart = RACES[race]
    prepared(world, cache, state, step)

    def work() -> list:
        calls = act_before(step, cache, *(functools.partial(part, world, cache) for part in ACTS[act]))
        made = remembering(lambda: run_extract(world.photos, cache, restart=restart))
        return [made["cache"], calls()]

    return Child(work, core=step)


def check(world: World, cache: Path, race: str, outcome: Outcome) -> int:
    """Check how it ended. Return how many calls it made."""
    state, act, _ = RACES[race]
    assert outcome.code == 0, outcome.error
    name, calls = outcome.result
    assert name == world.id
    if act == "replaces":
        give(world, cache)  # this process may have been done before the second half
    if act == "removes" and not (cache / world.id).exists():
        check_cache(cache, {})
    else:
        check_cache(cache, world.expected(world.id), aside=state == "damaged")
    return calls


def calls_of(world: World, tmp_path: Path, race: str) -> range:
    """The numbers of the calls that an extraction makes when nobody interferes."""
    child = start(world, tmp_path / "alone", race, NEVER)
    calls = check(world, tmp_path / "alone", race, child.end(WAIT))
    shutil.rmtree(tmp_path / "alone")
    return range(1, calls + 1)


def test_an_extraction_succeeds_whatever_another_process_does_between_two_of_its_calls(world, tmp_path, tally):
    if FULL:
        jobs = [(race, step) for race in RACES for step in calls_of(world, tmp_path, race)]
    else:
        rng = random.Random(0)
        jobs = [
            (race, rng.randint(1, FEW if state == "finished" and not restart else MANY))
            for race, (state, _, restart) in RACES.items()
        ]
    failures = []
    for place in range(0, len(jobs), 2):
        pair = jobs[place : place + 2]
        caches = [tmp_path / str(place), tmp_path / str(place + 1)]
        children = [start(world, cache, *job) for job, cache in zip(pair, caches, strict=False)]
        for (race, step), child, cache in zip(pair, children, caches, strict=False):
            try:
                check(world, cache, race, child.end(WAIT))
            except AssertionError as error:
                failures.append(f"another process {race}, before call {step}: {error}")
            shutil.rmtree(cache)
    assert not failures, "\n".join(failures)
    tally(f"calls before which another process acted, in {len(RACES)} races", len(jobs), "0 failures, 0 differences")


@pytest.mark.parametrize("act", ["replaces", "removes"])
@pytest.mark.parametrize("name", ["by id", "latest"])
def test_a_reader_gets_an_entry_whole_or_a_clear_error_whatever_happens_between_two_of_its_calls(
    world, act, name, tmp_path, tally
):
    def work() -> list[int]:
        acts = ACTS[act]
        alone = pipeline.open_cache(world.id, cache_dir=world.cache)
        refused = step = calls = 0
        while calls >= step:
            step += 1
            cache = tmp_path / str(step)
            prepared(world, cache, "finished", step)
            count = act_before(step, cache, *(functools.partial(part, world, cache) for part in acts))
            try:
                read = pipeline.open_cache("latest" if name == "latest" else world.id, cache_dir=cache)
                assert read.x.equal(alone.x)
                assert read.y.equal(alone.y)
                assert (read.ids, read.cache_digest) == (alone.ids, alone.cache_digest)
            except CacheError:
                refused += 1
            calls = count()
        return [step - 1, refused]

    outcome = in_child(work, WAIT)
    assert outcome.code == 0, outcome.error
    steps, refused = outcome.result
    assert steps > 5
    tally(f"calls before which an entry read {name} is {act[:-1]}d", steps, f"whole, or refused clearly ({refused})")


COMMANDS = {
    "ls": ([], {0}),
    "info": (["latest"], {0, 4}),
    "verify": ([], {0, 4}),
    "prune": (["--keep", "0", "--dry-run"], {0}),
}
"""Arguments and exit codes: what names one entry may say that it is gone, what takes them as they come may not."""


@pytest.mark.parametrize("act", ["replaces", "removes"])
@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_ends_well_whatever_happens_to_an_entry_between_two_of_its_calls(
    world, act, command, tmp_path, tally
):
    given, codes = COMMANDS[command]

    def work() -> list:
        wrong = []
        step = calls = 0
        while calls >= step:
            step += 1
            cache = tmp_path / str(step)
            prepared(world, cache, "finished", step)
            count = act_before(step, cache, *(functools.partial(part, world, cache) for part in ACTS[act]))
            said = run_command("cache", command, *given, "--cache-dir", str(cache))
            if said["code"] not in codes:
                wrong.append(f"before call {step}: {said}")
            calls = count()
        return [step - 1, wrong]

    outcome = in_child(work, WAIT)
    assert outcome.code == 0, outcome.error
    steps, wrong = outcome.result
    assert not wrong, "\n".join(wrong)
    assert steps > 1
    tally(f"calls before which an entry is {act[:-1]}d under `cache {command}`", steps, "ended well")
