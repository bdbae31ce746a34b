"""Linears that are one product, of a length that only the call tells, whose parts are stored in different ways."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import forgec
from forgec.backends.cpu.backend import host_level

LEVELS = ["cpu:x86-64-v3"] + (["cpu:x86-64-v4"] if host_level() == "x86-64-v4" else [])


class Heads(nn.Module):
    """Queries and keys are rotated and put by heads, values are not: each has branches of its own in the kernel."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v = (nn.Linear(48, width, bias=False) for width in (48, 16, 16))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = (f(x).view(x.shape[0], x.shape[1], -1, 8).transpose(1, 2) for f in (self.q, self.k, self.v))
        angles = torch.arange(x.shape[1])[:, None] * torch.tensor([1.0, 0.1, 0.01, 0.001]).repeat(2)
        q, k = (each * angles.cos() + torch.cat([-each[..., 4:], each[..., :4]], -1) * angles.sin() for each in (q, k))
        return nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)


@pytest.mark.parametrize("target", LEVELS)
@pytest.mark.parametrize("batch", [1, 3])
def test_branches_have_limits_of_their_own(target: str, batch: int) -> None:
    torch.manual_seed(0)
    model = Heads().eval()
    length = forgec.Dim("length", min=2, max=500)
    compiled = forgec.compile(model, (torch.randn(batch, 13, 48),), target=target, dynamic_shapes=({1: length},))
    for rows in (2, 17, 100):
        x = torch.randn(batch, rows, 48)
        torch.testing.assert_close(compiled(x), model(x).detach(), rtol=1e-5, atol=1e-5)
