"""Gated linear units become one op each."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from tests.passes.spellings import Fused

GENERATOR = torch.Generator().manual_seed(0)
X = torch.randn(5, 3, 8, generator=GENERATOR)
GATE, UP, BOTH = (torch.randn(n, 8, generator=GENERATOR) / 3 for n in (6, 6, 12))
BIAS = torch.randn(12, generator=GENERATOR)
Function = Callable[..., Any]


def quick(x: torch.Tensor, alpha: float = 1.702) -> torch.Tensor:
    return x * torch.sigmoid(x * alpha)


def clamped(gate: torch.Tensor, up: torch.Tensor) -> torch.Tensor:
    """As in GPT-OSS."""
    gate, up = gate.clamp(min=None, max=0.7), up.clamp(min=-0.7, max=0.7)
    return (up + 1) * quick(gate)


UNITS: dict[str, tuple[Function, dict[str, Any]]] = {
    "swiglu": (lambda g, u: F.silu(g) * u, {"activation": "silu"}),
    "turned": (lambda g, u: u * F.silu(g), {"activation": "silu"}),
    "spelled": (lambda g, u: g * torch.sigmoid(g) * u, {"activation": "silu"}),
    "geglu": (lambda g, u: F.gelu(g) * u, {"activation": "gelu"}),
    "geglu tanh": (lambda g, u: F.gelu(g, approximate="tanh") * u, {"activation": "gelu_tanh"}),
    "reglu": (lambda g, u: F.relu(g) * u, {"activation": "relu"}),
    "glu": (lambda g, u: torch.sigmoid(g) * u, {"activation": "sigmoid"}),
    "quick": (lambda g, u: quick(g) * u, {"activation": "silu", "alpha": 1.702}),
    "clamped": (clamped, {"activation": "silu", "alpha": 1.702, "limit": 0.7, "up_offset": 1}),
    "limited": (lambda g, u: F.silu(g.clamp(max=0.5)) * u.clamp(-0.5, 0.5), {"activation": "silu", "limit": 0.5}),
    "two limits": (lambda g, u: F.silu(g.clamp(max=0.5)) * u.clamp(-0.5, 0.6), {"activation": "silu"}),
    "clamped from below": (lambda g, u: F.silu(g.clamp(-0.5, 0.5)) * u.clamp(-0.5, 0.5), {"activation": "silu"}),
}
SOURCES: dict[str, Function] = {
    "linears": lambda x, w: (F.linear(x, GATE.to(x.dtype)), F.linear(x, UP.to(x.dtype))),
    "halves": lambda x, w: F.linear(x, w, BIAS.to(x.dtype)).chunk(2, -1),
    "interleaved": lambda x, w: (lambda both: (both[..., ::2], both[..., 1::2]))(x @ w.T + BIAS.to(x.dtype)),
}


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("name", UNITS)
def test_units(name: str, source: str) -> None:
    unit, expected = UNITS[name]
    fused = Fused(lambda x, w: unit(*SOURCES[source](x, w)), [X, BOTH], "fuse-activation,fuse-glu", dynamic=True)
    (op,) = (op for op in fused.module.walk() if op.name == "forge.glu")
    found = {key: getattr(value, "value", getattr(value, "data", None)) for key, value in op.properties.items()}
    assert found == expected
    clamps = 2 if name in ("two limits", "clamped from below") else 0
    assert fused.ops["clamp"] == clamps
    fused.check(others=[[torch.randn(2, 3, 8) * 4, BOTH]])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", ["swiglu", "geglu", "clamped", "quick"])
def test_units_round_as_their_parts(name: str, dtype: torch.dtype) -> None:
    unit, _ = UNITS[name]
    function = lambda x, w: unit(*SOURCES["halves"](x, w))  # noqa: E731
    fused = Fused(function, [X.to(dtype), BOTH.to(dtype)], "fuse-activation,fuse-glu", dynamic=False)
    assert fused.ops["glu"] == 1
    before, after = (fused.forms.forge_results(module)[0] for module in (fused.before, fused.module))
    assert torch.equal(before, after)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_units_of_convolutions_and_of_torchs_glu(dtype: torch.dtype) -> None:
    x, weight = torch.randn(2, 8, 5).to(dtype), torch.randn(12, 8, 1).to(dtype)
    fused = Fused(lambda x, w: F.glu(F.conv1d(x, w), 1), [x, weight], "fuse-glu", dynamic=False)
    assert (fused.ops["glu"], fused.ops["sigmoid"]) == (1, 0)
    fused.check()


def test_units_of_stacked_experts() -> None:
    x, weights = torch.randn(3, 5, 8), torch.randn(3, 8, 12)

    def function(x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        gate, up = torch.bmm(x, w).chunk(2, -1)
        return F.silu(gate) * up

    fused = Fused(function, [x, weights], "fuse-glu", dynamic=False)
    assert fused.ops["glu"] == 1
    fused.check()


NO: dict[str, tuple[Function, str]] = {
    "up is no projection": (lambda x, w: F.silu(F.linear(x, GATE)) * x[..., :6], "not projections of one value"),
    "other inputs": (lambda x, w: F.silu(F.linear(x, GATE)) * F.linear(x.flip(0), UP), "not projections of one value"),
    "gate used twice": (lambda x, w: (lambda g: g * F.linear(x, UP) + g)(F.silu(F.linear(x, GATE))), "other uses"),
    "rows broadcast": (lambda x, w: F.silu(F.linear(x, GATE)) * F.linear(x, UP)[:1], ""),
    "tanh": (lambda x, w: torch.tanh(F.linear(x, GATE)) * F.linear(x, UP), ""),
    "added": (lambda x, w: F.silu(F.linear(x, GATE)) + F.linear(x, UP), ""),
    "a square": (lambda x, w: F.relu(F.linear(x, GATE)).square(), ""),
    "clamped after": (lambda x, w: F.silu(F.linear(x, GATE)).clamp(max=1.0) * F.linear(x, UP), ""),
}  # fmt: skip


@pytest.mark.parametrize("name", NO)
def test_what_is_no_gated_unit_stays(name: str) -> None:
    function, reason = NO[name]
    fused = Fused(function, [X, BOTH], "fuse-glu", dynamic=False)
    assert fused.ops["glu"] == 0
    assert not reason or any(reason in remark.message for remark in fused.remarks)
