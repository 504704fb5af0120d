"""Scenes played and recorded, and the states that crashes leave of them judged.

Imports neither torch nor anything else that is slow to start.
"""

import random
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from powerloss import Disk, Mark, Op, Sync, Tree, drawn, extremes, fast_folder, losses_of, make_tree, single_losses
from promises import Held, complaints, entry_files, fold, quiet
from recorder import Recorder, asks
from scenes import CACHE, Scene
from works import nothing

from pipeline.store.catalog import entry_folders
from pipeline.store.work import list_work


@dataclass(frozen=True)
class Recording:
    """A scene, played: the disk as it was before and what was done to it."""

    scene: Scene
    start: Disk
    ops: list[Op]
    parted: int
    """How many of them are as in the undisturbed scene."""
    steps: int
    """How many changes were made, those that failed included."""


def play(
    scene: Scene, *, stop: int | str | None = None, other: int | None = None, until: int | str | None = None
) -> Recording:
    """Play a scene and record it.

    With `stop` it is killed, as `Recorder` says, and played again without losing power. With `other` a second process
    plays it just before the change of that number, to the end or `until` it is killed.
    """
    with fast_folder() as disk:
        root = disk / CACHE
        scene.before(root)
        recorder = Recorder(disk, stop=stop, until=until)
        if other is not None:
            recorder.other = (other, lambda: scene.act(root, recorder.mark))
        for promise in scene.promised:
            recorder.mark(promise)
        with quiet(), recorder.recording():
            scene.act(root, recorder.mark)
        if stop is not None:
            with quiet(), recorder.recording():
                scene.act(root, recorder.mark)
        found = {str(path.relative_to(disk)): path.read_bytes() if path.is_file() else None for path in disk.rglob("*")}
        if found != {path: data for path, (_, data) in recorder.live().items()}:
            raise AssertionError("the disk is not what was recorded")
        return Recording(scene, recorder.start, recorder.ops, recorder.parted, recorder.steps)


def meetings(scene: Scene, names: tuple[str, ...] = ("publish_link", "publish_entry")) -> Iterator[Recording]:
    """Play a scene by two processes, one of which relies on a name that the other has given and not yet synced.

    The other goes on later, or was killed. `names` are the functions that sync the names they give.
    """
    given = [op for op in play(scene).ops if isinstance(op, Sync) and asks(op.calls) in names]
    for op in given:
        yield play(scene, other=op.step - 1, until=asks(op.calls))
        yield from (play(scene, other=op.step - back) for back in range(3))
    yield from (play(scene, stop=name) for name in names)
    begins = next(op.step for op in play(scene).ops if isinstance(op, Sync) and "publish_entry" in str(op.calls))
    yield from (play(scene, other=step, until="publish_entry") for step in (begins - 4, begins - 1))


def crashes(recording: Recording, *, draws: int = 0, seed: int = 0) -> Iterator[tuple[Tree, Held]]:
    """Yield states that a crash may leave after any number of changes, each once, and what is promised then.

    These are the extremes, those in which a single change is lost or survives, and `draws` of the others.
    """
    rng = random.Random(seed)
    disk, held = recording.start.copy(), {}
    seen, promised = set(), ""
    for number, op in enumerate(recording.ops):
        if isinstance(op, Mark):
            held = fold(held, op.promise)
            promised = repr(sorted(map(repr, held.items())))
        disk.apply(op)
        if number < recording.parted:
            continue
        for tree in (*extremes(disk), *single_losses(disk), *(drawn(disk, rng) for _ in range(draws))):
            key = hash((tuple(sorted(tree.items())), promised))
            if key not in seen:
                seen.add(key)
                yield tree, held


def crashes_without(recording: Recording, dropped: set[int]) -> Iterator[tuple[Tree, Held]]:
    """Yield states that a crash may leave only if the fsyncs at the places `dropped`, all of one node, are left out."""
    disk, held = recording.start.copy(), {}
    seen, promised = set(), ""
    node, since = None, min(dropped)
    for number, op in enumerate(recording.ops):
        if isinstance(op, Mark):
            held = fold(held, op.promise)
            promised = repr(sorted(map(repr, held.items())))
        elif number in dropped:
            node = op.node
        elif number > max(dropped) and isinstance(op, Sync) and op.node == node:
            return
        else:
            disk.apply(op)
        for tree in losses_of(disk, node) if number >= since else ():
            key = hash((tuple(sorted(tree.items())), promised))
            if key not in seen:
                seen.add(key)
                yield tree, held


def judge(scene: Scene, tree: Tree, held: Held, where: Path, *, again: bool = False) -> list[str]:
    """Make a state as real files in the new folder `where`; return what is wrong with it.

    With `again` it is looked at thoroughly, and once more after the scene was played on it.
    """
    where.mkdir()
    make_tree(tree, where)
    root = where / CACHE
    wrong = complaints(root, held, thorough=again)
    if again and not wrong:
        wrong = _play_again(scene, root)
    shutil.rmtree(where)
    return wrong


def _play_again(scene: Scene, root: Path) -> list[str]:
    """Go on where the crash was; the entries must come out as if there had been none."""
    try:
        with quiet():
            scene.act(root, nothing)
    except Exception as error:  # noqa: BLE001 - whatever comes is the answer
        return [f"going on fails: {type(error).__name__}: {error}"]
    wrong = []
    if [folder.name for folder in entry_folders(root)] != sorted(work.name for work in scene.whole):
        wrong.append("going on does not lead to the same entries")
    for work in scene.whole:
        for name, data in entry_files(work).items():
            path = root / work.name / name
            if not path.is_file() or data not in (None, path.read_bytes()):
                wrong.append(f"going on makes another {name}")
    if list_work(root):
        wrong.append("going on leaves work in progress")
    damaged = {name: None for _, name, _ in scene.promised if name[0] == "damaged"}
    return wrong + complaints(root, {("entry", work.name): None for work in scene.whole} | damaged)
