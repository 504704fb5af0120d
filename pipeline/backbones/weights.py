"""Weights of a network: what `--weights` may say, files of weights, and the digest of what was loaded."""

import hashlib
import pickle
import re
import textwrap
import warnings
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.errors import DataError, UsageError, first_line, nearest

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


def read_asked(asked: str, name: str, known: Sequence[str]) -> Mapping[str, "Tensor"]:
    """Return the state dict in the file that `--weights asked` names for a backbone that knows other weights.

    Raises:
        UsageError: if it looks like a name, with the nearest.
        DataError: if there is no such file, or it cannot be read.
    """
    try:
        path = Path(asked).expanduser()
        found = path.is_file()
    except (OSError, RuntimeError, ValueError):  # too long for a path, or no home folder
        found = False
    if found:
        return read_state(path)
    if "/" in asked or "." in asked:
        raise DataError(f"no weights file {asked}", "Check the path; --weights takes DEFAULT, none, or a file.")
    raise UsageError(
        f"unknown weights {asked!r} for {name}.{nearest(asked, known)}", f"Known: {', '.join(known)}, or a file."
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
        said = first_line(error)
        raise DataError(f"{path} is not a whole PyTorch file: {said}") from error
    if isinstance(state, Mapping) and isinstance(state.get("state_dict"), Mapping):
        state = state["state_dict"]
    if not isinstance(state, Mapping) or not all(
        isinstance(key, str) and isinstance(value, torch.Tensor) for key, value in state.items()
    ):
        raise DataError(f"{path} is not a state dict (a mapping from names to tensors)")
    return state


def fill(network: "nn.Module", state: Mapping[str, "Tensor"], where: str, classifiers: Sequence[str] = ()) -> None:
    """Load `state` into a whole network. Its last layers may be missing or of another width.

    Raises:
        DataError: naming what else is missing or has another shape.
    """
    last = tuple(f"{name}." for name in classifiers)
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


def state_digest(network: "nn.Module", without: Sequence[str] = ()) -> str:
    """Return the SHA-256 over (name, dtype, shape, bytes) of all tensors, sorted by name; none of modules `without`."""
    import torch

    left_out = tuple(f"{name}." for name in without)
    state = hashlib.sha256()
    for name, tensor in sorted(network.state_dict().items()):
        if name.endswith(UNUSED) or name.startswith(left_out):
            continue
        state.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        data = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
        state.update(memoryview(data.numpy()))
    return state.hexdigest()
