"""Predictions as CSV, JSON lines or Parquet, row by row."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import IO, Any

from pipeline.csvtext import csv_writer
from pipeline.errors import UsageError
from pipeline.outputs import check_output
from pipeline.prediction.predict import Prediction
from pipeline.store.commit import disk_errors, new_file

Write = Callable[[Prediction], None]
ENDINGS = (".csv", ".jsonl", ".parquet")
GROUP_ROWS = 10_000
"""Rows a row group of a Parquet file."""


@contextmanager
def prediction_file(path: Path, top_k: int, *, overwrite: bool = False) -> Iterator[Write]:
    """Give what writes predictions to `path`, which has its name when all are written.

    Columns of CSV: `path`, `label`, `probability`, `label_2`, `probability_2`, …, `error`. JSON lines have
    `Prediction.to_json`'s fields, Parquet has them as columns, `top` as a list of structs.

    Raises:
        UsageError: if the ending is unknown, the file exists, or Parquet's package is missing.
        CacheError: if the disk is full or cannot be written.
    """
    check_predictions(path, overwrite=overwrite)
    with new_file(path, replace=overwrite) as temporary, disk_errors(path, 0):
        if path.suffix.lower() == ".parquet":
            with _parquet(temporary) as write:
                yield write
        else:
            with temporary.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file:
                yield csv_rows(file, top_k) if path.suffix.lower() == ".csv" else _json_lines(file)


def check_predictions(path: Path, *, overwrite: bool) -> None:
    """Refuse an output that cannot be, before anything is computed."""
    check_output(path, ENDINGS, overwrite=overwrite)
    if path.suffix.lower() == ".parquet" and find_spec("pyarrow") is None:
        raise UsageError("Parquet needs pyarrow, not installed here", "pip install 'feature-pipeline[parquet]'")


def csv_rows(file: IO[str], top_k: int) -> Write:
    """Write the header to a text file; return what writes rows."""
    write_row = csv_writer(file)
    more = [f"{name}_{place}" for place in range(2, top_k + 1) for name in ("label", "probability")]
    write_row(["path", "label", "probability", *more, "error"])

    def write(prediction: Prediction) -> None:
        cells = [text for label, share in prediction.top for text in (label, f"{share:.6f}")]
        cells += [""] * (2 * top_k - len(cells))
        write_row([prediction.path, *cells, prediction.error])

    return write


def _json_lines(file: IO[str]) -> Write:
    def write(prediction: Prediction) -> None:
        file.write(json.dumps(prediction.to_json()) + "\n")

    return write


@contextmanager
def _parquet(path: Path) -> Iterator[Write]:
    import pyarrow as pa
    from pyarrow import parquet

    top = pa.list_(pa.struct([("label", pa.string()), ("probability", pa.float64())]))
    schema = pa.schema(
        [
            ("path", pa.string()),
            ("label", pa.string()),
            ("probability", pa.float64()),
            ("top", top),
            ("error", pa.string()),
        ]
    )
    waiting: list[dict[str, Any]] = []
    with parquet.ParquetWriter(path, schema) as writer:

        def flush() -> None:
            writer.write_table(pa.Table.from_pylist(waiting, schema))
            waiting.clear()

        def write(prediction: Prediction) -> None:
            fields = prediction.to_json()
            # Arrow's text is UTF-8; names of files need not be.
            fields["path"] = prediction.path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
            waiting.append(fields)
            if len(waiting) == GROUP_ROWS:
                flush()

        yield write
        if waiting:
            flush()
