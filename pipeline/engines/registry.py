"""The engines by name: what is installed, what takes which device and dtype."""

import shutil
from importlib.util import find_spec
from typing import TYPE_CHECKING

from pipeline.backbones.preprocess import Preprocess
from pipeline.engines.engine import DTYPES, Engine, GraphStore
from pipeline.errors import UsageError

if TYPE_CHECKING:
    import torch
    from torch import nn

REFERENCE = "reference"
ENGINES = (REFERENCE, "eager", "compile", "openvino")
COMPILERS = ("c++", "g++", "clang++")
TORCH_DTYPES = {"cpu": ("float32", "bfloat16"), "cuda": DTYPES, "mps": ("float32",)}
"""What torch's own engines compute in, by device: float16 products are emulated on CPUs, tf32 is CUDA's."""


def missing(name: str, device: str) -> str:
    """Return what engine `name` lacks on a kind of device here, for people; an empty string if nothing."""
    if name == "openvino":
        if device != "cpu":
            return "it runs on the CPU alone (--device cpu)"
        if find_spec("openvino") is None:
            return "it is not installed: pip install 'feature-pipeline[openvino]'"
    if name == "compile":
        if device == "cpu" and not any(map(shutil.which, COMPILERS)):
            return "there is no C++ compiler"
        if device == "cuda" and find_spec("triton") is None:
            return "Triton is not installed"
        if device == "mps":
            return "it runs on the CPU and on CUDA"
    return ""


def installed_engines(device: str = "cpu", dtype: str = "float32") -> tuple[str, ...]:
    """Return the engines that run here on a kind of device in a dtype, slowest to start last."""
    return tuple(name for name in ENGINES if not missing(name, device) and dtype in dtypes_of(name, device))


def dtypes_of(name: str, device: str) -> tuple[str, ...]:
    """Return the dtypes that an installed engine computes in on a kind of device."""
    if name == REFERENCE:
        return ("float32",)
    if name == "openvino":
        from pipeline.engines.openvino import has_bfloat16

        return ("float32", "bfloat16") if has_bfloat16() else ("float32",)
    return TORCH_DTYPES[device]


def check_engine(name: str, device: str, dtype: str) -> None:
    """Refuse an engine that does not run here.

    Raises:
        UsageError: saying what is missing.
    """
    lacking = missing(name, device)
    if lacking:
        raise UsageError(f"--engine {name} does not run here: {lacking}", f"Here: {_listed(device, dtype)}.")
    if dtype not in dtypes_of(name, device):
        raise UsageError(
            f"--dtype {dtype} is not to be had with engine {name} on {device} here; it computes in "
            f"{', '.join(dtypes_of(name, device))}",
            f"For {dtype}: {_listed(device, dtype)}." if installed_engines(device, dtype) else "",
        )


def _listed(device: str, dtype: str) -> str:
    return ", ".join(installed_engines(device, dtype)) or "none"


def make_engine(
    name: str,
    network: "nn.Module",
    preprocess: Preprocess,
    device: "torch.device",
    *,
    dtype: str = "float32",
    threads: int = 0,
    graphs: GraphStore | None = None,
) -> Engine:
    """Return the engine called `name`, one of ENGINES, for batches that all have the shape of the first.

    Args:
        name: one of ENGINES.
        network: images (b, 3, h, w) to features, or to a tuple of them; left as it is but for its device.
        preprocess: of which mean and std are used.
        device: where it runs.
        dtype: one of DTYPES.
        threads: CPU threads of an engine with threads of its own; 0 for one a core. Torch's are set with `cpu_threads`.
        graphs: keeps graphs that are slow to make, for this network and preprocess alone.

    Raises:
        UsageError: if it does not run here.
    """
    check_engine(name, device.type, dtype)
    if name == REFERENCE:
        from pipeline.engines.reference import ReferenceEngine

        return ReferenceEngine(network, preprocess, device)
    if name == "eager":
        from pipeline.engines.eager import EagerEngine

        return EagerEngine(network, preprocess, device, dtype)
    if name == "compile":
        from pipeline.engines.compiled import CompiledEngine

        return CompiledEngine(network, preprocess, device, dtype)
    from pipeline.engines.openvino import OpenVinoEngine

    return OpenVinoEngine(network, preprocess, device, dtype, threads, graphs)


def engine_version(name: str) -> str:
    """Return what a recipe says of the engine: the versions of what it runs on."""
    if name == "openvino":
        from pipeline.engines.openvino import openvino_version

        return openvino_version()
    import torch

    return f"torch {torch.__version__}"
