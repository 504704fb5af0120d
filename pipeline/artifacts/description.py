"""What is said of a model: to programs as JSON in every artifact, and beside it."""

from datetime import UTC, datetime
from typing import Any

from pipeline.artifacts.product import INPUT, OUTPUTS
from pipeline.fusion import Trained
from pipeline.runs import read_evaluations
from pipeline.versions import versions

FORMAT, FORMAT_VERSION = "pipeline-model", 1


def describe(trained: Trained, head: dict[str, Any]) -> dict[str, Any]:
    """Return plain JSON fields: what goes in and comes out, where it comes from, how good it is.

    `head` is the description in the head's own file. No path of this machine is told.
    """
    run, backbone = trained.run, trained.backbone
    size = backbone.preprocess.crop
    classes = list(trained.head.classes)
    return {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "classes": classes,
        "image_size": size,
        "input": {
            "name": INPUT,
            "dtype": "float32",
            "shape": ["batch", 3, size, size],
            "range": [0, 1],
            "colour": "RGB",
        },
        "outputs": {name: {"dtype": "float32", "shape": ["batch", len(classes)]} for name in OUTPUTS},
        "preprocess": backbone.preprocess.to_json(),
        "backbone": {"name": backbone.name, "weights": _name_only(backbone.weights), "layer": backbone.layer},
        "space": trained.head.space,
        "space_sha256": trained.head.space_sha256,
        "head": head,
        "run": run.id,
        "cache": run.body["cache"]["id"],
        "settings": run.body["settings"],
        "rows": run.body.get("rows"),
        "metrics": _metrics(trained),
        "versions": versions(),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _name_only(weights: str) -> str:
    return weights.replace("\\", "/").rpartition("/")[2]


def _metrics(trained: Trained) -> dict[str, dict[str, Any]]:
    """Return numbers by split: the validation rows' of the training, and every evaluation that the run keeps."""
    found = {"val": trained.run.body.get("metrics")}
    found |= {name: kept.get("metrics") for name, kept in read_evaluations(trained.run).items()}
    return {
        name: {key: value for key, value in metrics.items() if isinstance(value, float | int) or key == "accuracy_ci95"}
        for name, metrics in found.items()
        if isinstance(metrics, dict)
    }
