"""Rotary embedding, gated linear unit and mixture of experts against plain code."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F
from xdsl.dialects.builtin import StringAttr, UnitAttr
from xdsl.ir import Attribute
from xdsl.utils.exceptions import VerifyException

from forgec.ir.attributes import ScalarAttr
from forgec.ir.ops.composite import GluOp, RopeOp
from tests.ir.build import run_op


def close(found: torch.Tensor, expected: torch.Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


def rotate_half(x: torch.Tensor) -> torch.Tensor:
    """As in transformers' Llama."""
    first, second = x.chunk(2, -1)
    return torch.cat([-second, first], -1)


def angles(rows: int, count: int, *, pairs: bool = False) -> tuple[torch.Tensor, torch.Tensor]:
    """Cosines and sines [rows, count] of count / 2 angles: halves repeated, or each angle twice in a row."""
    values = torch.outer(torch.arange(rows), 10000.0 ** -(torch.arange(count // 2) / (count // 2)))
    values = values.repeat_interleave(2, -1) if pairs else torch.cat([values, values], -1)
    return values.cos(), values.sin()


def test_rope_rotates_halves() -> None:
    x, (cos, sin) = torch.randn(2, 4, 5, 8), angles(5, 8)
    close(run_op(RopeOp, [x, cos, sin]), x * cos + rotate_half(x) * sin)
    cos, sin = cos[None, None], sin[None, None]
    close(run_op(RopeOp, [x, cos, sin]), x * cos + rotate_half(x) * sin)


def test_rope_rotates_pairs() -> None:
    x, (cos, sin) = torch.randn(2, 5, 8), angles(5, 8, pairs=True)
    rotation = torch.complex(cos[:, ::2], sin[:, ::2])
    expected = torch.view_as_real(torch.view_as_complex(x.reshape(2, 5, 4, 2)) * rotation).flatten(-2)
    close(run_op(RopeOp, [x, cos, sin], {"interleaved": UnitAttr()}), expected)


def test_partial_rope_passes_the_rest_through() -> None:
    x, (cos, sin) = torch.randn(2, 5, 8), angles(5, 4)
    part = x[..., :4]
    expected = torch.cat([part * cos + rotate_half(part) * sin, x[..., 4:]], -1)
    close(run_op(RopeOp, [x, cos, sin]), expected)


def test_rope_promotes_like_its_products() -> None:
    x, (cos, sin) = torch.randn(2, 5, 8).bfloat16(), angles(5, 4)
    assert run_op(RopeOp, [x, cos, sin]).dtype == torch.float32
    assert run_op(RopeOp, [x, cos.bfloat16(), sin.bfloat16()]).dtype == torch.bfloat16


def test_rope_refuses_what_does_not_fit() -> None:
    x, (cos, sin) = torch.ones(2, 5, 8), angles(5, 8)
    for operands, message in (
        ([x, cos, sin[:, :4]], "differ in shape"),
        ([x, cos[:, :3], sin[:, :3]], "positive and even, found 3"),
        ([x[..., :4], cos, sin], "cannot rotate 8 of 4"),
        ([x, cos[:4], sin[:4]], "do not broadcast"),
        ([x, cos.expand(3, 2, 5, 8), sin.expand(3, 2, 5, 8)], "cos and sin do not broadcast"),
        ([x, cos, sin.double()], "operands of one dtype"),
        ([x.long(), cos, sin], "takes floating-point numbers"),
        ([x, torch.tensor(1.0), torch.tensor(0.0)], "positive and even, found 0"),
    ):
        with pytest.raises(VerifyException, match=message):
            run_op(RopeOp, operands)


ACTIVATIONS = {
    "silu": F.silu,
    "gelu": F.gelu,
    "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"),
    "relu": F.relu,
    "sigmoid": torch.sigmoid,
}


@pytest.mark.parametrize("activation", list(ACTIVATIONS))
def test_glu(activation: str) -> None:
    gate, up = torch.randn(3, 4) * 3, torch.randn(3, 4) * 3
    function = ACTIVATIONS[activation]
    name: dict[str, Attribute] = {"activation": StringAttr(activation)}
    close(run_op(GluOp, [gate, up], name), function(gate) * up)
    limited = function(gate.clamp(max=2.0)) * up.clamp(-2.0, 2.0)
    close(run_op(GluOp, [gate, up], {**name, "limit": ScalarAttr.of(2.0)}), limited)


def test_glu_of_gpt_oss() -> None:
    gate, up = torch.randn(3, 4) * 3, torch.randn(3, 4) * 3
    numbers = {"alpha": ScalarAttr.of(1.702), "limit": ScalarAttr.of(2.0), "up_offset": ScalarAttr.of(1)}
    clamped = gate.clamp(max=2.0)
    expected = (up.clamp(-2.0, 2.0) + 1) * (clamped * torch.sigmoid(clamped * 1.702))
    close(run_op(GluOp, [gate, up], {"activation": StringAttr("silu"), **numbers}), expected)
    with pytest.raises(VerifyException, match="alpha is for 'silu'"):
        run_op(GluOp, [gate, up], {"activation": StringAttr("relu"), **numbers})


def test_glu_refuses_what_does_not_fit() -> None:
    x = torch.ones(2, 3)
    for operands, activation, message in (
        ([x, x], "swish", "activation must be one of"),
        ([x, x[:1]], "silu", "differ in shape"),
        ([x, x.half()], "silu", "operands of one dtype"),
    ):
        with pytest.raises(VerifyException, match=message):
            run_op(GluOp, operands, {"activation": StringAttr(activation)})
