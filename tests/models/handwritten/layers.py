"""Norms, gated units, activations and rotations in the ways in which people write them."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.models.handwritten.case import HEAD, HEADS, WIDTH, Case, hidden


class NormBySize(nn.Module):
    """x-transformers: the row scaled to length sqrt(width)."""

    def __init__(self) -> None:
        super().__init__()
        self.g = nn.Parameter(torch.ones(WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        return F.normalize(x, dim=-1) * WIDTH**0.5 * self.g


class NormBySizeClamped(NormBySize):
    """lucidrains' first: ``x / max(|x| · width^-0.5, eps) · g``."""

    def forward(self, x: Tensor) -> Tensor:
        size = torch.norm(x, dim=-1, keepdim=True) * WIDTH**-0.5
        return x / size.clamp(min=1e-8) * self.g


class NormByVectorNorm(NormBySize):
    """``x / (|x| / sqrt(width) + eps)``: the root mean square with eps outside of the root."""

    def forward(self, x: Tensor) -> Tensor:
        size = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
        return self.g * (x / (size * WIDTH ** (-1.0 / 2) + 1e-8))


class NormBySquareRoot(NormBySize):
    """``x / sqrt(mean(x²) + eps)``, squares by torch.square, the mean without a kept dimension."""

    def forward(self, x: Tensor) -> Tensor:
        size = torch.sqrt(torch.square(x).mean(dim=-1) + 1e-6)
        return x / size.unsqueeze(-1) * self.g


class RowsOfLengthOne(nn.Module):
    """The delta rule's keys: ``x * rsqrt(sum(x²) + eps)``."""

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.rsqrt((x * x).sum(dim=-1, keepdim=True) + 1e-6)


