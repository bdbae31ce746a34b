"""Small models that seeded miscompiles break. A comment ``here: KIND`` marks the line that each kind breaks."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional


class Decoder(nn.Module):
    """A layer with grouped queries, rotary embeddings, a sliding window, Gemma's norm and a gated unit."""

    def __init__(self, width: int = 16, heads: int = 4, groups: int = 2) -> None:
        super().__init__()
        self.heads, self.groups, self.features = heads, groups, width // heads
        self.norm = nn.Parameter(torch.randn(width) / 4)
        self.query = nn.Linear(width, width, bias=False)
        self.key = nn.Linear(width, groups * self.features, bias=False)
        self.value = nn.Linear(width, groups * self.features, bias=False)
        self.out = nn.Linear(width, width, bias=False)
        self.gate = nn.Linear(width, 24, bias=False)
        self.up = nn.Linear(width, 24, bias=False)
        self.down = nn.Linear(24, width, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        batch, rows, _ = x.shape
        mean = x.pow(2).mean(-1, keepdim=True)
        scaled = x * torch.rsqrt(mean + 0.1)  # here: norm-eps
        h = scaled * (1 + self.norm)  # here: norm-offset
        q = self.query(h).view(batch, rows, self.heads, self.features).transpose(1, 2)
        k = self.key(h).view(batch, rows, self.groups, self.features).transpose(1, 2)  # here: merge-offset
        v = self.value(h).view(batch, rows, self.groups, self.features).transpose(1, 2)
        frequencies = 0.5 ** torch.arange(0, self.features // 2, dtype=torch.float32)
        angles = torch.arange(rows, dtype=torch.float32)[:, None] * frequencies
        cos, sin = torch.cat([angles, angles], -1).cos(), torch.cat([angles, angles], -1).sin()
        q = q * cos + rotate_half(q) * sin  # here: rope-sign
        k = k * cos + rotate_half(k) * sin
        k, v = repeat(k, self.heads // self.groups), repeat(v, self.heads // self.groups)
        scores = q @ k.transpose(-1, -2) * self.features**-0.5
        i, j = torch.arange(rows)[:, None], torch.arange(rows)
        keep = (j <= i) & (i - j < 3)
        scores = scores.masked_fill(~keep, float("-inf"))
        weights = scores.softmax(-1)  # here: softmax-dim
        attended = weights @ v  # here: attention-scale, causal, window, head-groups
        x = x + self.out(attended.transpose(1, 2).reshape(batch, rows, -1))  # here: residual
        wide = functional.silu(self.gate(x)) * self.up(x)  # here: glu-operands
        return x + self.down(wide)


def rotate_half(x: torch.Tensor) -> torch.Tensor:
    half = x.shape[-1] // 2
    return torch.cat([-x[..., half:], x[..., :half]], -1)


def repeat(x: torch.Tensor, count: int) -> torch.Tensor:
    batch, heads, rows, features = x.shape
    return x[:, :, None].expand(batch, heads, count, rows, features).reshape(batch, heads * count, rows, features)


class Bits(nn.Module):
    """Single ops of many kinds, on square and cubic tensors, so that what is wrong has the right shape."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("seen", torch.zeros(4, 4))
        self.row = nn.Parameter(torch.randn(4))

    def forward(self, x: torch.Tensor, cube: torch.Tensor, index: torch.Tensor) -> dict[str, torch.Tensor]:
        y = torch.tanh(x)
        self.seen += y  # here: state-write, stale-operand
        moved = cube.permute(1, 0, 2).permute(0, 2, 1)  # here: permutations
        difference = y - x.exp()  # here: sub-operands
        same = difference * 1.0  # here: times-one
        column = same + self.row[:, None]  # here: broadcast-dim
        one, other = column.softmax(0), column.softmax(1)  # here: cse-attribute
        smooth = functional.gelu(4 * one - 3 * other)  # here: gelu
        table = torch.arange(4.0).sqrt() * 0.3  # here: constant
        weighted = smooth * table
        whole = (weighted * 9).to(torch.int64) * 3  # here: cast-order
        total = (weighted + whole).sum(1)  # here: sum-dim
        both = torch.cat([total, y[0]])  # here: concat-order
        part = both[1:5]  # here: slice-start
        chosen = torch.gather(x, 1, index)  # here: gather-dim
        kept = torch.where(chosen > 0, chosen, part)
        clamped = torch.where(index < 2, kept, kept * 2)  # here: comparison, where-branches
        long = torch.sigmoid(clamped) * torch.cos(x) + torch.sin(clamped)
        return {"moved": moved, "long": long, "seen": self.seen.clone()}


class Layers(nn.Module):
    """Layers that are outlined."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(Layer() for _ in range(3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.layers:
            x = layer(x)
        return x


class Layer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(6, 6), nn.Linear(6, 6)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        inner = torch.tanh(self.first(x)) * 2
        inner = torch.relu(inner).exp().cos()
        return x - torch.sigmoid(self.second(inner))  # here: layer-weights, layer-body


class Steps(nn.Module):
    """Control flow: a loop and a branch."""

    def forward(self, x: torch.Tensor, flag: torch.Tensor) -> torch.Tensor:
        def negated(x: torch.Tensor) -> torch.Tensor:
            return x.exp() - x.cos()

        return torch.cond(flag, negated, lambda x: x.sin(), (x,)) * 2  # here: branch
