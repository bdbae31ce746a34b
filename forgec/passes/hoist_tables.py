"""What all calls of a layer would compute alike is computed once, before them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp
from xdsl.dialects.func import CallOp, FuncOp, ReturnOp
from xdsl.ir import Block, Operation, SSAValue
from xdsl.passes import ModulePass
from xdsl.traits import is_side_effect_free

from forgec.ir.ops.base import producer
from forgec.ir.ops.module import StateReadOp
from forgec.ir.ops.shape import is_free
from forgec.passes.fusion import is_repeatable
from forgec.passes.layers import Layers
from forgec.passes.outlining import at_call
from forgec.passes.rewriting import is_dead


@dataclass(frozen=True)
class HoistTables(ModulePass):
    """Move out of a layer's function what does not depend on the call: tables of positions, masks, constants.

    Before::

          %1 = func.call @forward.layers(%x, %frequencies) : …
          %2 = func.call @forward.layers(%1, %frequencies) : …
          …
        }
        func.func private @forward.layers(%0, %frequencies) -> … attributes {forge.layer} {
          %cos = forge.cos %frequencies : …
          …

    After::

          %cos = forge.cos %frequencies : …
          %1 = func.call @forward.layers(%x, %cos) : …
          %2 = func.call @forward.layers(%1, %cos) : …
          …
        }
        func.func private @forward.layers(%0, %cos) -> … attributes {forge.layer} {
          …

    The counterpart of ``sink-tables``, for what is left when masks and tables have been recognised: it depends on
    nothing but arguments that all calls pass alike. Rearrangements that cost nothing and single numbers stay where
    they are used. Different layers may compute the same: ``cse`` makes one of it.

    Order: when masks and positions have been recognised, before ``cse`` and before what is left of them would become
    kernels of every layer.
    """

    name = "hoist-tables"

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        layers = Layers(op)
        for layer in layers.callees_first():
            calls = layers.calls_of(layer)
            if len(calls) > 1 and len({call.parent_block() for call in calls}) == 1:
                _hoist(layers, layer, calls)


def _hoist(layers: Layers, layer: FuncOp, calls: Sequence[CallOp]) -> None:
    block = layer.body.block
    alike: dict[SSAValue, SSAValue] = {
        argument: calls[0].operands[index]
        for index, argument in enumerate(block.args)
        if len({call.operands[index] for call in calls}) == 1
    }
    same: set[SSAValue] = set(alike)
    moving: dict[Operation, None] = {}
    for op in block.ops:
        if _is_movable(op) and all(operand in same for operand in op.operands):
            same.update(op.results)
            if not is_free(op) and not is_repeatable(op):
                moving[op] = None
    wanted = [
        result
        for op in moving
        for result in op.results
        if any(not _goes_along(use.operation, moving, block) for use in result.uses)
    ]
    if not wanted:
        return
    outside = _copied(list(moving), alike, layer, calls[0])
    for value in wanted:
        argument = layers.add_argument(layer, [outside[value]] * len(calls), value.name_hint or "table")
        value.replace_all_uses_with(argument)
    for op in reversed(list(block.ops)):
        if op.results and op.results[0] in same and is_dead(op):
            block.erase_op(op)
    layers.drop_unused(layer)


def _is_movable(op: Operation) -> bool:
    return is_side_effect_free(op) and not op.regions and not isinstance(op, (StateReadOp, ReturnOp, CallOp))


def _goes_along(op: Operation, moving: dict[Operation, None], block: Block) -> bool:
    """True if an op moves out itself."""
    return op in moving and op.parent is block


def _copied(
    ops: Sequence[Operation], alike: dict[SSAValue, SSAValue], layer: FuncOp, call: CallOp
) -> dict[SSAValue, SSAValue]:
    """Copies of ops, and of what they need, before a call; what has become of each value."""
    values: dict[SSAValue, SSAValue] = dict(alike)
    block = call.parent_block()
    assert block is not None

    def copy(op: Operation) -> None:
        for operand in op.operands:
            source = producer(operand)
            if operand not in values and source is not None:
                copy(source)
        copied = op.clone(values)
        copied.location = at_call(copied.location, layer, call)
        for old, new in zip(op.results, copied.results, strict=True):
            new.name_hint = old.name_hint
        block.insert_op_before(copied, call)

    for op in ops:
        if op.results[0] not in values:
            copy(op)
    return values
