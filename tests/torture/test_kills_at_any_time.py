"""Signals at random times: SIGKILL again and again until it is done, SIGTERM and SIGINT as users send them."""

import json
import random
import shutil
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from aftermath import assert_finished, assert_nothing_lost
from harness import Child, Outcome, trials
from lanes import Step, Trial, about, assert_no_orphans, run_trials, workers_of
from stages import Stage, make_stages, run_command, said

INTERRUPTED = 130
ROUND = ("new", "relabelled", "new", "resumed", "restarted", "repaired")


@pytest.fixture(scope="module")
def stages(tmp_path_factory) -> dict[str, Stage]:
    return make_stages(tmp_path_factory.getbasetemp() / "stages")


class Campaign:
    """Starts trials until enough has happened, and counts what happened."""

    def __init__(self, stages: dict[str, Stage], folder: Path) -> None:
        self.stages, self.folder, self.random = stages, folder, random.Random(2)
        self.counts: Counter[str] = Counter()

    def moment(self, stage: Stage, kills: int = 0) -> float:
        """Return a random time within an uninterrupted run; later after many kills, so that they come to an end."""
        return self.random.uniform(0.0, stage.seconds * 1.1**kills)

    def until(self, what: str, number: int, trial: Callable[[Stage, Path], Trial]) -> Iterator[Trial]:
        """Start one trial after the other until `what` has happened so often."""
        started = 0
        while self.counts[what] < number:
            stage = self.stages[ROUND[started % len(ROUND)]]
            yield trial(stage, self.folder / f"{what}-{started}")
            started += 1

    def killed_until_done(self, stage: Stage, folder: Path) -> Trial:
        """Start the same extraction until it ends by itself, killing it at random times."""
        root, log, command = stage.root(folder), folder / "acknowledged", stage.command
        acknowledged: set[int] = set(stage.promised)
        kills = 0
        while True:
            child = Child(lambda command=command: run_command(command, root, log=log))
            with about(stage.name, f"kill {kills + 1}"):
                outcome = yield Step(child, self.moment(stage, kills), signal.SIGKILL)
                assert_no_orphans(child)
                if outcome.code != -signal.SIGKILL:
                    break
                kills += 1
                self.counts["kills"] += 1
                acknowledged = assert_nothing_lost(stage, root, log)
            command = stage.finish[0]
        with about(stage.name, f"end after {kills} kills"):
            assert outcome.code == 0, outcome
            assert_finished(stage, root, said(outcome.result), stage.most(command, acknowledged))
        shutil.rmtree(folder)

    def interrupted(self, number: signal.Signals) -> Callable[[Stage, Path], Trial]:
        """Return a trial that sends a signal once and goes on to the end."""

        def trial(stage: Stage, folder: Path) -> Trial:
            root, log = stage.root(folder), folder / "acknowledged"
            with about(stage.name, number.name):
                child = Child(lambda: run_command(stage.command, root, log=log))
                group = bool(self.random.getrandbits(1))
                outcome = yield Step(child, self.moment(stage), number, group)
                self.counts[f"{number.name} {ending(outcome)}"] += 1
                assert_no_orphans(child)
                acknowledged = assert_nothing_lost(stage, root, log)
                command = stage.finish[0]
                outcome = yield Step(Child(lambda: run_command(command, root)))
                assert outcome.code == 0, outcome
                assert_finished(stage, root, said(outcome.result), stage.most(command, acknowledged))
            shutil.rmtree(folder)

        return trial


def ending(outcome: Outcome) -> str:
    """Check how a command ended that got a signal, and return what became of it."""
    if outcome.code in (-signal.SIGTERM, -signal.SIGINT) or "KeyboardInterrupt" in outcome.error:
        return "outside"  # before the command line began, or after it was done
    assert outcome.code == 0, outcome
    end = said(outcome.result)
    assert "Traceback" not in end.err, end.err
    if end.code == 0:
        return "late"
    assert end.code == INTERRUPTED, end
    document = json.loads(end.out[end.out.rindex('{\n "error"') :])
    assert document["error"]["kind"] == "interrupted"
    return "interrupted"


def test_kills_at_random_times_lose_nothing(stages, tmp_path, tally):
    campaign = Campaign(stages, tmp_path)
    wanted = trials(quick=8, full=1000)
    cycles = run_trials(campaign.until("kills", wanted, campaign.killed_until_done))
    kills = campaign.counts["kills"]
    assert kills >= wanted
    tally("kills at random times", kills, f"0 acknowledged shards lost, {cycles:,} extractions ended with equal bytes")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
def test_an_interrupted_command_says_so_and_leaves_no_process_behind(stages, tmp_path, tally, number):
    campaign = Campaign(stages, tmp_path)
    wanted = trials(quick=2, full=100)
    started = run_trials(campaign.until(f"{number.name} interrupted", wanted, campaign.interrupted(number)))
    assert campaign.counts[f"{number.name} outside"] <= 2 + started // 5, campaign.counts
    tally(f"{number.name}s at random times", started, "exit code 130 or done, no process left, nothing lost")


def test_loading_processes_are_found_while_they_run(stages, tmp_path):
    """Else that none is found afterwards would mean nothing."""
    stage = stages["new"]
    root = stage.root(tmp_path / "trial")
    child = Child(lambda: run_command(stage.command, root))
    limit = time.monotonic() + 60
    while not workers_of(child.pid) and time.monotonic() < limit:
        time.sleep(0.005)
    found = workers_of(child.pid)
    child.kill()
    child.end()
    assert found
    assert_no_orphans(child)
