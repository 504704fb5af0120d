"""`pipeline evaluate`."""

from typing import Any

import click

from pipeline.cli.options import (
    cache_dir_option,
    device_option,
    global_options,
    images_options,
    runs_dir_option,
    stream_option,
)
from pipeline.cli.steps import runs_dir_words
from pipeline.console import Screen
from pipeline.errors import UsageError


@click.command("evaluate")
@click.argument("run", default="latest")
@click.option("--split", type=click.Choice(["train", "val", "test"]), default="test", show_default=True)
@click.option("--cache", help="Another entry of the same feature space to measure on.")
@click.option("--end-to-end", is_flag=True, help="Decode the images again and compare the plain model with the cache.")
@click.option("--tta", is_flag=True, help="Average probabilities over all views of each row (extract --views).")
@click.option("--augment", metavar="STEPS", help="Of --tta, where there are several augmentations.")
@click.option("--seeds", is_flag=True, help="Measure all runs that were trained with RUN by train-head --seeds.")
@images_options
@stream_option
@device_option
@cache_dir_option
@runs_dir_option
@global_options
@click.pass_obj
def command(screen: Screen, /, run: str, end_to_end: bool, seeds: bool, **options: Any) -> None:  # noqa: ANN401
    r"""Measure RUN (a prefix of its id, its name, a path, or `latest`) on a split of the entry it was trained on.

    With --end-to-end the images are decoded again, from --source by --workers, and go through the plain float32 network
    and the head: equal predictions and logits within 1e-4 prove that cache and head are the end-to-end frozen model.

    No other command looks at test rows, and each look is logged in the run: one that is chosen by its test figures
    has none left. docs/RESULTS.md says how intervals and calibrated figures are come by.

    \b
      pipeline evaluate latest
      pipeline evaluate 0001 --end-to-end
      pipeline evaluate 0001 --seeds
      pipeline evaluate 0001 --cache 77c0 --split train
      pipeline evaluate 0001 --tta
    """
    from pipeline.cli.show import show_evaluated
    from pipeline.cli.show_evaluation import show_details, show_seeds_evaluated
    from pipeline.evaluation import evaluate
    from pipeline.seeds import evaluate_seeds

    runs_dir = options["runs_dir"]
    where = runs_dir_words(runs_dir)
    if seeds:
        if end_to_end:
            raise UsageError("--end-to-end goes with one run, --seeds measures several", "Leave out one of them.")
        show_seeds_evaluated(screen, evaluate_seeds(run, **options))
        screen.next_step(f"pipeline compare{where}")
        return
    if end_to_end:
        with screen.bar("end to end") as on_progress:
            result = evaluate(run, end_to_end=True, on_progress=on_progress, **options)
    else:
        result = evaluate(run, **options)
    show_evaluated(screen, result)
    show_details(screen, result)
    if end_to_end:
        screen.next_step(f"pipeline report {result.run}{where}", f"pipeline predict {result.run}{where} IMAGES")
    elif result.tta is None:
        screen.next_step(f"pipeline evaluate {result.run}{where} --end-to-end", f"pipeline report {result.run}{where}")
