"""How plans and results look: used by the commands and by `run` and `demo`."""

from collections.abc import Callable
from typing import Any, TypeVar

from pipeline.console import Growing, Screen, count, duration, percent, plain, size
from pipeline.evaluation import EvaluateResult
from pipeline.heads.minibatch import Epoch
from pipeline.heads.settings import HeadSettings
from pipeline.launch.plan import Plan
from pipeline.launch.result import ExtractResult
from pipeline.training import TrainPlan, TrainResult

T = TypeVar("T")


def on_screen(screen: Screen, show: Callable[[Screen, T], None]) -> Callable[[T], None]:
    """Return `show` for parts of a larger result: with --json and -q only the whole is printed."""

    def shown(part: T) -> None:
        if not (screen.json or screen.quiet):
            show(screen, part)

    return shown


def show_plan(screen: Screen, plan: Plan, *, first: bool = True, layers: int = 1) -> None:
    """Show what an extraction is about to do; of the layers and views after the first only what differs."""
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
    if plan.finetune is not None:
        cache["finetune"] = plan.finetune.text
    workers = {"workers": plan.made_by} if plan.made_by else {}
    view = process.get("augment")
    if view is not None:
        each = f"{layer} · " if layers > 1 else ""
        screen.facts({f"view {view['view']}": f"{each}{view['steps']} · {cache['cache']}"})
        return
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
            f"mean {mean} · std {std} · from {plan.preprocess_from}"
            + (f" · resized on {plan.device}" if plan.resize == "device" else ""),
            "compute": f"{plan.device} · engine {plan.engine}"
            + (f" ({plan.engine_why})" if plan.engine_why else "")
            + f" · {plan.dtype} · batch {plan.batch_size}"
            + (f" · {count(plan.threads, 'thread')}" if plan.threads else ""),
            **workers,
            **cache,
        }
    )


def show_extracted(screen: Screen, result: ExtractResult, *, brief: bool = False) -> None:
    """Show what an extraction did, a line a layer; `brief` leaves out what another worker shows."""
    each = (result, *result.beside)
    if result.skipped and not brief:
        screen.warn(f"{count(result.skipped, 'image')} could not be used: see {result.path}/skipped.csv")
    for one in () if brief else each:
        if one.rounding is not None and one.rounding["rows"]:
            screen.note(rounding_line(one.rounding))
        if one.deviation is not None and one.computed:
            screen.note(deviation_line(one.deviation))
    lines = [_extracted_line(one, layer=len(each) > 1) for one in each]
    screen.result(result.to_json(), *lines, brief="\n".join(one.cache for one in each))


def _extracted_line(result: ExtractResult, *, layer: bool) -> str:
    splits = ", ".join(f"{name} {number:,}" for name, number in result.splits.items())
    worker = "" if result.worker is None else f"worker {result.worker['index']} of {result.worker['count']} "
    others = "" if result.worker is None else f"others {result.elsewhere:,}, "
    return (
        f"[bold]cache {result.cache}[/bold]  "
        + (f"{result.layer} · " if layer else "")
        + f"{result.rows:,} rows x {result.dim:,} features ({splits}) · "
        f"{worker}computed {result.computed:,}, {others}reused {result.reused:,} in {duration(result.seconds)}"
    )


