"""Looks for faults in the package that is first on the path: power losses, damaged files, names that are taken.

Run as a script with the names of the parts to try first. Ends with CAUGHT and a line that says what is wrong, or with 0
if all is as it should be. Torch is not imported, so that a run takes seconds.
"""

import logging
import random
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from playing import Recording, crashes, judge, meetings, play
from powerloss import Sync, fast_folder
from refusals import CHECKS as REFUSALS
from refusals import prepare
from scenes import SCENES, Scene
from structures import CHECKS as STRUCTURES
from untouched import CHECKS as WRITERS

import pipeline

CAUGHT = 3
CHECKS = (*REFUSALS, *STRUCTURES, *WRITERS)
AGAIN = 100
"""Of so many states one is gone on from."""
SAMPLE = 30
"""States judged after each kill."""


def lost(scene: Scene, where: Path) -> str:
    """Return what a power loss during a scene breaks."""
    return first_wrong(play(scene), where)


def lost_after_kills(scene: Scene, where: Path) -> str:
    """Return what a power loss breaks after a process was killed instead of syncing, and another has gone on."""
    for op in play(scene).ops:
        if isinstance(op, Sync) and (wrong := first_wrong(play(scene, stop=op.step), where, SAMPLE)):
            return wrong
    return ""


def lost_in_meetings(scene: Scene, where: Path) -> str:
    """Return what a power loss breaks if two processes meet."""
    return next((wrong for recording in meetings(scene) if (wrong := first_wrong(recording, where))), "")


def first_wrong(recording: Recording, where: Path, count: int | None = None) -> str:
    states = list(crashes(recording))
    if count is not None:
        states = random.Random(0).sample(states, min(count, len(states)))
    for number, (tree, held) in enumerate(states, start=1):
        if wrong := judge(recording.scene, tree, held, where / "state", again=number % AGAIN == 0):
            return wrong[0]
    return ""


def broken(check: Callable[[Path], None], where: Path) -> str:
    """Return what a check of readers or writers finds."""
    prepare(where / "cache")
    try:
        check(where / "cache")
    except Exception as error:  # noqa: BLE001 - whatever comes is the answer
        return f"{type(error).__name__}: {error}"
    return ""


def parts() -> Iterator[tuple[str, Callable[[Path], str]]]:
    """Yield the names of all parts and what they do in a folder of their own."""
    for check in CHECKS:
        yield check.__name__, lambda where, check=check: broken(check, where)
    for scene in SCENES:
        yield scene.name, lambda where, scene=scene: lost(scene, where)
    yield "finished by extract", lambda where: lost(_finished(), where)
    for name in ("first extraction", "relabelled"):
        scene = next(scene for scene in SCENES if scene.name == name)
        yield f"{name}, killed", lambda where, scene=scene: lost_after_kills(scene, where)
    for name in ("first extraction", "import", "finished by extract"):
        yield f"{name}, meeting", lambda where, name=name: lost_in_meetings(_named(name), where)


def _named(name: str) -> Scene:
    return next((scene for scene in SCENES if scene.name == name), None) or _finished()


def _finished() -> Scene:
    import finishing  # imports more than the store

    return finishing.SCENE


def main(first: list[str], only: bool) -> int:
    logging.disable()
    todo = dict(parts())
    for name in [*first, *(name for name in todo if name not in first and not only)]:
        with fast_folder() as where:
            try:
                wrong = todo[name](where)
            except Exception as error:  # noqa: BLE001 - a scene that cannot be played at all
                wrong = f"{type(error).__name__}: {error}"
        if wrong:
            print(f"{Path(pipeline.__file__).parent}\n{name}: {wrong.splitlines()[0]}")
            return CAUGHT
    print(Path(pipeline.__file__).parent)
    assert "torch" not in sys.modules, "torch was imported"
    return 0


if __name__ == "__main__":
    names = [name for name in sys.argv[1:] if name != "--only"]
    sys.exit(main(names, "--only" in sys.argv))
