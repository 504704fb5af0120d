"""A cut network as one graph with a fixed batch shape, from pixels to features."""

import copy

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram

from pipeline.backbones.preprocess import Preprocess
from pipeline.backbones.taps import Tapped
from pipeline.errors import UsageError, first_line


class FromPixels(nn.Module):
    """Scale, normalise and run a network: uint8 (b, h, w, 3) to what it gives."""

    def __init__(self, network: nn.Module, preprocess: Preprocess, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        if isinstance(network, Tapped):
            network.stops = False
        self.network = network.to(dtype)
        self.dtype = dtype
        self.mean = nn.Buffer(torch.tensor(preprocess.mean).view(1, 3, 1, 1))
        self.std = nn.Buffer(torch.tensor(preprocess.std).view(1, 3, 1, 1))

    def forward(self, pixels: Tensor) -> Tensor | tuple[Tensor, ...]:
        """Return the features of a batch."""
        images = (pixels.permute(0, 3, 1, 2).to(torch.float32) / 255 - self.mean) / self.std
        given: Tensor | tuple[Tensor, ...] = self.network(images.to(self.dtype))
        return given


def export_graph(
    network: nn.Module,
    preprocess: Preprocess,
    shape: tuple[int, ...],
    device: torch.device,
    dtype: torch.dtype = torch.float32,
) -> ExportedProgram:
    """Return the graph of a copy of `network` for uint8 images of exactly `shape` (b, h, w, 3).

    Raises:
        UsageError: if torch.export does not take the network's code.
    """
    whole = FromPixels(copy.deepcopy(network), preprocess, dtype).eval().to(device)
    try:
        with torch.no_grad():
            return torch.export.export(whole, (torch.zeros(shape, dtype=torch.uint8, device=device),), strict=False)
    except Exception as error:  # whatever a network's code raises when it is exported
        raise UsageError(
            f"torch.export does not take this network: {first_line(error)}", "Use --engine eager, which runs any code."
        ) from error
