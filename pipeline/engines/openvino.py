"""The graph through OpenVINO: the fastest on most x86 CPUs. The only file that knows it."""

import sys
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.backbones.preprocess import Preprocess
from pipeline.engines.engine import GraphStore
from pipeline.errors import UsageError, first_line
from pipeline.threads import default_threads

if TYPE_CHECKING:
    import torch
    from torch import nn

XML, WEIGHTS = "xml", "bin"
IMAGES_A_THREAD = 4
"""Of one call: what passes between two layers then stays in the caches. On 2 threads a mobilenet_v2 ran a fifth faster
by 8 than by 64, a resnet18 equally fast."""
PRECISIONS = {"float32": "f32", "bfloat16": "bf16"}


class OpenVinoEngine:
    """A graph of its own for a fixed part of a batch, from uint8 pixels to features.

    Making it takes seconds (torch.export, conversion, compilation); what OpenVINO calls its intermediate
    representation, which is data and no code, is kept in `graphs` under a name that the caller vouches for.
    """

    name = "openvino"

    def __init__(
        self,
        network: "nn.Module",
        preprocess: Preprocess,
        device: "torch.device",
        dtype: str = "float32",
        threads: int = 0,
        graphs: GraphStore | None = None,
    ) -> None:
        self.version = openvino_version()
        self.network, self.preprocess, self.device, self.dtype = network, preprocess, device, dtype
        self.threads, self.graphs = threads or default_threads(), graphs
        self._compiled: Any = None
        self._part = 0

    def features(self, pixels: np.ndarray) -> np.ndarray:
        """Return float32 features (b, *row) of uint8 images (b, h, w, 3)."""
        (only,) = self.all_features(pixels)
        return only

    def all_features(self, pixels: np.ndarray) -> list[np.ndarray]:
        """Return the same for each layer of a network that gives several. The first call makes the graph."""
        if self._compiled is None:
            self._part = part_size(len(pixels), self.threads)
            self._compiled = self._make((self._part, *pixels.shape[1:]))
        given = [self._compiled(pixels[at : at + self._part]) for at in range(0, len(pixels), self._part)]
        return [np.concatenate([part[place] for part in given]) for place in range(len(given[0]))]

    def _make(self, shape: tuple[int, ...]) -> Any:  # noqa: ANN401 - OpenVINO has no types
        core = load_openvino().Core()
        # In float32 unless asked: OpenVINO takes bfloat16 by itself where the CPU has it. Threads are left unpinned,
        # for loading processes share the cores.
        settings = {
            "INFERENCE_PRECISION_HINT": PRECISIONS[self.dtype],
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_NUM_THREADS": self.threads,
            "ENABLE_CPU_PINNING": False,
        }
        return core.compile_model(self._model(core, shape), "CPU", settings)

    def _model(self, core: Any, shape: tuple[int, ...]) -> Any:  # noqa: ANN401
        name = graph_name(shape, self.version)
        parts = self.graphs.load(name) if self.graphs is not None else None
        if parts is None or set(parts) != {XML, WEIGHTS}:
            parts = self._convert(shape)
            if self.graphs is not None:
                self.graphs.save(name, parts)
        return core.read_model(parts[XML], parts[WEIGHTS])

    def _convert(self, shape: tuple[int, ...]) -> dict[str, bytes]:
        import tempfile
        from pathlib import Path

        import torch

        from pipeline.engines.graph import export_graph

        openvino = load_openvino()
        program = export_graph(self.network, self.preprocess, shape, torch.device("cpu"))
        try:
            model = openvino.convert_model(program)
        except Exception as error:  # OpenVINO's conversion raises classes of its own for each cause
            raise UsageError(
                f"OpenVINO does not take this network: {first_line(error)}", "Use --engine eager."
            ) from error
        model.reshape(list(shape))
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "graph.xml"
            openvino.save_model(model, path, compress_to_fp16=False)
            return {XML: path.read_bytes(), WEIGHTS: path.with_suffix(".bin").read_bytes()}


def load_openvino() -> Any:  # noqa: ANN401
    """Import OpenVINO without its telemetry, which would send an event each time it is imported.

    Raises:
        ImportError: if it is not installed.
    """
    # None makes `import openvino_telemetry` fail, which OpenVINO takes for not installed.
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    import openvino

    return openvino


def part_size(batch_size: int, threads: int) -> int:
    """Return how many images of a batch go through the graph at once: all parts have one shape."""
    wanted = IMAGES_A_THREAD * threads
    part = max(size for size in range(1, min(wanted, batch_size) + 1) if batch_size % size == 0)
    return part if 2 * part > wanted else batch_size


def graph_name(shape: tuple[int, ...], version: str) -> str:
    """Return the name under which a graph for batches of `shape` is kept."""
    return f"openvino {'x'.join(str(side) for side in shape)}, {version}"


def openvino_version() -> str:
    """Return the versions of what makes and runs the graph."""
    from importlib.metadata import version

    return f"openvino {version('openvino')} by {IMAGES_A_THREAD} a thread, torch {version('torch')}"


def has_bfloat16() -> bool:
    """Tell whether this CPU computes in bfloat16: elsewhere OpenVINO would silently use float32."""
    return "BF16" in load_openvino().Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
