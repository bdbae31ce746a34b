"""The smallest model file: what ``forgec compile`` needs is ``model`` and ``example_inputs``."""

from __future__ import annotations

import torch


class Mlp(torch.nn.Module):
    """A gated feed-forward block."""

    def __init__(self, width: int = 64, hidden: int = 256) -> None:
        super().__init__()
        self.norm = torch.nn.LayerNorm(width)
        self.gate = torch.nn.Linear(width, hidden, bias=False)
        self.up = torch.nn.Linear(width, hidden, bias=False)
        self.down = torch.nn.Linear(hidden, width, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.norm(x)
        return x + self.down(torch.nn.functional.silu(self.gate(y)) * self.up(y))


torch.manual_seed(0)
model = Mlp().eval()
example_inputs = (torch.randn(8, 64),)
