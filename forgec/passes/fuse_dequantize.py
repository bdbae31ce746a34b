"""Linears of weights that are dequantised first take the quantised weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp, UnitAttr
from xdsl.ir import Operation, SSAValue
from xdsl.passes import ModulePass

from forgec.ir import types
from forgec.ir.ops.base import ForgeOp
from forgec.ir.ops.binary import MulOp
from forgec.ir.ops.contraction import LinearOp, MatmulOp
from forgec.ir.ops.creation import FullOp
from forgec.ir.ops.shape import ReshapeOp
from forgec.passes.axes import Atom, source
from forgec.passes.dequantization import Budget, Chain, NotQuantized, Refused, read
from forgec.passes.patterns import missed, only_neighbour, substitute
from forgec.passes.rewriting import blocks, erase_unused, is_dead
from forgec.passes.weight_operands import operands_of


@dataclass(frozen=True)
class FuseDequantize(ModulePass):
    """Let linears take quantised weights as they are stored, with scales and zero points.

    Before::

        %0 = forge.cast %w : (tensor<32x64xi8>) -> tensor<32x64xf32>
        %1 = forge.mul %0, %s : (tensor<32x64xf32>, tensor<32x1xf32>) -> tensor<32x64xf32>
        %2 = forge.linear %x, %1 : (tensor<9x64xf32>, tensor<32x64xf32>) -> tensor<9x32xf32>

    After::

        %2 = forge.linear %x, %w scales %s compute "f32" :
            (tensor<9x64xf32>, tensor<32x64xi8>, tensor<32x1xf32>) -> tensor<9x32xf32>

    It reads how a weight (of ``forge.linear``, or the matrix on the right of ``forge.matmul``) was computed:
    ``forge.dequantize``, or casts, one subtraction of zero points and one multiplication by scales in this order, with
    reshapes, transposes and broadcasts between, of numbers of 8 bits or of the halves of bytes, taken out by shifts,
    masks, divisions and put side by side by concatenation or by writes into slices. The linear keeps the dtypes and the
    order of these steps, so its decomposition computes the same bits; a difference of integers may be made in another
    dtype if both hold every number that can occur. Scales that multiply the result of a linear of quantised numbers
    become those of the linear (``scale_result``). A dequantisation that something else reads too stays for that.

    Order: before passes that would take casts and products of weights for something else, and before ``merge-linears``,
    which joins linears that are quantised alike.
    """

    name = "fuse-dequantize"

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        for block in blocks(op):
            for current in list(block.ops):
                if isinstance(current, (LinearOp, MatmulOp)):
                    fused = _fuse(current)
                    if fused is not None and fused.scales is None:
                        _take_scales(fused)


def _fuse(op: LinearOp | MatmulOp) -> LinearOp | None:
    """The linear of quantised numbers that takes the place of one whose weight is dequantised."""
    if isinstance(op, LinearOp):
        if op.is_quantized:
            return op if op.scales is None and op.bias is None else None
        input, weight, bias = op.input, op.weight, op.bias
        extents = types.shape(weight)
    else:
        input, weight, bias = op.lhs, op.rhs, None
        if types.rank(weight) != 2:
            return None
        extents = types.shape(weight)[::-1]
    if types.dtype(weight) not in types.FLOATS or not all(isinstance(n, int) and n > 0 for n in extents):
        return None
    rows, columns = (Atom(int(extent)) for extent in extents)  # pyright: ignore[reportArgumentType]
    try:
        dims = [[rows], [columns]] if isinstance(op, LinearOp) else [[columns], [rows]]
        chain = read(weight, dims, Budget())
        found = operands_of(chain, rows, columns)
    except NotQuantized:
        return None
    except Refused as reason:
        missed(op, "this linear does not take its quantised weight as it is stored", str(reason))
        return None
    operands = [input, found.weight, bias, found.scales, found.zeros]
    fused = LinearOp.make(operands, found.properties, [op.results[0].type])
    what = f"the linear takes its weight as {_described(chain)}"
    substitute(op, [*found.new, fused], chain.matched, what)
    erase_unused(weight, ForgeOp)
    return fused


def _described(chain: Chain) -> str:
    """``ui8, two numbers to the byte``."""
    return types.dtype(chain.numbers) + ("" if chain.packing is None else ", two numbers to the byte")


def _take_scales(linear: LinearOp) -> None:
    """``linear(x, numbers) · scales``, one scale for each row of the weight, or one for all."""
    user: Operation | None = only_neighbour(linear.result)
    if linear.bias is not None or linear.zeros is not None or not isinstance(user, MulOp):
        return
    if types.shape(user.result) != types.shape(linear.result):
        return
    new: list[ForgeOp] = []
    if user.scalar is not None:
        if isinstance(user.scalar.value, (bool, complex)):
            return
        new.append(FullOp.make([], {"value": user.scalar}, [types.tensor("f64", ())]))
        scales: SSAValue = new[-1].results[0]
    else:
        assert user.rhs is not None, "an op without a number has a second operand"
        other = user.rhs if user.lhs is linear.result else user.lhs
        found = _of_rows(other, linear, new)
        if found is None:
            return
        scales = found
    properties: dict[str, Any] = {**linear.properties, "scale_result": UnitAttr()}
    properties.pop("operandSegmentSizes", None)
    fused = LinearOp.make([linear.input, linear.weight, None, scales], properties, [user.result.type])
    if fused.infer()[0] != (types.dtype(user.result), types.shape(user.result)):
        fused.drop_all_references()
        return
    substitute(user, [*new, fused], [linear], "the linear multiplies its result by the scales of its weight")
    if is_dead(linear):
        block = linear.parent_block()
        assert block is not None, "it stands in one"
        block.erase_op(linear)


def _of_rows(value: SSAValue, linear: LinearOp, new: list[ForgeOp]) -> SSAValue | None:
    """A factor of a linear's result as [N, 1], or of rank 0; None if it is neither of the rows nor one number."""
    shape, count = types.shape(value), types.shape(linear.result)[-1]
    if not shape:
        return value
    if any(extent != 1 for extent in shape[:-1]) or shape[-1] not in (1, count) or not isinstance(count, int):
        return None
    rows = Atom(count)
    base, dims = source(value, [*[[] for _ in shape[:-1]], [rows] if shape[-1] == count else []])
    wanted = (shape[-1], 1)
    if types.shape(base) == wanted:
        return base
    del dims
    new.append(ReshapeOp.make([base], None, [types.tensor(types.dtype(base), wanted)]))
    return new[-1].results[0]
