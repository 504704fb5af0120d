"""How a long job reports: one immutable value, handed to a callback."""

from collections.abc import Callable
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
    """Rows that other workers have made meanwhile."""
    bottleneck: str = ""
    """What most of the time went to so far: `loading`, `forward` or `writing`."""


OnProgress = Callable[[Progress], None]


def ignore(_: Progress) -> None:
    """Report to nobody."""
