"""`pipeline runs`."""

from pathlib import Path
from typing import Any

import click

from pipeline.cli.options import global_options, runs_dir_option
from pipeline.cli.steps import runs_dir_words
from pipeline.console import Screen, percent
from pipeline.errors import DataError
from pipeline.runs import Run, check_run, group_id, list_runs, read_evaluations, solver_of
from pipeline.touches import count_touches


@click.command("runs")
@runs_dir_option
@global_options
@click.pass_obj
def command(screen: Screen, runs_dir: Path) -> None:
    """List what was trained, with validation and test accuracy where they were measured.

    Behind a test accuracy stands how often the test split was looked at for that run, if more than once.
    """
    rows: list[tuple[str, ...]] = []
    documents: list[dict[str, Any]] = []
    for run in list_runs(runs_dir):
        try:
            check_run(run)
            test = _test_accuracy(run)
        except DataError as error:
            screen.warn(error.message)
            continue
        touches, group = count_touches(run), group_id(run)
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
                "touches": touches,
                "group": group,
                "created": body["created"],
            }
        )
        rows.append(
            (
                run.id,
                body["cache"]["id"][:8],
                body["backbone"]["name"].rpartition("/")[2],
                head_words(run) + (f" #{settings['seed']}" if group else ""),
                "–" if val is None else percent(val),
                "–" if test is None else percent(test) + (f" x{touches}" if touches > 1 else ""),
                body["created"][:10],
            )
        )
    if screen.json:
        screen.result({"runs": documents})
    elif screen.quiet:
        screen.result(None, brief="\n".join(str(document["run"]) for document in documents))
    elif rows:
        screen.table("", ("run", "cache", "backbone", "head", "val", "test", "created"), rows, right="val test")
        screen.next_step(*_next(documents, runs_dir_words(runs_dir)))
    else:
        screen.note(f"no runs under {runs_dir} yet")
        screen.next_step("pipeline train-head CACHE")


def _next(documents: list[dict[str, Any]], where: str) -> list[str]:
    """Return the commands that go on from these runs: measure the latest, or compare those that were measured."""
    if documents[-1]["test_accuracy"] is None:
        return [f"pipeline evaluate {documents[-1]['run']}{where}"]
    latest = documents[-1]
    # Runs of one entry have the same test rows; of others only `compare` itself can tell.
    alike = [one for one in documents if one["test_accuracy"] is not None and one["cache"] == latest["cache"]]
    if len({one["group"] or one["run"] for one in alike}) > 1:
        return [f"pipeline compare{where}"]
    return [f"pipeline predict {latest['run']} YOUR_IMAGES{where}"]


def head_words(run: Run) -> str:
    """Return how the head was trained, in a few words."""
    settings, solver = run.body["settings"], solver_of(run)
    if solver == "minibatch":
        hidden = f"mlp {settings['hidden']} " if settings.get("hidden") else ""
        words = f"{hidden}{settings['optimizer']} {settings['lr']:g} x{settings['epochs']}"
    elif solver == "finetune":
        words = f"finetune {settings['lr']:g}/{settings['backbone_lr']:g} x{settings['epochs']}"
    elif solver == "knn":
        words = f"{settings['k']}-nn"
    else:
        facts = run.body.get("solver")
        l2 = facts.get("l2") if isinstance(facts, dict) else None
        words = f"{solver} l2 {l2:.3g}" if isinstance(l2, float) else solver
    steps = "".join(f" {word}" for word, key in (("l2n", "l2_norm"), ("std", "standardize")) if settings.get(key))
    return words + steps


def _test_accuracy(run: Run) -> float | None:
    evaluation = read_evaluations(run).get("test")
    if evaluation is None:
        return None
    metrics = evaluation.get("metrics")
    if not isinstance(metrics, dict) or not isinstance(metrics.get("accuracy"), int | float):
        raise DataError(f"{run.path}/evaluation-test.json: field 'metrics' is missing or not what it must be")
    return float(metrics["accuracy"])
