"""Pointwise work on the results of linears, products, convolutions and attention happens where they are computed."""

from __future__ import annotations

from dataclasses import dataclass

from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp
from xdsl.ir import Operation
from xdsl.passes import ModulePass

from forgec.ir import types
from forgec.ir.ops.attention import AttentionOp
from forgec.ir.ops.base import ElementwiseOp
from forgec.ir.ops.composite import GluOp, RopeOp
from forgec.ir.ops.contraction import ConvolutionOp, ConvTransposeOp, GroupedMatmulOp, LinearOp, MatmulOp
from forgec.ir.ops.experts import MoeOp
from forgec.ir.ops.index import EmbeddingOp
from forgec.ir.ops.shape import BroadcastOp, CopyOp, ReshapeOp, is_free
from forgec.passes.fusion import Fuser, each_fuser
from forgec.runtime.symbolic import Extent

ROOTS = (LinearOp, MatmulOp, GroupedMatmulOp, ConvolutionOp, ConvTransposeOp, AttentionOp, MoeOp, EmbeddingOp)
"""Ops that are kernels of their own, whose results pass through registers."""
JOINING = (ElementwiseOp, RopeOp, GluOp, CopyOp, ReshapeOp)


@dataclass(frozen=True)
class FuseEpilogue(ModulePass):
    """Let bias, activation, scale, rotation, residual and cast happen in the kernel that computes their operand.

    Before::

        %0 = forge.linear %x, %w : (tensor<9x64xf32>, tensor<64x64xf32>) -> tensor<9x64xf32>
        %1 = forge.add %r, %0 : (tensor<9x64xf32>, tensor<9x64xf32>) -> tensor<9x64xf32>

    After::

        %1 = forge.fused "linear" (%a = %x : tensor<9x64xf32>, %b = %w : tensor<64x64xf32>, %c = %r : …) {
          %0 = forge.linear %a, %b : (tensor<9x64xf32>, tensor<64x64xf32>) -> tensor<9x64xf32>
          %2 = forge.add %c, %0 : (tensor<9x64xf32>, tensor<9x64xf32>) -> tensor<9x64xf32>
          forge.yield %2 : tensor<9x64xf32>
        } : tensor<9x64xf32>

    A kernel has one such root. An op with several candidates joins the latest; one that would make more elements than
    the root yields does not join. Rearrangements on the way come along.

    Order: after everything that recognises ops, since nothing looks into a ``forge.fused``.
    """

    name = "fuse-epilogue"

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        for fuser in each_fuser(op):
            for current in fuser.ops:
                if isinstance(current, ROOTS):
                    fuser.begin(current)
                elif isinstance(current, JOINING) and not is_free(current):
                    _join(fuser, current)


def _join(fuser: Fuser, op: Operation) -> None:
    """Put an op into the group of one of its operands, if one can have it."""
    candidates: dict[Operation, list[Operation]] = {}
    for operand in op.operands:
        source, views = fuser.source(operand)
        if source is not None and source in fuser.group and not any(isinstance(view, BroadcastOp) for view in views):
            candidates.setdefault(source, []).extend(views)
    for source in sorted(candidates, key=lambda found: fuser.group[found].high, reverse=True):
        group = fuser.group[source]
        if _fits(op, group.root) and fuser.join(group, [*dict.fromkeys(candidates[source]), op]):
            return


def _fits(op: Operation, root: Operation) -> bool:
    """True if an op yields as many elements as the root, or a whole share of them."""
    whole, part = types.numel(root.results[0]), types.numel(op.results[0])
    if whole == part:
        return True
    if part == 0:
        return False
    count: Extent = whole // part
    return (isinstance(count, int) and count > 1 and count * part == whole) or _has_rows_of(op, root)


def _has_rows_of(op: Operation, root: Operation) -> bool:
    """True if an op yields less than the root for each row: queries out of queries, keys and values."""
    rows, part = types.numel(root.results[0]), types.numel(op.results[0])
    width = types.shape(root.results[0])[-1:]
    if not width or not isinstance(width[0], int) or width[0] == 0:
        return False
    return any(part == rows // width[0] * less for less in _widths(op, width[0]))


def _widths(op: Operation, most: int) -> list[int]:
    """Products of the last extents of an op's result, as far as they are constant and less than ``most``."""
    found, product = [], 1
    for extent in reversed([e for e in types.shape(op.results[0]) if isinstance(e, int)]):
        product *= extent
        if 0 < product < most:
            found.append(product)
    return found
