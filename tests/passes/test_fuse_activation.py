"""Activation functions written as arithmetic become one op each."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.passes.spellings import Fused

X = torch.randn(5, 24, generator=torch.Generator().manual_seed(0)) * 3
Function = Callable[[torch.Tensor], torch.Tensor]
SCALE = math.sqrt(2 / math.pi)


def gelu_fast(x: torch.Tensor) -> torch.Tensor:
    return 0.5 * x * (1.0 + torch.tanh(x * 0.7978845608 * (1.0 + 0.044715 * x * x)))


SPELLINGS: dict[str, tuple[str, Function]] = {
    "gelu_new": ("gelu", lambda x: 0.5 * x * (1.0 + torch.tanh(SCALE * (x + 0.044715 * torch.pow(x, 3.0))))),
    "gelu_python_tanh": ("gelu", lambda x: x * 0.5 * (1.0 + torch.tanh(SCALE * (x + 0.044715 * torch.pow(x, 3.0))))),
    "gelu_fast": ("gelu", gelu_fast),
    "bloom": ("gelu", lambda x: x * 0.5 * (1.0 + torch.tanh(0.79788456 * x * (1 + 0.044715 * x * x)))),
    "products": ("gelu", lambda x: x * (0.5 + 0.5 * torch.tanh(SCALE * x + SCALE * 0.044715 * x * x * x))),
    "distributed": ("gelu", lambda x: 0.5 * (x + x * torch.tanh(SCALE * (x + 0.044715 * x**3)))),
    "halved": ("gelu", lambda x: x * (1.0 + torch.tanh(SCALE * (x + 0.044715 * x**2 * x))) / 2),
    "of a sum": ("gelu", lambda x: gelu_fast(x + x.flip(0))),
    "erf": ("gelu", lambda x: x * 0.5 * (1.0 + torch.erf(x / math.sqrt(2.0)))),
    "erf times root": ("gelu", lambda x: (torch.erf(x * 0.7071067811865476) + 1) * x * 0.5),
    "erf from one": ("gelu", lambda x: 0.5 * x * (1 - -torch.erf(x / math.sqrt(2.0)))),
    "quick_gelu": ("swish", lambda x: x * torch.sigmoid(1.702 * x)),
    "alpha": ("swish", lambda x: torch.sigmoid(x * 1.3) * x),
    "silu": ("silu", lambda x: x * torch.sigmoid(x)),
    "silu of a multiple": ("silu", lambda x: (2 * x) * torch.sigmoid(2 * x)),
    "mish": ("mish", lambda x: x * torch.tanh(torch.nn.functional.softplus(x))),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("name", SPELLINGS)
def test_spellings(name: str, dtype: torch.dtype) -> None:
    op, function = SPELLINGS[name]
    fused = Fused(function, [X.to(dtype)], "fuse-activation", dynamic=True)
    assert fused.ops[op] == 1
    left = {"silu of a multiple": {"mul": 1}, "of a sum": {"add": 1}}.get(name, {})
    arithmetic = ("mul", "add", "sub", "rsub", "div", "pow", "tanh", "erf", "sigmoid", "softplus")
    assert {key: n for key, n in fused.ops.items() if key in arithmetic} == left
    program = [fused.forms.forge_results(module, X.to(dtype))[0] for module in (fused.before, fused.module)]
    tolerance = 2e-6 if dtype == torch.float32 else 1e-7  # constants are written with eight digits, or more
    torch.testing.assert_close(program[1], program[0], rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("name", SPELLINGS)
def test_special_numbers_keep_their_meaning(name: str) -> None:
    x = torch.tensor([[math.nan, math.inf, -math.inf, 0.0, -0.0, 1e-30, -1e-30, 1e38, -1e38, 60.0, -60.0, 1e15]]).T
    x = x.repeat(1, 2)
    fused = Fused(SPELLINGS[name][1], [x], "fuse-activation", dynamic=False)
    before, after = (fused.forms.forge_results(module, x)[0] for module in (fused.before, fused.module))
    finite = before.isfinite()  # torch's own GELU is NaN for infinity
    torch.testing.assert_close(after[finite], before[finite], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", SPELLINGS)
def test_half_precision_is_at_least_as_near_to_the_exact_value(name: str, dtype: torch.dtype) -> None:
    op, function = SPELLINGS[name]
    x = X.to(dtype)
    fused = Fused(function, [x], "fuse-activation", dynamic=False)
    assert fused.ops[op] == 1
    exact = function(x.double())
    before, after = (fused.forms.forge_results(module, x)[0].double() for module in (fused.before, fused.module))
    assert (after - exact).abs().max() <= (before - exact).abs().max() * 1.01


NO: dict[str, Function] = {
    "another coefficient": lambda x: 0.5 * x * (1.0 + torch.tanh(SCALE * (x + 0.0447 * torch.pow(x, 3.0)))),
    "another scale": lambda x: 0.5 * x * (1.0 + torch.tanh(0.7978 * (x + 0.044715 * torch.pow(x, 3.0)))),
    "another power": lambda x: 0.5 * x * (1.0 + torch.tanh(SCALE * (x + 0.044715 * torch.pow(x, 2.0)))),
    "not halved": lambda x: x * (1.0 + torch.erf(x / math.sqrt(2.0))),
    "minus": lambda x: 0.5 * x * (1.0 - torch.erf(x / math.sqrt(2.0))),
    "other x": lambda x: x.flip(0) * torch.sigmoid(1.702 * x),
    "tanh alone": torch.tanh,
    "function used twice": lambda x: 0.5 * x * (1.0 + torch.erf(x / math.sqrt(2.0))) + torch.erf(x / math.sqrt(2.0)),
    "softplus with another beta": lambda x: x * torch.tanh(torch.nn.functional.softplus(x, 2.0)),
    "tensor of rows": lambda x: x[:1] * torch.sigmoid(x),
}


@pytest.mark.parametrize("name", NO)
def test_what_is_no_activation_stays(name: str) -> None:
    fused = Fused(NO[name], [X], "fuse-activation", dynamic=False)
    assert not {"gelu", "silu", "swish", "mish"} & fused.ops.keys()


@given(st.data())
@settings(max_examples=40, deadline=None)
def test_random_arithmetic_keeps_its_value(data: st.DataObject) -> None:
    names = ["half", "one", "x", "cube", "tanh", "erf", "sigmoid", "scale"]
    steps = data.draw(st.lists(st.sampled_from(names), min_size=2, max_size=8))

    def function(x: torch.Tensor) -> torch.Tensor:
        value = x
        for step in steps:
            match step:
                case "half":
                    value = value * 0.5
                case "one":
                    value = 1 + value
                case "x":
                    value = value * x
                case "cube":
                    value = value + 0.044715 * x**3
                case "scale":
                    value = value * SCALE
                case _:
                    value = getattr(torch, step)(value)
        return value

    x = X.double() / 3
    fused = Fused(function, [x], "fuse-activation", dynamic=False)
    before, after = (fused.forms.forge_results(module, x)[0] for module in (fused.before, fused.module))
    torch.testing.assert_close(after, before, rtol=1e-9, atol=1e-9)
