"""Batch norms with frozen statistics that the model spells out, as one op each."""

from __future__ import annotations

from dataclasses import dataclass

from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp
from xdsl.ir import Operation, SSAValue
from xdsl.passes import ModulePass

from forgec.ir import types
from forgec.ir.attributes import ScalarAttr
from forgec.ir.ops.binary import AddOp, MulOp, SubOp
from forgec.ir.ops.norm import BatchNormOp
from forgec.ir.ops.shape import ReshapeOp
from forgec.ir.ops.unary import RsqrtOp
from forgec.passes.patterns import made_by, only_neighbour, pairs, substitute, with_number
from forgec.passes.rewriting import blocks


@dataclass(frozen=True)
class FuseBatchNorm(ModulePass):
    """Make one op of ``x * scale + (bias - mean * scale)`` with ``scale = weight * rsqrt(variance + eps)`` for each
    channel, as models of the DETR family freeze their batch norms.

    Before::

        %0 = forge.add %v, 1.0e-05 : (tensor<1x4x1xf32>) -> tensor<1x4x1xf32>
        %1 = forge.rsqrt %0 : (tensor<1x4x1xf32>) -> tensor<1x4x1xf32>
        %2 = forge.mul %w, %1 : (tensor<1x4x1xf32>, tensor<1x4x1xf32>) -> tensor<1x4x1xf32>
        %3 = forge.mul %m, %2 : (tensor<1x4x1xf32>, tensor<1x4x1xf32>) -> tensor<1x4x1xf32>
        %4 = forge.sub %b, %3 : (tensor<1x4x1xf32>, tensor<1x4x1xf32>) -> tensor<1x4x1xf32>
        %5 = forge.mul %x, %2 : (tensor<2x4x9xf32>, tensor<1x4x1xf32>) -> tensor<2x4x9xf32>
        %6 = forge.add %5, %4 : (tensor<2x4x9xf32>, tensor<1x4x1xf32>) -> tensor<2x4x9xf32>

    After::

        %6 = forge.batch_norm %x, %m, %v weight %w bias %b eps 1.0e-05 : (tensor<2x4x9xf32>, tensor<4xf32>, …) -> …

    Parameters that were reshaped to stand beside the channels are read as they were before. Applies in float32 and
    float64.

    Order: beside ``fuse-norm``, whose patterns start at a mean: the two do not meet.
    """

    name = "fuse-batch-norm"

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        for block in blocks(op):
            for root in [child for child in block.ops if isinstance(child, RsqrtOp)]:
                _fuse(root)


def _fuse(root: RsqrtOp) -> None:
    add = made_by(root.input, AddOp)
    found = None if add is None else with_number(add)
    scaling = only_neighbour(root.result)
    if found is None or not isinstance(scaling, MulOp) or scaling.rhs is None:
        return
    variance, eps = found
    weight = scaling.rhs if scaling.lhs is root.result else scaling.lhs
    users = [use.operation for use in scaling.result.uses]
    if len(users) != 2 or not all(isinstance(user, MulOp) for user in users):
        return
    for scaled, shifted in (users, users[::-1]):
        found = _applied(scaling.result, scaled, shifted)
        if found is not None:
            last, x, mean, bias = found
            _rewrite(last, x, [mean, variance, weight, bias], float(eps), [root, scaling, scaled, shifted])
            return


def _applied(
    scale: SSAValue, scaled: Operation, shifted: Operation
) -> tuple[AddOp, SSAValue, SSAValue, SSAValue] | None:
    """For ``last = x * scale + (bias - mean * scale)``: last, x, mean and bias."""
    last, difference = only_neighbour(scaled.results[0]), only_neighbour(shifted.results[0])
    if not isinstance(last, AddOp) or not isinstance(difference, SubOp) or difference.rhs is not shifted.results[0]:
        return None
    if not any(pair == (scaled.results[0], difference.result) for pair in pairs(last)):
        return None
    x, mean = (next((v for v in op.operands if v is not scale), None) for op in (scaled, shifted))
    return None if x is None or mean is None else (last, x, mean, difference.lhs)


def _rewrite(last: AddOp, x: SSAValue, parameters: list[SSAValue], eps: float, matched: list[Operation]) -> None:
    """Put the op in the place of the last addition, if all values fit."""
    name, shape = types.dtype(x), types.shape(x)
    if (
        name not in ("f32", "f64")
        or len(shape) < 2
        or (types.dtype(last.result), types.shape(last.result)) != (name, shape)
    ):
        return
    beside = (1, shape[1], *[1] * (len(shape) - 2))
    for value in parameters:
        extents = types.shape(value)
        if types.dtype(value) != name or extents not in (beside, beside[1:]) or len(extents) < 1:
            return
    new: list[Operation] = []
    flat: list[SSAValue] = []
    for value in parameters:
        reshape = made_by(value, ReshapeOp)
        if reshape is not None and types.shape(reshape.input) == shape[1:2]:
            flat.append(reshape.input)
        elif types.shape(value) == shape[1:2]:
            flat.append(value)
        else:
            new.append(ReshapeOp.make([value], None, [types.tensor(name, shape[1:2])]))
            flat.append(new[-1].results[0])
    new.append(BatchNormOp.make([x, *flat], {"eps": ScalarAttr.of(eps)}, [last.result.type]))
    substitute(last, new, matched, "made one forge.batch_norm of one that is written as arithmetic")
