"""Weights of a network: by torchvision's names, from a file, or random from seed 0."""

import hashlib
import pickle
import re
import textwrap
import warnings
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from pipeline.backbones.cut import last_layer
from pipeline.backbones.registry import build, weight_names
from pipeline.errors import DataError, UsageError, nearest

if TYPE_CHECKING:
    from torch import Tensor, nn

RANDOM = "none"
DEFAULT = "DEFAULT"
SEED = 0
OLD_DENSENET = re.compile(r"(denselayer\d+\.(?:norm|relu|conv))\.([12]\.)")
"""Keys of the densenet files that torchvision serves: `norm.1.`, where the module has `norm1.`."""
SAFE = "Save only the state dict: torch.save(model.state_dict(), FILE), or use safetensors."
UNUSED = "num_batches_tracked"
"""A counter that BatchNorm keeps and eval mode never reads; many files lack it."""


def named_weights(name: str, asked: str) -> Any:  # noqa: ANN401 - a torchvision WeightsEnum member
    """Return the member of torchvision's weights called `asked` (`DEFAULT` or its own name), or None."""
    members = weight_names(name)
    if asked.upper() == DEFAULT:
        return members[0]
    return next((member for member in members if member.name == asked.upper()), None)


def load_network(name: str, asked: str) -> "nn.Module":
    """Return the whole original network with the weights that `--weights asked` means, drawing none at random.

    Torchvision's own builder loads its own weights: it knows their old keys and the options that go with them.

    Raises:
        UsageError: if `asked` is neither a name nor an existing file.
        DataError: if a file cannot be read or does not fit, or weights cannot be downloaded.
    """
    if asked == RANDOM:
        return build(name)
    member = named_weights(name, asked)
    if member is not None:
        try:
            return build(name, member)
        except (OSError, RuntimeError) as error:
            raise DataError(
                f"the weights {member.name} of {name} are not on this disk and could not be downloaded: {error}",
                "Connect once, or pass --weights FILE (a .safetensors or .pth state dict), or --weights none.",
            ) from error
    try:
        path = Path(asked).expanduser()
        found = path.is_file()
    except (OSError, RuntimeError, ValueError):  # too long for a path, or no home folder
        found = False
    if not found:
        _refuse(name, asked)
    network = build(name)
    fill(network, read_state(path), asked)
    return network


def _refuse(name: str, asked: str) -> NoReturn:
    names = [RANDOM, DEFAULT, *(member.name for member in weight_names(name))]
    if "/" in asked or "." in asked:
        raise DataError(f"no weights file {asked}", "Check the path; --weights takes DEFAULT, none, or a file.")
    raise UsageError(
        f"unknown weights {asked!r} for {name}.{nearest(asked, names)}", f"Known: {', '.join(names)}, or a file."
    )


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
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of odd pickle protocols: what matters is whether it can be read
            state = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise DataError(
            f"{path} holds more than tensors and is refused, because loading it could run code (or it is damaged)",
            SAFE,
        ) from error
    except Exception as error:
        if "weights_only" in str(error):  # its advice is to load the file without protection
            raise DataError(f"{path} is of a format whose loading could run code, and is refused", SAFE) from error
        said = (str(error).splitlines() or [type(error).__name__])[0]
        raise DataError(f"{path} is not a whole PyTorch file: {said}") from error
    if isinstance(state, Mapping) and isinstance(state.get("state_dict"), Mapping):
        state = state["state_dict"]
    if not isinstance(state, Mapping) or not all(
        isinstance(key, str) and isinstance(value, torch.Tensor) for key, value in state.items()
    ):
        raise DataError(f"{path} is not a state dict (a mapping from names to tensors)")
    return state


def fill(network: "nn.Module", state: Mapping[str, "Tensor"], where: str) -> None:
    """Load `state` into a whole network. Its last layer may be missing or of another width: it is cut off anyway.

    Raises:
        DataError: naming what else is missing or has another shape.
    """
    last = last_layer(network) + "."
    own = network.state_dict()
    given = OrderedDict((OLD_DENSENET.sub(r"\1\2", key), value) for key, value in state.items())
    # What torch keeps beside the tensors tells modules that changed their layout which one a file has. A file
    # without it has the present one if it has all of the present keys, else an old one.
    present = all(key in given for key in own if not key.startswith(last) and not key.endswith(UNUSED))
    kept = getattr(state, "_metadata", None) or (own._metadata if present else {})  # type: ignore[attr-defined]
    given._metadata = kept  # type: ignore[attr-defined]
    for key in own:
        if key.startswith(last) and (key not in given or given[key].shape != own[key].shape):
            given[key] = own[key]
    try:
        missing = network.load_state_dict(given, strict=False).missing_keys
    except (RuntimeError, ValueError) as error:
        said = textwrap.shorten(str(error), 500, placeholder=" …")
        raise DataError(
            f"{where} does not fit {type(network).__name__}: {said}", "Are these weights of another architecture?"
        ) from error
    lacking = sorted(key for key in missing if not key.endswith(UNUSED))
    if lacking:
        raise DataError(
            f"{where} lacks {len(lacking)} of the backbone's {len(own)} tensors, the first being {lacking[0]!r}",
            "Are these weights of another architecture, or saved with a prefix such as 'module.'?",
        )


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
