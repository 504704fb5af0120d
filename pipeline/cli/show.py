"""How plans and results look: used by the commands and by `run` and `demo`."""

from collections.abc import Callable
from typing import Any, TypeVar

from pipeline.console import Screen, count, duration, percent, plain, size
from pipeline.evaluation import EvaluateResult
from pipeline.heads.minibatch import Epoch
from pipeline.launch.extract import ExtractResult
from pipeline.launch.plan import Plan
from pipeline.training import TrainPlan, TrainResult

T = TypeVar("T")


def on_screen(screen: Screen, show: Callable[[Screen, T], None]) -> Callable[[T], None]:
    """Return `show` for parts of a larger result: with --json and -q only the whole is printed."""

    def shown(part: T) -> None:
        if not (screen.json or screen.quiet):
            show(screen, part)

    return shown


def show_plan(screen: Screen, plan: Plan, *, first: bool = True) -> None:
    """Show what an extraction is about to do; of the layers after the first only what differs."""
    splits = ", ".join(f"{name} {number:,}" for name, number in plan.splits.items())
    process = plan.preprocess
    mean, std = (",".join(f"{value:g}" for value in process[key]) for key in ("mean", "std"))
    state = {
        "complete": f"{plan.cache} complete, nothing to compute",
        "resumed": f"resuming: {plan.shards_done} of {count(plan.shards, 'shard')} done",
        "new": f"new, {count(plan.shards, 'shard')}",
    }[plan.state]
    reuse = (
        f" · {plan.rows_known:,} rows already known, at most {plan.rows_to_compute:,} to compute"
        if plan.rows_known and plan.state != "complete"
        else ""
    )
    rows = f"{' x '.join(str(side) for side in plan.row_shape)} features"
    layer = f"{plan.layer}" + (f" · pool {plan.pool}" if plan.pool != "none" else "") + f" · {rows}"
    cache = {"cache": f"{state}{reuse} · {size(plan.bytes)} as {plan.store_dtype} · {size(plan.free_bytes)} free"}
    if not first:
        screen.facts({"layer": layer, **cache})
        return
    side = {"shortest": "side", "squash": "both sides", "border": "longer side"}[process.get("mode", "shortest")]
    screen.facts(
        {
            "source": f"{plan.source} · {plan.kind} · {count(plan.samples, 'image')} · {count(plan.classes, 'class')}"
            + (f" · {splits}" if splits else "")
            + f" · {plan.split_rule}",
            "backbone": f"{plan.backbone} · weights {plan.weights} · {layer}",
            "images": f"{side} to {process['resize']} px, central {process['crop']} px, {process['interpolation']} · "
            f"mean {mean} · std {std} · from {plan.preprocess_from}",
            "compute": f"{plan.device} · engine {plan.engine} · float32 · batch {plan.batch_size}"
            + (f" · {count(plan.threads, 'thread')}" if plan.threads else ""),
            **cache,
        }
    )


def show_extracted(screen: Screen, result: ExtractResult) -> None:
    """Show what an extraction did, a line a layer."""
    each = (result, *result.beside)
    if result.skipped:
        screen.warn(f"{count(result.skipped, 'image')} could not be used: see {result.path}/skipped.csv")
    for one in each:
        if one.rounding is not None and one.rounding["rows"]:
            screen.note(rounding_line(one.rounding))
    lines = [_extracted_line(one, layer=len(each) > 1) for one in each]
    screen.result(result.to_json(), *lines, brief="\n".join(one.cache for one in each))


def _extracted_line(result: ExtractResult, *, layer: bool) -> str:
    splits = ", ".join(f"{name} {number:,}" for name, number in result.splits.items())
    return (
        f"[bold]cache {result.cache}[/bold]  "
        + (f"{result.layer} · " if layer else "")
        + f"{result.rows:,} rows x {result.dim:,} features ({splits}) · "
        f"computed {result.computed:,}, reused {result.reused:,} in {duration(result.seconds)}"
    )


def rounding_line(rounding: dict[str, Any]) -> str:
    """Return what storing features as float16 costs, in one line."""
    changed = rounding["predictions_changed"]
    heads = (
        "no head of this feature space yet to compare predictions with"
        if changed is None
        else f"{count(changed, 'prediction')} of run {rounding['judged_by']} changed"
    )
    return (
        f"{'rounding':<10}float16 against float32 over {count(rounding['rows'], 'row')}: largest error "
        f"{rounding['max_abs_error']:.2e}, relative {rounding['max_relative_error']:.2e}; {heads}"
    )


