"""A trained tail built again from its feature space and its tensors."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pipeline.backbones.backbone import load_backbone
from pipeline.backbones.preprocess import Preprocess
from pipeline.errors import DataError, UsageError, first_line

if TYPE_CHECKING:
    from torch import Tensor, nn


def load_tail(space: Mapping[str, Any], tensors: "Mapping[str, Tensor]", dim: int, where: str) -> "nn.Module":
    """Return the layers behind the cut that a space names, with trained tensors, in eval mode without gradients.

    Args:
        space: the fields of the FeatureSpace.
        tensors: all of the tail's state, under the whole network's names.
        dim: the width that it must end in.
        where: where the tensors come from, for errors.

    Raises:
        DataError: if the network is not installed, cannot be cut there, or the tensors do not fit it.
    """
    from pipeline.backbones.tail import make_tail

    try:
        preprocess = Preprocess.from_json(space["preprocess"])
        backbone = load_backbone(
            space["architecture"], weights="none", layer=space["layer"], pool=space["pool"], preprocess=preprocess
        )
        tail = make_tail(backbone)
        tail.module.load_state_dict(tensors)
    except (RuntimeError, UsageError, KeyError, TypeError, ValueError) as error:
        raise DataError(f"{where}: its layers do not fit {space.get('architecture')}: {first_line(error)}") from error
    if tail.dim != dim:
        raise DataError(f"{where}: its layers give {tail.dim} features, its head takes {dim}")
    return tail.module
