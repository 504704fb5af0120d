"""A learning curve in a file, `learning-curve.json`: `learn-curve` writes it, `report` draws it."""

from pathlib import Path
from typing import Any

from pipeline.errors import CacheError, DataError
from pipeline.findings import CURVE
from pipeline.learning_curve import CurveResult
from pipeline.store.commit import make_folder, read_json, write_json

FORMAT, FORMAT_VERSION = "pipeline-learning-curve", 1


def write_curve(folder: Path, result: CurveResult) -> None:
    """Write a curve into a folder, in place of one that is there; readers see the old one or the new.

    Raises:
        CacheError: if the folder cannot be written.
    """
    make_folder(folder)
    body = {"format": FORMAT, "format_version": FORMAT_VERSION, **result.to_json()}
    write_json(folder / CURVE, body, replace=True)


def read_curve(folder: str | Path) -> dict[str, Any]:
    """Return the fields of `CurveResult.to_json` of the curve in a folder.

    Raises:
        DataError: if there is none, it is damaged, or of another version.
    """
    path = Path(folder) / CURVE
    again = "Make it again: pipeline learn-curve CACHE"
    try:
        body = read_json(path)
    except FileNotFoundError:
        hint = "Make one: pipeline learn-curve CACHE"
        raise DataError(f"no learning curve at {folder}: it has no {CURVE}", hint) from None
    except CacheError as error:
        raise DataError(error.message, again) from error
    if (body.get("format"), body.get("format_version")) != (FORMAT, FORMAT_VERSION):
        raise DataError(f"{path} is of version {body.get('format_version')!r}, expected {FORMAT_VERSION}", again)
    return body
