"""Ids of samples that have a number and no name: `<part>/<number>`, or `<number>` where there is one part."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class NumberedIds:
    """The ids of parts one after the other; numbers count from 0 in each and have one width in all."""

    names: Sequence[str]
    counts: Sequence[int]

    def __iter__(self) -> Iterator[str]:
        for part, count in enumerate(self.counts):
            for number in range(count):
                yield self._id(part, number)

    def place(self, sample_id: str) -> tuple[int, int] | None:
        """Return (part, number) of an id, None for one that is none."""
        name, _, digits = sample_id.rpartition("/")
        part = self.names.index(name) if len(self.names) > 1 and name in self.names else 0
        if not (digits.isascii() and digits.isdecimal()) or int(digits) >= self.counts[part]:
            return None
        return (part, int(digits)) if self._id(part, int(digits)) == sample_id else None

    def _id(self, part: int, number: int) -> str:
        width = len(str(max(self.counts) - 1))
        return (f"{self.names[part]}/" if len(self.names) > 1 else "") + f"{number:0{width}d}"
