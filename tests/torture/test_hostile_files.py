"""Untrusted inputs other than images: each ends in one line and the right exit code, runs no code, harms nothing."""

import hashlib
import pickle
import shutil
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest
from commands import Told, run_command, run_commands
from conftest import make_photos
from harness import trials
from hostile_cache import KINDS, caches, replaced, runs
from hostile_places import EXTRACT, Case, Place, configs, ids, nothing, sources
from hostile_weights import calls, pickles, safetensors_files

TIMEOUT = 60.0
TOGETHER = 20
"""Commands run in one child."""
MOST_WORDS = 12_000
"""Characters of an error; names of 4,096 characters are repeated in some."""


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Photos, a finished entry and a trained run."""
    root = tmp_path_factory.mktemp("world")
    make_photos(root / "photos", per_class=4, classes=("apple", "beet"))
    for command in (["extract", "photos", *EXTRACT], ["train-head", "latest", "--epochs", "1"]):
        told = run_command(*command, cwd=root)
        assert told.code == 0, told.err
    return root


def snapshot(folder: Path) -> dict[str, tuple[object, ...]]:
    """Return what lies in a folder, outside the cache root, by path: type, times and content."""
    found: dict[str, tuple[object, ...]] = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if name.startswith(("a/b/cache/", "a/b/new/")):
            continue
        facts = path.lstat()
        regular = path.is_file() and not path.is_symlink()
        content = hashlib.sha256(path.read_bytes()).hexdigest() if regular else ""
        found[name] = (facts.st_mode, facts.st_size, content, facts.st_mtime_ns if regular else 0)
    return found


def endings(cases: Iterable[Case], world: Path, folder: Path, every: int) -> tuple[int, list[str]]:
    """Run one in `every` case, each in a copy of the world. Return how many and what was wrong with which."""
    chosen = list(cases)[::every]
    wrong: list[str] = []
    for first in range(0, len(chosen), TOGETHER):
        some = chosen[first : first + TOGETHER]
        places = [_prepared(case, world, folder / str(first + number)) for number, case in enumerate(some)]
        before = [snapshot(place.outside) for place in places]
        commands = [
            (place.root, [word.replace("ENTRY", place.name) for word in case.arguments])
            for case, place in zip(some, places, strict=True)
        ]
        for case, place, told, old in zip(some, places, _ends(commands), before, strict=True):
            wrong += [f"{case.name}: {problem}" for problem in problems(case.code, told)]
            new = snapshot(place.outside)
            wrong += [f"{case.name}: changed {name}" for name in {*old, *new} if old.get(name) != new.get(name)]
        shutil.rmtree(folder)
    return len(chosen), wrong


def _prepared(case: Case, world: Path, outside: Path) -> Place:
    root = outside / "a" / "b"
    shutil.copytree(world, root)
    place = Place(outside, root, next((root / "cache").glob("*/entry.json")).parent.name)
    case.prepare(place)
    return place


def _ends(commands: list[tuple[Path, list[str]]]) -> list[Told | None]:
    """Run commands in one child; one by one, to find the culprit, if that dies or hangs."""
    try:
        return [*run_commands(commands, timeout=TIMEOUT)]
    except AssertionError:
        pass
    ends: list[Told | None] = []
    for command in commands:
        try:
            ends += run_commands([command], timeout=TIMEOUT / 4)
        except AssertionError:
            ends.append(None)
    return ends


def problems(code: int, told: Told | None) -> list[str]:
    if told is None:
        return ["died or hung"]
    found = []
    if told.code != code:
        found.append(f"exit code {told.code}, expected {code}: {told.err[-300:]}")
    elif code and not told.is_one_line:
        found.append(f"not one line: {told.err[-300:]}")
    elif "Traceback" in told.err or "unexpected" in told.err:
        found.append(f"not foreseen: {told.err[-300:]}")
    if "weights_only" in told.err:
        found.append("says how to load it unsafely")
    if len(told.err) > MOST_WORDS:
        found.append(f"says {len(told.err):,} characters")
    return found


def weights() -> Iterator[Case]:
    """Weights files of all kinds, in the place of which there may be no file at all."""

    def case(name: str, file: str, prepare: Callable[[Place], object]) -> Case:
        arguments = [*EXTRACT[:3], f"./{file}", *EXTRACT[4:]]
        return Case(name, 3, prepare, ("extract", "photos", *arguments))

    canary = Path("canary")
    for name, file, data in (*pickles(canary), *safetensors_files()):
        yield case(name, file, lambda place, f=file, d=data: (place.root / f).write_bytes(d))
    for file in ("w.pth", "w.safetensors"):
        for kind in KINDS:
            yield case(f"{file}: {kind}", file, lambda place, f=file, k=kind: replaced(place.root / f, k))
    for file in ("w.bin", "w.pkl", "w", "w.pth.gz"):
        yield case(
            f"called {file}", file, lambda place, f=file: (place.root / f).write_bytes(calls(canary)["os.system"])
        )
    yield case("no file", "w.pth", nothing)


def test_weights_that_mean_harm_are_refused_and_run_no_code(world, tmp_path, tally):
    count, wrong = endings(weights(), world, tmp_path, trials(4, 1))
    assert wrong == []
    tally("hostile weights files", count, "all refused in one line, no code was run")


def test_sources_and_ids_that_climb_are_refused(world, tmp_path, tally):
    count, wrong = endings([*sources(), *ids()], world, tmp_path, trials(5, 1))
    assert wrong == []
    tally("hostile sources, ids and names", count, "all refused in one line, nothing written outside the cache")


def test_hostile_configuration_files_are_refused(world, tmp_path, tally):
    count, wrong = endings(configs(), world, tmp_path, trials(6, 1))
    assert wrong == []
    tally("hostile configuration files", count, "all refused in one line")


def test_damaged_and_forged_runs_and_caches_are_refused_or_mended(world, tmp_path, tally):
    count, wrong = endings([*runs(), *caches()], world, tmp_path, trials(8, 1))
    assert wrong == []
    tally("damaged and forged runs and cache folders", count, "all refused in one line or mended, none waited for")


def test_the_payloads_do_leave_a_canary_where_pickles_are_trusted(tmp_path, monkeypatch):
    """Else the tests above would prove nothing."""
    monkeypatch.chdir(tmp_path)
    payloads = calls(Path("canary"))
    for name in ("posix.system", "builtins.exec", "builtins.eval", "subprocess.getoutput", "runpy", "pickle.loads"):
        pickle.loads(payloads[name])
        assert Path("canary").exists(), name
        Path("canary").unlink()
