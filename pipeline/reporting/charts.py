"""The small charts of a page as points for SVG lines: the template draws, this only scales."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

WIDTH, HEIGHT = 480, 240
"""Of the plane that lines are drawn in, in units of its viewBox."""


STEPS = (1, 2, 5, 10, 20)
"""Of a scale, times a power of ten."""
MOST_STEPS = 5


def scale(low: float, high: float) -> list[float]:
    """Return round numbers, evenly spaced, from `low` or a little below to `high` or a little above: up to six."""
    span = max(high - low, 1e-3)
    power = 10.0 ** math.floor(math.log10(span / MOST_STEPS))
    for step in (power * factor for factor in STEPS):
        first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
        if last - first <= MOST_STEPS:
            break
    return [step * k for k in range(first, max(last, first + 1) + 1)]


def epoch_lines(epochs: Sequence[Mapping[str, Any]], keys: Mapping[str, str]) -> dict[str, Any]:
    """Return lines over epochs.

    Args:
        epochs: as a run has them.
        keys: the field of an epoch by the line's name; a line without values is left out.
    """
    values = {name: [epoch[key] for epoch in epochs] for name, key in keys.items()}
    values = {name: line for name, line in values.items() if None not in line}
    ticks = scale(min(map(min, values.values())), max(map(max, values.values())))
    bottom, top = ticks[0], ticks[-1]
    step = WIDTH / max(len(epochs) - 1, 1)

    def y(value: float) -> float:
        return HEIGHT * (top - value) / (top - bottom)

    return {
        "lines": [
            {
                "name": name,
                "points": " ".join(f"{k * step:.1f},{y(v):.1f}" for k, v in enumerate(line)),
                "last": line[-1],
            }
            for name, line in values.items()
        ],
        "ticks": [{"y": round(y(value), 1), "value": value} for value in ticks],
        "digits": max(0, -math.floor(math.log10(ticks[1] - ticks[0]) + 1e-9)),
        "epochs": len(epochs),
    }
