"""Which device computes."""

import re
from typing import TYPE_CHECKING

from pipeline.errors import UsageError

if TYPE_CHECKING:
    import torch

KINDS = ("auto", "cpu", "cuda", "mps")


def resolve_device(asked: str) -> "torch.device":
    """Return the device for `auto`, `cpu`, `cuda`, `cuda:N` or `mps`.

    `auto` is CUDA, else Apple's MPS, else the CPU. A device asked for by name is never replaced by another.

    Raises:
        UsageError: if it is not there.
    """
    import torch

    kind, _, index = asked.partition(":")
    if kind not in KINDS or (index and (kind != "cuda" or not re.fullmatch(r"[0-9]+", index))):
        raise UsageError(f"unknown device {asked!r}", "Known: auto, cpu, cuda, cuda:N, mps")
    cuda, mps = torch.cuda.is_available(), torch.backends.mps.is_available()
    if kind == "auto":
        kind = "cuda" if cuda else "mps" if mps else "cpu"
    if kind == "cuda" and (not cuda or int(index or 0) >= torch.cuda.device_count()):
        found = f"{torch.cuda.device_count()} CUDA devices" if cuda else "no CUDA device"
        raise UsageError(
            f"--device {asked} was asked for, but torch {torch.__version__} finds {found}",
            "Use --device auto, or see `pipeline doctor`.",
        )
    if kind == "mps" and not mps:
        raise UsageError("--device mps was asked for, but torch finds no such device", "Use --device auto.")
    return torch.device(kind, int(index)) if index else torch.device(kind)


def local_device(asked: str, place: int) -> str:
    """Return the device for the worker in `place` among those of this machine: CUDA devices are taken in turn."""
    if asked not in ("auto", "cuda") or not place:
        return asked
    import torch

    count = torch.cuda.device_count()
    return f"cuda:{place % count}" if count > 1 else asked
