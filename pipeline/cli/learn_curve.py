"""`pipeline learn-curve`."""

from pathlib import Path
from typing import Any

import click

from pipeline.cli.options import cache_dir_option, device_option, global_options, runs_dir_option
from pipeline.cli.recipe_options import Counts, Values, choice, given_options, list_option, number, validation_options
from pipeline.cli.steps import cache_dir_words
from pipeline.console import Screen


@click.command("learn-curve")
@click.argument("cache", default="latest")
@list_option("--shots", of=Counts(), help="Images a class.  [default: 1,2,4,… to 1/32 of the smallest class]")
@list_option("--fractions", of=Values(), help="Shares of train.  [default: 1/16, 1/8, 1/4, 1/2, 1]")
@number("--draws", 5, "Heads a size, each on images of its own draw.")
@number("--seed", 0, "Of the first draw.")
@choice("--solver", "exact", "minibatch", "ridge", "knn", "centroid", help="How heads are found.")
@click.option("--standardize/--no-standardize", default=False, help="[default: with exact]")
@click.option("--l2-norm", is_flag=True, help="Bring rows to length 1, before --standardize.")
@click.option("--C", "C", type=float, help="Of exact, as in scikit-learn.  [default: 1 / width of the features]")
@click.option("--l2", type=float, help="Of exact and ridge.")
@choice("--class-weight", "none", "balanced")
@choice("--optimizer", "adam", "adamw", "sgd", help="This and what follows: of --solver minibatch.")
@number("--lr", 1e-3)
@number("--epochs", 5)
@number("--batch-size", 64)
@number("--weight-decay", 0.0)
@number("--k", 20, "Neighbours of --solver knn.")
@validation_options
@click.option("-o", "--output", type=click.Path(dir_okay=False, path_type=Path), help="The plot as .svg or .png.")
@click.option("--csv", "table", type=click.Path(dir_okay=False, path_type=Path), help="The points as .csv.")
@click.option(
    "--keep-in",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder of its JSON, for `report`.  [default: audits/CACHE beside the runs]",
)
@device_option
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
    keep_in: Path | None,
    output: Path | None,
    table: Path | None,
    **options: Any,  # noqa: ANN401
) -> None:
    r"""Train on more and more images of CACHE and see whether more data helps: a prefix of its id, a path, or `latest`.

    Heads train on 1, 2, 4, … images a class and on shares of the train rows, several draws each, and are measured on
    the same validation rows. Test rows are never looked at. The curve is kept as JSON beside the lists of `audit`, and
    `report` draws it.

    \b
      pipeline learn-curve latest
      pipeline learn-curve 3f9a --draws 10 --csv curve.csv -o curve.svg
      pipeline learn-curve 3f9a --shots 1,5,10 --solver centroid --l2-norm
    """
    from pipeline.cli.curve_view import check_outputs, draw_plot, show_curve, show_curve_plan, write_points
    from pipeline.findings import check_findings, findings_folder
    from pipeline.learning_curve import CurvePlan, learn_curve, write_curve

    screen: Screen = ctx.obj
    check_outputs(output, table)

    def folder_of(entry: str) -> Path:
        return keep_in if keep_in is not None else findings_folder(runs_dir, entry)

    def planned(plan: CurvePlan) -> None:
        check_findings(folder_of(plan.cache))
        show_curve_plan(screen, plan)

    with screen.bar("train", "heads") as on_progress:
        result = learn_curve(
            cache,
            cache_dir=cache_dir,
            on_plan=planned,
            on_progress=on_progress,
            **given_options(ctx, options),
        )
    write_curve(folder_of(result.cache), result)
    if table is not None:
        write_points(result, table)
    if output is not None:
        draw_plot(result, output)
    show_curve(screen, result)
    screen.next_step(f"pipeline sweep {result.cache}{cache_dir_words(cache_dir)}")
