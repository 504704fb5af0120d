"""What a user should know of the sides that samples came on: classes and groups that are not on all of them."""

import logging
from collections import Counter
from itertools import chain

import numpy as np

from pipeline.sources.names import some
from pipeline.sources.source import Listing
from pipeline.store.key import SPLITS

logger = logging.getLogger(__name__)


def warn_empty_classes(listing: Listing, splits: np.ndarray, usable: np.ndarray) -> None:
    """Say which classes have no usable image in a split that others have images in."""
    if not listing.classes:
        return
    for split in np.unique(splits[usable]).tolist():
        counts = np.bincount(listing.labels[usable & (splits == split)], minlength=len(listing.classes))
        empty = [listing.classes[label] for label in np.flatnonzero(counts == 0)]
        if empty:
            classes = "1 class" if len(empty) == 1 else f"{len(empty)} classes"
            logger.warning("the %s split has no images of %s: %s", SPLITS[split], classes, some(empty))


def warn_groups(listing: Listing, splits: np.ndarray) -> None:
    """Say where one group is all of a split, where groups have images in several splits, and where none was drawn."""
    if listing.groups is None:
        return
    sides = {
        split: {listing.groups[row] for row in np.flatnonzero(splits == split).tolist()}
        for split in np.unique(splits).tolist()
    }
    for split, groups in sides.items():
        if len(groups) == 1:
            logger.warning("the %s split is all of one group: %s", SPLITS[split], next(iter(groups)))
    several = sorted(group for group, times in Counter(chain(*sides.values())).items() if times > 1)
    if several:
        logger.warning("%d groups have images in several splits: %s", len(several), some(several))
    if len(sides) == 1 and listing.classes:
        logger.warning(
            "all %d groups came on the %s side; another --test-fraction draws otherwise",
            len(set(listing.groups)),
            SPLITS[next(iter(sides))],
        )
