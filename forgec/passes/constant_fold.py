"""Constant folding, by the reference interpreter."""

from __future__ import annotations

from dataclasses import dataclass

from xdsl.context import Context
from xdsl.dialects import scf
from xdsl.dialects.builtin import ModuleOp
from xdsl.dialects.func import CallOp, ReturnOp
from xdsl.ir import Operation, SSAValue
from xdsl.passes import ModulePass
from xdsl.traits import is_side_effect_free

from forgec.ir import types
from forgec.ir.literals import literal
from forgec.ir.ops.aten import AtenOp
from forgec.ir.ops.base import ForgeOp
from forgec.ir.ops.module import ConstantOp, ParamRefOp
from forgec.ir.ops.quantization import DequantizeOp
from forgec.ir.ops.shape import ViewOp
from forgec.ir.symbols import mentioned_symbols
from forgec.passes.rewriting import blocks, functions, replace, sign


@dataclass(frozen=True)
class ConstantFold(ModulePass):
    """Compute what depends on nothing while compiling.

    Before::

        %0 = forge.iota from 0 step 1 : tensor<3xi64>
        %1 = forge.mul %0, 2 : (tensor<3xi64>) -> tensor<3xi64>

    After::

        %1 = forge.constant dense<[0, 2, 4]> : tensor<3xi64>

    Folds only results of ``max-bytes`` at most (default 65536), so that the artifact does not grow. Parameters are
    never folded, and quantised numbers stay as they are stored.
    Values are computed in the dtypes of the types, by the ops' reference implementations.

    Order: after ``classify-masks``: a mask is easier to read as comparisons than as numbers. Single numbers are folded
    before ``fuse-attention`` (``max-bytes=8``), so that a scale that the model computes is one.
    """

    name = "constant-fold"

    max_bytes: int = 65536

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        from forgec.ir.evaluator import Evaluator

        evaluator = Evaluator()
        known: dict[object, object] = {}
        for block in blocks(op):
            for current in list(block.ops):
                if isinstance(current, ConstantOp):
                    known[current.result] = current.reference(evaluator)
                elif self._foldable(current) and all(operand in known for operand in current.operands):
                    assert isinstance(current, ForgeOp)
                    value = current.reference(evaluator, *(known[o] for o in current.operands))
                    (value,) = value if isinstance(value, tuple) else (value,)
                    result = current.results[0]
                    constant = ConstantOp.create(
                        properties={"value": literal(value, result)}, result_types=[_dense(result)]
                    )
                    known[constant.result] = value
                    replace(current, constant.results, [constant])
        for function in functions(op):
            sign(function)  # a literal is row-major, whatever the strides of what it replaces

    def _foldable(self, op: Operation) -> bool:
        if (
            not isinstance(op, ForgeOp)
            or isinstance(op, (ParamRefOp, DequantizeOp))
            or not is_side_effect_free(op)
            or len(op.results) != 1
        ):
            return False
        if isinstance(op, AtenOp) and "empty" in op.callee.data:  # says nothing about its value
            return False
        if _is_passed(op.results[0]) and not types.is_contiguous(op.results[0]):
            return False  # a call and a region's end say how what they take lies in memory
        if _is_returned(op.results[0]) and (isinstance(op, ViewOp) or not types.is_contiguous(op.results[0])):
            return False  # the caller sees how it lies in memory, and what it is a view of
        size = types.nbytes(op.results[0])
        shapes = [types.shape(v) for v in (*op.operands, *op.results)]
        static = all(isinstance(extent, int) for shape in shapes for extent in shape)
        return (
            static
            and not mentioned_symbols(op)
            and isinstance(size, int)
            and size <= self.max_bytes
            and types.dtype(op.results[0]) not in types.COMPLEX
        )


def _is_passed(value: SSAValue) -> bool:
    """True if an op takes the value that wants one type exactly."""
    return any(isinstance(use.operation, (CallOp, scf.YieldOp, scf.WhileOp, scf.ForOp)) for use in value.uses)


def _is_returned(value: SSAValue) -> bool:
    """True if the function returns the value, or a view of it."""
    users = [use.operation for use in value.uses]
    return any(isinstance(op, ReturnOp) or (isinstance(op, ViewOp) and _is_returned(op.result)) for op in users)


def _dense(value):
    return types.tensor(types.dtype(value), types.shape(value))
