"""Bodies of branches and loops become functions, which the plan can call."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from xdsl.context import Context
from xdsl.dialects import scf
from xdsl.dialects.builtin import ModuleOp
from xdsl.dialects.func import CallOp, FuncOp
from xdsl.ir import Block, Operation, SSAValue
from xdsl.passes import ModulePass

from forgec.diagnostics import error
from forgec.ir import types
from forgec.ir.attributes import IntsAttr
from forgec.ir.locations import location_of
from forgec.ir.ops.base import producer
from forgec.ir.ops.control import FromIndexOp, ItemOp
from forgec.ir.ops.fused import FusedOp
from forgec.ir.ops.index import IndexCopyOp, IndexPutOp, ScatterOp
from forgec.ir.ops.shape import InsertSliceOp
from forgec.passes.outlining import call, free_values, is_repeated, outline
from forgec.passes.rewriting import functions

UPDATES = "forge.updates"
"""Attribute of a function that is a loop's body: its results (by number) that belong into the memory of an argument
(by number): pairs, one after the other."""


@dataclass(frozen=True)
class OutlineControlFlow(ModulePass):
    """Make each region of ``scf.if``, ``scf.while`` and ``scf.for`` one call of a private function.

    Before::

        %r = scf.if %p -> (tensor<4xf32>) {
          %a = forge.sin %x : (tensor<4xf32>) -> tensor<4xf32>
          scf.yield %a : tensor<4xf32>
        } else {
          scf.yield %x : tensor<4xf32>
        }

    After::

        %r = scf.if %p -> (tensor<4xf32>) {
          %a = func.call @forward.if0.then(%x) : (tensor<4xf32>) -> tensor<4xf32>
          scf.yield %a : tensor<4xf32>
        } else {
          %b = func.call @forward.if0.else(%x) : (tensor<4xf32>) -> tensor<4xf32>
          scf.yield %b : tensor<4xf32>
        }

    Values of outside that a region uses become arguments; parameters and constants are repeated inside. A value that a
    loop carries and only inserts into is marked: the plan updates it in place.

    Order: ``lower-to-plan`` runs it before ``cut-segments``.
    """

    name = "outline-control-flow"

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        for function in list(functions(op)):
            _Outliner(op, function).run(function.body.block)


class _Outliner:
    def __init__(self, module: ModuleOp, function: FuncOp) -> None:
        self.module = module
        self.function = function
        self.count = 0
        self.last: Operation = function
        self.taken = [other.sym_name.data for other in functions(module)]

    def run(self, block: Block) -> None:
        """Outline the regions in a block, innermost first."""
        for op in list(block.ops):
            for region in op.regions:
                for inner in region.blocks:
                    self.run(inner)
            if isinstance(op, (scf.IfOp, scf.WhileOp, scf.ForOp)):
                stem = self._stem(op.name.removeprefix("scf."))
                if isinstance(op, scf.IfOp):
                    self._region(op, op.true_region.block, f"{stem}.then")
                    self._region(op, op.false_region.block, f"{stem}.else")
                elif isinstance(op, scf.WhileOp):
                    self._condition(op, op.before_region.block, f"{stem}.before")
                    self._region(op, op.after_region.block, f"{stem}.after")
                else:
                    self._loop(op, f"{stem}.body")
            elif op.regions and not isinstance(op, FusedOp):
                raise error("FORGE-B002", f"{op.name} cannot be outlined", location=location_of(op))

    def _stem(self, kind: str) -> str:
        """The first part of names that no function has yet: the pass may have run before."""
        while True:
            stem = f"{self.function.sym_name.data}.{kind}{self.count}"
            self.count += 1
            if not any(name.startswith(f"{stem}.") for name in self.taken):
                return stem

    def _outline(
        self, op: Operation, block: Block, name: str, arguments: Sequence[SSAValue], results: Sequence[SSAValue]
    ) -> CallOp:
        """Move all of a block but its terminator into a function, and call that. ``arguments`` come first."""
        terminator = block.last_op
        moved = [inner for inner in block.ops if inner is not terminator]
        used = dict.fromkeys((*arguments, *free_values(moved), *results))
        inside = {result for inner in moved for result in inner.results}
        taken = [v for v in used if v in arguments or not (v in inside or is_repeated(v))]
        function = outline(name, taken, moved, results, op.location)
        self.module.body.block.insert_op_after(function, self.last)
        self.last = function
        called = call(function, taken, op.location)
        block.insert_op_before(called, terminator)  # type: ignore[arg-type]
        return called

    def _region(self, op: Operation, block: Block, name: str) -> None:
        terminator = block.last_op
        assert isinstance(terminator, scf.YieldOp)
        called = self._outline(op, block, name, list(block.args), list(terminator.operands))
        terminator.operands = list(called.results)

    def _condition(self, op: Operation, block: Block, name: str) -> None:
        terminator = block.last_op
        assert isinstance(terminator, scf.ConditionOp)
        item = producer(terminator.operands[0])
        if not isinstance(item, ItemOp):
            raise error("FORGE-B002", "the condition of a loop is no forge.item", location=location_of(op))
        results = [item.input, *terminator.operands[1:]]
        if item.parent_block() is block:
            item.detach()
        called = self._outline(op, block, name, list(block.args), results)
        again = ItemOp.create(operands=[called.results[0]], result_types=[item.result.type], location=item.location)
        block.insert_op_before(again, terminator)
        terminator.operands = [again.result, *called.results[1:]]
        if item.parent_block() is None:
            item.erase()

    def _loop(self, op: scf.ForOp, name: str) -> None:
        block = op.body.block
        counter, *carried = block.args
        terminator = block.last_op
        assert isinstance(terminator, scf.YieldOp)
        number = FromIndexOp.create(operands=[counter], result_types=[types.tensor("i64", ())], location=op.location)
        for inner in [use.operation for use in counter.uses]:
            if not isinstance(inner, FromIndexOp):
                raise error("FORGE-B002", "a loop's counter is used by no forge.from_index", location=location_of(op))
            if inner is not number:
                inner.result.replace_all_uses_with(number.result)
                inner.detach()
                inner.erase()
        updates = [i for i, value in enumerate(terminator.operands) if _updates(value, carried[i])]
        called = self._outline(op, block, name, [number.result, *carried], list(terminator.operands))
        block.insert_op_before(number, called)
        terminator.operands = list(called.results)
        function = self.last
        assert isinstance(function, FuncOp)
        pairs = [number for index in updates for number in (index, index + 1)]
        if pairs:
            function.attributes[UPDATES] = IntsAttr(pairs)


def _updates(value: SSAValue, carried: SSAValue) -> bool:
    """True if the value is the carried one with some elements replaced, and nothing else uses that."""
    op = producer(value)
    if isinstance(op, InsertSliceOp):
        target = op.destination
    elif isinstance(op, (IndexPutOp, IndexCopyOp, ScatterOp)):
        target = op.operands[0]
    else:
        return False
    return target is carried and len(list(carried.uses)) == 1 and value.type == carried.type
