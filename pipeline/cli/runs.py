"""`pipeline runs`."""

from pathlib import Path
from typing import Any

import click

from pipeline.cli.options import global_options, runs_dir_option
from pipeline.console import Screen, percent
from pipeline.errors import DataError
from pipeline.runs import Run, check_run, list_runs, read_evaluations


@click.command("runs")
@runs_dir_option
@global_options
@click.pass_obj
def command(screen: Screen, runs_dir: Path) -> None:
    """List what was trained, with validation and test accuracy where they were measured."""
    rows, documents = [], []
    for run in list_runs(runs_dir):
        try:
            check_run(run)
            test = _test_accuracy(run)
        except DataError as error:
            screen.warn(error.message)
            continue
        body = run.body
        settings = body["settings"]
        val = body["metrics"]["accuracy"] if body["metrics"] else None
        documents.append(
            {
                "run": run.id,
                "path": str(run.path),
                "cache": body["cache"]["id"],
                "backbone": body["backbone"]["name"],
                "settings": settings,
                "val_accuracy": val,
                "test_accuracy": test,
                "created": body["created"],
            }
        )
        rows.append(
            (
                run.id,
                body["cache"]["id"][:8],
                body["backbone"]["name"].removeprefix("torchvision/"),
                _head(settings),
                "–" if val is None else percent(val),
                "–" if test is None else percent(test),
                body["created"][:16].replace("T", " "),
            )
        )
    if screen.json:
        screen.result({"runs": documents})
    elif screen.quiet:
        screen.result(None, brief="\n".join(str(document["run"]) for document in documents))
    elif rows:
        screen.table("", ("run", "cache", "backbone", "head", "val", "test", "created"), rows, right="val test")
    else:
        screen.note(f"no runs under {runs_dir} yet")
        screen.next_step("pipeline train-head CACHE")


def _head(settings: dict[str, Any]) -> str:
    solver = settings.get("solver", "minibatch")
    if solver != "minibatch":
        return str(solver)
    hidden = f"mlp {settings['hidden']} " if settings.get("hidden") else ""
    return f"{hidden}{settings['optimizer']} {settings['lr']:g} x{settings['epochs']}"


def _test_accuracy(run: Run) -> float | None:
    evaluation = read_evaluations(run).get("test")
    if evaluation is None:
        return None
    metrics = evaluation.get("metrics")
    if not isinstance(metrics, dict) or not isinstance(metrics.get("accuracy"), int | float):
        raise DataError(f"{run.path}/evaluation-test.json: field 'metrics' is missing or not what it must be")
    return float(metrics["accuracy"])
