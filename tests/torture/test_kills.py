"""SIGKILL at every single call that changes the disk: what was acknowledged stays, what is seen is whole."""

import random
import shutil
import signal
from dataclasses import replace
from pathlib import Path

import pytest
from aftermath import assert_finished, assert_nothing_lost
from harness import FULL, Child
from lanes import Step, Trial, about, assert_no_orphans, run_trials
from stages import Stage, make_stages, run_command, said
from syscalls import kill_at

from pipeline.errors import CacheError

Point = tuple[Stage, int, str]


@pytest.fixture(scope="module")
def stages(tmp_path_factory) -> dict[str, Stage]:
    return make_stages(tmp_path_factory.getbasetemp() / "stages")


def kill_points(stage: Stage) -> list[Point]:
    """Before every call, half-way through every write, and after the last call."""
    points = []
    for number, call in enumerate(stage.changes, 1):
        points.append((stage, number, "before"))
        if call.name == "write":
            points.append((stage, number, "half"))
    return [*points, (stage, len(stage.changes), "after")]


def killed_and_finished(point: Point, folder: Path) -> Trial:
    stage, number, when = point
    with about(stage.name, when, number, stage.changes[number - 1]):
        root, log = stage.root(folder), folder / "acknowledged"
        child = Child(lambda: run_command(stage.command, root, act=kill_at(number, when), log=log))
        outcome = yield Step(child)
        assert outcome.code == -signal.SIGKILL, outcome
        assert_no_orphans(child)
        acknowledged = assert_nothing_lost(stage, root, log)

        command = stage.finish[number % len(stage.finish)]
        outcome = yield Step(Child(lambda: run_command(command, root)))
        assert outcome.code == 0, outcome
        assert_finished(stage, root, said(outcome.result), stage.most(command, acknowledged))
    shutil.rmtree(folder)


def test_a_kill_at_any_call_loses_nothing(stages, tmp_path, tally):
    points = [point for stage in stages.values() for point in kill_points(stage)]
    assert len(points) >= 200
    if not FULL:
        points = random.Random(1).sample(points, 16)
    done = run_trials(killed_and_finished(point, tmp_path / f"{n}") for n, point in enumerate(points))
    tally("kills, each at another call that changes the disk", done, "0 acknowledged shards lost, bytes equal")


LOSSES = {
    "a record is gone": lambda plan: (plan / "records" / "00001.json").unlink(),
    "a record is another": lambda plan: shutil.copy(plan / "records" / "00000.json", plan / "records" / "00001.json"),
    "shards are gone": lambda plan: shutil.rmtree(plan / "shards"),
    "shards are cut off": lambda plan: [cut_off(path) for path in (plan / "shards").iterdir()],
    "the plan is gone": shutil.rmtree,
    "a file is left behind": lambda plan: (plan / "rest").touch(),
    "an entry has no manifest": lambda plan: (plan.parents[1] / plan.name).mkdir(),
}


def cut_off(path: Path) -> None:
    data = path.read_bytes()
    path.chmod(0o644)
    path.write_bytes(data[:-1])


@pytest.mark.parametrize("loss", LOSSES)
def test_losses_would_be_noticed(stages, tmp_path, loss):
    """Else that none was found would mean nothing."""
    stage, log = stages["resumed"], tmp_path / "acknowledged"
    root = stage.root(tmp_path / "trial")
    assert assert_nothing_lost(stage, root, log) == {1}
    LOSSES[loss](next(root.glob("plans/*")))
    with pytest.raises((AssertionError, CacheError, FileNotFoundError)):
        assert_nothing_lost(stage, root, log)


def test_a_damaged_entry_would_be_noticed(stages, tmp_path):
    stage = stages["repaired"]
    root = stage.root(tmp_path / "trial")
    assert_nothing_lost(stage, root, tmp_path / "acknowledged")
    with pytest.raises(AssertionError, match="00001.h5"):
        assert_nothing_lost(replace(stage, damaged=frozenset()), root, tmp_path / "acknowledged")
