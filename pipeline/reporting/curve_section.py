"""The learning curve of a cache entry as SVG: sizes on a logarithmic axis, the spread of draws, what is foretold."""

import math
from typing import Any

from pipeline.extrapolation import VERDICTS
from pipeline.reporting.charts import HEIGHT, WIDTH, scale


def curve_section(curve: dict[str, Any]) -> dict[str, Any]:
    """Return what the template shows of a curve: its points scaled to the plane of charts, and what it says."""
    points, foretold = curve["points"], _foretold(curve)
    spreads = [point["val_accuracy_std"] or 0.0 for point in points]
    means = [point["val_accuracy"] for point in points]
    tops = [mean + spread for mean, spread in zip(means, spreads, strict=True)]
    bottoms = [mean - spread for mean, spread in zip(means, spreads, strict=True)]
    heights = [*tops, *bottoms, *(foretold["ends"] if foretold else [])]
    ticks = scale(max(0.0, min(heights)), min(1.0, max(heights)))
    first, last = points[0]["rows"], foretold["rows"] if foretold else points[-1]["rows"]

    def x(rows: float) -> float:
        return WIDTH * math.log(rows / first) / max(math.log(last / first), 1e-12)

    def y(accuracy: float) -> float:
        return float(HEIGHT * (ticks[-1] - accuracy) / (ticks[-1] - ticks[0]))

    def line(values: list[float]) -> list[str]:
        return [f"{x(point['rows']):.1f},{y(value):.1f}" for point, value in zip(points, values, strict=True)]

    return {
        "curve": curve,
        "verdict": VERDICTS[curve["verdict"]] if curve["verdict"] else None,
        "band": " ".join([*line(tops), *reversed(line(bottoms))]),
        "line": " ".join(line(means)),
        "dots": [
            {"x": x(point["rows"]), "y": y(mean), "point": point} for point, mean in zip(points, means, strict=True)
        ],
        "foretold": None
        if foretold is None
        else {
            **foretold,
            "line": f"{x(points[-1]['rows']):.1f},{y(means[-1]):.1f} {x(last):.1f},{y(foretold['accuracy']):.1f}",
            "x": x(last),
            "y": y(foretold["accuracy"]),
            "bar": [y(end) for end in foretold["ends"]],
        },
        "across": [{"x": x(10**power), "rows": 10**power} for power in _powers(first, last)],
        "up": [{"y": y(value), "value": value} for value in ticks],
    }


def _foretold(curve: dict[str, Any]) -> dict[str, Any] | None:
    """Return the accuracy at twice the largest size and its 95 % interval: what was measured there, and the gain."""
    found = curve["extrapolation"]
    if found is None:
        return None
    measured = curve["points"][-1]["val_accuracy"]
    ends = [measured + gain for gain in found["gain_ci95"]]
    return {"rows": found["rows"], "accuracy": measured + found["gain"], "ends": ends}


def _powers(first: int, last: int) -> range:
    """Return the powers of ten between two sizes."""
    return range(math.ceil(math.log10(first) - 1e-9), math.floor(math.log10(last) + 1e-9) + 1)
