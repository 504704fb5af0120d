"""safetensors: tensors and a description, which `load_model` makes a torch module of. No code is stored or run."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.artifacts.description import FORMAT, FORMAT_VERSION
from pipeline.artifacts.product import METADATA, Product, Runner
from pipeline.backbones.backbone import load_backbone
from pipeline.backbones.preprocess import Preprocess
from pipeline.digest import is_sealed, seal
from pipeline.errors import DataError, first_line
from pipeline.fusion import fused_network, image_model
from pipeline.heads.reading import head_of

if TYPE_CHECKING:
    from torch import Tensor, nn

NETWORK, HEAD = "network.", "head."


class Tensors:
    """One `.safetensors` file; its description lies in its header."""

    suffix = ".safetensors"

    def write(self, product: Product, path: Path) -> None:
        """Write the file."""
        from safetensors.torch import save_file

        tensors = {name: tensor.contiguous() for name, tensor in product.tensors.items()}
        save_file(tensors, path, {METADATA: json.dumps(seal(product.description))})

    def open(self, path: Path) -> Runner:
        """Return what runs the file with torch on the CPU."""
        import torch

        model = load_model(path)

        def run(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            with torch.inference_mode():
                logits, probabilities = model(torch.from_numpy(images))
            return logits.numpy(), probabilities.numpy()

        return run


def load_model(path: str | Path) -> "nn.Module":
    """Open a model that was exported as safetensors, as a torch module in eval mode on the CPU.

    It maps float32 images (b, 3, h, w) RGB in [0, 1], of `description["image_size"]` pixels, to logits (b, c) and
    probabilities (b, c). `model.network` is the fused network itself, `model.description` what is known of it:
    `classes`, `image_size`, `preprocess`, `space`, `metrics`.

    Raises:
        DataError: if the file is missing, damaged, of another kind, or its architecture is not installed.
    """
    description, tensors = _read(Path(path))
    space = description["space"]
    network = {name.removeprefix(NETWORK): t for name, t in tensors.items() if name.startswith(NETWORK)}
    head = head_of(
        description["head"],
        {name.removeprefix(HEAD): t for name, t in tensors.items() if name.startswith(HEAD)},
        str(path),
    )
    try:
        preprocess = Preprocess.from_json(space["preprocess"])
        backbone = load_backbone(
            space["architecture"], weights="none", layer=space["layer"], pool=space["pool"], preprocess=preprocess
        )
        backbone.network.load_state_dict(network)
    except (RuntimeError, ValueError) as error:
        raise DataError(
            f"{path} does not fit {space['architecture']} as installed here: {first_line(error)}"
        ) from error
    return image_model(fused_network(backbone, head), preprocess, description)


def _read(path: Path) -> tuple[dict[str, Any], Mapping[str, "Tensor"]]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            description = json.loads((file.metadata() or {}).get(METADATA, "null"))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no dict
    except (OSError, SafetensorError, ValueError, RecursionError) as error:
        raise DataError(f"{path} cannot be read: {first_line(error)}") from error
    if not isinstance(description, dict) or not is_sealed(description):
        raise DataError(
            f"{path} is no model that `pipeline export --format safetensors` wrote, or is damaged",
            "For weights of a backbone use `pipeline extract --weights FILE`.",
        )
    if (description.get("format"), description.get("format_version")) != (FORMAT, FORMAT_VERSION):
        raise DataError(f"{path} is a model of version {description.get('format_version')!r}, not {FORMAT_VERSION}")
    return description, tensors
