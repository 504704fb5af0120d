"""Where a cache entry came from, opened again: its images and its backbone."""

from pathlib import Path
from typing import Any

from pipeline.backbones.backbone import Backbone, load_backbone
from pipeline.backbones.preprocess import Preprocess
from pipeline.errors import DataError
from pipeline.sources.resolve import open_source
from pipeline.sources.source import Source
from pipeline.store.entry import Entry


def open_images(
    entry: Entry, source: str | None = None, *, data_root: Path = Path("data"), follow_symlinks: bool = False
) -> Source:
    """Open the source of an entry, at `source` if its images have moved.

    Raises:
        DataError: if it is not there.
    """
    try:
        return open_source(
            source or entry.manifest["source"]["spec"], data_root=data_root, follow_symlinks=follow_symlinks
        )
    except DataError as error:
        raise DataError(error.message, "Say where the images are now with --source.") from error


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
