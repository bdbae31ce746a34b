"""The decorator: compiles at the first call for each signature of inputs."""

from __future__ import annotations

import torch

import forgec


@forgec.compile
def block(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """A normalized projection. x [rows, width], weight [width, width]."""
    y = x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6)
    return torch.nn.functional.gelu(y @ weight.T)


if __name__ == "__main__":
    x, weight = torch.randn(4, 32), torch.randn(32, 32)
    result = block(x, weight)
    print(result.shape, block.signatures)
