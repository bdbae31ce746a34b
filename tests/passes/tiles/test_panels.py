"""Weights of linears in panels: which are packed, and that every reader gets the same numbers."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import forgec

TARGET = "cpu:x86-64-v3"


def compiled(model: nn.Module, *args: Any, shapes: Any = None) -> Any:
    return forgec.compile(model.eval(), args, target=TARGET, dynamic_shapes=shapes)


def packed(program: Any) -> set[str]:
    """The parameters that the plan holds in panels."""
    return {name.removesuffix(".panels") for name in program._weights if name.endswith(".panels")}


def same(program: Any, model: nn.Module, *args: Any) -> None:
    """Within rounding of what float64 gives."""
    with torch.no_grad():
        found, own = program(*args), model(*args)
        wide = model.double()(*(a.double() if a.is_floating_point() else a for a in args))
        model.to(own.dtype)
    bound = {torch.float32: 1e-5, torch.float64: 1e-12, torch.bfloat16: 8e-3, torch.float16: 1e-3}[own.dtype]
    assert found.shape == own.shape
    if own.numel():
        scale = wide.abs().max().clamp(min=1e-30)
        assert ((found.double() - wide).abs().max() / scale).item() <= bound


class Linears(nn.Module):
    def __init__(self, inner: int, outer: int, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.up = nn.Linear(inner, outer, dtype=dtype)
        self.down = nn.Linear(outer, inner, bias=False, dtype=dtype)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.down(F.gelu(self.up(x)))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize(("rows", "inner", "outer"), [(1, 32, 64), (3, 40, 33), (17, 1, 31), (29, 250, 1)])
def test_any_extents(rows: int, inner: int, outer: int, dtype: torch.dtype) -> None:
    torch.manual_seed(rows)
    model, x = Linears(inner, outer, dtype), torch.randn(rows, inner, dtype=dtype)
    program = compiled(model, x)
    assert packed(program) == ({"up.weight", "down.weight"} if min(inner, outer) > 1 else set())
    same(program, model, x)


def test_rows_of_any_number() -> None:
    """What lies beyond the last row is neither read nor written."""
    torch.manual_seed(0)
    model = Linears(48, 80)
    program = compiled(model, torch.randn(2, 5, 48), shapes=({0: torch.export.Dim.AUTO, 1: torch.export.Dim.AUTO},))
    assert packed(program) == {"up.weight", "down.weight"}
    for batch, rows in [(2, 5), (2, 2), (3, 14), (3, 15), (2, 64), (2, 129)]:
        same(program, model, torch.randn(batch, rows, 48))


class Tied(nn.Module):
    def __init__(self, words: int) -> None:
        super().__init__()
        self.table = nn.Embedding(words, 24)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return F.linear(self.table(ids), self.table.weight)


@pytest.mark.parametrize("words", [1, 31, 32, 97])
def test_an_embedding_reads_the_same_panels(words: int) -> None:
    torch.manual_seed(words)
    model = Tied(words)
    ids = torch.randint(0, words, (2, 7))
    program = compiled(model, ids)
    assert packed(program) == {"table.weight"}
    assert "table.weight" not in program._weights
    same(program, model, ids)


class Turned(nn.Module):
    """A weight that is stored as [in, out]."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(40, 70))
        self.bias = nn.Parameter(torch.randn(70))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.addmm(self.bias, x, self.weight)


def test_weights_of_the_other_order() -> None:
    torch.manual_seed(0)
    model, x = Turned(), torch.randn(9, 40)
    program = compiled(model, x)
    assert packed(program) == {"weight"}
    same(program, model, x)


