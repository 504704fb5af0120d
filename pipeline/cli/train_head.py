"""`pipeline train-head`."""

from pathlib import Path
from typing import Any

import click

from pipeline.cli.options import cache_dir_option, device_option, global_options, runs_dir_option, stream_option
from pipeline.cli.recipe_options import (
    choice,
    given_options,
    name_option,
    number,
    schedule_options,
    validation_options,
    views_options,
)
from pipeline.cli.steps import runs_dir_words
from pipeline.console import Screen


@click.command("train-head")
@click.argument("cache", default="latest")
@choice("--solver", "minibatch", "exact", "ridge", "knn", "centroid", help="How the head is found.")
@click.option("--standardize", is_flag=True, help="Bring features to mean 0, variance 1 over the train rows.")
@click.option("--l2-norm", is_flag=True, help="Bring rows to length 1, before --standardize.")
@choice("--optimizer", "adam", "adamw", "sgd", help="This and what follows: of --solver minibatch.")
@number("--lr", 1e-3, "Learning rate.")
@number("--epochs", 5)
@number("--batch-size", 64)
@number("--weight-decay", 0.0)
@number("--momentum", 0.0, "Of --optimizer sgd.")
@number("--dropout", 0.0, "Share of features, or hidden units, zeroed in training.")
@number("--seed", 0, "Of initialisation and batch order.")
@click.option("--seeds", type=int, help="So many runs of the recipe, with --seed and those after it.")
@number("--hidden", 0, "Units of a hidden layer; 0 is a linear head.")
@number("--label-smoothing", 0.0, "Share of the target spread over all classes.")
@choice("--sampling", "shuffle", "balanced", help="balanced draws all classes equally often.")
@schedule_options
@choice("--class-weight", "none", "balanced", help="Weigh classes by 1 / frequency; also exact and ridge.")
@click.option("--l2", type=float, help="Of exact and ridge.  [default: exact 1 / n, ridge best on validation]")
@click.option("--C", "C", type=float, help="Of exact, as in scikit-learn: l2 = 1 / (C n).  [default: 1]")
@number("--k", 20, "Neighbours of --solver knn.")
@number("--temperature", 0.07, "Of their votes, exp(cosine / temperature).")
@views_options
@validation_options
@stream_option
@device_option
@name_option
@cache_dir_option
@runs_dir_option
@global_options
@click.pass_context
def command(
    ctx: click.Context,
    /,
    cache: str,
    seeds: int | None,
    cache_dir: Path,
    runs_dir: Path,
    **options: Any,  # noqa: ANN401
) -> None:
    r"""Train a head on the cached features of CACHE: a prefix of its id, a path, or `latest`.

    The defaults are the reference recipe: a linear head, Adam, 1e-3, batch 64, 5 epochs. Test rows are never looked
    at. docs/HEADS.md has the formula of every option. With --seeds there is one run a seed, and what is told is their
    mean and standard deviation.

    \b
      pipeline train-head latest
      pipeline train-head 3f9a --lr 0.01 --epochs 20 --name tuned
      pipeline train-head 3f9a --solver exact --standardize --l2 1e-3     logistic regression to its optimum
      pipeline train-head 3f9a --solver ridge                             closed form, l2 by validation rows
      pipeline train-head 3f9a --seeds 5                                  how much is luck
      pipeline train-head 3f9a --hidden 512 --dropout 0.5 --early-stopping 3
      pipeline train-head 3f9a --views all --epochs 20                    a random view a row and epoch
    """
    from pipeline.cli.show import epoch_line, on_screen, show_train_plan, show_trained
    from pipeline.cli.show_evaluation import show_seeds_trained
    from pipeline.seeds import train_seeds
    from pipeline.training import train_head

    screen: Screen = ctx.obj
    where = runs_dir_words(runs_dir)
    common: dict[str, Any] = {"cache_dir": cache_dir, "runs_dir": runs_dir, **given_options(ctx, options)}
    if seeds is not None:
        each = on_screen(screen, show_trained)
        made = train_seeds(
            cache, seeds=seeds, on_plan=lambda plan: show_train_plan(screen, plan, seeds=seeds), on_run=each, **common
        )
        show_seeds_trained(screen, made)
        screen.next_step(f"pipeline evaluate {made.runs[0].run} --seeds{where}")
        return
    with screen.rows() as rows:
        result = train_head(
            cache,
            on_plan=lambda plan: show_train_plan(screen, plan, rows),
            on_epoch=lambda epoch: rows.add(epoch_line(epoch), epoch.val_loss),
            **common,
        )
    show_trained(screen, result)
    screen.next_step(f"pipeline evaluate {result.run}{where}")
