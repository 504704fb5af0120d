"""`pipeline train-head`."""

from pathlib import Path
from typing import Any

import click

from pipeline.cli.options import cache_dir_option, device_option, global_options, runs_dir_option
from pipeline.console import Screen


@click.command("train-head")
@click.argument("cache", default="latest")
@click.option(
    "--solver",
    type=click.Choice(["minibatch", "exact", "ridge", "knn", "centroid"]),
    default="minibatch",
    show_default=True,
    help="exact: logistic regression to its optimum; ridge, knn, centroid need no epochs.",
)
@click.option("--optimizer", type=click.Choice(["adam", "adamw", "sgd"]), default="adam", show_default=True)
@click.option("--lr", type=float, default=1e-3, show_default=True, help="Learning rate.")
@click.option("--epochs", type=int, default=5, show_default=True)
@click.option("--batch-size", type=int, default=64, show_default=True)
@click.option("--weight-decay", type=float, default=0.0, show_default=True)
@click.option("--momentum", type=float, default=0.0, show_default=True, help="Of --optimizer sgd.")
@click.option("--dropout", type=float, default=0.0, show_default=True, help="Share of features zeroed in training.")
@click.option("--hidden", type=int, default=0, help="Units of one hidden layer.  [default: none, a linear head]")
@click.option("--standardize", is_flag=True, help="Features minus their mean, over their deviation, of train rows.")
@click.option("--l2-norm", is_flag=True, help="Features over their length, first.")
@click.option(
    "--class-weight",
    type=click.Choice(["none", "balanced"]),
    default="none",
    show_default=True,
    help="balanced: rare classes count more in the loss.",
)
@click.option(
    "--sampling",
    type=click.Choice(["shuffled", "balanced"]),
    default="shuffled",
    show_default=True,
    help="balanced: every class is drawn equally often.",
)
@click.option("--label-smoothing", type=float, default=0.0, show_default=True)
@click.option("--schedule", type=click.Choice(["constant", "cosine"]), default="constant", show_default=True)
@click.option("--early-stopping", type=int, default=0, help="Epochs without a lower val loss to stop after.")
@click.option("--C", "c", type=float, default=1.0, show_default=True, help="Of --solver exact, as scikit-learn's.")
@click.option("--alpha", type=float, help="Of --solver ridge.  [default: the best of a path on val rows]")
@click.option("--k", type=int, default=20, show_default=True, help="Neighbours of --solver knn.")
@click.option("--temperature", type=float, default=0.07, show_default=True, help="Of their votes.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of initialisation and batch order.")
@click.option(
    "--val-fraction",
    type=float,
    default=0.1,
    show_default=True,
    help="Share of train held out where the source names no val split.",
)
@click.option("--split-seed", type=int, default=0, show_default=True, help="Of that draw.")
@device_option
@click.option("--name", default="", help="Goes behind the run's number.")
@cache_dir_option
@runs_dir_option
@global_options
@click.pass_obj
def command(screen: Screen, /, cache: str, cache_dir: Path, runs_dir: Path, **options: Any) -> None:  # noqa: ANN401
    r"""Train a head on the cached features of CACHE: a prefix of its id, a path, or `latest`.

    The defaults are the reference recipe: Adam, 1e-3, batch 64, 5 epochs. Test rows are never looked at.

    \b
      pipeline train-head latest
      pipeline train-head 3f9a --lr 0.01 --epochs 20 --name tuned
      pipeline train-head 3f9a --solver exact --standardize
      pipeline train-head 3f9a --hidden 512 --schedule cosine --epochs 50 --early-stopping 5
      pipeline train-head 3f9a --optimizer sgd --momentum 0.9 --weight-decay 1e-4
    """
    from pipeline.cli.show import EPOCH_HEADER, epoch_line, show_train_plan, show_trained
    from pipeline.heads.minibatch import Epoch
    from pipeline.training import TrainPlan, train_head

    def on_plan(plan: TrainPlan) -> None:
        show_train_plan(screen, plan)
        screen.note(EPOCH_HEADER)

    def on_epoch(epoch: Epoch) -> None:
        screen.note(epoch_line(epoch))

    result = train_head(cache, cache_dir=cache_dir, runs_dir=runs_dir, on_plan=on_plan, on_epoch=on_epoch, **options)
    show_trained(screen, result)
    where = "" if runs_dir == Path("runs") else f" --runs-dir {runs_dir}"
    screen.next_step(f"pipeline evaluate {result.run}{where}")
