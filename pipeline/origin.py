"""Where a cache entry came from, opened again: its images and its backbone."""

from os import PathLike
from pathlib import Path
from typing import Any

from pipeline.backbones.backbone import Backbone, load_backbone
from pipeline.backbones.preprocess import Preprocess
from pipeline.errors import DataError
from pipeline.sources.dataset import dataset_source
from pipeline.sources.reading import Reading
from pipeline.sources.resolve import open_source
from pipeline.sources.source import Source
from pipeline.store.entry import Entry


def open_images(
    entry: Entry,
    source: Any = None,  # noqa: ANN401 - a path or name, or any data set
    *,
    data_root: str | Path | None = None,
    follow_symlinks: bool = False,
) -> Source:
    """Open the source of an entry as it was read, at `source` if its images have moved.

    `source` may be a data set in Python, as for `extract`. What a table's paths were relative to is remembered; where
    the table has moved, its folder or `data_root` takes its place.

    Raises:
        DataError: if it is not there, or was a data set in Python and `source` is not given.
    """
    made = entry.manifest["source"]
    reading = Reading.from_json(made.get("reading", {}))
    if source is not None and not isinstance(source, str | PathLike):
        return dataset_source(source, None, reading)
    root = made.get("data_root") if source is None and data_root is None else data_root
    try:
        return open_source(
            str(source or made["spec"]),
            data_root=Path(root) if isinstance(root, str | Path) else None,
            follow_symlinks=follow_symlinks,
            reading=reading,
            lenient=source is not None,
        )
    except DataError as error:
        hint = error.hint if made["kind"] == "python" else "Say where the images are now with --source."
        raise DataError(error.message, hint) from error


def rebuild_backbone(space: dict[str, Any], weights: str) -> Backbone:
    """Build the backbone of a feature space again.

    Args:
        space: the fields of the FeatureSpace.
        weights: what `--weights` was when its features were extracted.

    Raises:
        DataError: if the weights are not there any more or have changed.
    """
    try:
        preprocess = Preprocess.from_json(space["preprocess"])
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(
            f"this version cannot do the preprocess that the features were made with: {error}",
            "Extract again, or use the version of this package that made them.",
        ) from error
    backbone = load_backbone(
        space["architecture"], weights=weights, layer=space["layer"], pool=space["pool"], preprocess=preprocess
    )
    if backbone.weights_digest != space["weights"]:
        raise DataError(
            f"the weights {weights} of {space['architecture']} are not those the features were made with",
            f"{Path(weights).name} has changed since: put the old file back, or extract again.",
        )
    return backbone
