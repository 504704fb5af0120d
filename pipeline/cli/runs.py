"""`pipeline runs`."""

from pathlib import Path

import click

from pipeline.cli.options import global_options, runs_dir_option
from pipeline.console import Screen, percent
from pipeline.runs import list_runs, read_evaluations


@click.command("runs")
@runs_dir_option
@global_options
@click.pass_obj
def command(screen: Screen, runs_dir: Path) -> None:
    """List what was trained, with validation and test accuracy where they were measured."""
    rows, documents = [], []
    for run in list_runs(runs_dir):
        body, evaluations = run.body, read_evaluations(run)
        settings = body["settings"]
        val = body["metrics"]["accuracy"] if body["metrics"] else None
        test = evaluations["test"]["metrics"]["accuracy"] if "test" in evaluations else None
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
                body["backbone"]["name"].rpartition("/")[2],
                f"{settings['optimizer']} {settings['lr']:g} x{settings['epochs']}",
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
