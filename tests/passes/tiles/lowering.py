"""A function of forge ops, lowered to kernels: both give the same results in the interpreter."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from xdsl.builder import Builder
from xdsl.dialects.builtin import ModuleOp, UnitAttr
from xdsl.dialects.func import FuncOp, ReturnOp
from xdsl.ir import Block, Operation, Region, SSAValue
from xdsl.rewriter import InsertPoint

from forgec.ir import context, types
from forgec.ir.interpreter import interpret
from forgec.ir.ops.base import ForgeOp
from forgec.ir.ops.decomposition import Emitter
from forgec.ir.ops.module import ConstantOp
from forgec.ir.ops.shape import ViewOp, is_free
from forgec.ir.tile.kernel import LaunchOp
from forgec.passes.manager import run_pipeline
from forgec.runtime.symbolic import Extent, symbol

UNIT = UnitAttr()
NAMES = {
    torch.float32: "f32", torch.float64: "f64", torch.bfloat16: "bf16", torch.float16: "f16", torch.int64: "i64",
    torch.int32: "i32", torch.int16: "i16", torch.int8: "i8", torch.uint8: "ui8", torch.bool: "i1",
}  # fmt: skip
TOLERANCES = {torch.float64: 1e-12, torch.float32: 1e-5, torch.float16: 4e-3, torch.bfloat16: 3e-2}

Make = Callable[..., Sequence[SSAValue]]


def module_of(make: Make, inputs: Sequence[torch.Tensor], dynamic: Sequence[tuple[int, int]] = ()) -> ModuleOp:
    """A module whose ``forward`` is what ``make(emit, *arguments)`` emits. ``dynamic`` are (input, dimension) pairs of
    extents that are symbols; equal ones share theirs.
    """
    names: dict[int, Extent] = {}
    kinds = []
    for number, tensor in enumerate(inputs):
        shape: list[Extent] = list(tensor.shape)
        for dim in (d for n, d in dynamic if n == number):
            shape[dim] = names.setdefault(tensor.shape[dim], symbol(f"s{len(names)}"))
        kinds.append(types.tensor(NAMES[tensor.dtype], shape))
    block = Block(arg_types=kinds)
    marker = ConstantlessEmitter(block)
    results = list(make(marker, *block.args))
    block.add_op(ReturnOp(*results))
    function = FuncOp("forward", (kinds, [value.type for value in results]), Region(block))
    return ModuleOp([function])


class ConstantlessEmitter(Emitter):
    """An emitter at the end of a block, for ops that come from no other."""

    def __init__(self, block: Block) -> None:
        self.builder = Builder(InsertPoint.at_end(block))

    def __call__(self, cls: type[ForgeOp], *operands: Any, **properties: Any) -> SSAValue:
        return self.insert(cls.make(operands, properties))

    def insert(self, op: Operation) -> SSAValue:
        return self.builder.insert(op).results[0]

    def all(self, cls: type[ForgeOp], *operands: Any, **properties: Any) -> Sequence[SSAValue]:
        """All results of an op."""
        return self.builder.insert(cls.make(operands, properties)).results


def left_over(module: ModuleOp) -> list[str]:
    """The ops that are neither kernels' launches, nor views, nor literals."""
    return [
        op.name
        for op in module.walk()
        if isinstance(op, ForgeOp)
        and not isinstance(op, (LaunchOp, ConstantOp))
        and not (isinstance(op, ViewOp) and is_free(op))
    ]


def check(
    make: Make,
    *inputs: torch.Tensor,
    dynamic: Sequence[tuple[int, int]] = (),
    tolerance: float | None = None,
    rest: Sequence[str] = (),
    optimize: bool = False,
) -> ModuleOp:
    """Lower, and compare; ``rest`` are the ops that have no kernel. Yields the lowered module."""
    module = module_of(make, inputs, dynamic)
    module.verify()
    lowered = module.clone()
    run_pipeline(lowered, "@O2,lower-to-tile" if optimize else "lower-to-tile", context=context())
    lowered.verify()
    assert left_over(lowered) == list(rest)
    expected, found = interpret(module, list(inputs)), interpret(lowered, list(inputs))
    for actual, wanted in zip(found, expected, strict=True):
        assert actual.dtype == wanted.dtype
        assert actual.shape == wanted.shape
        bound = TOLERANCES.get(wanted.dtype, 0.0) if tolerance is None else tolerance
        finite = wanted[torch.isfinite(wanted)].double() if wanted.is_floating_point() else wanted.double()
        greatest = finite.abs().max().item() if finite.numel() else 0.0
        torch.testing.assert_close(actual, wanted, rtol=0, atol=bound * greatest, equal_nan=True)
    return lowered


def numbers(*shape: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> torch.Tensor:
    """Random numbers of a dtype, integers from a small range so that they repeat."""
    generator = torch.Generator().manual_seed(seed)
    if dtype.is_floating_point:
        return torch.randn(shape, generator=generator).to(dtype)
    if dtype == torch.bool:
        return torch.rand(shape, generator=generator) < 0.5
    low = 0 if dtype == torch.uint8 else -9
    return torch.randint(low, 10, shape, generator=generator).to(dtype)
