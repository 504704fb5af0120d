"""The campaign would notice: every fsync is needed, and faults built into the store are found."""

import os
import shutil
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import finishing
import pytest
from detector import CAUGHT
from harness import FULL
from mutants import MUTANTS, Mutant
from playing import Recording, crashes_without, judge, play
from powerloss import Calls, Names, Sync, fast_folder
from scenes import SCENES

import pipeline

PACKAGE = Path(pipeline.__file__).parent
TRIED = MUTANTS if FULL else [mutant for mutant in MUTANTS if mutant.quick]
CAUGHT_SHARE = 0.95
TIMEOUT = 300.0
DETECTOR = Path(__file__).with_name("detector.py")
ALL = (*SCENES, finishing.SCENE)


def missed(recording: Recording, dropped: set[int], where: Path) -> bool:
    """Tell whether no crash state is worse without these fsyncs; the last moments are tried first."""
    states = list(crashes_without(recording, dropped))
    return not any(judge(recording.scene, tree, held, where / "state") for tree, held in reversed(states))


def syncs(recording: Recording) -> dict[int, Sync]:
    return {number: op for number, op in enumerate(recording.ops) if isinstance(op, Sync)}


def site(op: Sync) -> Calls:
    """The line that asks for an fsync, and the line that makes it."""
    return op.calls[:2]


def test_every_line_that_syncs_is_needed(tally):
    """Without any one of them a power loss breaks a promise, at once or after another process was killed."""
    with fast_folder() as where:
        recordings = [play(scene) for scene in ALL]
        known = {site(op) for recording in recordings for op in syncs(recording).values()}
        left = set(known)
        for recording in (*recordings, *killed_recordings(recordings)):
            for number, op in syncs(recording).items():
                if site(op) in left and not missed(recording, {number}, where):
                    left.discard(site(op))
            if not left:
                break
    tally("lines that ask for an fsync, each left out", len(known), f"{len(known) - len(left)} found by power losses")
    assert not left


def killed_recordings(recordings: list[Recording]):
    """Scenes killed instead of each fsync and played again: what they show, the undisturbed ones may not."""
    for recording in recordings:
        for op in syncs(recording).values():
            yield play(recording.scene, stop=op.step)


@pytest.mark.skipif(not FULL, reason="takes a minute; a sample of it is test_every_line_that_syncs_is_needed")
def test_every_single_fsync_is_needed_or_known_not_to_be(tally):
    counts: dict[str, int] = defaultdict(int)
    unknown = []
    with fast_folder() as where:
        for recording in map(play, ALL):
            for number, op in syncs(recording).items():
                if not missed(recording, {number}, where):
                    counts["found"] += 1
                elif reason := spared(recording, number, where):
                    counts[reason] += 1
                else:
                    unknown.append((recording.scene.name, op.calls))
    outcome = ", ".join(f"{count} {reason}" for reason, count in sorted(counts.items()))
    tally("single calls of fsync, each left out", sum(counts.values()) + len(unknown), outcome)
    assert not unknown


def spared(recording: Recording, number: int, where: Path) -> str:
    """Say why nothing promised rests on one fsync, or return an empty string."""
    op = recording.ops[number]
    names = {name for _, name, _ in op.calls}
    later = {at for at, other in syncs(recording).items() if at >= number and other.node == op.node}
    if idle(recording, number):
        return "of nothing but temporary names that have gone, for names that other processes give"
    if "save" in names:
        return "for the stat index, which may be lost"
    if not kept_names(recording, op.node):
        return "of temporary files that came to nothing"
    if names & {"discard", "remove_folder"}:
        return "for what is removed"
    if names >= {"put_back", "set_aside"}:
        return "for a damaged file of which a whole one is there"
    return "repeated later" if len(later) > 1 and not missed(recording, later, where) else ""


def idle(recording: Recording, number: int) -> bool:
    """Tell whether an fsync finds nothing to do, or only that temporary names have gone."""
    disk = recording.start.copy()
    for op in recording.ops[:number]:
        disk.apply(op)
    node = recording.ops[number].node
    late = disk.late_names.get(node, {})
    return node not in disk.late_contents and all(
        name.startswith(".tmp-") and values[-1] is None for name, values in late.items()
    )


def kept_names(recording: Recording, node: int) -> bool:
    """Tell whether a file or folder has ever had a name that is not temporary; one that was there before has."""
    made = [op for op in recording.ops if isinstance(op, Names)]
    given = [name for op in made for _, name, there in op.changes if there == node]
    return not given or any(not name.startswith(".tmp-") for name in given)


def mutated(mutant: Mutant, folder: Path) -> Path:
    """Copy the package and build a fault into it."""
    goal = folder / "pipeline"
    shutil.copytree(PACKAGE, goal, ignore=shutil.ignore_patterns("__pycache__", "data"))
    path = goal / mutant.file
    text = path.read_text()
    for old, new in ((mutant.old, mutant.new), *mutant.more):
        assert text.count(old) == 1, f"{mutant.file} has changed: {text.count(old)} times {old!r}"
        text = text.replace(old, new)
    path.write_text(text)
    return folder


def detect(folder: Path, *arguments: str) -> subprocess.CompletedProcess:
    environment = {**os.environ, "PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, str(DETECTOR), *arguments],
        env=environment,
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=False,
    )


def test_the_mutants_fit_the_code(tmp_path):
    assert len(MUTANTS) >= 30
    for number, mutant in enumerate(MUTANTS):
        compile((mutated(mutant, tmp_path / str(number)) / "pipeline" / mutant.file).read_text(), mutant.file, "exec")


def test_the_detector_finds_nothing_in_the_package_as_it_is():
    found = detect(PACKAGE.parent, *([] if FULL else ["--only", "turned_bits", "taken_names", "first extraction"]))
    assert (found.returncode, found.stdout.strip()) == (0, str(PACKAGE)), found.stdout + found.stderr


def test_faults_built_into_the_store_are_found(tmp_path, tally):
    survivors = []
    for number, mutant in enumerate(TRIED):
        folder = mutated(mutant, tmp_path / str(number))
        found = detect(folder, mutant.first)
        hung = found.returncode == -14  # of its own alarm
        assert found.returncode in (0, CAUGHT) or hung, f"{mutant.why}: {found.stdout}{found.stderr}"
        assert hung or found.stdout.splitlines()[0] == str(folder / "pipeline")
        if not found.returncode:
            survivors.append(f"{mutant.file}: {mutant.why}")
        shutil.rmtree(folder)
    tally(
        "faults built into the store",
        len(TRIED),
        f"{len(TRIED) - len(survivors)} found; survive: {survivors or 'none'}",
    )
    assert len(survivors) <= (1 - CAUGHT_SHARE) * len(TRIED), survivors