class Elsewhere(nn.Module):
    """A weight that something else reads as well."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(16, 64, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear(x) / self.linear.weight.norm()


def test_what_else_reads_a_weight_keeps_it_as_it_is() -> None:
    torch.manual_seed(0)
    model, x = Elsewhere(), torch.randn(5, 16)
    program = compiled(model, x)
    assert not packed(program)
    same(program, model, x)


class Heads(nn.Module):
    def __init__(self, heads: int, size: int, normed: bool) -> None:
        super().__init__()
        self.heads, self.size = heads, size
        self.qkv = nn.Linear(48, 3 * heads * size)
        self.norm = nn.RMSNorm(size) if normed else nn.Identity()
        self.out = nn.Linear(heads * size, 48)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        shape = (*x.shape[:-1], self.heads, self.size)
        q, k, v = (part.view(shape).transpose(1, 2) for part in self.qkv(x).chunk(3, -1))
        mixed = F.scaled_dot_product_attention(self.norm(q), self.norm(k), v, is_causal=True)
        return self.out(mixed.transpose(1, 2).flatten(2))


@pytest.mark.parametrize("normed", [False, True])
@pytest.mark.parametrize(("heads", "size"), [(2, 64), (3, 32), (3, 80), (5, 12)])
def test_heads(heads: int, size: int, normed: bool) -> None:
    """Parts of a product that begin within a panel are right as well."""
    torch.manual_seed(size)
    model, x = Heads(heads, size, normed), torch.randn(2, 11, 48)
    program = compiled(model, x)
    assert "out.weight" in packed(program)
    same(program, model, x)


class Gated(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.gate, self.up = nn.Linear(32, width, bias=False), nn.Linear(32, width, bias=False)
        self.down = nn.Linear(width, 32, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.down(F.silu(self.gate(x)) * self.up(x))


@pytest.mark.parametrize("width", [64, 96, 40, 7])
def test_gates(width: int) -> None:
    """Gate and up are one parameter: up has to begin where a panel does, or both are in one."""
    torch.manual_seed(width)
    model, x = Gated(width), torch.randn(6, 32)
    program = compiled(model, x)
    assert "down.weight" in packed(program)
    assert len(packed(program)) == (2 if width % 32 == 0 or 2 * width < 32 else 1)
    same(program, model, x)


class Layers(nn.Module):
    """Layers that become one function; two of them share a weight."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([Gated(64) for _ in range(4)])
        self.layers[2].down.weight = self.layers[1].down.weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.layers:
            x = x + layer(x)
        return x


def test_layers() -> None:
    torch.manual_seed(0)
    model, x = Layers(), torch.randn(6, 32)
    program = compiled(model, x)
    assert {name for name in program._weights if not name.endswith(".panels")} == set()
    assert len(packed(program)) == 7
    same(program, model, x)


class RotatedHeads(nn.Module):
    """A linear whose heads are rotated in part."""

    def __init__(self, size: int, rotated: int) -> None:
        super().__init__()
        self.size, self.rotated = size, rotated
        self.linear = nn.Linear(48, 3 * size)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        heads = self.linear(x).view(x.shape[0], x.shape[1], 3, self.size).transpose(1, 2)
        turn, rest = heads[..., : self.rotated], heads[..., self.rotated :]
        place = torch.arange(x.shape[1], dtype=x.dtype)
        angles = torch.outer(place, 100 ** -(torch.arange(0, self.rotated, 2, dtype=x.dtype) / self.rotated))
        cos, sin = torch.cat([angles.cos()] * 2, -1), torch.cat([angles.sin()] * 2, -1)
        low, high = turn.chunk(2, -1)
        return torch.cat([turn * cos + torch.cat([-high, low], -1) * sin, rest], -1)


@pytest.mark.parametrize(
    ("size", "rotated", "packs"),
    [(64, 16, True), (64, 32, True), (128, 64, True), (96, 32, True), (80, 32, False), (64, 20, False)],
)
def test_parts_of_rows_are_shares_of_panels(size: int, rotated: int, packs: bool) -> None:
    """A part that begins within a panel is read by tiles none of which reaches beyond its panel."""
    torch.manual_seed(size + rotated)
    model = RotatedHeads(size, rotated)
    program = compiled(model, torch.randn(2, 19, 48))
    assert packed(program) == ({"linear.weight"} if packs else set())
    same(program, model, torch.randn(2, 19, 48))
