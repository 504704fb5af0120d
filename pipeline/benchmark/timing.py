"""Repeated measurements of alternatives, taken in turns: what the machine does besides falls on all of them alike."""

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Self

OnStep = Callable[[str], None]
"""Called with what is measured next."""


def silent(_: str) -> None:
    """Report to nobody."""


@dataclass(frozen=True)
class Spread:
    """Repeated measurements of one thing, in the order they were taken."""

    values: tuple[float, ...]

    def __post_init__(self) -> None:
        if not self.values:
            raise ValueError("a spread needs at least one value")

    @classmethod
    def of(cls, *values: float) -> Self:
        """Return the spread of some values."""
        return cls(values)

    @property
    def median(self) -> float:
        """The middle value, of two the mean of both."""
        return statistics.median(self.values)

    @property
    def low(self) -> float:
        """The lowest value."""
        return min(self.values)

    @property
    def high(self) -> float:
        """The highest value."""
        return max(self.values)

    def map(self, change: Callable[[float], float]) -> "Spread":
        """Return the spread of changed values, as of `lambda seconds: rows / seconds`."""
        return Spread(tuple(change(value) for value in self.values))

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON fields."""
        return {"median": self.median, "low": self.low, "high": self.high, "values": list(self.values)}


def combined(combine: Callable[..., float], *spreads: Spread) -> Spread:
    """Return the spread of a function of several things measured in turns, round by round.

    Values of one round were taken within moments of each other. Where one thing was measured more often than
    another, its median stands in every round.
    """
    rounds = max(len(spread.values) for spread in spreads)
    columns = [spread.values if len(spread.values) == rounds else (spread.median,) * rounds for spread in spreads]
    return Spread(tuple(combine(*values) for values in zip(*columns, strict=True)))


def ratio(over: Spread, under: Spread) -> Spread:
    """Return how many times `under` is in `over`, round by round."""
    return combined(lambda a, b: a / b, over, under)


def interleaved(
    alternatives: Mapping[str, Callable[[], float]], repeats: int, on_step: OnStep = silent
) -> dict[str, Spread]:
    """Measure each alternative once a round, in turns: A B A B … .

    Args:
        alternatives: what is called, and returns what it measured: seconds (see `seconds_of`), or a rate.
        repeats: rounds.
        on_step: called before each measurement.
    """
    values: dict[str, list[float]] = {name: [] for name in alternatives}
    for number in range(1, repeats + 1):
        for name, measure in alternatives.items():
            on_step(f"{name} ({number} of {repeats})")
            values[name].append(measure())
    return {name: Spread(tuple(found)) for name, found in values.items()}


def seconds_of(work: Callable[[], Any]) -> Callable[[], float]:
    """Return a measurement of the wall-clock seconds that `work` takes; what it returns is dropped."""

    def measure() -> float:
        started = time.perf_counter()
        work()
        return time.perf_counter() - started

    return measure
