"""How a sweep looks: its plan, its table, and the same as a file."""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

from pipeline.console import Screen, count, duration, percent, plain
from pipeline.csvtext import csv_text
from pipeline.heads.settings import HeadSettings
from pipeline.outputs import write_output
from pipeline.sweeping import Candidate, SweepPlan, SweepResult

SHOWN = 10
ENDINGS = (".csv", ".json")


def show_sweep_plan(screen: Screen, plan: SweepPlan) -> None:
    """Show what a sweep is about to do."""
    chosen = f"{plan.folds} folds of them" if plan.folds else f"val {plan.val:,}"
    screen.facts(
        {
            "cache": f"{plan.cache} verified · {plan.backbone} · {plan.dim:,} features · "
            f"{count(plan.classes, 'class')}{' · streamed from disk' if plan.streamed else ''}",
            "rows": f"train {plan.train:,} · chosen on {chosen} · test never looked at"
            + (f" · {plan.views}" if plan.views else ""),
            "heads": f"{count(plan.heads, 'head')} of {count(plan.settings, 'setting')} · {plan.solver} · "
            f"{plan.device}",
        }
    )


def show_sweep(screen: Screen, result: SweepResult) -> None:
    """Show the best settings and the run."""
    if not (screen.json or screen.quiet):
        columns = _columns(result)
        rows = [[text(candidate) for text in columns.values()] for candidate in result.candidates[:SHOWN]]
        screen.table("", tuple(columns), rows, right=" ".join(columns))
        more = len(result.candidates) - SHOWN
        if more > 0:
            screen.note(f"and {count(more, 'setting')} more: {result.table} has all")
        for edge in _edges(result):
            screen.note(edge)
        diverged = sum(not candidate.usable for candidate in result.candidates)
        if diverged:
            optimum = result.chosen.settings.solver != "minibatch"
            screen.warn(count(diverged, "setting") + (" whose optimum was not reached" if optimum else " diverged"))
    run = result.run
    rows_said = "" if run.metrics is not None else f" · trained again on all {count(run.rows['train'], 'row')}"
    screen.result(
        result.to_json(),
        f"[bold]run {run.run}[/bold]  best of {len(result.candidates):,} by {result.chosen_by}: "
        f"{percent(result.chosen.val_accuracy)}{rows_said} · in {duration(result.seconds)} · {plain(run.path)}",
        brief=run.run,
    )


def _edges(result: SweepResult) -> list[str]:
    """Return where the best value is the first or last that was tried: a better one may lie beyond."""
    said = []
    for name in ("lr", "weight_decay", "l2", "C"):
        values = {getattr(candidate.settings, name) for candidate in result.candidates} - {None, 0.0}
        best = getattr(result.chosen.settings, name)
        if len(values) > 1 and best in (min(values), max(values)):
            end, beyond = ("lowest", "lower") if best == min(values) else ("highest", "higher")
            if name == "weight_decay" and end == "lowest":
                continue  # none at all was tried beside it, or means little less
            said.append(f"best at the {end} --{name.replace('_', '-')} tried, {best:g}: {beyond} ones may be better")
    return said


def write_table(result: SweepResult, path: Path) -> None:
    """Write all settings, best first, as CSV, or the whole result as JSON."""
    if path.suffix.lower() == ".json":
        write_output(path, json.dumps(result.to_json(), indent=1) + "\n")
        return
    names = sorted({name for candidate in result.candidates for name in candidate.settings.to_json()})
    figures = ("val_accuracy", "val_accuracy_std", "val_loss", "heads")
    bodies = [candidate.to_json() for candidate in result.candidates]
    rows = [[*(body["settings"].get(name) for name in names), *(body[key] for key in figures)] for body in bodies]
    write_output(path, csv_text([*names, *figures], rows))


def _columns(result: SweepResult) -> dict[str, Callable[[Candidate], str]]:
    """Return the columns: the options that differ, and how the heads did."""
    recipes = [candidate.settings for candidate in result.candidates]
    columns: dict[str, Callable[[Candidate], str]] = {}
    for name, title in (("lr", "lr"), ("weight_decay", "decay"), ("l2", "l2"), ("C", "C")):
        if len({getattr(recipe, name) for recipe in recipes}) > 1:
            columns[title] = partial(_option, name)
    if len({_transform(recipe) for recipe in recipes}) > 1:
        columns["features"] = lambda candidate: _transform(candidate.settings)
    failed = "diverged" if recipes[0].solver == "minibatch" else "not reached"
    columns["accuracy"] = lambda candidate: percent(candidate.val_accuracy) if candidate.usable else failed
    if any(candidate.val_accuracy_std is not None for candidate in result.candidates):
        columns["±"] = lambda candidate: f"{100 * (candidate.val_accuracy_std or 0.0):.1f}" if candidate.usable else "–"
    columns["loss"] = lambda candidate: f"{candidate.val_loss:.4f}" if candidate.usable else "–"
    return columns


def _option(name: str, candidate: Candidate) -> str:
    return f"{getattr(candidate.settings, name):g}"


def _transform(settings: HeadSettings) -> str:
    steps = [word for word, on in (("l2-norm", settings.l2_norm), ("standardize", settings.standardize)) if on]
    return "+".join(steps) or "plain"
