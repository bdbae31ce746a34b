"""Results that consist of parts: a product is computed once, in the parts that are written."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from xdsl.dialects.builtin import IntAttr, ModuleOp
from xdsl.ir import SSAValue

from forgec.ir.attributes import IntsAttr
from forgec.ir.context import context
from forgec.ir.interpreter import interpret
from forgec.ir.ops.binary import AddOp
from forgec.ir.ops.composite import RopeOp
from forgec.ir.ops.contraction import LinearOp
from forgec.ir.ops.shape import ConcatOp, TransposeOp
from forgec.ir.tile.compute import DotOp
from forgec.ir.tile.cost import kernel_cost
from forgec.ir.tile.elementwise import SelectOp
from forgec.ir.tile.kernel import KernelOp
from forgec.ir.tile.memory import GatherOp, ScatterOp
from forgec.ir.tile.types import extents
from forgec.passes.manager import run_pipeline
from forgec.passes.tiles.parts import LEAST_RUN, PARTS_LIMIT
from forgec.runtime.symbolic import evaluate
from tests.ir.build import parse
from tests.passes.tiles.lowering import UNIT, check, numbers

HEADS = """
func.func @forward(%x : tensor<2x5x12xf32>, %w : tensor<24x12xf32>, %g : tensor<8xf32>, %c : tensor<1x1x5x4xf32>,
    %s : tensor<1x1x5x4xf32>) -> tensor<2x3x5x8xf32> {
  %0 = forge.linear %x, %w : (tensor<2x5x12xf32>, tensor<24x12xf32>) -> tensor<2x5x24xf32>
  %1 = forge.reshape %0 : (tensor<2x5x24xf32>) -> tensor<2x5x3x8xf32>
  %2 = NORM
  %3 = forge.transpose %2 [0, 2, 1, 3] : (tensor<2x5x3x8xf32>) -> tensor<2x3x5x8xf32, #forge.tensor<[], strides = [120, 8, 24, 1]>>
  %4 = forge.rope %3 cos %c sin %s once : (tensor<2x3x5x8xf32, #forge.tensor<[], strides = [120, 8, 24, 1]>>, tensor<1x1x5x4xf32>, tensor<1x1x5x4xf32>) -> tensor<2x3x5x8xf32>
  func.return %4 : tensor<2x3x5x8xf32>
}
"""  # noqa: E501
NORMS = {
    norm: f"forge.{norm} %1 weight %g axes 1 eps 1.0e-06 : (tensor<2x5x3x8xf32>, tensor<8xf32>) -> tensor<2x5x3x8xf32>"
    for norm in ("rms_norm", "layer_norm")
}


@pytest.mark.parametrize("norm", NORMS)
def test_a_norm_and_a_rotation_share_the_product(norm: str) -> None:
    module = parse(HEADS.replace("NORM", NORMS[norm]))
    torch.manual_seed(0)
    angles = torch.randn(1, 1, 5, 4)
    given = [torch.randn(2, 5, 12), torch.randn(24, 12), torch.randn(8), angles.cos(), angles.sin()]
    (expected,) = interpret(module, given)
    run_pipeline(module, "@O2,lower-to-tile", context=context())
    (kernel,) = [op for op in module.ops if isinstance(op, KernelOp)]
    assert sum(isinstance(op, DotOp) for op in kernel.walk()) == 2  # one for each half
    for pipeline in ("", "bind-tiles"):
        run_pipeline(module, pipeline, context=context())
        torch.testing.assert_close(interpret(module, given)[0], expected, rtol=0, atol=1e-5)


def kernel_of(module: ModuleOp) -> KernelOp:
    (kernel,) = [op for op in module.ops if isinstance(op, KernelOp)]
    return kernel


def widths(kernel: KernelOp) -> list[Any]:
    """What the columns of each product run over, in order."""
    over = {parameter.name: parameter.extent for parameter in kernel.tiles.data}
    names = [str(extents(op.result)[1]) for op in kernel.walk() if isinstance(op, DotOp)]
    return sorted(over.get(name, name) for name in names)


def is_plain(kernel: KernelOp) -> bool:
    """True if nothing is computed under a mask or read element by element."""
    return not any(isinstance(op, (SelectOp, GatherOp, ScatterOp)) for op in kernel.walk())


def rotated(first: int, once: bool, heads: int, features: int) -> Any:
    def make(emit: Any, x: SSAValue, w: SSAValue, c: SSAValue, s: SSAValue) -> Sequence[SSAValue]:
        y = emit(LinearOp, x, w)
        y = emit.reshape(y, (2, 5, heads, features))
        y = emit(TransposeOp, y, permutation=IntsAttr([0, 2, 1, 3]))
        settings = {"start": IntAttr(first)} if first else {}
        return [emit(RopeOp, y, c, s, **settings, **({"once": UNIT} if once else {}))]

    return make


@pytest.mark.parametrize(("features", "count", "first"), [(64, 16, 0), (40, 20, 0), (48, 16, 16), (24, 16, 8)])
def test_what_a_rotation_lets_through_is_computed_once(features: int, count: int, first: int) -> None:
    angles = numbers(5, count)
    given = (numbers(2, 5, 12), numbers(3 * features, 12, seed=1), angles.cos(), angles.sin())
    kernel = kernel_of(check(rotated(first, False, 3, features), *given, optimize=True))
    through = [extent for extent in (first, features - first - count) if extent]
    # parts of the extent of what is rotated are computed beside it, in halves as well
    halves = [count // 2] * 2 * (1 + through.count(count))
    assert widths(kernel) == sorted(halves + [extent for extent in through if extent != count])
    assert is_plain(kernel)
    cost = kernel_cost(kernel)
    values = dict.fromkeys((parameter.name for parameter in kernel.tiles.data), 1)
    assert evaluate(cost.launch.dot_flops, values) == 2 * 10 * 3 * features * 12


JOINED = """
func.func @forward(%x : tensor<2x?x12xf32, #forge.tensor<[s0]>>, %v : tensor<16x12xf32>, %w : tensor<24x12xf32>) -> tensor<2x?x40xf32, #forge.tensor<[s0]>> {
  %r = forge.fused "linear" (%0 = %x : tensor<2x?x12xf32, #forge.tensor<[s0]>>, %1 = %v : tensor<16x12xf32>, %2 = %w : tensor<24x12xf32>) {
    %3 = forge.linear %0, %1 : (tensor<2x?x12xf32, #forge.tensor<[s0]>>, tensor<16x12xf32>) -> tensor<2x?x16xf32, #forge.tensor<[s0]>>
    %4 = forge.linear %0, %2 : (tensor<2x?x12xf32, #forge.tensor<[s0]>>, tensor<24x12xf32>) -> tensor<2x?x24xf32, #forge.tensor<[s0]>>
    %5 = forge.concat %3, %4 dim 2 : (tensor<2x?x16xf32, #forge.tensor<[s0]>>, tensor<2x?x24xf32, #forge.tensor<[s0]>>) -> tensor<2x?x40xf32, #forge.tensor<[s0]>>
    forge.yield %5 : tensor<2x?x40xf32, #forge.tensor<[s0]>>
  } : tensor<2x?x40xf32, #forge.tensor<[s0]>>
  func.return %r : tensor<2x?x40xf32, #forge.tensor<[s0]>>
}
"""  # noqa: E501


def test_parts_of_a_concatenation_are_products_of_their_own() -> None:
    module = parse(JOINED)
    given = [numbers(2, 5, 12), numbers(16, 12, seed=1), numbers(24, 12, seed=2)]
    (expected,) = interpret(module, given)
    run_pipeline(module, "lower-to-tile", context=context())
    kernel = kernel_of(module)
    assert is_plain(kernel)
    assert widths(kernel) == [16, 24]
    cost = kernel_cost(kernel)
    values = dict.fromkeys((parameter.name for parameter in kernel.tiles.data), 1)
    assert evaluate(cost.launch.dot_flops, {**values, "n0": 5}) == 2 * 10 * 40 * 12
    torch.testing.assert_close(interpret(module, given)[0], expected, rtol=0, atol=1e-5)


def test_what_stands_after_a_concatenation_may_rearrange_it() -> None:
    def make(emit: Any, x: SSAValue, y: SSAValue, z: SSAValue) -> Sequence[SSAValue]:
        found = emit(ConcatOp, x, y, dim=IntAttr(3))
        found = emit(AddOp, z, found)
        found = emit(TransposeOp, found, permutation=IntsAttr([0, 2, 1, 3]))
        return [emit.reshape(found, (2, 5, 72))]

    kernel = kernel_of(check(make, numbers(2, 3, 5, 8), numbers(2, 3, 5, 16), numbers(2, 3, 5, 24), optimize=True))
    assert is_plain(kernel)


def test_a_cache_grows_by_a_part_of_unknown_extent() -> None:
    def make(emit: Any, x: SSAValue, y: SSAValue) -> Sequence[SSAValue]:
        return [emit(ConcatOp, x, y, dim=IntAttr(2))]

    given = (numbers(2, 3, 5, 8), numbers(2, 3, 4, 8))
    assert is_plain(kernel_of(check(make, *given, dynamic=((0, 2), (1, 2)))))
    assert is_plain(kernel_of(check(make, numbers(2, 3, 0, 8), given[1], dynamic=((0, 2), (1, 2)))))


@pytest.mark.parametrize(("count", "extent"), [(PARTS_LIMIT + 1, LEAST_RUN), (2, LEAST_RUN - 1)])
def test_many_and_short_parts_are_selected(count: int, extent: int) -> None:
    def make(emit: Any, *parts: SSAValue) -> Sequence[SSAValue]:
        return [emit(ConcatOp, *parts, dim=IntAttr(1))]

    assert not is_plain(kernel_of(check(make, *(numbers(5, extent, seed=n) for n in range(count)))))


def test_what_something_else_reads_stays_whole() -> None:
    def make(emit: Any, x: SSAValue, y: SSAValue) -> Sequence[SSAValue]:
        whole = emit(ConcatOp, x, y, dim=IntAttr(1))
        return [whole, emit(AddOp, whole, whole)]

    check(make, numbers(5, 8), numbers(5, 16), optimize=True)