def deviation_line(deviation: dict[str, Any]) -> str:
    """Return how far an engine is from the plain module, in one line."""
    return (
        f"{'engine':<10}{deviation['engine']} in {deviation['dtype']} against the plain float32 module on the first "
        f"{count(deviation['rows'], 'image')}: within {deviation['relative']:.1e} of the largest feature"
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


def show_train_plan(screen: Screen, plan: TrainPlan, rows: Growing | None = None, seeds: int = 1) -> None:
    """Show what a training of so many seeds is about to do, and begin a table of its epochs where one is asked for."""
    screen.facts(
        {
            "cache": f"{plan.cache} verified · {plan.backbone} · {plan.dim:,} features · "
            f"{count(plan.classes, 'class')}{' · streamed from disk' if plan.streamed else ''}",
            "rows": f"train {plan.train:,} · val {plan.val:,} ({plan.val_rule})"
            + (f" · {plan.views}" if plan.views else ""),
            "head": f"{_recipe(plan.settings, seeds)} · {plan.device}",
        }
    )
    if rows is not None and plan.settings.solver == "minibatch":
        rows.start(EPOCH_HEADER, plan.settings.epochs)


def _recipe(s: HeadSettings, seeds: int = 1) -> str:
    """Return a recipe in one line, with all its seeds."""
    before = [word for word, on in (("L2 norm", s.l2_norm), ("standardised", s.standardize)) if on]
    weighted = ["class weights balanced"] if s.class_weight == "balanced" else []
    l2 = f"l2 {s.l2:g}" if s.l2 is not None else ""
    if s.solver == "exact":
        regularised = l2 or f"C {1.0 if s.C is None else s.C:g}"
        return " · ".join([*before, "linear · logistic regression to its optimum", regularised, *weighted])
    if s.solver == "ridge":
        return " · ".join([*before, "linear · ridge regression", l2 or "l2 chosen on validation rows", *weighted])
    if s.solver == "knn":
        return " · ".join([*before, f"{s.k} nearest neighbours by cosine · temperature {s.temperature:g}"])
    if s.solver == "centroid":
        return " · ".join([*before, "linear · nearest centroid"])
    schedule = s.schedule if s.schedule != "constant" else ""
    extras = {
        "weight decay": s.weight_decay,
        "momentum": s.momentum,
        "dropout": s.dropout,
        "label smoothing": s.label_smoothing,
        "warm-up epochs": s.warmup_epochs,
        "early stopping after": s.early_stopping,
    }
    steps = [
        *before,
        f"MLP of {s.hidden:,} hidden units" if s.hidden else "linear",
        s.optimizer,
        f"lr {s.lr:g} {schedule}".strip(),
        f"batch {s.batch_size}",
        count(s.epochs, "epoch"),
        f"seed {s.seed}" if seeds == 1 else f"seeds {s.seed} to {s.seed + seeds - 1}",
        *(f"{name} {value:g}" for name, value in extras.items() if value),
        *weighted,
        *(["batches balanced"] if s.sampling == "balanced" else []),
    ]
    return " · ".join(steps)


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
    train = f"train accuracy {percent(_kept(result).train_accuracy)}" if result.epochs else ""
    val = "" if result.metrics is None else f"val accuracy {interval(result.metrics)}"
    screen.result(
        result.to_json(),
        f"[bold]run {result.run}[/bold]  "
        + " · ".join(part for part in (train, val, _found(result), f"in {duration(result.seconds)}") if part)
        + f" · {plain(result.path)}",
        brief=result.run,
    )


def _kept(result: TrainResult) -> Epoch:
    """Return the epoch whose weights the head has."""
    best: int = result.solver.get("best_epoch", len(result.epochs))
    return result.epochs[best - 1]


def _found(result: TrainResult) -> str:
    """Return what the solver found, in a few words."""
    facts = result.solver
    if "best_epoch" in facts:
        return f"epoch {facts['best_epoch']} kept of {len(result.epochs)}"
    if "gradient_norm_ratio" in facts:
        return (
            f"l2 {facts['l2']:.3g} (C {facts['C']:.3g}) · optimum in {count(facts['iterations'], 'step')}, gradient "
            f"{facts['gradient_norm_ratio']:.1e} of the start's"
        )
    if "alpha" in facts:
        chosen = f", best of {len(facts['path'])}" if "path" in facts else ""
        return f"l2 {facts['l2']:.3g} (alpha {facts['alpha']:.3g}){chosen}"
    return ""


def show_evaluated(screen: Screen, result: EvaluateResult) -> None:
    """Show metrics, and the end-to-end comparison where there is one."""
    m = result.metrics
    measured = f"[bold]{result.split}[/bold]  {count(result.n, 'image')}"
    lines = [
        f"{measured}{_averaged(result)} · accuracy [bold]{interval(m)}[/bold] · "
        f"balanced {percent(m['balanced_accuracy'])} · top-5 {percent(m['top5_accuracy'])} · "
        f"macro-F1 {percent(m['macro_f1'])} · NLL {m['nll']:.4f} · ECE {m['ece']:.4f}"
    ]
    confused = _most_confused(m)
    if confused:
        lines.append(f"[bold]worst[/bold] {confused}")
    if result.end_to_end is not None:
        e = result.end_to_end
        low = e.precision != "float32"
        other = f"[yellow]as near as {e.precision} features are[/yellow]" if low else "[red]not the same model[/red]"
        verdict = "[green]the same model[/green]" if e.holds else other
        lines.append(
            f"[bold]end to end[/bold]  accuracy {percent(e.accuracy)} · predictions equal "
            f"{percent(e.prediction_agreement)} · logits within {e.max_abs_logit_difference:.1e} · "
            f"{e.images_per_second:,.0f} img/s · {verdict}"
        )
    screen.result(result.to_json(), *lines, brief=f"{m['accuracy']:.4f}")


def _averaged(result: EvaluateResult) -> str:
    return "" if result.tta is None else f" · mean of {result.tta['views']} views ({result.tta['augment']})"


def interval(metrics: dict[str, Any]) -> str:
    """Return an accuracy and its 95 % interval."""
    low, high = metrics["accuracy_ci95"]
    return f"{percent(metrics['accuracy'])} \\[{100 * low:.1f}, {100 * high:.1f}]"


def _most_confused(metrics: dict[str, Any], shown: int = 3) -> str:
    classes = metrics["classes"]
    return " · ".join(
        f"{plain(classes[true])} → {plain(classes[said])} {number}"
        for true, said, number in metrics["confusions"][:shown]
    )
