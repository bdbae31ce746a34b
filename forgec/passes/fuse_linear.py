"""Products with weights are linears, however they are spelled."""

from __future__ import annotations

from dataclasses import dataclass

from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp
from xdsl.ir import BlockArgument, SSAValue
from xdsl.passes import ModulePass
from xdsl.traits import is_side_effect_free

from forgec.ir import types
from forgec.ir.ops.aten import AtenOp
from forgec.ir.ops.base import ForgeOp, producer
from forgec.ir.ops.binary import AddOp, MulOp
from forgec.ir.ops.contraction import ConvolvingOp, GroupedMatmulOp, LinearOp, MatmulOp
from forgec.ir.ops.fused import FusedOp
from forgec.ir.ops.module import ConstantOp, ParamRefOp
from forgec.ir.ops.shape import BroadcastOp
from forgec.passes.attention_frames import Builder
from forgec.passes.layers import Layers
from forgec.passes.patterns import made_by, missed, substitute
from forgec.passes.rewriting import blocks
from forgec.runtime.plan import Reg

WIDE = ("f64", "f32")
"""Dtypes in which a sum that is rounded twice is as good as one that is rounded once."""
DEEPEST = 12
"""Ops that may stand between a parameter and the weight that is computed of it."""
PRODUCTS = (LinearOp, MatmulOp, GroupedMatmulOp, ConvolvingOp)
"""Their results are no weights, even if a model multiplies nothing but its own numbers."""
NOT_LINEAR = "this product with a weight is no linear"
NOT_SPELLED = "this product with a sum is not looked into"


@dataclass(frozen=True)
class FuseLinear(ModulePass):
    """Make ``forge.linear`` of products with weights: ``x @ w.T``, ``x @ w``, contractions, ``torch.addmm``.

    Before::

        %t = forge.transpose %w [1, 0] : (tensor<32x64xf32>) -> tensor<64x32xf32, …>
        %y = forge.matmul %x, %t : (tensor<2x9x64xf32>, tensor<64x32xf32, …>) -> tensor<2x9x32xf32>

    After::

        %y = forge.linear %x, %w : (tensor<2x9x64xf32>, tensor<32x64xf32>) -> tensor<2x9x32xf32>

    A weight is a parameter, a constant, an argument of a layer for which all calls pass one, or what is computed of
    these alone without a product; as a matrix, or a stack of one, perhaps broadcast. Where it lies as [in, out], the
    linear takes its transpose, which is the same memory. Where it stands on the left, and the other operand's columns
    lie as rows, the linear's result is transposed. ``aten::addmm`` and ``aten::baddbmm`` become a product and a sum in
    float32 and float64; in half precision they round once, and stay. Values do not change, but for the order of sums.

    Order: after ``fuse-attention``, ``fuse-rope`` and ``fuse-moe``, which look for products, and before
    ``merge-linears``.
    """

    name = "fuse-linear"

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        weights = _Weights(op)
        for block in [block for block in blocks(op) if not isinstance(block.parent_op(), FusedOp)]:
            for current in list(block.ops):
                product = current if isinstance(current, MatmulOp) else None
                if isinstance(current, AtenOp):
                    product = _spelled_out(current)
                if product is not None:
                    _fuse(product, weights)


class _Weights:
    """Which values are computed of parameters and constants alone."""

    def __init__(self, module: ModuleOp) -> None:
        self.layers = Layers(module)
        self.known: dict[SSAValue, bool] = {}

    def has(self, value: SSAValue, depth: int = 0) -> bool:
        """True if a value is a weight."""
        if value not in self.known:
            self.known[value] = self._is_weight(value, depth)
        return self.known[value]

    def _is_weight(self, value: SSAValue, depth: int) -> bool:
        layer = self.layers.layer_of(value)
        if layer is not None and isinstance(value, BlockArgument):
            calls = self.layers.calls_of(layer)
            return bool(calls) and all(self.has(call.operands[value.index]) for call in calls)
        op = producer(value)
        if isinstance(op, (ParamRefOp, ConstantOp)):
            return True
        if not isinstance(op, ForgeOp) or isinstance(op, (AtenOp, *PRODUCTS)) or op.regions or depth == DEEPEST:
            return False
        operands = op.operands
        return bool(operands) and is_side_effect_free(op) and all(self.has(v, depth + 1) for v in operands)


