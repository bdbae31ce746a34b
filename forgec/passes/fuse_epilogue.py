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
from forgec.ir.ops.byte_linear import ByteLinearOp
from forgec.ir.ops.composite import GluOp, RopeOp
from forgec.ir.ops.contraction import ConvolutionOp, ConvTransposeOp, GroupedMatmulOp, LinearOp, MatmulOp
from forgec.ir.ops.experts import MoeOp
from forgec.ir.ops.index import EmbeddingOp
from forgec.ir.ops.norm import LayerNormOp, RmsNormOp
from forgec.ir.ops.reduction import ReductionOp, SoftmaxOp
from forgec.ir.ops.shape import BroadcastOp, ConcatOp, CopyOp, ReshapeOp, is_free
from forgec.passes.fusion import SEARCHED, Fuser, Group, each_fuser
from forgec.passes.norm_rows import NORMS, WIDEST, has_whole_rows, places_in, row_of, tile_of
from forgec.passes.patterns import missed
from forgec.runtime.symbolic import Extent

ROOTS = (
    LinearOp,
    ByteLinearOp,
    MatmulOp,
    GroupedMatmulOp,
    ConvolutionOp,
    ConvTransposeOp,
    AttentionOp,
    MoeOp,
    EmbeddingOp,
)
"""Ops that are kernels of their own, whose results pass through registers."""
JOINING = (ElementwiseOp, RopeOp, GluOp, CopyOp, ReshapeOp)
REMAINING = (ReductionOp, SoftmaxOp, *NORMS, ConcatOp)
"""Ops that need another kernel, which a norm before them belongs to."""


@dataclass(frozen=True)
class FuseEpilogue(ModulePass):
    """Let bias, activation, scale, rotation, residual, cast and norms of heads happen in the kernel that computes their
    operand.

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

    A norm of queries or keys joins the linear that projects them, and so does the rotation after it: if the norm is
    over the last dimension, of at most 256 elements, and a tile of the linear's columns can hold whole rows of it.
    These must be pieces of the linear's rows that begin at multiples of their extent, as heads do; the kernel's tiles
    are as wide as all its norms ask, at most 256 columns. Wider norms need whole rows of the model's width, which no
    tile holds. A norm stays where its result is reduced again or concatenated: the kernel of that takes it.

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
                elif isinstance(current, NORMS) and row_of(current) is not None:
                    _join_rows(fuser, current)


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


def _join_rows(fuser: Fuser, op: LayerNormOp | RmsNormOp) -> None:
    """Put a norm into the group of the linear that computes its rows, if a tile of columns holds them whole."""
    source, views = fuser.source(op.input)
    group = None if source is None else fuser.group.get(source)
    if group is None or not isinstance(group.root, LinearOp) or places_in(op.input, group.root) is None:
        return
    if not _fits(op, group.root) or not _is_last(fuser, op, group):
        return
    if not has_whole_rows(op.input, group.root):
        missed(op, "this norm is a kernel of its own", "a tile of the linear's columns does not hold whole rows of it")
    elif tile_of([*group.members, op]) > WIDEST:
        missed(op, "this norm is a kernel of its own", f"with other norms of the linear it needs over {WIDEST} columns")
    else:
        fuser.join(group, [*views, op])


def _is_last(fuser: Fuser, op: Operation, group: Group) -> bool:
    """True if all that is done to a norm's result, up to what is a kernel of its own, can join the group as well."""
    pending, seen = [(op, False)], {op}
    while pending:
        current, repeated = pending.pop()
        for use in current.results[0].uses:
            user = use.operation
            if user in seen or user not in fuser.position:
                continue
            if isinstance(user, ConcatOp) or (isinstance(user, REMAINING) and use.index == 0):
                return False
            if is_free(user):
                pending.append((user, repeated or isinstance(user, BroadcastOp)))
            elif isinstance(user, JOINING):
                if repeated or not _fits(user, group.root):
                    return False
                pending.append((user, False))
            seen.add(user)
            if len(seen) > SEARCHED:
                return False
    return True


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
    whole, part = types.numel(root.results[0]), types.numel(op.results[0])
    width = types.shape(root.results[0])[-1:]
    if not width or not isinstance(width[0], int) or width[0] == 0:
        return False
    rows = whole // width[0]
    if rows == 0:
        return False
    less = part // rows
    return isinstance(less, int) and 0 < less < width[0] and part == rows * less