def show_train_plan(screen: Screen, plan: TrainPlan) -> None:
    """Show what a training is about to do."""
    screen.facts(
        {
            "cache": f"{plan.cache} verified · {plan.backbone} · {plan.dim:,} features · "
            f"{count(plan.classes, 'class')}",
            "rows": f"train {plan.train:,} · val {plan.val:,} ({plan.val_rule})",
            "head": f"{plan.settings.said()} · {plan.device}",
        }
    )


EPOCH_HEADER = f"{'epoch':>6}  {'train loss':>10}  {'train acc':>9}  {'val loss':>10}  {'val acc':>9}  {'time':>9}"


def epoch_line(epoch: Epoch) -> str:
    """Return one line of the epochs' table."""
    val_loss = "–" if epoch.val_loss is None else f"{epoch.val_loss:.4f}"
    val_accuracy = "–" if epoch.val_accuracy is None else percent(epoch.val_accuracy)
    return (
        f"{epoch.epoch:>6}  {epoch.train_loss:>10.4f}  {percent(epoch.train_accuracy):>9}  {val_loss:>10}  "
        f"{val_accuracy:>9}  {duration(epoch.seconds):>9}"
    )


def show_epochs(screen: Screen, epochs: list[Epoch], shown: int = 10) -> None:
    """Show the epochs; of many, about `shown` spread evenly."""
    step = max(1, -(-len(epochs) // shown))
    screen.note(EPOCH_HEADER)
    for epoch in epochs:
        if epoch.epoch % step == 0 or epoch.epoch in (1, len(epochs)):
            screen.note(epoch_line(epoch))


def show_trained(screen: Screen, result: TrainResult) -> None:
    """Show a trained run."""
    last = result.epochs[-1]
    val = "" if result.metrics is None else f" · val accuracy {_interval(result.metrics)}"
    said = solver_line(result.solver)
    if said:
        screen.note(said)
    screen.result(
        result.to_json(),
        f"[bold]run {result.run}[/bold]  train accuracy {percent(last.train_accuracy)}{val} · "
        f"in {duration(result.seconds)} · {plain(result.path)}",
        brief=result.run,
    )


def solver_line(solver: dict[str, Any]) -> str:
    """Return what a solver says of itself, an empty string if it has nothing to say."""
    if "gradient_norm_ratio" in solver:
        ratio = f"gradient {solver['gradient_norm_ratio']:.1e} of the start's"
        return (
            f"exact     the optimum: {ratio} after {solver['iterations']} Newton steps, {solver['products']} products"
        )
    if "tried" in solver and len(solver["tried"]) > 1:
        return f"ridge     alpha {solver['alpha']:.3g}, the best of {len(solver['tried'])} on validation rows"
    if "best_epoch" in solver:
        return f"early     the weights are those of epoch {solver['best_epoch']}, whose validation loss is the lowest"
    return ""


def show_evaluated(screen: Screen, result: EvaluateResult) -> None:
    """Show metrics, and the end-to-end comparison where there is one."""
    m = result.metrics
    lines = [
        f"[bold]{result.split}[/bold]  {count(result.n, 'image')} · accuracy [bold]{_interval(m)}[/bold] · "
        f"balanced {percent(m['balanced_accuracy'])} · top-5 {percent(m['top5_accuracy'])} · "
        f"macro-F1 {percent(m['macro_f1'])} · NLL {m['nll']:.4f} · ECE {m['ece']:.4f}"
    ]
    confused = _most_confused(m)
    if confused:
        lines.append(f"[bold]worst[/bold] {confused}")
    if result.end_to_end is not None:
        e = result.end_to_end
        verdict = "[green]the same model[/green]" if e.holds else "[red]not the same model[/red]"
        lines.append(
            f"[bold]end to end[/bold]  accuracy {percent(e.accuracy)} · predictions equal "
            f"{percent(e.prediction_agreement)} · logits within {e.max_abs_logit_difference:.1e} · "
            f"{e.images_per_second:,.0f} img/s · {verdict}"
        )
    screen.result(result.to_json(), *lines, brief=f"{m['accuracy']:.4f}")


def _interval(metrics: dict[str, Any]) -> str:
    low, high = metrics["accuracy_ci95"]
    return f"{percent(metrics['accuracy'])} \\[{100 * low:.1f}, {100 * high:.1f}]"


def _most_confused(metrics: dict[str, Any], shown: int = 3) -> str:
    classes, matrix = metrics["classes"], metrics["confusion_matrix"]
    pairs = [
        (number, f"{plain(classes[true])} → {plain(classes[said])} {number}")
        for true, row in enumerate(matrix)
        for said, number in enumerate(row)
        if true != said and number
    ]
    return " · ".join(text for _, text in sorted(pairs, key=lambda pair: -pair[0])[:shown])
