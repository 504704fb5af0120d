"""The main plots of a run as PNG and SVG files."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipeline.extrapolation import PowerLaw
from pipeline.outcomes import Outcomes
from pipeline.reporting import figures
from pipeline.runs import Run
from pipeline.store.commit import make_folder, replace_file


def write_figures(
    folder: Path, run: Run, evaluation: dict[str, Any], outcomes: Outcomes, curve: dict[str, Any] | None
) -> tuple[str, ...]:
    """Write the plots into a folder and return the files' names.

    Raises:
        CacheError: if the folder cannot be written.
    """
    metrics = evaluation["metrics"]
    make_folder(folder)
    names = []
    kinds: tuple[figures.Kind, ...] = ("png", "svg")
    for kind in kinds:
        drawn = {
            "reliability": figures.reliability_diagram(outcomes.confidence, outcomes.right, kind=kind),
        }
        if metrics["confusion_matrix"] is not None:
            drawn["confusion"] = figures.confusion_matrix(metrics["confusion_matrix"], outcomes.classes, kind=kind)
        if run.body.get("epochs"):
            drawn["training"] = figures.training_curves(run.body["epochs"], kind=kind)
        if curve is not None:
            drawn["learning-curve"] = _learning_curve(curve, kind)
        for name, data in drawn.items():
            replace_file(folder / f"{name}.{kind}", data)
            names.append(f"{name}.{kind}")
    return tuple(sorted(names))


def boxed(classes: Sequence[str]) -> list[str]:
    """Return what is to be said of class names that a PNG cannot show."""
    names = figures.unwritable(classes)
    if not names:
        return []
    shown = ", ".join(names[:3]) + (", …" if len(names) > 3 else "")
    return [f"The font of PNG plots has no letters for {shown}: confusion.svg shows them."]


def _learning_curve(curve: dict[str, Any], kind: figures.Kind) -> bytes:
    """Draw a curve as `learning-curve.json` has it, whose law is that of n in images."""
    points, found = curve["points"], curve["extrapolation"]
    law = None if found is None else PowerLaw(found["a"], found["b"], found["c"], 1.0)
    return figures.learning_curve(
        [point["rows"] for point in points],
        [point["val_accuracy"] for point in points],
        [point["val_accuracy_std"] or 0.0 for point in points],
        foretold=None if law is None else (law.at, tuple(found["gain_ci95"])),
        kind=kind,
    )
