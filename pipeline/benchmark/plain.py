"""The loop over cached features that everybody writes: shares no code with `pipeline.heads`."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def plain_head(
    x: "Tensor",
    y: "Tensor",
    classes: int,
    *,
    epochs: int,
    lr: float = 1e-3,
    weight_decay: float = 0.0,
    batch_size: int = 64,
    seed: int = 0,
) -> tuple["Tensor", "Tensor"]:
    """Train `nn.Linear` with Adam on index batches, without a DataLoader; return weight (c, d) and bias (c,)."""
    import torch
    from torch import nn
    from torch.nn import functional

    torch.manual_seed(seed)
    head = nn.Linear(x.shape[1], classes).to(x.device)
    optimizer = torch.optim.Adam(head.parameters(), lr=lr, weight_decay=weight_decay)
    generator = torch.Generator().manual_seed(seed)
    for _ in range(epochs):
        for rows in torch.randperm(len(x), generator=generator).to(x.device).split(batch_size):
            loss = functional.cross_entropy(head(x.index_select(0, rows)), y.index_select(0, rows))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return head.weight.detach(), head.bias.detach()