def _fuse(op: MatmulOp, weights: _Weights) -> None:
    """Replace a product with a weight by a linear, or say why it is none."""
    dtype = types.dtype(op.result)
    if dtype not in types.FLOATS or types.shape(op.lhs)[-1] == 1 or types.numel(op.result) == 0:
        return  # an outer product sums nothing
    build = Builder()
    if weights.has(op.rhs):
        result = _from_the_right(op, build)
        reason = "the weight is a stack of matrices" if types.rank(op.rhs) > 2 else "the weight is a vector"
    elif weights.has(op.lhs):
        result = _from_the_left(op, build)
        reason = "the weight stands on the left of columns that lie as such"
        if _matrix(op.lhs, max(types.rank(op.rhs), 2), build) is None:
            reason = "the weight is a stack of matrices" if types.rank(op.lhs) > 2 else "the weight is a vector"
    else:
        return
    if result is None or types.shape(result) != types.shape(op.result):
        build.discard()
        missed(op, NOT_LINEAR, reason)
        return
    build.in_place_of(result, op.result)
    substitute(op, build.ops, what="a product with a weight is a linear")


def _from_the_right(op: MatmulOp, build: Builder) -> SSAValue | None:
    """``x @ w``."""
    weight = _matrix(op.rhs, max(types.rank(op.lhs), 2), build)
    if weight is None:
        return None
    turned = build.transpose_last(weight)
    return build.insert(LinearOp.make([op.lhs, turned]))


def _from_the_left(op: MatmulOp, build: Builder) -> SSAValue | None:
    """``w @ x``, where each column of x lies as a row, or x is one."""
    rank = types.rank(op.rhs)
    weight = _matrix(op.lhs, max(rank, 2), build)
    if weight is None or (rank > 1 and types.strides(op.rhs)[-2] != 1):
        return None
    if rank == 1:
        return build.insert(LinearOp.make([op.rhs, weight]))
    turned = build.transpose_last(op.rhs)
    return build.transpose_last(build.insert(LinearOp.make([turned, weight])))


def _matrix(value: SSAValue, rank: int, build: Builder) -> SSAValue | None:
    """A weight as a matrix: what is broadcast is one, and so is a stack of one that adds no dimensions to the other
    operand, of this rank.
    """
    spread = made_by(value, BroadcastOp)
    if spread is not None and types.shape(spread.input)[-2:] == types.shape(value)[-2:]:
        value, rank = spread.input, max(rank, types.rank(spread.result))
    shape = types.shape(value)
    if len(shape) < 2 or any(extent != 1 for extent in shape[:-2]) or len(shape) > rank:
        return None
    return build.reshape(value, shape[-2:])


def _spelled_out(op: AtenOp) -> MatmulOp | None:
    """The product of ``β · c + α · (a @ b)``, which takes the place of the op that is all of it."""
    if op.callee.data not in ("aten::addmm", "aten::baddbmm") or len(op.results) != 1:
        return None
    places, factors = op.args.arguments
    alpha, beta = (dict(factors).get(name, 1) for name in ("alpha", "beta"))
    operands = [op.inputs[place.id] for place in places if isinstance(place, Reg)]
    if len(operands) != 3 or not isinstance(alpha, (int, float)) or not isinstance(beta, (int, float)):
        return None
    if any(types.dtype(value) != types.dtype(op.results[0]) for value in operands):
        return None
    if types.dtype(op.results[0]) not in WIDE:
        missed(op, NOT_SPELLED, "it rounds once, and a product and a sum round twice")
        return None
    build = Builder()
    product = MatmulOp.make(operands[1:])
    result = build.insert(product)
    if types.shape(result) != types.shape(op.results[0]):
        build.discard()
        return None
    result = _times(build, result, alpha)
    if beta != 0:  # what is multiplied by 0 is not read: it may be no number
        result = build.insert(AddOp.of(_times(build, operands[0], beta), result))
    build.in_place_of(result, op.results[0])
    substitute(op, build.ops)
    return product


def _times(build: Builder, value: SSAValue, number: float) -> SSAValue:
    return value if number == 1 else build.insert(MulOp.of(value, number))
