"""The graph through torch.compile: needs a C++ compiler on the CPU, Triton on CUDA."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.backbones.memory import keep_memory
from pipeline.backbones.preprocess import Preprocess
from pipeline.engines.engine import as_arrays, float32_products
from pipeline.engines.folding import folded
from pipeline.engines.graph import export_graph
from pipeline.errors import UsageError, first_line

if TYPE_CHECKING:
    import torch
    from torch import nn


class CompiledEngine:
    """Inductor with frozen weights; on CUDA with CUDA graphs.

    Compiled code is kept where torch keeps it (`TORCHINDUCTOR_CACHE_DIR`), not beside the cache: it is run as it
    is, and a cache may come from anyone.
    """

    name = "compile"

    def __init__(
        self, network: "nn.Module", preprocess: Preprocess, device: "torch.device", dtype: str = "float32"
    ) -> None:
        import torch

        if device.type == "cpu":
            keep_memory()
        self.version = f"torch {torch.__version__}"
        self.products = "tf32" if dtype == "tf32" else "ieee"
        self.dtype: torch.dtype = getattr(torch, "float32" if dtype == "tf32" else dtype)
        self.network, self.preprocess, self.device = network, preprocess, device
        self._run: Callable[[Any], Any] | None = None

    def features(self, pixels: np.ndarray) -> np.ndarray:
        """Return float32 features (b, *row) of uint8 images (b, h, w, 3)."""
        (only,) = self.all_features(pixels)
        return only

    def all_features(self, pixels: np.ndarray) -> list[np.ndarray]:
        """Return the same for each layer of a network that gives several. The first call compiles."""
        import torch

        if self._run is None:
            self._run = self._compiled(pixels.shape)
        with torch.no_grad(), float32_products(self.products):
            return as_arrays(self._run(torch.from_numpy(pixels).to(self.device)))

    def _compiled(self, shape: tuple[int, ...]) -> Callable[[Any], Any]:
        """Compile for batches of `shape`.

        Raises:
            UsageError: if the compiler fails.
        """
        import torch
        from torch._dynamo.exc import TorchDynamoException
        from torch._inductor.exc import InductorError

        quick = folded(self.network).to(memory_format=torch.channels_last)
        graph = export_graph(quick, self.preprocess, shape, self.device, self.dtype).module()
        options: dict[str, Any] = {"freezing": True}
        if self.device.type == "cuda":
            options |= {"triton.cudagraphs": True}
        compiled: Callable[[Any], Any] = torch.compile(graph, fullgraph=True, dynamic=False, options=options)
        try:
            with torch.no_grad():
                compiled(torch.zeros(shape, dtype=torch.uint8, device=self.device))
        except (TorchDynamoException, InductorError) as error:
            raise UsageError(
                f"torch.compile does not take this network here: {first_line(error)}", "Use --engine eager."
            ) from error
        return compiled
