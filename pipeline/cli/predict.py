"""`pipeline predict`."""

import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pipeline.cli.options import cache_dir_option, device_option, global_options, runs_dir_option
from pipeline.cli.steps import runs_dir_words
from pipeline.console import Screen, count, plain
from pipeline.errors import DataError, UsageError

if TYPE_CHECKING:
    from pipeline.prediction.predict import Prediction


@click.command("predict")
@click.argument("run")
@click.argument("images", nargs=-1, metavar="[IMAGE]...")
@click.option("--cache", help="Predict the samples of this entry from its features instead: no image is opened.")
@click.option(
    "--output",
    "-o",
    type=click.Path(dir_okay=False, path_type=Path),
    help="A .csv, .jsonl or .parquet file.  [default: CSV on stdout]",
)
@click.option("--top-k", type=int, default=1, show_default=True, help="Classes an image, most probable first.")
@click.option("--calibrated", is_flag=True, help="Probabilities at the run's temperature, fitted on validation rows.")
@click.option("--batch-size", type=int, default=64, show_default=True, help="Images a forward pass.")
@device_option
@click.option("--workers", type=click.IntRange(min=1), help="Loading processes.  [default: one a core]")
@click.option("--overwrite", is_flag=True, help="Replace the output file if it is there.")
@click.option("--path-column", metavar="NAME", help="The tables' column of paths.  [default: path]")
@click.option(
    "--data-root",
    type=click.Path(file_okay=False, path_type=Path),
    help="What paths in tables are relative to.  [default: the table's folder]",
)
@cache_dir_option
@runs_dir_option
@global_options
@click.pass_obj
def command(
    screen: Screen,
    /,
    run: str,
    images: tuple[str, ...],
    cache: str | None,
    output: Path | None,
    top_k: int,
    calibrated: bool,
    overwrite: bool,
    cache_dir: Path,
    **options: Any,  # noqa: ANN401
) -> None:
    r"""Classify images with RUN (a prefix of its id, its name, a path, or `latest`).

    Images are files, folders, tables of paths (.csv, .tsv, .parquet), or `-` for a list on stdin. One that cannot be
    used becomes a row with its error. Any number of images takes the same memory. Probabilities are those of an
    exported model; with --calibrated they say how often such a prediction is right.

    \b
      pipeline predict latest flower.jpg other.png
      pipeline predict 0003 ./new-photos -o predictions.csv --top-k 3
      find /photos -name '*.jpg' | pipeline predict 0003 - -o predictions.parquet
      pipeline predict 0003 --cache 77c0 -o predictions.csv        from features: at once
    """
    from pipeline.prediction.predict import predict, predict_cached
    from pipeline.prediction.write import check_predictions
    from pipeline.runs import find_run

    if bool(images) == (cache is not None):
        raise UsageError("name images, or an entry with --cache", "`-` reads one path a line from stdin.")
    if output is not None:
        check_predictions(output, overwrite=overwrite)
    runs_dir = options["runs_dir"]
    started = time.perf_counter()
    with screen.bar("predict") as on_progress:
        if cache is not None:
            found = predict_cached(
                run, cache, top_k=top_k, calibrated=calibrated, cache_dir=cache_dir, runs_dir=runs_dir
            )
        else:
            found = predict(run, _named(images), top_k=top_k, calibrated=calibrated, on_progress=on_progress, **options)
        counted = _Counted(found)
        listed = _write(screen, counted, output, top_k, overwrite=overwrite)
    counted.refuse_if_none_could_be_used()
    seconds = time.perf_counter() - started
    document = {
        "run": find_run(runs_dir, run).id,
        "n": counted.n,
        "failed": counted.failed,
        "output": str(output) if output else None,
        "seconds": seconds,
        "images_per_second": counted.n / seconds,
    }
    if output is not None:
        wrote = f"[bold]wrote {plain(str(output))}[/bold]  {count(counted.n, 'image')}"
        screen.result(document, wrote, brief=str(output))
    elif screen.json:
        screen.result({**document, "predictions": listed})
    if counted.failed:
        screen.warn(f"{counted.failed:,} of {count(counted.n, 'image')} could not be used: see the error column")
    if output is not None:
        screen.next_step(f"pipeline export {document['run']}{runs_dir_words(runs_dir)} -o FILE")


def _write(
    screen: Screen, predictions: "Iterable[Prediction]", output: Path | None, top_k: int, *, overwrite: bool
) -> list[dict[str, Any]]:
    """Write predictions where they are wanted; return those that are to be part of one JSON document."""
    from pipeline.prediction.write import csv_rows, prediction_file

    if output is not None:
        with prediction_file(output, top_k, overwrite=overwrite) as write:
            for prediction in predictions:
                write(prediction)
        return []
    if screen.json:
        return [prediction.to_json() for prediction in predictions]
    write = csv_rows(sys.stdout, top_k)
    for prediction in predictions:
        write(prediction)
    return []


class _Counted:
    """Predictions, counted as they pass."""

    def __init__(self, predictions: "Iterable[Prediction]") -> None:
        self.predictions = predictions
        self.n = self.failed = 0
        self.reason = ""

    def __iter__(self) -> "Iterator[Prediction]":
        for prediction in self.predictions:
            self.n += 1
            self.failed += bool(prediction.error)
            self.reason = self.reason or prediction.error
            yield prediction

    def refuse_if_none_could_be_used(self) -> None:
        if not self.n:
            raise DataError("no image was named", "`-` reads one path a line from stdin.")
        if self.failed == self.n:
            raise DataError(
                f"none of the {count(self.n, 'image')} could be used; the first {self.reason}",
                "Check the paths, and that these are images.",
            )


def _named(images: tuple[str, ...]) -> Iterator[str]:
    """Yield what was named, a list on stdin line by line."""
    for name in images:
        if name == "-":
            yield from (line.rstrip("\r\n") for line in sys.stdin if line.strip())
        else:
            yield name
