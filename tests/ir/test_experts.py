"""Mixtures of experts and products of groups of rows mean what torch computes expert by expert."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from xdsl.dialects.builtin import StringAttr, UnitAttr
from xdsl.ir import Attribute
from xdsl.utils.exceptions import VerifyException

from forgec.ir.attributes import ScalarAttr
from forgec.ir.ops.contraction import GroupedMatmulOp
from forgec.ir.ops.experts import MoeOp
from tests.ir.build import module_of_op, run_op

EXPERTS, FEATURES, HIDDEN, MADE = 4, 8, 12, 6
Function = Callable[..., torch.Tensor]


def close(found: torch.Tensor, expected: torch.Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


class Case:
    """Operands of one ``forge.moe`` on input [3, 5, 8], and what it should yield."""

    def __init__(self, top_k: int, form: str, *, biases: bool = False, dtype: torch.dtype = torch.float32) -> None:
        generator = torch.Generator().manual_seed(top_k)

        def numbers(*shape: int) -> torch.Tensor:
            return (torch.randn(shape, generator=generator) / 3).to(dtype)

        wide = 2 * HIDDEN if form in ("halves", "interleaved") else HIDDEN
        self.form = form
        self.x = numbers(3, 5, FEATURES)
        self.weights, self.indices = numbers(3, 5, EXPERTS).softmax(-1).topk(top_k, -1)
        self.up, self.down = numbers(EXPERTS, wide, FEATURES), numbers(EXPERTS, MADE, HIDDEN)
        self.gate = numbers(EXPERTS, HIDDEN, FEATURES) if form == "separate" else None
        self.bias_up = numbers(EXPERTS, wide) if biases else None
        self.bias_gate = numbers(EXPERTS, HIDDEN) if biases and form == "separate" else None
        self.bias_down = numbers(EXPERTS, MADE) if biases else None

    def operands(self, *, transposed: bool = False) -> list[torch.Tensor | None]:
        """In the order of the op's definition."""
        turned = [w.mT.contiguous() if transposed and w is not None else w for w in (self.up, self.down, self.gate)]
        biases = [self.bias_up, self.bias_gate, self.bias_down]
        return [self.x, self.indices, self.weights, *turned, *biases]

    def expected(self, unit: Function, *, scale_input: bool = False) -> torch.Tensor:
        """Row by row and expert by expert."""
        result = torch.zeros(3, 5, MADE, dtype=self.x.dtype)
        for place in torch.cartesian_prod(torch.arange(3), torch.arange(5)).tolist():
            b, n = place
            for weight, e in zip(self.weights[b, n], self.indices[b, n].tolist(), strict=True):
                x = self.x[b, n] * weight if scale_input else self.x[b, n]
                up = F.linear(x, self.up[e], None if self.bias_up is None else self.bias_up[e])
                if self.gate is not None:
                    gate = F.linear(x, self.gate[e], None if self.bias_gate is None else self.bias_gate[e])
                    hidden = unit(gate, up)
                elif self.form == "none":
                    hidden = unit(up)
                else:
                    halves = up.chunk(2) if self.form == "halves" else (up[::2], up[1::2])
                    hidden = unit(*halves)
                y = F.linear(hidden, self.down[e], None if self.bias_down is None else self.bias_down[e])
                result[b, n] += y if scale_input else weight * y
        return result


def properties(form: str, activation: str = "silu", **more: Attribute) -> dict[str, Attribute]:
    packed: dict[str, Attribute] = {"packed": StringAttr(form)} if form in ("halves", "interleaved") else {}
    return {"activation": StringAttr(activation), **packed, **more}


def swiglu(gate: torch.Tensor, up: torch.Tensor) -> torch.Tensor:
    return F.silu(gate) * up


@pytest.mark.parametrize("top_k", [1, 2, 4])
@pytest.mark.parametrize("form", ["halves", "interleaved", "separate"])
@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("biases", [False, True])
def test_gated_experts(top_k: int, form: str, transposed: bool, biases: bool) -> None:
    case = Case(top_k, form, biases=biases)
    flags: dict[str, Attribute] = {"transposed": UnitAttr()} if transposed else {}
    found = run_op(MoeOp, case.operands(transposed=transposed), properties(form, **flags))
    close(found, case.expected(swiglu))


@pytest.mark.parametrize(
    ("activation", "function"),
    [("relu", F.relu), ("gelu", F.gelu), ("silu", F.silu), ("relu_squared", lambda x: F.relu(x) ** 2)],
)
def test_experts_without_a_gate(activation: str, function: Function) -> None:
    case = Case(2, "none", biases=True)
    close(run_op(MoeOp, case.operands(), properties("none", activation)), case.expected(function))


def test_modifiers_are_those_of_glu() -> None:
    def unit(gate: torch.Tensor, up: torch.Tensor) -> torch.Tensor:
        gate, up = gate.clamp(max=0.5), up.clamp(-0.5, 0.5)
        return gate * torch.sigmoid(1.7 * gate) * (up + 1)

    case = Case(2, "interleaved", biases=True)
    flags = {"alpha": ScalarAttr.of(1.7), "limit": ScalarAttr.of(0.5), "up_offset": ScalarAttr.of(1)}
    close(run_op(MoeOp, case.operands(), properties("interleaved", **flags)), case.expected(unit))


