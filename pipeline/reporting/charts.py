"""The small charts of a page as points for SVG lines: the template draws, this only scales."""

from collections.abc import Mapping, Sequence
from typing import Any

WIDTH, HEIGHT = 480, 240
"""Of the plane that lines are drawn in, in units of its viewBox."""


def epoch_lines(epochs: Sequence[Mapping[str, Any]], keys: Mapping[str, str], top: float | None) -> dict[str, Any]:
    """Return lines over epochs.

    Args:
        epochs: as a run has them.
        keys: the field of an epoch by the line's name; a line without values is left out.
        top: the end of the vertical axis; None: the largest value.
    """
    values = {name: [epoch[key] for epoch in epochs] for name, key in keys.items()}
    values = {name: line for name, line in values.items() if None not in line}
    highest = max(max(line) for line in values.values()) if top is None else top
    lowest = min(min(line) for line in values.values())
    bottom = 0.0 if top is None else int(10 * lowest) / 10
    span = max(highest - bottom, 1e-12)
    step = WIDTH / max(len(epochs) - 1, 1)
    return {
        "lines": [
            {
                "name": name,
                "points": " ".join(f"{k * step:.1f},{HEIGHT * (highest - v) / span:.1f}" for k, v in enumerate(line)),
                "last": line[-1],
            }
            for name, line in values.items()
        ],
        "ticks": [{"y": HEIGHT * k / 4, "value": highest - span * k / 4} for k in range(5)],
        "epochs": len(epochs),
    }
