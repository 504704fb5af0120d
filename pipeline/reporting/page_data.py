"""What the template shows and what the script reads, out of a run, its evaluation and its outcomes.

Every figure is taken from the evaluation as it is; only what it has none of (bins, shares) is counted here.
"""

from typing import Any

import numpy as np

from pipeline.metrics import reliability_bins
from pipeline.outcomes import Outcomes
from pipeline.reporting.charts import HEIGHT, WIDTH, epoch_lines
from pipeline.reporting.embedding import Embedding
from pipeline.reporting.names import visible
from pipeline.reporting.sweep_table import sweep_table
from pipeline.reporting.tables import MOST_CLASSES, shown_rows
from pipeline.runs import Run, group_id, read_evaluations
from pipeline.seeds import Spread, group_of
from pipeline.store.entry import Entry

HEADLINES = (
    ("accuracy", "Accuracy", "right on the first guess", True),
    ("balanced_accuracy", "Balanced accuracy", "the mean of all classes' recall", True),
    ("macro_f1", "Macro F1", "precision and recall, all classes alike", True),
    ("top5_accuracy", "Top-5 accuracy", "the label among the five likeliest", True),
    ("nll", "NLL", "nats; lower is better", False),
    ("brier", "Brier score", "0 to 2; lower is better", False),
    ("ece", "Calibration error", "ECE, 15 bins; lower is better", False),
)
"""(field of the metrics, name, what it is, whether it is a share), in order."""


