"""forge → tile: every group of ops that has rules becomes a kernel and its launch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from xdsl.builder import Builder
from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp, SymbolRefAttr
from xdsl.dialects.func import ReturnOp
from xdsl.ir import Block, Operation, SSAValue
from xdsl.passes import ModulePass
from xdsl.rewriter import InsertPoint, Rewriter

from forgec.backends.plan_builder import view_type
from forgec.ir import types
from forgec.ir.attributes import ExtentsAttr, IntsAttr, StateType, SymType
from forgec.ir.cost import launches_kernel
from forgec.ir.locations import inherit
from forgec.ir.ops.aten import AtenOp
from forgec.ir.ops.attention import AttentionOp
from forgec.ir.ops.base import ForgeOp
from forgec.ir.ops.control import FromIndexOp
from forgec.ir.ops.experts import MoeOp
from forgec.ir.ops.fused import FusedOp
from forgec.ir.ops.module import ConstantOp, ParamRefOp, StateReadOp
from forgec.ir.ops.shape import CopyOp, ViewOp, is_free
from forgec.ir.tile.kernel import KernelOp, LaunchOp
from forgec.passes.patterns import missed
from forgec.passes.rewriting import blocks
from forgec.passes.tiles.group import KnownGroups, alone
from forgec.passes.tiles.kernel_builder import NotLowered
from forgec.passes.tiles.panels import pack_weights
from forgec.passes.tiles.rule import EXPANSIONS
from forgec.passes.tiles.rules import all_rules
from forgec.passes.tiles.rules.attention_parts import part_extent
from forgec.passes.tiles.sorting import take_sorts
from forgec.passes.tiles.transposed import take_transposed
from forgec.passes.tiles.update import UPDATES, updated_inputs
from forgec.passes.tiles.windows import take_windows


@dataclass(frozen=True)
class LowerToTile(ModulePass):
    """Replace ops and groups by launches of kernels of tiles, which stand beside the functions, each once.

    Before::

        %0 = forge.neg %x : (tensor<2x3xf32>) -> tensor<2x3xf32>

    After::

        %0 = tile.launch @neg_…(%x) [] writes [1] updates [] : (tensor<2x3xf32>) -> tensor<2x3xf32>

    What changes some elements of a value (a cache, say) works in the value's own memory. A group that has no kernel is
    tried op by op, a composite op as the smaller ones that it stands for. An op that no rule covers stays, with a
    remark. Rearrangements that strides express stay as well: the plan makes them views. Values that only kernels see
    lie densely, whatever strides their types had. What has a value of a dtype in ``without`` stays: the target has no
    tiles of it. With ``panel`` (32 for processors) weights of linears are stored as [N / panel, K, panel], where all
    kernels that read one can read whole panels; with ``factors`` ``"bf16"`` those of float32 that are only multiplied
    with are rounded to that, for ``round-factors``.

    Order: last, after ``@O2``.
    """

    name = "lower-to-tile"

    without: tuple[str, ...] = ()
    panel: int = 0
    factors: str = ""

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        kernels: dict[str, KernelOp] = {}
        known = KnownGroups(self.without)
        if self.panel:
            take_transposed(op)
            take_windows(op)
            take_sorts(op)
            _expand_experts(op)
            pack_weights(op, self.panel, known, self.factors)
        for block in [b for b in blocks(op) if not isinstance(b.parent_op(), FusedOp)]:
            _lower_all(list(block.ops), block, kernels, known)
        for kernel in kernels.values():
            op.body.block.add_op(kernel)


def _is_candidate(op: Operation) -> bool:
    if isinstance(op, LaunchOp) or not isinstance(op, ForgeOp) or getattr(op, "is_pinned", False):
        return False
    if isinstance(op, ViewOp) and is_free(op):
        return False
    if not op.results or any(isinstance(v.type, (StateType, SymType)) for v in (*op.operands, *op.results)):
        return False
    if isinstance(op, ConstantOp):
        return False
    return has_rule(type(op))


def has_rule(cls: type[Operation]) -> bool:
    """Whether ops of a class can become kernels: by a rule, or as the smaller ops that they stand for."""
    return cls is FusedOp or cls in all_rules() or cls in UPDATES or cls in EXPANSIONS or hasattr(cls, "decompose")


def _expand_experts(module: ModuleOp) -> None:
    """Write mixtures of experts as the ops that they consist of, among which are products whose weights are packed."""
    all_rules()  # which say how
    for block in [b for b in blocks(module) if not isinstance(b.parent_op(), FusedOp)]:
        for op in list(block.ops):
            if isinstance(op, FusedOp) and any(isinstance(inner, MoeOp) for inner in op.inner):
                parts = _parts(_without_literals(op, block)) or []
            else:
                parts = [op]
            for part in parts:
                if isinstance(part, MoeOp):
                    _parts(part)


def _say_why_it_stays(op: Operation) -> None:
    """A remark for what is no candidate and does work at run time all the same."""
    name = op.callee.data if isinstance(op, AtenOp) else op.name
    if isinstance(op, FromIndexOp):
        missed(op, f"{name} has no kernel: the runtime makes it of a number that the program computes")
        return
    if isinstance(op, LaunchOp) or not launches_kernel(op) or getattr(op, "is_naming", False):
        return
    values = (*op.operands, *op.results)
    if getattr(op, "draws_random", False):
        reason = "it draws random numbers, and moves torch's generator on"
    elif getattr(op, "is_pinned", False):
        reason = "only the data tells the extent of its result"
    elif not op.results:
        reason = "it has no result"
    elif any(isinstance(v.type, SymType) for v in op.results):
        reason = "only the data tells the extent of its result"
    elif any(isinstance(v.type, SymType) for v in values):
        reason = "it takes a number that the program computes while it runs"
    elif any(isinstance(v.type, StateType) for v in values):
        reason = "it takes state as such"
    else:
        reason = f"{name} has no rule"
    missed(op, f"{name} has no kernel: {reason}")


def _lower(op: Operation, block: Block, kernels: dict[str, KernelOp], known: KnownGroups) -> None:
    if _has_parts(op) and (parts := _parts(op)) is not None:
        _lower_all(parts, block, kernels, known)
        return
    if isinstance(op, FusedOp):
        op = _without_literals(op, block)
    elif type(op) in UPDATES and sum(operand is op.destination for operand in op.operands) > 1:  # type: ignore[attr-defined]
        first = op.operands.index(op.destination)  # type: ignore[attr-defined] - an update has one
        op.operands[first] = _copied(op.operands[first], op, block, kernels, known)
    group = op if isinstance(op, FusedOp) else alone(op)
    try:
        dying = _dying(op, group, block, kernels, known)
        lowered = known.lower(group, dying)
        for result, kind in zip(op.results, lowered.results, strict=True):
            if kind != result.type and _escapes(result):
                raise NotLowered("a result with gaps between its elements is returned")
    except NotLowered as reason:
        parts = _parts(op)
        if parts is None:
            missed(op, f"{_kind(op)} has no kernel: {reason}")
            return
        _lower_all(parts, block, kernels, known)
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
    _replace(op, launch.results)


def _lower_all(ops: Sequence[Operation], block: Block, kernels: dict[str, KernelOp], known: KnownGroups) -> None:
    for op in ops:
        if _is_candidate(op):
            _lower(op, block, kernels, known)
        else:
            _say_why_it_stays(op)


def _has_parts(op: Operation) -> bool:
    """True of an attention that is faster as several kernels, alone or with rearrangements that cost nothing."""
    inner = list(op.inner) if isinstance(op, FusedOp) else [op]
    found = [each for each in inner if not (isinstance(each, ViewOp) and is_free(each))]
    return len(found) == 1 and isinstance(found[0], AttentionOp) and part_extent(found[0]) is not None


def _without_literals(group: FusedOp, block: Block) -> FusedOp:
    """A group whose literals of several elements are operands."""
    literals = [op for op in group.inner if isinstance(op, ConstantOp) and types.numel(op.result) != 1]
    if not literals:
        return group
    inputs = list(group.inputs)
    for literal in literals:
        outside = literal.clone()
        block.insert_op_before(inherit(outside, group), group)
        argument = group.body.block.insert_arg(literal.result.type, len(inputs))
        literal.result.replace_all_uses_with(argument)
        Rewriter.erase_op(literal)
        inputs.append(outside.result)
    body = group.body.detach_block(0)
    found = FusedOp.with_region(group.kind.data, body, inputs)
    block.insert_op_before(inherit(found, group), group)
    _replace(group, found.results)
    return found


def _replace(op: Operation, values: Sequence[SSAValue]) -> None:
    for old, new in zip(op.results, values, strict=True):
        new.name_hint = old.name_hint
        old.replace_all_uses_with(new)
    Rewriter.erase_op(op)


def _parts(op: Operation) -> list[Operation] | None:
    """The smaller ops that an op without a kernel has been replaced by; None where there are none."""
    if isinstance(op, FusedOp) and len(list(op.inner)) == 1 and type(next(op.inner)) not in EXPANSIONS:
        (only,) = op.inner
        if not hasattr(only, "decompose"):
            return None
    before = op.prev_op
    values = None
    for expand in (EXPANSIONS.get(type(op)), getattr(type(op), "decompose", None)):
        if expand is not None and values is None:
            try:
                values = expand(op, Builder(InsertPoint.before(op)))
            except NotLowered:
                continue
    if values is None:
        return None
    parts: list[Operation] = []
    current = op.prev_op
    while current is not before and current is not None:
        parts.append(current)
        current = current.prev_op
    _replace(op, values)
    for part in reversed(parts):
        if isinstance(part, ViewOp) and is_free(part):
            found = view_type(part, types.tensor_type(part.input))
            if found is not None and found[0] != part.result.type and not _escapes(part.result):
                Rewriter.replace_value_with_new_type(part.result, found[0])
    return parts[::-1]


def _dying(op: Operation, group: FusedOp, block: Block, kernels: dict[str, KernelOp], known: KnownGroups) -> set[int]:
    """The inputs of a group in whose memory results may be written. What is needed afterwards, or is the caller's, is
    copied first where the result has no other way.
    """
    found: set[int] = set()
    for result, number in updated_inputs(group).items():
        value = group.inputs[number]
        if _dies(value, op, group):
            found.add(number)
        elif type(group.yielded[result].owner) not in all_rules():
            copied = _copied(value, op, block, kernels, known)
            for user in {op, group}:
                for position, operand in enumerate(user.operands):
                    if operand is value:
                        user.operands[position] = copied
            found.add(number)
    return found


def _copied(value: SSAValue, op: Operation, block: Block, kernels: dict[str, KernelOp], known: KnownGroups) -> SSAValue:
    """A copy of a value, made before an op."""
    copy = CopyOp.make([value], {})
    block.insert_op_before(inherit(copy, op), op)
    _lower(copy, block, kernels, known)
    before = op.prev_op
    assert before is not None, "the copy, or the kernel that makes it"
    return before.results[0]


def _dies(value: SSAValue, op: Operation, group: FusedOp) -> bool:
    """True if a value is fresh memory, or a state's, and an op is the last to need it."""
    owner = value.owner
    if not isinstance(owner, (ForgeOp, StateReadOp)) or isinstance(owner, (ViewOp, ParamRefOp, ConstantOp)):
        return False
    if any(use.operation not in (op, group) for use in value.uses):
        return False
    return sum(operand is value for operand in group.inputs) == 1


def _kind(op: Operation) -> str:
    if isinstance(op, AtenOp):
        return op.callee.data
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
