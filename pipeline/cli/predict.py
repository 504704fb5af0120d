"""`pipeline predict`."""

import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from pipeline.cli.options import device_option, global_options, runs_dir_option
from pipeline.console import Screen, count, plain
from pipeline.errors import DataError


@click.command("predict")
@click.argument("run")
@click.argument("images", nargs=-1, required=True, metavar="IMAGE...")
@click.option(
    "--output",
    "-o",
    type=click.Path(dir_okay=False, path_type=Path),
    help="A .csv, .jsonl or .parquet file.  [default: CSV on stdout]",
)
@click.option("--top-k", type=int, default=1, show_default=True, help="Classes an image, most probable first.")
@click.option("--batch-size", type=int, default=64, show_default=True, help="Images a forward pass.")
@device_option
@click.option("--workers", type=click.IntRange(min=1), help="Loading processes.  [default: one a core]")
@click.option("--overwrite", is_flag=True, help="Replace the output file if it is there.")
@runs_dir_option
@global_options
@click.pass_obj
def command(
    screen: Screen,
    /,
    run: str,
    images: tuple[str, ...],
    output: Path | None,
    top_k: int,
    overwrite: bool,
    **options: Any,  # noqa: ANN401
) -> None:
    r"""Classify images with RUN (a prefix of its id, a path, or `latest`): files, folders, or `-` for a list on stdin.

    An image that cannot be used becomes a row with its error. Any number of images takes the same memory.

    \b
      pipeline predict latest flower.jpg other.png
      pipeline predict 0003 ./new-photos -o predictions.csv --top-k 3
      find /photos -name '*.jpg' | pipeline predict 0003 - -o predictions.parquet
    """
    from pipeline.prediction.predict import Prediction, predict
    from pipeline.prediction.write import check_output, csv_writer, prediction_file
    from pipeline.runs import find_run

    if output is not None:
        check_output(output, overwrite=overwrite)
    started = time.perf_counter()
    counts = {"n": 0, "failed": 0}
    reason = ""
    listed: list[dict[str, Any]] = []
    with screen.bar("predict") as on_progress:
        predictions = predict(run, _named(images), top_k=top_k, on_progress=on_progress, **options)

        def counted() -> Iterator[Prediction]:
            nonlocal reason
            for prediction in predictions:
                counts["n"] += 1
                counts["failed"] += bool(prediction.error)
                reason = reason or prediction.error
                yield prediction

        if output is not None:
            with prediction_file(output, top_k, overwrite=overwrite) as write:
                for prediction in counted():
                    write(prediction)
        elif screen.json:
            listed = [prediction.to_json() for prediction in counted()]
        else:
            write = csv_writer(sys.stdout, top_k)
            for prediction in counted():
                write(prediction)
    _refuse_if_none_could_be_used(counts["n"], counts["failed"], reason)
    seconds = time.perf_counter() - started
    document = {
        "run": find_run(options["runs_dir"], run).id,
        **counts,
        "output": str(output) if output else None,
        "seconds": seconds,
        "images_per_second": counts["n"] / seconds,
    }
    if output is not None:
        wrote = f"[bold]wrote {plain(str(output))}[/bold]  {count(counts['n'], 'image')}"
        screen.result(document, wrote, brief=str(output))
    elif screen.json:
        screen.result({**document, "predictions": listed})
    if counts["failed"]:
        screen.warn(f"{counts['failed']:,} of {count(counts['n'], 'image')} could not be used: see the error column")


def _refuse_if_none_could_be_used(n: int, failed: int, reason: str) -> None:
    if not n:
        raise DataError("no image was named", "`-` reads one path a line from stdin.")
    if failed == n:
        raise DataError(f"none of the {count(n, 'image')} could be used; the first {reason}", "Are these images?")


def _named(images: tuple[str, ...]) -> Iterator[str]:
    """Yield what was named, a list on stdin line by line."""
    for name in images:
        if name == "-":
            yield from (line.rstrip("\r\n") for line in sys.stdin if line.strip())
        else:
            yield name
