"""A cache that cannot be written serves all that only reads; what would write says so in one line."""

import json
import random
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest
from conftest import BACKBONE
from harness import in_child
from unwritable import WAYS, run_command, snapshot, way_to_lock
from writers import WAIT, damage_a_shard, shared_world

import pipeline

EXTRACT = [*BACKBONE, "--batch-size", "4", "--shard-rows", "8", "--workers", "1", "--on-bad-image", "skip"]


@dataclass(frozen=True)
class Place:
    """A cache and a run trained on it, both to be locked or not."""

    photos: Path
    cache: Path
    runs: Path
    id: str

    def options(self, command: str) -> list[str]:
        """The options that name the folders, as far as a command takes them."""
        runs = ["--runs-dir", str(self.runs)] if command in ("train-head", "evaluate") else []
        return ["--cache-dir", str(self.cache), *runs]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A cache with a finished entry, and a run."""
    base = tmp_path_factory.getbasetemp()
    world = shared_world(base)
    made = tmp_path_factory.mktemp("trained")
    shutil.copytree(world.cache, made / "cache")
    place = Place(world.photos, made / "cache", made / "runs", world.id)
    # In this process, which then has imported what every child needs.
    said = run_command("train-head", world.id, *place.options("train-head"))
    assert said["code"] == 0, said["err"]
    return place


@pytest.fixture
def place(trained, tmp_path):
    """A copy for one test. The images stay where they are, so that the stat index knows them."""
    shutil.copytree(trained.cache, tmp_path / "cache")
    shutil.copytree(trained.runs, tmp_path / "runs")
    return Place(trained.photos, tmp_path / "cache", tmp_path / "runs", trained.id)


@pytest.fixture
def rng():
    return random.Random(0)


@pytest.fixture(params=WAYS)
def way(request):
    return request.param


@pytest.fixture
def lock(way, tmp_path):
    return way_to_lock(way, tmp_path)


def locked(lock, place: Place, folder: Path, *arguments: str) -> dict:
    """Run a command in a child where `folder` cannot be written; nothing in it may change."""

    def work() -> dict:
        lock(folder)
        before = snapshot(folder)
        names = {"PHOTOS": str(place.photos), "ID": place.id}
        said = run_command(*(names.get(argument, argument) for argument in arguments), *place.options(arguments[0]))
        assert snapshot(folder) == before, f"{arguments} wrote"
        return said

    outcome = in_child(work, WAIT)
    assert outcome.code == 0, outcome.error
    return outcome.result


def refused(said: dict, folder: Path) -> None:
    """Assert that a command ended with one line of what is wrong, one of what to do, and the cache's exit code."""
    assert said["code"] == 4, said
    errors = [line for line in said["err"].splitlines() if line.startswith("error: ")]
    assert len(errors) == 1, said["err"]
    assert str(folder) in errors[0]
    assert "Read-only file system" in errors[0] or "Permission denied" in errors[0]
    assert "Traceback" not in said["err"]


EVALUATE = ["evaluate", "latest", "--cache", "ID", "--split", "train"]
READING = {
    "cache ls": ["cache", "ls"],
    "cache info": ["cache", "info"],
    "cache verify": ["cache", "verify"],
    "cache prune --dry-run": ["cache", "prune", "--keep", "0", "--dry-run"],
    "train-head": ["train-head", "ID", "--epochs", "1"],
    "evaluate": EVALUATE,
}


def test_all_that_reads_works_on_a_cache_that_cannot_be_written(place, way, lock, tally):
    for name, arguments in READING.items():
        said = locked(lock, place, place.cache, *arguments)
        assert said["code"] == 0, f"{name}: {said}"
        assert "error" not in said["err"], name
        assert said["out"], name
    tally(f"commands that read a cache that is {way}", len(READING), "all work and write nothing")


def test_an_entry_is_opened_on_a_cache_that_cannot_be_written(place, lock):
    def work() -> int:
        lock(place.cache)
        return len(pipeline.open_cache(place.id, cache_dir=place.cache))

    outcome = in_child(work)
    assert outcome.code == 0, outcome.error
    assert outcome.result > 0


def test_an_extraction_that_is_finished_is_found_on_a_cache_that_cannot_be_written(place, lock):
    said = locked(lock, place, place.cache, "extract", "PHOTOS", *EXTRACT, "--json")
    assert said["code"] == 0, said
    found = json.loads(said["out"])
    assert (found["cache"], found["computed"]) == (place.id, 0)
    assert "write" not in said["err"]


WRITING = {
    "extract something new": ["extract", "PHOTOS", *BACKBONE, "--image-size", "40", "--on-bad-image", "skip"],
    "extract --restart": ["extract", "PHOTOS", *EXTRACT, "--restart"],
    "cache rm": ["cache", "rm", "ID", "--yes"],
    "cache prune": ["cache", "prune", "--keep", "0", "--yes"],
}


def test_what_would_write_to_a_cache_that_cannot_be_written_says_so_in_one_line(place, way, lock, tally):
    for arguments in WRITING.values():
        refused(locked(lock, place, place.cache, *arguments), place.cache)
    tally(f"commands that would write a cache that is {way}", len(WRITING), "exit code 4, one line")


def test_a_damaged_shard_is_named_on_a_cache_that_cannot_be_written(place, lock, rng):
    damage_a_shard(place.cache, place.id, rng)
    said = locked(lock, place, place.cache, "cache", "verify", "ID")
    assert said["code"] == 4, said
    assert f"{place.id}/shards/" in said["err"]
    refused(locked(lock, place, place.cache, "extract", "PHOTOS", *EXTRACT), place.cache)


def test_an_evaluation_that_cannot_be_kept_is_printed_all_the_same(place, lock):
    said = locked(lock, place, place.runs, *EVALUATE, "--json")
    assert said["code"] == 0, said
    assert 0 <= json.loads(said["out"])["metrics"]["accuracy"] <= 1
    assert "not kept" in said["err"]


def test_a_head_that_cannot_be_saved_is_refused_in_one_line(place, lock):
    refused(locked(lock, place, place.runs, "train-head", "ID", "--epochs", "1"), place.runs)


def test_writing_is_seen_where_it_is_possible(place):
    with pytest.raises(AssertionError, match="wrote"):
        locked(lambda _: None, place, place.runs, *EVALUATE)
    with pytest.raises(AssertionError, match="wrote"):  # the entry's last use
        locked(lambda _: None, place, place.cache, *EVALUATE)