@pytest.mark.parametrize("top_k", [1, 3])
def test_weights_may_scale_the_input(top_k: int) -> None:
    case = Case(top_k, "halves")
    found = run_op(MoeOp, case.operands(), properties("halves", scale_input=UnitAttr()))
    close(found, case.expected(swiglu, scale_input=True))


def test_wide_weights_make_a_wide_result() -> None:
    case = Case(2, "halves", dtype=torch.bfloat16)
    case.weights = case.weights.float()
    assert run_op(MoeOp, case.operands(), properties("halves")).dtype == torch.float32
    assert run_op(MoeOp, case.operands(), properties("halves", scale_input=UnitAttr())).dtype == torch.bfloat16


def test_experts_that_are_not_chosen_are_not_evaluated() -> None:
    case = Case(2, "halves")
    case.indices = case.indices % 3
    clean = run_op(MoeOp, case.operands(), properties("halves"))
    case.up[3] = torch.nan
    torch.testing.assert_close(run_op(MoeOp, case.operands(), properties("halves")), clean)


def changed(**tensors: Any) -> list[torch.Tensor | None]:
    case = Case(2, "halves")
    for name, tensor in tensors.items():
        setattr(case, name, tensor)
    return case.operands()


def test_moe_refuses_what_does_not_fit() -> None:
    case, plain, halves = Case(2, "halves"), properties("none"), properties("halves")
    for operands, given, message in (
        (changed(indices=case.indices[:1]), halves, "indices must have the input's shape"),
        (changed(weights=case.weights[..., :1]), halves, "indices and weights differ"),
        (changed(indices=case.indices.bool()), halves, "takes indices of type"),
        (changed(up=case.up[0]), halves, "must have rank 3"),
        (changed(up=case.up[:, :6]), halves, "do not fit"),
        (changed(up=case.up[:3]), halves, "do not fit"),
        (changed(), plain, "do not fit"),
        (changed(), {**halves, "transposed": UnitAttr()}, "do not fit"),
        (changed(gate=case.up), halves, "there is no w_gate then"),
        (changed(bias_gate=torch.ones(4, 12)), halves, "bias_gate is for w_gate"),
        (changed(bias_up=torch.ones(4, 12)), halves, r"bias_up must have shape \[4, 24\]"),
        (changed(bias_down=torch.ones(6)), halves, r"bias_down must have shape \[4, 6\]"),
        (changed(), properties("halves", "tanh"), "activation must be one of"),
        (changed(), properties("halves", "relu_squared"), "activation must be one of"),
        (changed(), {**halves, "packed": StringAttr("thirds")}, "packed must be one of"),
        (Case(2, "none").operands(), {**plain, "limit": ScalarAttr.of(1.0)}, "are for experts with a gate"),
        (changed(), {**properties("halves", "gelu"), "alpha": ScalarAttr.of(1.0)}, "alpha is for 'silu'"),
        (changed(down=case.down.half()), halves, "operands of one dtype"),
    ):
        with pytest.raises(VerifyException, match=message):
            run_op(MoeOp, operands, given)


def test_cost_counts_the_chosen_experts_alone() -> None:
    case = Case(2, "halves")
    op = next(op for op in module_of_op(MoeOp, case.operands(), properties("halves")).walk() if isinstance(op, MoeOp))
    pairs, rows, expert = 30, 4 * (15 * 8 + 15 * 2 + 15 * 6) + 8 * 30, 4 * (24 * 8 + 6 * 12)
    assert op.flops() == pairs * (2 * 12 * (2 * 8 + 6) + 5 * 12 + 2 * 6)
    assert op.bytes_moved() == rows + 4 * expert
    case.x, case.indices, case.weights = (t[:1, :1] for t in (case.x, case.indices, case.weights))
    op = next(op for op in module_of_op(MoeOp, case.operands(), properties("halves")).walk() if isinstance(op, MoeOp))
    assert op.bytes_moved() == 4 * (8 + 2 + 6) + 8 * 2 + 2 * expert


@pytest.mark.parametrize("ends", [[2, 2, 7], [0, 0, 7], [7, 7, 7], [1, 4, 7]])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_grouped_matmul(ends: list[int], dtype: torch.dtype) -> None:
    x, weight = torch.randn(7, 5).to(dtype), torch.randn(3, 5, 4).to(dtype)
    starts = [0, *ends]
    expected = torch.cat([x[a:b] @ weight[i] for i, (a, b) in enumerate(zip(starts, ends, strict=False))])
    for kind in (torch.int32, torch.int64):
        found = run_op(GroupedMatmulOp, [x, weight, torch.tensor(ends, dtype=kind)])
        torch.testing.assert_close(found, expected, rtol=0, atol=0)


def test_grouped_matmul_refuses_what_does_not_fit() -> None:
    x, weight, ends = torch.ones(7, 5), torch.ones(3, 5, 4), torch.tensor([1, 2, 7])
    for operands, message in (
        ([x[0], weight, ends], "an input of rank 2 and a weight of rank 3"),
        ([x[:, :4], weight, ends], "summed extents 4 and 5 differ"),
        ([x, weight, ends[:2]], "ends must have 3 elements"),
        ([x, weight, ends.float()], "takes indices of type"),
        ([x, weight.double(), ends], "operands of one dtype"),
    ):
        with pytest.raises(VerifyException, match=message):
            run_op(GroupedMatmulOp, operands)
