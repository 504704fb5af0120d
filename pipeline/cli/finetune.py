"""`pipeline finetune`."""

from pathlib import Path
from typing import Any

import click

from pipeline.cli.options import cache_dir_option, device_option, global_options, runs_dir_option, stream_option
from pipeline.cli.recipe_options import choice, given_options, name_option, number, schedule_options, validation_options
from pipeline.cli.steps import runs_dir_words
from pipeline.console import Screen


@click.command("finetune")
@click.argument("cache", default="latest")
@number("--lr", 1e-3, "Learning rate of the new head.")
@number("--backbone-lr", 1e-4, "Of the pretrained layers behind the cut.")
@number("--epochs", 5)
@number("--batch-size", 64)
@choice("--optimizer", "adam", "adamw", "sgd")
@number("--weight-decay", 0.0)
@number("--momentum", 0.0, "Of --optimizer sgd.")
@number("--label-smoothing", 0.0, "Share of the target spread over all classes.")
@schedule_options
@choice("--bn", "frozen", "train", help="BatchNorm statistics behind the cut: as pretrained, or moving on.")
@number("--hflip", 0.0, "Share of maps mirrored each time. It is not what mirrored images give: docs/FINETUNE.md.")
@number("--seed", 0, "Of the head's initialisation, the batch order and what is mirrored.")
@choice("--engine", "auto", "reference", help="reference: a plain loop's very bits; auto: faster, other last bits.")
@validation_options
@stream_option
@device_option
@number("--checkpoint-seconds", 20.0, "An epoch ends in a checkpoint if the last one is as long ago.")
@name_option
@cache_dir_option
@runs_dir_option
@global_options
@click.pass_context
def command(
    ctx: click.Context,
    /,
    cache: str,
    cache_dir: Path,
    runs_dir: Path,
    **options: Any,  # noqa: ANN401
) -> None:
    r"""Train the layers behind the cut of CACHE together with a new head.

    CACHE is an entry of a layer that was extracted with --pool none; what lies before the layer stays frozen and is
    never computed again. `pipeline backbones NAME --layers` lists where a network can be cut, with sizes and how
    much an epoch gains. Dropout is off. Interrupted, the same command goes on after the last checkpoint, to the
    same bits.

    \b
      pipeline extract ./photos --backbone resnet18 --layer layer3 --pool none
      pipeline finetune latest
      pipeline finetune 3f9a --backbone-lr 3e-5 --epochs 20 --early-stopping 3
    """
    from pipeline.cli.show import epoch_line
    from pipeline.cli.show_finetuning import show_finetune_plan, show_finetuned
    from pipeline.finetuning.finetune import finetune

    screen: Screen = ctx.obj
    where = runs_dir_words(runs_dir)
    with screen.rows() as rows:
        result = finetune(
            cache,
            cache_dir=cache_dir,
            runs_dir=runs_dir,
            on_plan=lambda plan: show_finetune_plan(screen, plan, rows),
            on_epoch=lambda epoch: rows.add(epoch_line(epoch), epoch.val_loss),
            **given_options(ctx, options),
        )
    show_finetuned(screen, result)
    screen.next_step(f"pipeline evaluate {result.run}{where} --end-to-end")
