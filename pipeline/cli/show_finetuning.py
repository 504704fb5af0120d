"""How a fine-tuning looks."""

from pipeline.cli.show import EPOCH_HEADER, interval
from pipeline.console import Growing, Screen, count, duration, percent, plain
from pipeline.finetuning.finetune import FinetunePlan, FinetuneResult
from pipeline.finetuning.settings import FinetuneSettings


def show_finetune_plan(screen: Screen, plan: FinetunePlan, rows: Growing | None = None) -> None:
    """Show what a fine-tuning is about to do, and begin the table of its epochs."""
    s = plan.settings
    shape = " x ".join(str(side) for side in plan.row_shape)
    screen.facts(
        {
            "cache": f"{plan.cache} verified · {plan.backbone} at {plan.layer} · {shape} as {plan.store_dtype} · "
            f"{count(plan.classes, 'class')}{' · streamed from disk' if plan.streamed else ''}",
            "rows": f"train {plan.train:,} · val {plan.val:,} ({plan.val_rule})",
            "trained": f"all behind {plan.layer}, {plan.parameters / 1e6:,.2f} M parameters, at {s.backbone_lr:g} · "
            f"new head at {s.lr:g} · BatchNorm statistics {'frozen' if s.bn == 'frozen' else 'moving'}",
            "recipe": f"{_recipe(s)} · {plan.device}, {count(plan.threads, 'thread')}"
            + (" · plain loop" if s.engine == "reference" else ""),
            **({"resumed": f"{plan.epochs_done} of {count(s.epochs, 'epoch')} done"} if plan.epochs_done else {}),
        }
    )
    if rows is not None:
        rows.start(EPOCH_HEADER, s.epochs - plan.epochs_done)


def _recipe(s: FinetuneSettings) -> str:
    extras = {
        "weight decay": s.weight_decay,
        "momentum": s.momentum,
        "label smoothing": s.label_smoothing,
        "warm-up epochs": s.warmup_epochs,
        "early stopping after": s.early_stopping,
        "mirrored": s.hflip,
    }
    steps = [s.optimizer, *([s.schedule] if s.schedule != "constant" else []), f"batch {s.batch_size}"]
    return " · ".join(
        [
            *steps,
            count(s.epochs, "epoch"),
            f"seed {s.seed}",
            *(f"{name} {value:g}" for name, value in extras.items() if value),
        ]
    )


def show_finetuned(screen: Screen, result: FinetuneResult) -> None:
    """Show a fine-tuned run."""
    kept = result.epochs[result.best_epoch - 1]
    parts = [f"train accuracy {percent(kept.train_accuracy)}"]
    if result.metrics is not None:
        parts.append(f"val accuracy {interval(result.metrics)}")
    if result.settings.early_stopping:
        parts.append(f"epoch {result.best_epoch} kept of {len(result.epochs)}")
    parts.append(f"in {duration(result.seconds)}")
    line = f"[bold]run {result.run}[/bold]  {' · '.join(parts)} · {plain(result.path)}"
    screen.result(result.to_json(), line, brief=result.run)
