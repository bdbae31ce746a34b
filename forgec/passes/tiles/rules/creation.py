"""Ops that make tensors out of nothing: numbers, places, literals."""

from __future__ import annotations

from typing import Any

from forgec.ir import types
from forgec.ir.literals import to_tensor
from forgec.ir.ops import creation
from forgec.ir.ops.module import ConstantOp
from forgec.passes.tiles.arithmetic import cast, number
from forgec.passes.tiles.axes import Place
from forgec.passes.tiles.kernel_builder import KernelBuilder, Tile
from forgec.passes.tiles.rule import computes


@computes(creation.FullOp)
def full(k: KernelBuilder, op: Any, result: int, place: Place) -> Tile:
    return number(k, op.value.value, types.dtype(op.result))


@computes(ConstantOp)
def constant(k: KernelBuilder, op: Any, result: int, place: Place) -> Tile:
    """A literal of one element; larger ones are operands of the kernel."""
    return number(k, to_tensor(op.value).reshape(-1)[0].item(), types.dtype(op.result))


@computes(creation.IotaOp)
def iota(k: KernelBuilder, op: Any, result: int, place: Place) -> Tile:
    return cast(k, k.index(op.start.data + place[0] * op.step.data), types.dtype(op.result))
