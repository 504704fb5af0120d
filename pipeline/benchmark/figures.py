"""What measuring ends in: figures, gathered by claim, with the machine they were measured on."""

from dataclasses import dataclass
from typing import Any

from pipeline.benchmark.machine import Machine
from pipeline.benchmark.timing import Spread

SECONDS, IMAGES_A_SECOND, TIMES, SHARE, BYTES, BYTES_A_SECOND = "s", "images/s", "times", "share", "bytes", "bytes/s"
NAME_WIDTH = 34
EPOCHS, EXPONENT = "epochs", "exponent"


@dataclass(frozen=True)
class Figure:
    """One measured value."""

    name: str
    """At most NAME_WIDTH characters, so that a table fits 80 columns."""
    unit: str
    spread: Spread
    at_least: float | None = None
    at_most: float | None = None
    """What docs/PERFORMANCE.md asks of the median, at the sizes and inputs it names."""
    note: str = ""
    """What a reader must know of how it was come by."""

    def __post_init__(self) -> None:
        if len(self.name) > NAME_WIDTH:
            raise ValueError(f"{self.name!r} is longer than {NAME_WIDTH} characters")

    @property
    def met(self) -> bool | None:
        """Whether the median is what is asked of it; None where nothing is."""
        if self.at_least is None and self.at_most is None:
            return None
        low, high = self.at_least, self.at_most
        return (low is None or self.spread.median >= low) and (high is None or self.spread.median <= high)

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON fields."""
        asked = {"at_least": self.at_least, "at_most": self.at_most, "met": self.met}
        return {
            "name": self.name,
            "unit": self.unit,
            **self.spread.to_json(),
            **({} if self.met is None else asked),
            **({"note": self.note} if self.note else {}),
        }


@dataclass(frozen=True)
class Table:
    """What follows from figures, in rows of numbers and words."""

    columns: tuple[str, ...]
    rows: tuple[tuple[float | str, ...], ...]

    def to_json(self) -> list[dict[str, float | str]]:
        """Return a dict a row, by column."""
        return [dict(zip(self.columns, row, strict=True)) for row in self.rows]


@dataclass(frozen=True)
class Claim:
    """The figures of one claim, measured in one run."""

    key: str
    """The letter or word docs/PERFORMANCE.md has it under."""
    title: str
    """What was measured on what."""
    figures: tuple[Figure, ...]
    conditions: dict[str, Any]
    """Sizes and choices, as plain JSON fields."""
    notes: tuple[str, ...] = ()
    """What was extrapolated, and from what."""
    tables: tuple[Table, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON fields."""
        return {
            "claim": self.key,
            "title": self.title,
            "conditions": self.conditions,
            "figures": [figure.to_json() for figure in self.figures],
            "notes": list(self.notes),
            **({"tables": [table.to_json() for table in self.tables]} if self.tables else {}),
        }


@dataclass(frozen=True)
class Report:
    """All that was measured in a run."""

    machine: Machine
    claims: tuple[Claim, ...]
    date: str
    """UTC, as ISO 8601 has it."""
    seconds: float
    quick: bool
    """Whether sizes were small: then nothing is asked of the figures."""

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON fields."""
        return {
            "machine": self.machine.to_json(),
            "date": self.date,
            "seconds": self.seconds,
            "quick": self.quick,
            "claims": [claim.to_json() for claim in self.claims],
        }
