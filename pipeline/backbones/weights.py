"""Weights of a network: by torchvision's names, from a file, or random from seed 0."""

import hashlib
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.backbones.registry import weight_names
from pipeline.errors import DataError, UsageError, nearest

if TYPE_CHECKING:
    from torch import Tensor, nn

RANDOM = "none"
DEFAULT = "DEFAULT"
SEED = 0
UNUSED = "num_batches_tracked"
"""A counter that BatchNorm keeps and eval mode never reads; many files lack it."""


def named_weights(name: str, asked: str) -> Any:  # noqa: ANN401 - a torchvision WeightsEnum member
    """Return the member of torchvision's weights called `asked` (`DEFAULT` or its own name), or None."""
    members = weight_names(name)
    if asked.upper() == DEFAULT:
        return members[0]
    return next((member for member in members if member.name == asked.upper()), None)


def load_state(name: str, asked: str) -> Mapping[str, "Tensor"]:
    """Return the state dict that `--weights asked` means for a network; never for `none`.

    Raises:
        UsageError: if `asked` is neither a name nor an existing file.
        DataError: if a file cannot be read or names cannot be downloaded.
    """
    member = named_weights(name, asked)
    if member is not None:
        return _download(name, member)
    path = Path(asked).expanduser()
    if path.is_file():
        return read_state(path)
    names = [RANDOM, DEFAULT, *(member.name for member in weight_names(name))]
    if "/" in asked or "." in asked:
        raise DataError(f"no weights file {path}", "Check the path; --weights takes DEFAULT, none, or a file.")
    raise UsageError(
        f"unknown weights {asked!r} for {name}.{nearest(asked, names)}", f"Known: {', '.join(names)}, or a file."
    )


def _download(name: str, member: Any) -> Mapping[str, "Tensor"]:  # noqa: ANN401 - see named_weights
    try:
        state: Mapping[str, Tensor] = member.get_state_dict(progress=True, check_hash=True)
    except (OSError, RuntimeError) as error:
        raise DataError(
            f"the weights {member.name} of {name} are not on this disk and could not be downloaded: {error}",
            "Connect once, or pass --weights FILE (a .safetensors or .pth state dict), or --weights none.",
        ) from error
    return state


def read_state(path: Path) -> Mapping[str, "Tensor"]:
    """Read a state dict from a .safetensors or a .pth file; pickles that hold more than tensors are refused.

    Raises:
        DataError: if the file is damaged, of another kind, or would run code.
    """
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if path.suffix == ".safetensors":
        try:
            return load_file(path)
        except (SafetensorError, OSError) as error:
            raise DataError(f"{path} is not a whole safetensors file: {error}") from error
    if path.suffix not in (".pth", ".pt"):
        raise DataError(f"{path}: weights files end in .safetensors, .pth or .pt", "Rename it if it is one.")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise DataError(
            f"{path} holds more than tensors and is refused, because loading it could run code",
            "Save only the state dict: torch.save(model.state_dict(), FILE), or use safetensors.",
        ) from error
    except (RuntimeError, EOFError, OSError, ValueError) as error:
        raise DataError(f"{path} is not a whole PyTorch file: {str(error).splitlines()[0]}") from error
    if isinstance(state, Mapping) and isinstance(state.get("state_dict"), Mapping):
        state = state["state_dict"]
    if not isinstance(state, Mapping) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise DataError(f"{path} is not a state dict (a mapping from names to tensors)")
    return state


def fill(network: "nn.Module", state: Mapping[str, "Tensor"], where: str) -> None:
    """Load `state` into the cut network; it may hold more (a last layer) but must not lack a tensor.

    Raises:
        DataError: naming what is missing or has another shape.
    """
    own = {key: value for key, value in network.state_dict().items() if not key.endswith(UNUSED)}
    missing = sorted(set(own) - set(state))
    if missing:
        raise DataError(
            f"{where} lacks {len(missing)} of the backbone's {len(own)} tensors, the first being {missing[0]!r}",
            "Are these weights of another architecture, or saved with a prefix such as 'module.'?",
        )
    for key, value in own.items():
        if state[key].shape != value.shape:
            raise DataError(
                f"{where}: {key} has shape {tuple(state[key].shape)}, the backbone needs {tuple(value.shape)}",
                "Are these weights of another architecture?",
            )
    network.load_state_dict({key: state[key] for key in own}, strict=False)


def state_digest(network: "nn.Module") -> str:
    """Return the SHA-256 over (name, dtype, shape, bytes) of all tensors, sorted by name."""
    import torch

    state = hashlib.sha256()
    for name, tensor in sorted(network.state_dict().items()):
        if name.endswith(UNUSED):
            continue
        state.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        data = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
        state.update(memoryview(data.numpy()))
    return state.hexdigest()
