"""A shard that has lost several workers: its images are tried apart until those that kill are found.

A batch has one fixed shape, and a row's bits do not depend on its neighbours, so some of its images can be computed
alone with zeros in the place of the others. Before each forward pass the rows in it are written down. Whoever takes
over from a worker that died knows what it was at, and tries these rows in two halves; a row that was alone in a
forward pass when workers died, `STRIKES` times, is not tried again: a machine may fail once at any moment.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

PATIENT_DEATHS = 2
"""Workers that a shard may cost before its images are suspected: a machine fails more often than an image kills."""
STRIKES = 2
KILLS = "the workers that computed its features died"
"""The reason in the ledger."""


@dataclass(frozen=True)
class Trial:
    """What is known of a shard's images from workers that were lost, and a way to tell whoever comes after."""

    suspects: frozenset[int]
    """Listing rows in the forward pass in which the last worker was lost."""
    strikes: Mapping[int, int]
    """How many workers were lost while they computed a listing row alone."""
    write_down: Callable[[Sequence[int]], object]
    """Keeps the listing rows that are being computed."""

    @property
    def condemned(self) -> frozenset[int]:
        """Listing rows that are not to be computed."""
        return frozenset(row for row, count in self.strikes.items() if count >= STRIKES)

    def apart(self, rows: Sequence[int]) -> list[list[int]]:
        """Return a batch's listing rows in groups for a forward pass each: two halves of the suspects, then the others.

        The suspects come first: of two images that kill, one is found before the other is met again.
        """
        clear = [row for row in rows if row not in self.suspects]
        others = [row for row in rows if row in self.suspects]
        middle = len(others) // 2
        return [group for group in (others[:middle], others[middle:], clear) if group]

    @contextmanager
    def computing(self, rows: Sequence[int]) -> Iterator[None]:
        """Say that a group of listing rows is being computed."""
        self.write_down(rows)
        yield
        self.write_down(())