def page_data(
    run: Run,
    entry: Entry | None,
    evaluation: dict[str, Any],
    outcomes: Outcomes,
    pairs: list[dict[str, Any]],
    cells: dict[str, list[int]],
    worst: list[int],
    embedding: Embedding | None,
    pictures: dict[str, str],
    sections: dict[str, Any],
    missing: list[str],
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return what the template shows, and what the script reads.

    `pictures` are JPEG files in base64 by sample id. `sections` has what other commands found of the data, `audit` and
    `learning_curve`, each None or as its module makes it, and `commands`, which make what is missing.
    """
    metrics = evaluation["metrics"]
    page = {
        "run": run.id,
        "n": evaluation["n"],
        "classes": outcomes.classes,
        "cards": _cards(metrics),
        "findings": sections,
        "reading": [*_reading(metrics, pairs, outcomes), *_seeds(run, evaluation)],
        "missing": missing,
        "touch": evaluation.get("touch"),
        "plan": _plan(run, entry),
        "commands": _commands(run, entry, sections["commands"]["evaluate"]),
        "curves": _curves(run),
        "sweep": sweep_table(run, missing),
        "matrix": len(outcomes.classes) <= MOST_CLASSES,
        "pairs": [{**pair, "key": f"{pair['true']},{pair['said']}"} for pair in pairs],
        "counts": metrics["confusion_matrix"] if len(outcomes.classes) <= MOST_CLASSES else [],
        "worst": worst,
        "wrong": int((~outcomes.right).sum()),
        "per_class": metrics["per_class"],
        "bins": _bins(outcomes),
        "calibrated": metrics.get("calibrated"),
        "raw": {name: metrics[name] for name in ("nll", "brier", "ece")},
        "map": None if embedding is None else {"rows": len(embedding.rows), "explained": embedding.explained},
        "end_to_end": evaluation.get("end_to_end"),
        "versions": run.body.get("versions", {}),
        "width": WIDTH,
        "height": HEIGHT,
    }
    return page, _script_data(outcomes, cells, worst, embedding, pictures)


def _cards(metrics: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        {"key": key, "name": name, "what": what, "share": share, "value": metrics[key]}
        | {"interval": metrics.get("intervals", {}).get(key)}
        for key, name, what, share in HEADLINES
        if key in metrics
    ]


def _reading(metrics: dict[str, Any], pairs: list[dict[str, Any]], outcomes: Outcomes) -> list[str]:
    """Return what to look at first, in sentences."""
    said = []
    seen = [row for row in metrics["per_class"] if row["n"]]
    if len(seen) > 1:
        low, high = min(seen, key=lambda row: row["recall"]), max(seen, key=lambda row: row["recall"])
        said.append(
            f"Recall runs from {100 * low['recall']:.1f}% ({low['class']}) to "
            f"{100 * high['recall']:.1f}% ({high['class']})."
        )
    if pairs:
        first = pairs[0]
        said.append(
            f"The most frequent confusion is {outcomes.classes[first['true']]} taken for "
            f"{outcomes.classes[first['said']]}: {first['n']:,} images, {100 * first['share']:.1f}% of that class."
        )
    gap = float(outcomes.confidence.mean()) - metrics["accuracy"]
    word = "above" if gap > 0 else "below"
    said.append(f"Its mean confidence is {100 * abs(gap):.1f} points {word} its accuracy.")
    return said


def _seeds(run: Run, evaluation: dict[str, Any]) -> list[str]:
    """Return what is known of the runs of the same recipe: how much of the accuracy is luck of the draw."""
    members = group_of(run) if group_id(run) is not None else []
    if len(members) < 2:
        return []
    kept = [read_evaluations(one).get("test") for one in members]
    measured = [one["metrics"] for one in kept if one is not None and one["cache"] == evaluation["cache"]]
    said = f"One of {len(members)} seeds of its recipe"
    if len(measured) < len(members):
        return [f"{said}; {len(measured)} of them are measured."]
    spread = Spread.of(measured)
    return [f"{said}: accuracy {100 * spread.mean['accuracy']:.1f} ± {100 * spread.std['accuracy']:.1f}% over them."]


def _plan(run: Run, entry: Entry | None) -> list[tuple[str, str]]:
    body = run.body
    rows = body.get("rows", {})
    facts = [
        ("Backbone", body["backbone"]["name"]),
        ("Weights", str(body["backbone"].get("weights", ""))),
        ("Cache entry", body["cache"]["id"]),
        ("Feature space", str(body.get("space_sha256", ""))),
        ("Source", body["source"]["spec"]),
        ("Rows", ", ".join(f"{name} {number:,}" for name, number in rows.items() if isinstance(number, int))),
        ("Trained", body["created"]),
        ("Settings", ", ".join(f"{name} {value}" for name, value in body["settings"].items())),
    ]
    if entry is not None:
        facts.insert(2, ("Weights digest", str(entry.manifest["space"]["weights"])))
        facts.insert(5, ("Features", f"{entry.dim:,} wide, {entry.manifest['space']['store_dtype']}"))
    return [(name, value) for name, value in facts if value]


def _commands(run: Run, entry: Entry | None, evaluate: str) -> list[str]:
    made = [] if entry is None else [str(entry.manifest["command"])]
    return [line for line in [*made, run.body.get("command", ""), evaluate] if line]


def _curves(run: Run) -> list[dict[str, Any]]:
    epochs = run.body.get("epochs") or []
    if not epochs:
        return []
    accuracy = epoch_lines(epochs, {"train": "train_accuracy", "validation": "val_accuracy"})
    loss = epoch_lines(epochs, {"train": "train_loss", "validation": "val_loss"})
    return [{"name": "Accuracy", "share": True, **accuracy}, {"name": "Loss", "share": False, **loss}]


def _bins(outcomes: Outcomes) -> list[dict[str, Any]]:
    """Return the reliability diagrams before and, where there is a temperature, after."""
    found = [{"name": "as trained", "bins": reliability_bins(outcomes.confidence, outcomes.right)}]
    if outcomes.calibrated is not None:
        found.append({"name": "calibrated", "bins": reliability_bins(outcomes.calibrated.confidence, outcomes.right)})
    return found


def _script_data(
    outcomes: Outcomes,
    cells: dict[str, list[int]],
    worst: list[int],
    embedding: Embedding | None,
    pictures: dict[str, str],
) -> dict[str, Any]:
    shown = shown_rows(worst, cells, embedding)
    rows = {
        row: [
            visible(outcomes.ids[row]),
            int(outcomes.y[row]),
            int(outcomes.predicted[row]),
            round(float(outcomes.confidence[row]), 4),
        ]
        for row in shown
    }
    maps = None
    if embedding is not None:
        maps = {
            "rows": embedding.rows.tolist(),
            "pca": np.round(embedding.pca, 4).tolist(),
            "tsne": np.round(embedding.tsne, 4).tolist(),
        }
    return {
        "classes": [visible(name) for name in outcomes.classes],
        "rows": rows,
        "images": {row: pictures[outcomes.ids[row]] for row in shown if outcomes.ids[row] in pictures},
        "cells": cells,
        "worst": worst,
        "map": maps,
    }
