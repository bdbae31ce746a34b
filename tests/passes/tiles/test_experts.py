"""Mixtures of experts: a few kernels, whatever is packed, added or scaled."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from xdsl.dialects.builtin import StringAttr
from xdsl.ir import SSAValue

from forgec.ir.ops.experts import MoeOp
from forgec.ir.tile.kernel import LaunchOp
from tests.passes.tiles.lowering import UNIT, check

EXPERTS, FEATURES, HIDDEN, MADE = 5, 6, 4, 3


def mixed(
    rows: int, chosen: int, *, gate: bool = False, bias: bool = False, dtype: torch.dtype = torch.float32,
    index: torch.dtype = torch.int64, dynamic: bool = False, **options: str,
) -> int:  # fmt: skip
    """How many kernels run; what they give is compared."""
    generator = torch.Generator().manual_seed(rows)

    def random(*shape: int) -> torch.Tensor:
        return (torch.randn(shape, generator=generator) / 2).to(dtype)

    wide = 2 * HIDDEN if "packed" in options else HIDDEN
    tensors = {
        "input": random(rows, FEATURES),
        "indices": torch.rand(rows, EXPERTS, generator=generator).argsort(1)[:, :chosen].to(index),
        "weights": random(rows, chosen),
        "w_up": random(EXPERTS, wide, FEATURES),
        "w_down": random(EXPERTS, MADE, HIDDEN),
    }
    if gate:
        tensors["w_gate"] = random(EXPERTS, HIDDEN, FEATURES)
    if "transposed" in options:
        tensors |= {name: t.mT.contiguous() for name, t in tensors.items() if name.startswith("w_")}
    if bias:
        tensors |= {"bias_up": random(EXPERTS, wide), "bias_down": random(EXPERTS, MADE)}
    if bias and gate:
        tensors["bias_gate"] = random(EXPERTS, HIDDEN)
    properties: dict[str, Any] = {"activation": StringAttr("silu")}
    properties |= {name: StringAttr(text) if text else UNIT for name, text in options.items()}

    def make(emit: Any, *given: SSAValue) -> list[SSAValue]:
        values = dict(zip(tensors, given, strict=True))
        return [emit(MoeOp, *(values.get(name) for name, _ in MoeOp.get_irdl_definition().operands), **properties)]

    lengths = [(0, 0), (1, 0), (2, 0)] if dynamic else []
    module = check(make, *tensors.values(), dynamic=lengths, tolerance=2e-5 if dtype == torch.float32 else 3e-2)
    return sum(isinstance(op, LaunchOp) for op in module.walk())


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"packed": "halves"},
        {"packed": "interleaved", "bias": True},
        {"transposed": "", "packed": "halves", "bias": True},
        {"scale_input": "", "packed": "halves"},
        {"packed": "halves", "bias": True, "dtype": torch.bfloat16},
        {"index": torch.int32},
    ],
)
def test_forms(options: dict[str, Any]) -> None:
    assert mixed(7, 2, **options) == 7
    assert mixed(1, 3, **options) == 7
    assert mixed(5, 1, **options) == 7


def test_a_gate_of_its_own() -> None:
    assert mixed(7, 2, gate=True) == 8
    assert mixed(7, 2, gate=True, bias=True) == 8


def test_any_number_of_rows() -> None:
    assert mixed(7, 2, gate=True, bias=True, dynamic=True) == 8
    mixed(0, 2)
