"""forge → tile: every group of ops that has rules becomes a kernel and its launch."""

from __future__ import annotations

from dataclasses import dataclass

from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp, SymbolRefAttr
from xdsl.dialects.func import ReturnOp
from xdsl.ir import Block, Operation, SSAValue
from xdsl.passes import ModulePass
from xdsl.rewriter import Rewriter

from forgec.backends.plan_builder import dense
from forgec.ir import types
from forgec.ir.attributes import ExtentsAttr, IntsAttr, StateType, SymType
from forgec.ir.locations import inherit
from forgec.ir.ops.base import ForgeOp
from forgec.ir.ops.fused import FusedOp
from forgec.ir.ops.shape import ViewOp, is_free
from forgec.ir.tile.kernel import KernelOp, LaunchOp
from forgec.passes.patterns import missed
from forgec.passes.rewriting import blocks
from forgec.passes.tiles.group import KnownGroups
from forgec.passes.tiles.kernel_builder import NotLowered
from forgec.passes.tiles.rules import all_rules


@dataclass(frozen=True)
class LowerToTile(ModulePass):
    """Replace ops and groups by launches of kernels of tiles, which stand beside the functions, each once.

    Before::

        %0 = forge.neg %x : (tensor<2x3xf32>) -> tensor<2x3xf32>

    After::

        %0 = tile.launch @neg_…(%x) [] writes [1] updates [] : (tensor<2x3xf32>) -> tensor<2x3xf32>

    An op that no rule covers stays, with a remark. Rearrangements that strides express stay as well: the plan makes
    them views. Values that only kernels see lie densely, whatever strides their types had.

    Order: last, after ``@O2``.
    """

    name = "lower-to-tile"

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        kernels: dict[str, KernelOp] = {}
        known = KnownGroups()
        for block in [b for b in blocks(op) if not isinstance(b.parent_op(), FusedOp)]:
            for current in list(block.ops):
                if _is_candidate(current):
                    _lower(current, block, kernels, known)
        for kernel in kernels.values():
            op.body.block.add_op(kernel)


def _is_candidate(op: Operation) -> bool:
    if isinstance(op, LaunchOp) or not isinstance(op, ForgeOp) or getattr(op, "is_pinned", False):
        return False
    if isinstance(op, ViewOp) and is_free(op):
        return False
    if not op.results or any(isinstance(v.type, (StateType, SymType)) for v in (*op.operands, *op.results)):
        return False
    return isinstance(op, FusedOp) or type(op) in all_rules() or hasattr(op, "decompose")


def _lower(op: Operation, block: Block, kernels: dict[str, KernelOp], known: KnownGroups) -> None:
    group = op if isinstance(op, FusedOp) else _alone(op)
    try:
        for result in op.results:
            if dense(types.tensor_type(result)) != result.type and _escapes(result):
                raise NotLowered("a result with gaps between its elements is returned")
        lowered = known.lower(group)
    except NotLowered as reason:
        missed(op, f"{_kind(op)} has no kernel: {reason}")
        return
    finally:
        if group is not op:
            group.erase()
    kernel = kernels.setdefault(lowered.kernel.sym_name.data, lowered.kernel)
    launch = LaunchOp.create(
        operands=list(lowered.inputs),
        properties={
            "kernel": SymbolRefAttr(kernel.sym_name.data),
            "extents": ExtentsAttr(lowered.extents),
            "writes": IntsAttr(kernel.writes.data),
            "updates": IntsAttr(kernel.updates.data),
        },
        result_types=list(lowered.results),
    )
    block.insert_op_before(inherit(launch, op), op)
    for old, new in zip(op.results, launch.results, strict=True):
        new.name_hint = old.name_hint
        old.replace_all_uses_with(new)
    Rewriter.erase_op(op)


def _alone(op: Operation) -> FusedOp:
    """A group that is one op."""
    inputs = list(dict.fromkeys(op.operands))
    group = FusedOp.of(op.name.removeprefix("forge."), [op], inputs, list(op.results))
    group.location = op.location
    for value, result in zip(group.results, op.results, strict=True):
        value.name_hint = result.name_hint
    return group


def _kind(op: Operation) -> str:
    return f"a group around {op.kind.data}" if isinstance(op, FusedOp) else op.name


def _escapes(value: SSAValue) -> bool:
    """True if a value, or a view of it, is returned."""
    for use in value.uses:
        user = use.operation
        if isinstance(user, ReturnOp):
            return True
        if isinstance(user, ViewOp) and is_free(user) and _escapes(user.result):
            return True
    return False
