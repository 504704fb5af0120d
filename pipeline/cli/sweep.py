"""`pipeline sweep`."""

from pathlib import Path
from typing import Any

import click

from pipeline.cli.options import cache_dir_option, device_option, global_options, runs_dir_option, stream_option
from pipeline.cli.recipe_options import (
    Names,
    Values,
    choice,
    given_options,
    list_option,
    name_option,
    number,
    schedule_options,
    validation_options,
    views_options,
)
from pipeline.cli.steps import runs_dir_words
from pipeline.console import Screen


class Seeds(click.ParamType[tuple[int, ...]]):
    """A number of seeds, or the seeds separated by commas."""

    name = "seeds"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, ...]:  # noqa: ANN401 - as click has it
        """Parse `5` as 0 to 4, and `3,4` or `3,` as these."""
        from pipeline.config import MOST_SEEDS

        text = str(value)
        try:
            numbers = tuple(int(part) for part in text.removesuffix(",").split(","))
        except ValueError:
            self.fail(f"{value!r} is neither a number of seeds nor a list like 0,1,2", param, ctx)
        if "," in text:
            return numbers
        if numbers[0] > MOST_SEEDS:
            self.fail(f"more than {MOST_SEEDS:,} seeds; for the one seed {text} write '{text},'", param, ctx)
        return tuple(range(numbers[0]))


@click.command("sweep")
@click.argument("cache", default="latest")
@choice("--solver", "minibatch", "exact", "ridge", help="How heads are found.")
@list_option("--lr", of=Values(), help="Learning rates to try.  [default: 1e-4,3e-4,1e-3,3e-3,1e-2]")
@list_option("--weight-decay", of=Values(), help="[default: 0,1e-5,1e-4,1e-3]")
@list_option("--l2", of=Values(), help="Of exact and ridge.  [default: 1e-6,1e-5,…,10]")
@list_option("--C", "C", of=Values(), help="Of exact, as in scikit-learn: l2 = 1 / (C n).")
@list_option(
    "--transforms",
    of=Names(),
    help="Of features: plain, standardize, l2-norm, l2-norm+standardize.  [default: plain,standardize]",
)
@click.option("--seeds", type=Seeds(), help="How many, or which: 5, or 0,1,2.  [default: 0]")
@choice("--optimizer", "adam", "adamw", "sgd", help="This and what follows: the same for all minibatch heads.")
@number("--epochs", 5)
@number("--batch-size", 64)
@number("--momentum", 0.0, "Of --optimizer sgd.")
@number("--dropout", 0.0)
@number("--hidden", 0, "Units of a hidden layer: heads are trained one by one, as with --early-stopping.")
@number("--label-smoothing", 0.0)
@choice("--sampling", "shuffle", "balanced")
@schedule_options
@choice("--class-weight", "none", "balanced")
@click.option("--folds", type=int, default=0, help="Choose by cross-validation with so many folds.  [default: none]")
@validation_options
@click.option("--refit", is_flag=True, help="Train the chosen head on validation rows too; with --folds it always is.")
@views_options
@stream_option
@click.option("-o", "--output", type=click.Path(dir_okay=False, path_type=Path), help="All settings as .csv or .json.")
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
    cache_dir: Path,
    runs_dir: Path,
    output: Path | None,
    **options: Any,  # noqa: ANN401
) -> None:
    r"""Train many heads on CACHE at once and keep the best: a prefix of its id, a path, or `latest`.

    Every value is tried with every other. Heads that see the same batches are trained as one product. Validation
    rows, or folds, choose; test rows are never looked at. The chosen head is a run like any other.

    \b
      pipeline sweep latest
      pipeline sweep 3f9a --lr 1e-4,1e-3,1e-2 --weight-decay 0,1e-3 --seeds 5 --epochs 20
      pipeline sweep 3f9a --solver exact --C 0.01,0.1,1,10 --folds 5 -o table.csv
    """
    from pipeline.cli.sweep_table import ENDINGS, show_sweep, show_sweep_plan, write_table
    from pipeline.outputs import check_output
    from pipeline.sweeping import sweep

    screen: Screen = ctx.obj
    if output is not None:
        check_output(output, ENDINGS)
    with screen.bar("sweep", "heads") as on_progress:
        result = sweep(
            cache,
            cache_dir=cache_dir,
            runs_dir=runs_dir,
            on_plan=lambda plan: show_sweep_plan(screen, plan),
            on_progress=on_progress,
            **given_options(ctx, options),
        )
    if output is not None:
        write_table(result, output)
    show_sweep(screen, result)
    where = runs_dir_words(runs_dir)
    screen.next_step(f"pipeline evaluate {result.run.run}{where}")
