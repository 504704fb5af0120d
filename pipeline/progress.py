"""How a long job reports: one immutable value, handed to a callback."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass


@dataclass(frozen=True)
class Progress:
    """Where an extraction stands."""

    done: int
    total: int | None
    """Rows; None where nobody knows yet."""
    computed: int = 0
    reused: int = 0
    skipped: int = 0
    elsewhere: int = 0
    """Rows that other workers have made meanwhile: they count in the rate as those this one has computed."""
    bottleneck: str = ""
    """What most of the time went to so far: `loading`, `forward` or `writing`."""


OnProgress = Callable[[Progress], None]


def ignore(_: Progress) -> None:
    """Report to nobody."""


Stages = Callable[[str, str], AbstractContextManager[OnProgress]]
"""Called with a stage's name and what it counts; reports go to what it gives while the stage lasts."""


def silent(_name: str, _unit: str) -> AbstractContextManager[OnProgress]:
    """Report no stage to anybody."""
    return nullcontext(ignore)
