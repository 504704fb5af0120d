"""Power is lost after any change of the disk; what was not synced is there, gone or torn; nothing promised is lost."""

import os
import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import finishing
import pytest
from harness import FULL, trials
from playing import Recording, crashes, judge, meetings, play
from powerloss import Sync, Tree, fast_folder
from promises import Held
from scenes import SCENES, Scene
from works import FRUIT, PHOTOS, RECIPE, SPACE, commit

from pipeline.store.publish import publish_entry
from pipeline.store.work import WorkFolder

ALL = {scene.name: scene for scene in (*SCENES, finishing.SCENE)}
BESIDE = [scene for name, scene in ALL.items() if name not in ("restart", "repair", "put back")]
"""Of two processes that replace or mend an entry the slower takes away what the quicker put there, for a moment."""
AGAIN = 20
"""Of so many states one is gone on from."""


@pytest.fixture(scope="module")
def where() -> Iterator[Path]:
    with fast_folder() as folder:
        yield folder


class Verdict:
    """Counts states and what was wrong with them."""

    def __init__(self, where: Path) -> None:
        self.where, self.states, self.again, self.wrong = where, 0, 0, Counter()

    def judge(self, recording: Recording, states: list[tuple[Tree, Held]]) -> None:
        for tree, held in states:
            self.states += 1
            again = self.states % AGAIN == 0
            self.again += again
            for line in judge(recording.scene, tree, held, self.where / "state", again=again):
                self.wrong[f"{recording.scene.name}: {line}"] += 1

    def tell(self, tally, what: str) -> None:
        tally(what, self.states, f"{sum(self.wrong.values())} bad; {self.again:,} gone on from to the same entry")
        assert not self.wrong, "\n".join(f"{count} x {line}" for line, count in self.wrong.most_common(20))


def sample(recording: Recording, count: int, seed: int, draws: int = 0) -> list[tuple[Tree, Held]]:
    states = list(crashes(recording, draws=draws, seed=seed))
    return random.Random(seed).sample(states, min(count, len(states)))


def test_a_crash_after_any_change_keeps_what_was_promised(where, tally):
    verdict = Verdict(where)
    for scene in ALL.values():
        recording = play(scene)
        verdict.judge(recording, sample(recording, trials(45, 10**6), 0, draws=trials(1, 60)))
    verdict.tell(tally, "states after a power loss")


def test_a_crash_after_a_kill_and_a_second_run_keeps_what_was_promised(where, tally):
    """What the killed process gave a name but did not sync is seen by the next one, which must not rely on it."""
    verdict, rng = Verdict(where), random.Random(0)
    for scene in ALL.values():
        steps = play(scene).steps
        for step in range(1, steps) if FULL else sorted(rng.sample(range(1, steps), 3)):
            recording = play(scene, stop=step)
            verdict.judge(recording, sample(recording, trials(4, 8), step))
    verdict.tell(tally, "states after a kill, a second run and a power loss")


def test_a_crash_of_two_processes_keeps_what_was_promised(where, tally):
    verdict, rng = Verdict(where), random.Random(0)
    for scene in BESIDE:
        steps = play(scene).steps
        for number in range(trials(2, 60)):
            until = rng.randrange(1, steps) if number % 2 else None
            recording = play(scene, other=rng.randrange(1, steps), until=until)
            verdict.judge(recording, sample(recording, trials(4, 8), number))
    verdict.tell(tally, "states after two processes at once, one of them killed, and a power loss")


@pytest.mark.parametrize("name", ["first extraction", "import", "finished by extract"])
def test_a_name_given_by_another_process_is_durable_before_it_is_relied_on(name, where, tally):
    """One process has given a name and comes no further, for a while or for ever; another finds what has it."""
    verdict = Verdict(where)
    for number, recording in enumerate(meetings(ALL[name], *([] if FULL else [("publish_entry",)]))):
        verdict.judge(recording, sample(recording, trials(12, 60), number))
    verdict.tell(tally, f"states after two processes met on a name ({name}), and a power loss")


def swapped(root: Path, promise) -> None:
    """An extraction that removes its work before its entry is published."""
    folder = WorkFolder(root, FRUIT.plan)
    folder.pin(SPACE, RECIPE, {"source": PHOTOS})
    paths = [root / "aside" / f"{number}.h5" for number in range(3)]
    for number, path in enumerate(paths):
        record = commit(folder, FRUIT, number, {})
        promise(("hold", ("commit", FRUIT.plan, number), None))
        path.parent.mkdir(exist_ok=True)
        os.link(folder.shard_path(record), path)
    folder.discard()
    publish_entry(root, FRUIT.manifest(), paths, FRUIT.table, FRUIT.ledger)


def test_the_check_sees_work_removed_before_the_entry_is_published(where):
    recording = play(Scene("swapped", lambda root: None, swapped))
    wrong = [line for tree, held in crashes(recording) for line in judge(recording.scene, tree, held, where / "state")]
    assert "committed shard 0 is lost" in wrong


@pytest.mark.parametrize("name", list(ALL))
def test_the_check_sees_that_nothing_is_synced(name, where):
    recording = play(ALL[name])
    ops = [op for op in recording.ops if not isinstance(op, Sync)]
    states = crashes(replace(recording, ops=ops))
    assert any(judge(recording.scene, tree, held, where / "state") for tree, held in states)


def test_a_change_that_is_not_recorded_is_seen():
    def act(root: Path, promise) -> None:
        root.mkdir()
        (root / "file").write_bytes(b"not through os.open")

    with pytest.raises(AssertionError, match="not what was recorded"):
        play(Scene("unrecorded", lambda root: None, act))
    with pytest.raises(AssertionError, match="not recorded"):
        play(Scene("truncated", lambda root: root.mkdir(), lambda root, promise: os.truncate(root, 0)))
