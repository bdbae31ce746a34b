"""Loops that were written out become loops again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from xdsl.builder import Builder
from xdsl.context import Context
from xdsl.dialects.builtin import IntAttr, ModuleOp
from xdsl.ir import Block, Operation, Region, SSAValue
from xdsl.passes import ModulePass
from xdsl.rewriter import InsertPoint, Rewriter

from forgec.ir import types
from forgec.ir.attributes import ExtentAttr, IntsAttr
from forgec.ir.locations import inherit
from forgec.ir.ops.base import ElementwiseOp
from forgec.ir.ops.binary import MulOp
from forgec.ir.ops.contraction import MatmulOp
from forgec.ir.ops.creation import FullOp
from forgec.ir.ops.decomposition import Emitter
from forgec.ir.ops.fused import FusedOp
from forgec.ir.ops.module import YieldOp
from forgec.ir.ops.reduction import ReductionOp, SumOp
from forgec.ir.ops.scan import ScanOp, argument_types
from forgec.ir.ops.shape import ConcatOp, InsertSliceOp, SliceOp, TransposeOp, ViewOp
from forgec.passes.patterns import missed
from forgec.passes.rewriting import blocks
from forgec.passes.tiles.group import lower_group
from forgec.passes.tiles.kernel_builder import NotLowered
from forgec.passes.unrolled_loops import Made, UnrolledLoop, find_loop

PARTS = (ElementwiseOp, ViewOp, ReductionOp, MatmulOp, FullOp)
"""What a step may do."""


@dataclass(frozen=True)
class RollLoops(ModulePass):
    """Write steps that follow one another, the same on each slice of some tensors, as one ``forge.scan``: recurrences
    of state space models, which capture writes out.

    Before::

        %a0 = forge.slice %x dim 0 from 0 step 1 : (tensor<4x8xf32>) -> tensor<1x8xf32>
        %s0 = forge.add %zeros, %a0 : (tensor<1x8xf32>, tensor<1x8xf32>) -> tensor<1x8xf32>
        …
        %a3 = forge.slice %x dim 0 from 3 step 1 : (tensor<4x8xf32>) -> tensor<1x8xf32>
        %s3 = forge.add %s2, %a3 : (tensor<1x8xf32>, tensor<1x8xf32>) -> tensor<1x8xf32>

    After::

        %s3 = forge.fused "scan" (%1 = %zeros : tensor<1x8xf32>, %2 = %x : tensor<4x8xf32>) {
          %last = forge.scan 4 (carried %s = %1 : tensor<1x8xf32>, over %a = %2 dim 0 : tensor<4x8xf32>) {
            %3 = forge.reshape %a : (tensor<8xf32>) -> tensor<1x8xf32>
            %4 = forge.add %s, %3 : (tensor<1x8xf32>, tensor<1x8xf32>) -> tensor<1x8xf32>
            forge.yield %4 : tensor<1x8xf32>
          } : tensor<1x8xf32>
          forge.yield %last : tensor<1x8xf32>
        } : tensor<1x8xf32>

    Steps consist of pointwise ops, rearrangements, reductions and products with a vector, pass something on, and have a
    kernel; others stay written out, with a remark. Pointwise ops whose results only the steps read become part of the
    group.

    Order: first, where steps are as capture has written them; equal values must be one (``cse``).
    """

    name = "roll-loops"

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        for block in [block for block in blocks(op) if not isinstance(block.parent_op(), FusedOp)]:
            tried: set[SSAValue] = set()
            while (loop := find_loop(block, tried)) is not None:
                tried |= {loop.families[op].source for ops in loop.steps for op in ops if op in loop.families}  # type: ignore[index] - just looked for
                _Rolling(block, loop).run()


class _Rolling:
    """One loop that becomes a scan."""

    def __init__(self, block: Block, loop: UnrolledLoop) -> None:
        self.block = block
        self.loop = loop
        self.count = len(loop.steps)
        self.members = {op: step for step, ops in enumerate(loop.steps) for op in ops if op is not None}
        self.template = [op for op in loop.steps[1] if op is not None]  # all are there
        self.position = {op: number for number, op in enumerate(self.template)}
        self.before = {value: made for made in loop.initial if (value := loop.value(0, made)) is not None}
        """What the second step takes of the first, by value."""

    def run(self) -> None:
        """Rewrite the loop, if it can be."""
        written = self._written()
        carried = [made for made in self.loop.initial if made not in written]
        results = self._results(written, carried)
        if results is None or not carried:
            return
        needed = self._needed([*carried, *results, *written])
        wrong = next((op for op in self.template if op in needed and not _may_be_part(op)), None)
        if wrong is not None:
            missed(wrong, f"{wrong.name} in each of {self.count} equal steps keeps them from being a loop")
            return
        group, scan_results = self._group(carried, [*results, *written])
        at = self._place(group, [*results, *written, *carried])
        if at is None:
            group.erase()
            return
        self.block.insert_op_before(inherit(group, self.template[-1]), at)
        try:
            lower_group(group)
        except NotLowered as reason:
            missed(self.template[-1], f"{self.count} equal steps are no loop: {reason}")
            group.detach()
            group.erase()
            return
        self._replace(at, carried, results, written, scan_results)

    # What leaves the loop
    # -----------------------------------------------------------------------------------------------------------------

    def _written(self) -> dict[Made, InsertSliceOp]:
        """Tensors that the steps do nothing with but write a slice each to: the slices are results of the steps."""
        found: dict[Made, InsertSliceOp] = {}
        for made in self.loop.initial:
            op = self.template[made[0]]
            if not isinstance(op, InsertSliceOp) or self.before.get(op.destination) != made:
                continue
            last = self.loop.value(self.count - 1, made)
            inner = [self.loop.value(step, made) for step in range(self.count - 1)]
            alone = last is not None and all(value is not None and value.has_one_use() for value in inner)
            if alone and types.shape(op.source)[op.dim.data] == 1 and op.source.owner in self.position:
                found[made] = op
        return found

    def _results(self, written: dict[Made, InsertSliceOp], carried: Sequence[Made]) -> list[Made] | None:
        """What of the steps is used elsewhere, beside the last of what is carried and written."""
        found: dict[Made, None] = {}
        for step, ops in enumerate(self.loop.steps):
            for number, op in enumerate(ops):
                for index, value in enumerate([] if op is None else op.results):
                    made = (number, index)
                    if all(use.operation in self.members for use in value.uses):
                        continue
                    last = step == self.count - 1 and (made in written or made in carried)
                    if made in written and not last:
                        return None
                    if not last:
                        found[made] = None
        return list(found)

    def _place(self, group: FusedOp, made: Sequence[Made]) -> Operation | None:
        """An op before all users of the loop's values and after all that it takes; None if there is none."""
        order = {op: number for number, op in enumerate(self.block.ops)}
        users = []
        for op in self.members:
            for result in op.results:
                for use in result.uses:
                    user = self.block.find_ancestor_op_in_block(use.operation)
                    if user is not None and user not in self.members:
                        users.append(user)
        if not users:
            return None
        first = min(users, key=order.__getitem__)
        latest = max((order.get(v.owner, -1) for v in group.operands if isinstance(v.owner, Operation)), default=-1)
        return first if latest < order[first] else None

    # The scan
    # -----------------------------------------------------------------------------------------------------------------

    def _group(self, carried: Sequence[Made], made: Sequence[Made]) -> tuple[FusedOp, list[Made]]:
        over, shared = self._inputs()
        initial = [self.loop.initial[each] for each in carried]
        inside = self._own_producers([source for source, _, _ in over])
        outer = Block()
        inputs: dict[SSAValue, SSAValue] = {}

        def outside(value: SSAValue) -> SSAValue:
            if value not in inputs:
                argument = outer.insert_arg(value.type, len(outer.args))
                argument.name_hint = value.name_hint
                inputs[value] = argument
            return inputs[value]

        copies: dict[SSAValue, SSAValue] = {}
        for op in inside:
            for operand in op.operands:
                if operand not in copies:
                    copies[operand] = outside(operand)
            outer.add_op(inherit(op.clone(copies), op))
        emit = Emitter(Builder(InsertPoint.at_end(outer)), self.template[-1])
        slices = []
        for source, dim, first in over:
            value = copies.get(source) or outside(source)
            if types.shape(value)[dim] != self.count:
                value = emit.slice(value, dim, first, self.count)
            slices.append(value)
        dims = [dim for _, dim, _ in over]
        carried_in = [copies.get(v) or outside(v) for v in initial]
        with_ = [copies.get(v) or outside(v) for v in shared]
        block = Block(arg_types=argument_types(carried_in, slices, dims, with_))
        arguments = list(block.args)
        for argument, made_ in zip(arguments, carried, strict=False):
            argument.name_hint = self.template[made_[0]].results[made_[1]].name_hint
        yielded = self._body(block, arguments, carried, over, shared, [*carried, *made])
        block.add_op(YieldOp.create(operands=yielded))
        scan = ScanOp.of(self.count, carried_in, slices, dims, with_, Region(block))
        outer.add_op(inherit(scan, self.template[-1]))
        outer.add_op(YieldOp.create(operands=list(scan.results)))
        return FusedOp.with_region("scan", outer, list(inputs)), list(made)

    def _inputs(self) -> tuple[list[tuple[SSAValue, int, int]], list[SSAValue]]:
        """The tensors that the steps run over, their dimensions and the first place, and what all steps take."""
        over: dict[tuple[SSAValue, int, int], None] = {}
        shared: dict[SSAValue, None] = {}
        for op in self.template:
            if isinstance(op, SliceOp) and op in self.loop.families:
                over[self._slice(op)] = None
                continue
            for operand in op.operands:
                if operand.owner not in self.position and operand not in self.before:
                    shared[operand] = None
        return list(over), list(shared)

    def _slice(self, op: SliceOp) -> tuple[SSAValue, int, int]:
        family = self.loop.families[op]
        return family.source, family.dim, family.first + self.loop.first

    def _own_producers(self, sources: Sequence[SSAValue]) -> list[Operation]:
        """Pointwise ops and rearrangements before the loop whose results it alone reads, in order."""
        consumed: dict[Operation, None] = dict.fromkeys(self.members)
        found: list[Operation] = []
        candidates: set[Operation] = {v.owner for v in sources if isinstance(v.owner, Operation)}
        order = {op: number for number, op in enumerate(self.block.ops)}
        while candidates:
            op = max(candidates, key=lambda each: order.get(each, -1))
            candidates.remove(op)
            if op.parent is not self.block or op in consumed or not isinstance(op, (ElementwiseOp, ViewOp)):
                continue
            if any(use.operation not in consumed for result in op.results for use in result.uses):
                continue
            consumed[op] = None
            found.append(op)
            candidates |= {v.owner for v in op.operands if isinstance(v.owner, Operation)}
        return sorted(found, key=order.__getitem__)

    def _body(
        self,
        block: Block,
        arguments: Sequence[SSAValue],
        carried: Sequence[Made],
        over: Sequence[tuple[SSAValue, int, int]],
        shared: Sequence[SSAValue],
        wanted: Sequence[Made],
    ) -> list[SSAValue]:
        """The step's ops on the arguments of the region; what it yields for the values wanted."""
        taken = iter(arguments)
        values: dict[SSAValue | None, SSAValue] = {self.loop.value(0, made): next(taken) for made in carried}
        slices = {each: next(taken) for each in over}
        values.update({value: next(taken) for value in shared})
        needed = self._needed(wanted)
        for op in self.template:
            if op not in needed:
                continue
            emit = Emitter(Builder(InsertPoint.at_end(block)), op)
            if isinstance(op, SliceOp) and op in self.loop.families:
                values[op.result] = emit.reshape(slices[self._slice(op)], types.shape(op.result))
            elif isinstance(op, MatmulOp):
                values[op.result] = _product(emit, values[op.lhs], values[op.rhs], types.shape(op.result))
            else:
                kinds = [types.tensor(types.dtype(v), types.shape(v)) for v in op.results]
                copy = type(op).create(
                    operands=[values[v] for v in op.operands], properties=dict(op.properties), result_types=kinds
                )
                emit.insert(copy)
                values.update(zip(op.results, copy.results, strict=True))
        return [values[self._result(made)] for made in wanted]

    def _result(self, made: Made) -> SSAValue:
        """What stands for a value of a step in the template: of a tensor that is written, what is written to it."""
        op = self.template[made[0]]
        if isinstance(op, InsertSliceOp) and self.before.get(op.destination) == made:
            return op.source
        return op.results[made[1]]

    def _needed(self, wanted: Sequence[Made]) -> set[Operation]:
        pending = [self._result(made).owner for made in wanted]
        found: set[Any] = set()
        while pending:
            op = pending.pop()
            if op in self.position and op not in found:
                found.add(op)
                pending += [] if op in self.loop.families else [v.owner for v in op.operands]  # type: ignore[union-attr] - an op by its position
        return found

    # Uses
    # -----------------------------------------------------------------------------------------------------------------

    def _replace(
        self,
        at: Operation,
        carried: Sequence[Made],
        results: Sequence[Made],
        written: dict[Made, InsertSliceOp],
        made: Sequence[Made],
    ) -> None:
        group = at.prev_op
        assert isinstance(group, FusedOp), "it was put there"
        emit = Emitter(Builder(InsertPoint.before(at)), self.template[-1])
        last = self.count - 1
        stacked = dict(zip(made, group.results[len(carried) :], strict=True))
        for each, value in zip(carried, group.results, strict=False):
            old = self.loop.value(last, each)
            if old is not None:
                value.name_hint = old.name_hint
                self._redirect(old, value)
        for each in written:
            op = self.loop.steps[0][each[0]]
            assert isinstance(op, InsertSliceOp), "seen before"
            assert isinstance(op.start.data, int), "of slices with other places steps are not the same"
            dim, start, shape = op.dim.data, op.start.data, types.shape(op.destination)
            moved = self._unstacked(emit, stacked[each], dim)
            if (start, shape[dim]) != (0, self.count):
                place = {"dim": IntAttr(dim), "start": ExtentAttr(start), "step": ExtentAttr(1)}
                moved = emit(InsertSliceOp, moved, self.loop.initial[each], **place)
            old = self.loop.value(last, each)
            assert old is not None, "seen before"
            self._redirect(old, moved)
        for each in results:
            self._concats(stacked[each], each)
            emit = Emitter(Builder(InsertPoint.after(group)), self.template[-1])  # ``at`` may have been a concatenation
            for step in range(self.count):
                old = self.loop.value(step, each)
                if old is None or all(use.operation in self.members for use in old.uses):
                    continue
                if step == last and each in carried:
                    continue
                one = emit.reshape(emit.slice(stacked[each], 0, step, 1), types.shape(old))
                self._redirect(old, one)
        order = {op: number for number, op in enumerate(self.block.ops)}
        for op in sorted(self.members, key=order.__getitem__, reverse=True):
            Rewriter.erase_op(op)
        for op in reversed(list(self.block.ops)):
            unused = op.results and all(result.first_use is None for result in op.results)
            if unused and isinstance(op, (ElementwiseOp, ViewOp)):
                Rewriter.erase_op(op)

    def _redirect(self, old: SSAValue, new: SSAValue) -> None:
        old.replace_uses_with_if(new, lambda use: use.operation not in self.members)

    def _concats(self, stacked: SSAValue, made: Made) -> None:
        """Concatenations of what all steps make are the stacked results, with the dimension of steps elsewhere."""
        values = [self.loop.value(step, made) for step in range(self.count)]
        for use in list(values[0].uses) if values[0] is not None else ():
            op = use.operation
            if not isinstance(op, ConcatOp) or op in self.members:
                continue
            inputs, begin = list(op.inputs), use.index
            if inputs[begin : begin + self.count] != values:  # type: ignore[comparison-overlap] - a value may lack
                continue
            emit = Emitter(Builder(InsertPoint.before(op)), op)
            merged = self._unstacked(emit, stacked, op.dim.data)
            rest = [*inputs[:begin], merged, *inputs[begin + self.count :]]
            joined = merged if len(rest) == 1 else emit(ConcatOp, *rest, dim=op.dim)
            joined.name_hint = op.result.name_hint
            op.result.replace_all_uses_with(joined)
            Rewriter.erase_op(op)

    def _unstacked(self, emit: Emitter, stacked: SSAValue, dim: int) -> SSAValue:
        """The results of all steps one after the other along a dimension."""
        shape = types.shape(stacked)[1:]
        order = [*range(1, dim + 1), 0, *range(dim + 1, len(shape) + 1)]
        moved = stacked if order == sorted(order) else emit(TransposeOp, stacked, permutation=IntsAttr(order))
        return emit.reshape(moved, (*shape[:dim], self.count * shape[dim], *shape[dim + 1 :]))


def _may_be_part(op: Operation) -> bool:
    if isinstance(op, MatmulOp):
        left, right = types.shape(op.lhs), types.shape(op.rhs)
        if min(len(left), len(right)) < 2:
            return False
        return 1 in (left[-2], right[-1], left[-1]) and types.dtype(op.result) in types.FLOATS
    return isinstance(op, PARTS)


def _product(emit: Emitter, left: SSAValue, right: SSAValue, shape: Sequence[Any]) -> SSAValue:
    """A product with a vector, or of two, as a sum of products."""
    dtype = types.dtype(left)
    left, right = (
        emit.cast(left, "f32" if dtype != "f64" else dtype),
        emit.cast(right, "f32" if dtype != "f64" else dtype),
    )
    rows, columns = types.shape(left), types.shape(right)
    left = emit.reshape(left, (*rows, 1))
    right = emit.reshape(right, (*columns[:-2], 1, *columns[-2:]))
    products = emit.binary(MulOp, left, right)  # [..., M, K, N]
    if rows[-1] == 1:
        found = emit.reshape(products, shape)
    else:
        found = emit(SumOp, products, dims=IntsAttr([types.rank(products) - 2]))
    return emit.cast(found, dtype)
