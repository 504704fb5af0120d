"""How an evaluation looks in full: intervals, calibration, classes, and seeds."""

from typing import Any

from pipeline.console import Screen, count, percent
from pipeline.evaluation import EvaluateResult
from pipeline.seeds import SeedsEvaluated, SeedsTrained, Spread

FEW_CLASSES = 20
"""All of which are shown; of more, the worst WORST."""
WORST = 10
NAMES = {
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "top5_accuracy": "top-5 accuracy",
    "macro_f1": "macro-F1",
    "nll": "NLL",
    "brier": "Brier score",
    "ece": "ECE",
}
SHARES = ("accuracy", "balanced_accuracy", "top5_accuracy", "macro_f1")


def show_details(screen: Screen, result: EvaluateResult) -> None:
    """Show metrics with their intervals, calibrated ones, classes, and how often test rows were looked at."""
    if screen.json or screen.quiet:
        return
    m = result.metrics
    _show_metrics(screen, m)
    _show_classes(screen, m["per_class"])
    if result.touch is not None:
        screen.note(f"test split measured {count(result.touch, 'time')} for this run")


def _show_metrics(screen: Screen, m: dict[str, Any]) -> None:
    scaled = m.get("calibrated")
    columns = ["metric", "value", "95 % interval"]
    if scaled is not None:
        columns.append(f"calibrated, T {scaled['temperature']:.2f}")
    rows = []
    for name, title in NAMES.items():
        low, high = m["intervals"].get(name, (None, None))
        between = "–" if low is None else f"{figure(name, low).removesuffix(' %')}–{figure(name, high)}"
        row = [title, figure(name, m[name]), between]
        if scaled is not None:
            row.append(figure(name, scaled[name]) if name in scaled else "")
        rows.append(row)
    screen.table("", columns, rows, right=" ".join(columns[1:2]))


def _show_classes(screen: Screen, classes: list[dict[str, Any]]) -> None:
    shown = classes
    if len(classes) > FEW_CLASSES and not screen.verbose:
        shown = sorted(classes, key=lambda one: one["f1"])[:WORST]
    columns = ("class", "images", "precision", "recall", "F1")
    shares = ("precision", "recall", "f1")
    rows = [[one["class"], f"{one['n']:,}", *(percent(one[share]) for share in shares)] for one in shown]
    screen.table("", columns, rows, right="images precision recall F1")
    if len(shown) < len(classes):
        screen.note(f"the worst by F1 of {len(classes):,} classes; -v shows all")


def show_seeds_evaluated(screen: Screen, result: SeedsEvaluated) -> None:
    """Show each seed's accuracy, and means with standard deviations."""
    rows = [
        (one.run, str(seed), percent(one.metrics["accuracy"]), f"{one.metrics['nll']:.4f}", f"{one.metrics['ece']:.4f}")
        for one, seed in zip(result.results, result.seeds, strict=True)
    ]
    if not (screen.json or screen.quiet):
        screen.table("", ("run", "seed", "accuracy", "NLL", "ECE"), rows, right="seed accuracy NLL ECE")
    first, spread = result.results[0], result.spread
    what = f"[bold]{first.split}[/bold]  {count(first.n, 'image')} · {count(len(rows), 'seed')}: {spread_line(spread)}"
    screen.result(result.to_json(), what, brief=f"{spread.mean['accuracy']:.4f}")
    touches = [one.touch for one in result.results if one.touch is not None]
    if touches and not screen.json:
        fewest = f"{min(touches):,} to " if min(touches) < max(touches) else ""
        screen.note(f"test split measured {fewest}{count(max(touches), 'time')} for each run")


def show_seeds_trained(screen: Screen, result: SeedsTrained) -> None:
    """Show the mean and standard deviation of validation metrics over seeds."""
    runs = [one.run for one in result.runs]
    known = spread_line(result.spread) or "no validation rows to measure on"
    rows = f"{count(result.runs[0].rows['val'], 'validation row')} · " if result.spread.mean else ""
    screen.result(
        result.to_json(),
        f"[bold]{count(len(runs), 'seed')}[/bold]  runs {runs[0]} to {runs[-1]} · {rows}{known}",
        brief="\n".join(runs),
    )


def spread_line(spread: Spread) -> str:
    """Return means and standard deviations of the main metrics in one line."""
    shown = ("accuracy", "macro_f1", "nll", "ece")
    return " · ".join(
        f"{NAMES[name]} {plus_minus(name, spread.mean[name], spread.std[name])}"
        for name in shown
        if name in spread.mean
    )


def plus_minus(name: str, mean: float, std: float) -> str:
    """Return a mean with its standard deviation."""
    if name in SHARES:
        return f"{100 * mean:.1f} ± {100 * std:.1f} %"
    return f"{mean:.4f} ± {std:.4f}"


def figure(name: str, value: float) -> str:
    """Return a metric for people."""
    return percent(value) if name in SHARES else f"{value:.4f}"