class NormByDeviation(nn.Module):
    """The annotated transformer's layer norm: divides by the unbiased deviation plus eps."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Parameter(torch.ones(WIDTH)), nn.Parameter(torch.zeros(WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        return self.a * (x - x.mean(-1, keepdim=True)) / (x.std(-1, keepdim=True) + 1e-6) + self.b


class NormByVariance(NormByDeviation):
    """``(x - mean) / sqrt(var + eps)`` with var unbiased=False."""

    def forward(self, x: Tensor) -> Tensor:
        mean, var = x.mean(-1, keepdim=True), x.var(-1, unbiased=False, keepdim=True)
        return (x - mean) / torch.sqrt(var + 1e-5) * self.a + self.b


class NormByVarMean(NormByDeviation):
    """torch.var_mean, and rsqrt."""

    def forward(self, x: Tensor) -> Tensor:
        var, mean = torch.var_mean(x, dim=-1, correction=0, keepdim=True)
        return (x - mean) * (var + 1e-5).rsqrt() * self.a + self.b


class NormByMoments(NormByDeviation):
    """The variance as the mean of squares less the square of the mean."""

    def forward(self, x: Tensor) -> Tensor:
        mean = x.mean(-1, keepdim=True)
        var = (x * x).mean(-1, keepdim=True) - mean * mean
        return (x - mean) * torch.rsqrt(var + 1e-5) * self.a + self.b


class ChannelNorm(nn.Module):
    """ConvNeXt's norm over channels that come first."""

    def __init__(self) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(WIDTH)), nn.Parameter(torch.zeros(WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        x = x.transpose(1, 2)
        u = x.mean(1, keepdim=True)
        s = (x - u).pow(2).mean(1, keepdim=True)
        x = (x - u) / torch.sqrt(s + 1e-6)
        return (self.weight[:, None] * x + self.bias[:, None]).transpose(1, 2)


class ScaledByOnePlus(nn.Module):
    """Adaptive norm of diffusion transformers: no parameters of its own, then ``x * (1 + scale) + shift``."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.both = nn.LayerNorm(WIDTH, elementwise_affine=False), nn.Linear(WIDTH, 2 * WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        shift, scale = self.both(F.silu(x.mean(1))).chunk(2, dim=1)
        return self.norm(x) * (1 + scale.unsqueeze(1)) + shift.unsqueeze(1)


class Unit(nn.Module):
    """A feed-forward block with a gate."""

    def __init__(self) -> None:
        super().__init__()
        self.gate, self.up = nn.Linear(WIDTH, 48), nn.Linear(WIDTH, 48)
        self.both, self.down = nn.Linear(WIDTH, 96), nn.Linear(48, WIDTH)

    def gated(self, x: Tensor) -> Tensor:
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        return self.down(self.gated(x))


class SwigluApart(Unit):
    def gated(self, x: Tensor) -> Tensor:
        return self.up(x) * F.silu(self.gate(x))


class SwigluBySigmoid(Unit):
    def gated(self, x: Tensor) -> Tensor:
        gate = self.gate(x)
        return gate * torch.sigmoid(gate) * self.up(x)


class SwigluBySplit(Unit):
    def gated(self, x: Tensor) -> Tensor:
        up, gate = self.both(x).split([48, 48], dim=-1)
        return F.silu(gate) * up


class GegluByChunk(Unit):
    def gated(self, x: Tensor) -> Tensor:
        up, gate = self.both(x).chunk(2, dim=-1)
        return up * F.gelu(gate)


class GegluByHand(Unit):
    def gated(self, x: Tensor) -> Tensor:
        gate = self.gate(x)
        return gate * 0.5 * (1.0 + torch.erf(gate / math.sqrt(2.0))) * self.up(x)


class RegluByView(Unit):
    def gated(self, x: Tensor) -> Tensor:
        both = self.both(x).view(*x.shape[:-1], 2, 48)
        return torch.relu(both[..., 0, :]) * both[..., 1, :]


class TanhGate(Unit):
    def gated(self, x: Tensor) -> Tensor:
        return torch.tanh(self.gate(x)) * torch.sigmoid(self.up(x))


class ClampedSwiglu(Unit):
    """Gate from above, up from both sides, sigmoid scaled, interleaved."""

    def gated(self, x: Tensor) -> Tensor:
        both = self.both(x)
        gate, up = both[..., ::2], both[..., 1::2]
        gate, up = gate.clamp(max=1.5), up.clamp(min=-1.5, max=1.5)
        return gate * torch.sigmoid(gate * 1.702) * (up + 1)


class ClampedBothSides(Unit):
    """The activated gate is clamped from above, up on both sides."""

    def gated(self, x: Tensor) -> Tensor:
        return F.silu(self.gate(x)).clamp(max=0.7) * self.up(x).clamp(min=-0.7, max=0.7)


class Activations(nn.Module):
    """GELU in four spellings and more, one after the other."""

    def forward(self, x: Tensor) -> Tensor:
        x = x * 0.5 * (1.0 + torch.erf(x * 0.7071067811865476))
        x = 0.5 * x * (1 + torch.tanh(0.7978845608028654 * (x + 0.044715 * x * x * x)))
        x = x * torch.sigmoid(1.702 * x)
        x = 0.5 * x * (1 + torch.tanh(x * 0.7978845608028654 * (1 + 0.044715 * x * x)))
        x = x * (torch.erf(x / math.sqrt(2)) + 1) / 2
        x = x * 0.5 * (1 + (math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)).tanh())
        x = x * (1 / (1 + torch.exp(-x)))
        return x * torch.tanh(F.softplus(x))


class Exact(nn.Module):
    """The normal distribution's function by erfc."""

    def forward(self, x: Tensor) -> Tensor:
        return x * 0.5 * torch.erfc(-x * math.sqrt(0.5))


class Rotations(nn.Module):
    """Base of the models below: tables [S, D/2] made in the call."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("frequencies", 10000.0 ** -(torch.arange(0, HEAD, 2).float() / HEAD))

    def angles(self, s: int) -> Tensor:
        return torch.arange(s).float()[:, None] * self.frequencies[None, :]

    def turned(self, x: Tensor, angles: Tensor) -> Tensor:
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        b, s, _ = x.shape
        return self.turned(x.view(b, s, HEADS, HEAD).transpose(1, 2), self.angles(s)).to(x.dtype)


class LucidrainsRope(Rotations):
    """rotary-embedding-torch: angles repeated for neighbours, pairs turned by a view, unbind and stack."""

    def turned(self, x: Tensor, angles: Tensor) -> Tensor:
        angles = angles[..., None].expand(*angles.shape, 2).reshape(angles.shape[0], HEAD)
        first, second = x.reshape(*x.shape[:-1], HEAD // 2, 2).unbind(dim=-1)
        turned = torch.stack((-second, first), dim=-1).reshape(x.shape)
        return (x * angles.cos()) + (turned * angles.sin())


class XTransformersRope(Rotations):
    """x-transformers: halves by a view of (2, D/2), a scale, and features beyond that stay."""

    def turned(self, x: Tensor, angles: Tensor) -> Tensor:
        angles = torch.cat((angles[:, : HEAD // 4], angles[:, : HEAD // 4]), dim=-1)
        t, rest = x[..., : HEAD // 2], x[..., HEAD // 2 :]
        first, second = t.reshape(*t.shape[:-1], 2, HEAD // 4).unbind(dim=-2)
        t = t * angles.cos() * 1.0 + torch.cat((-second, first), dim=-1) * angles.sin() * 1.0
        return torch.cat((t, rest), dim=-1)


class NeoxRope(Rotations):
    """Halves rotated one by one and joined, tables of halves."""

    def turned(self, x: Tensor, angles: Tensor) -> Tensor:
        x1, x2 = x.float().chunk(2, dim=-1)
        cos, sin = angles.cos(), angles.sin()
        return torch.cat((x1 * cos - x2 * sin, x2 * cos + x1 * sin), dim=-1)


class AxialRope(Rotations):
    """Rows and columns of an image: half of the features turn by one, half by the other."""

    def turned(self, x: Tensor, angles: Tensor) -> Tensor:
        half = angles[:, : HEAD // 4]
        both = torch.cat((half, half.flip(0)), dim=-1)
        both = torch.cat((both, both), dim=-1)
        first, second = x[..., : HEAD // 2], x[..., HEAD // 2 :]
        return x * both.cos() + torch.cat((-second, first), dim=-1) * both.sin()


class SplitAxialRope(Rotations):
    """The same with each half of the features turned on its own, and joined."""

    def turned(self, x: Tensor, angles: Tensor) -> Tensor:
        half = angles[:, : HEAD // 4]
        parts = []
        for t, angle in zip(x.chunk(2, dim=-1), (half, half.flip(0)), strict=True):
            angle = torch.cat((angle, angle), dim=-1)
            first, second = t.chunk(2, dim=-1)
            parts.append(t * angle.cos() + torch.cat((-second, first), dim=-1) * angle.sin())
        return torch.cat(parts, dim=-1)


class MatrixRope(Rotations):
    """Pairs times 2 by 2 matrices (FLUX): a table [S, D/2, 2, 2]."""

    def turned(self, x: Tensor, angles: Tensor) -> Tensor:
        cos, sin = angles.cos(), angles.sin()
        table = torch.stack([cos, -sin, sin, cos], dim=-1).reshape(*angles.shape, 2, 2)
        pairs = x.float().reshape(*x.shape[:-1], -1, 1, 2)
        return (table[..., 0] * pairs[..., 0] + table[..., 1] * pairs[..., 1]).reshape(*x.shape)


class InPlaceRope(Rotations):
    """Both parts written into an empty tensor."""

    def turned(self, x: Tensor, angles: Tensor) -> Tensor:
        cos, sin = angles.cos(), angles.sin()
        out = torch.empty_like(x)
        x1, x2 = x[..., ::2], x[..., 1::2]
        out[..., ::2] = x1 * cos - x2 * sin
        out[..., 1::2] = x1 * sin + x2 * cos
        return out


S = ("bs",)
ONE_NORM = {"norm": 1}
ONE_UNIT = {"glu": 1}
ONE_ROPE = {"rope": 1}
LAYERS = [
    Case(NormBySize, hidden, (), ONE_NORM, varies=S),
    Case(NormBySizeClamped, hidden, (), ONE_NORM, varies=S),
    Case(NormByVectorNorm, hidden, (), ONE_NORM, varies=S),
    Case(NormBySquareRoot, hidden, (), ONE_NORM, varies=S),
    Case(RowsOfLengthOne, hidden, (), ONE_NORM, varies=S),
    Case(NormByDeviation, hidden, left=ONE_NORM, varies=S),
    Case(NormByVariance, hidden, (), ONE_NORM, varies=S),
    Case(NormByVarMean, hidden, (), ONE_NORM, varies=S),
    Case(NormByMoments, hidden, left={"norm": 2}, varies=S),
    Case(ChannelNorm, hidden, (), ONE_NORM, varies=S),
    Case(ScaledByOnePlus, hidden, (), {"norm": 1, "activation": 1}, varies=S),
    Case(SwigluApart, hidden, (), ONE_UNIT, varies=S),
    Case(SwigluBySigmoid, hidden, (), ONE_UNIT, varies=S),
    Case(SwigluBySplit, hidden, (), ONE_UNIT, varies=S),
    Case(GegluByChunk, hidden, (), ONE_UNIT, varies=S),
    Case(GegluByHand, hidden, (), ONE_UNIT, varies=S),
    Case(RegluByView, hidden, (), ONE_UNIT, varies=S),
    Case(TanhGate, hidden, left={"tanh": 1, "gate": 1}, varies=S),
    Case(ClampedSwiglu, hidden, (), ONE_UNIT, varies=S),
    Case(ClampedBothSides, hidden, (), {"activation": 1}, varies=S),
    Case(Activations, hidden, (), {"activation": 8}, varies=S),
    Case(Exact, hidden, (), {"activation": 1}, varies=S),
    Case(LucidrainsRope, hidden, (), ONE_ROPE, varies=S),
    Case(XTransformersRope, hidden, (), ONE_ROPE, varies=S),
    Case(NeoxRope, hidden, (), ONE_ROPE, varies=S),
    Case(AxialRope, hidden, (), ONE_ROPE, varies=S),
    Case(SplitAxialRope, hidden, (), {"rope": 2}, varies=S),
    Case(MatrixRope, hidden, varies=S),
    Case(InPlaceRope, hidden, (), ONE_ROPE, varies=S),
]
