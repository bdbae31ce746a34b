"""Putting ops into groups that run as one kernel: the engine of the fusion passes.

A pass says which ops begin a group and which may join one; the engine keeps groups convex (no value leaves a group and
comes back through another op), keeps effects in order, and writes each group as a ``forge.fused``.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from xdsl.dialects.builtin import ModuleOp
from xdsl.ir import Block, Operation, SSAValue
from xdsl.traits import is_side_effect_free

from forgec.diagnostics import Diagnostic
from forgec.ir import types
from forgec.ir.locations import fuse, location_of
from forgec.ir.ops.base import producer
from forgec.ir.ops.creation import CreationOp
from forgec.ir.ops.fused import FusedOp
from forgec.ir.ops.module import ConstantOp, StateReadOp
from forgec.ir.ops.shape import SliceOp, is_free
from forgec.passes import remarks
from forgec.passes.rewriting import blocks

SEARCHED = 256
"""Ops that are looked at to find out whether a group may grow; beyond that it does not."""


def is_repeatable(op: Operation | None) -> bool:
    """True for what a kernel makes itself rather than reading it: numbers, and values of their position."""
    return isinstance(op, CreationOp) or (isinstance(op, ConstantOp) and types.numel(op.result) == 1)


@dataclass(eq=False)
class Group:
    """Ops that run as one kernel; ``root`` is the one that decides how."""

    root: Operation
    members: dict[Operation, None] = field(default_factory=dict)
    low: int = 0
    high: int = 0

    @property
    def kind(self) -> str:
        """What the kernel is called after."""
        return self.root.name.removeprefix("forge.")


def each_fuser(module: ModuleOp) -> Iterator[Fuser]:
    """The groups of each block of the module's functions, branches and bodies of loops among them; what the caller has
    put together is then written.
    """
    for block in [block for block in blocks(module) if not isinstance(block.parent_op(), FusedOp)]:
        fuser = Fuser(block)
        yield fuser
        fuser.write()


class Fuser:
    """The groups of one block."""

    def __init__(self, block: Block) -> None:
        self.block = block
        self.ops = list(block.ops)
        self.position = {op: index for index, op in enumerate(self.ops)}
        self.effects: list[int] = []
        """For each op, how many with effects stand before it."""
        count = 0
        for op in self.ops:
            self.effects.append(count)
            count += not is_side_effect_free(op) or isinstance(op, StateReadOp)
        self.group: dict[Operation, Group] = {}

    def begin(self, op: Operation) -> Group:
        """A group of one op."""
        at = self.position[op]
        self.group[op] = Group(op, {op: None}, at, at)
        return self.group[op]

    def source(self, value: SSAValue) -> tuple[Operation | None, list[Operation]]:
        """The op that computes a value, and the free rearrangements between, in order."""
        views: list[Operation] = []
        op = producer(value)
        while op is not None and is_free(op) and op in self.position and op not in self.group:
            views.append(op)
            op = producer(op.operands[0])
        return op, views[::-1]

    def join(self, group: Group, ops: Sequence[Operation]) -> bool:
        """Add ops, which come later than the group's, if it stays convex; False if it would not."""
        members = {*group.members, *ops}
        low, high = group.low, max(group.high, *(self.position[op] for op in ops))
        if self.effects[low] != self.effects[high] or not self._is_convex(members, ops, low):
            return False
        for op in ops:
            group.members[op] = None
            self.group[op] = group
        group.high = high
        return True

    def unite(self, first: Group, second: Group) -> bool:
        """Make two groups one, which keeps the root of the first, if that is convex."""
        members = {*first.members, *second.members}
        low, high = min(first.low, second.low), max(first.high, second.high)
        if self.effects[low] != self.effects[high] or not self._is_convex(members, list(members), low):
            return False
        first.members = dict.fromkeys(sorted(members, key=self.position.__getitem__))
        first.low, first.high = low, high
        self.group.update(dict.fromkeys(second.members, first))
        return True

    def _is_convex(self, members: set[Operation], entering: Sequence[Operation], low: int) -> bool:
        """False if something outside depends on a member and one of ``entering`` on that."""
        pending = [op for member in entering for op in self._before(member) if op not in members]
        seen: set[Operation] = set()
        while pending:
            op = pending.pop()
            if op in members:
                return False
            if op in seen:
                continue
            group = self.group.get(op)
            together = [op] if group is None else list(group.members)
            if (self.position[op] if group is None else group.high) < low:
                continue
            seen.update(together)
            if len(seen) > SEARCHED:
                return False
            pending += [before for part in together for before in self._before(part) if before not in seen]
        return True

    def _before(self, op: Operation) -> Iterator[Operation]:
        for inner in op.walk():
            for operand in inner.operands:
                found = producer(operand)
                if found is not None and found in self.position:
                    yield found

    # Writing

    def write(self, least: int = 2) -> None:
        """Replace each group that has ``least`` ops that are no free rearrangements by a ``forge.fused``. What nobody
        reads stays for ``dce``.
        """
        groups = [g for g in dict.fromkeys(self.group.values()) if self._size(g) >= least]
        kept = {op: group for group in groups for op in group.members}
        for group in groups:
            self._pull_slices(group, kept)
        if not groups:
            return
        for op in self._order(kept):
            op.detach()
            self.block.add_op(op)
        for group in groups:
            self._write(group)

    @staticmethod
    def _size(group: Group) -> int:
        return sum(not is_free(op) for op in group.members)

    def _pull_slices(self, group: Group, kept: dict[Operation, Group]) -> None:
        """Where only slices of a value leave the kernel, it writes these rather than the whole."""
        for op in list(group.members):
            for value in op.results:
                outside = {use.operation for use in value.uses if kept.get(use.operation) is not group}
                slices = all(isinstance(u, SliceOp) and u not in kept and u in self.position for u in outside)
                if outside and slices:
                    for user in sorted(outside, key=self.position.__getitem__):
                        group.members[user] = None
                        kept[user] = group

    def _order(self, kept: dict[Operation, Group]) -> list[Operation]:
        """The block's ops, those of a group side by side; otherwise as they were, as far as that goes."""
        key = {op: kept[op].high if op in kept else self.position[op] for op in self.ops}
        node = {op: kept[op].root if op in kept else op for op in self.ops}
        parts: dict[Operation, list[Operation]] = {}
        for op in self.ops:
            parts.setdefault(node[op], []).append(op)
        waiting: dict[Operation, int] = dict.fromkeys(parts, 0)
        followers: dict[Operation, list[Operation]] = {}
        before: Operation | None = None
        for op in self.ops:
            sources = {node[found] for found in self._before(op)} - {node[op]}
            if not is_side_effect_free(op) or isinstance(op, StateReadOp) or op is self.ops[-1]:
                if before is not None:
                    sources.add(node[before])
                before = op
            for source in sources:
                followers.setdefault(source, []).append(node[op])
                waiting[node[op]] += 1
        ready = [(key[op], self.position[op], op) for op, count in waiting.items() if count == 0]
        heapq.heapify(ready)
        ordered: list[Operation] = []
        while ready:
            _, _, current = heapq.heappop(ready)
            ordered += parts[current]
            for follower in followers.get(current, ()):
                waiting[follower] -= 1
                if waiting[follower] == 0:
                    heapq.heappush(ready, (key[follower], self.position[follower], follower))
        assert len(ordered) == len(self.ops), "groups are convex"
        return ordered

    def _write(self, group: Group) -> None:
        members = set(group.members)
        ops = _in_order(members)
        inputs: dict[SSAValue, None] = {}
        made: dict[Operation, None] = {}
        for op in ops:
            for operand in op.operands:
                source = producer(operand)
                if source in members:
                    continue
                if source is not None and is_repeatable(source):
                    made[source] = None
                else:
                    inputs[operand] = None
        outputs = [r for op in ops for r in op.results if any(use.operation not in members for use in r.uses)]
        if not outputs:
            return
        fused = FusedOp.of(group.kind, [*made, *ops], list(inputs), outputs)
        fused.location = fuse(op.location for op in ops)
        self.block.insert_op_after(fused, ops[-1])
        for old, new in zip(outputs, fused.results, strict=True):
            new.name_hint = old.name_hint
            for use in list(old.uses):
                if use.operation not in members:
                    use.operation.operands[use.index] = new
        for op in reversed(ops):
            self.block.erase_op(op)
        what = f"{', '.join(_counted(ops))} run as one kernel"
        remarks.emit(Diagnostic("FORGE-O001", what, location_of(fused), severity="remark"))


def _in_order(members: set[Operation]) -> list[Operation]:
    """The ops of a group, which stand side by side."""
    first = next(iter(members))
    while (before := first.prev_op) is not None and before in members:
        first = before
    found: list[Operation] = []
    current: Operation | None = first
    while current is not None and current in members:
        found.append(current)
        current = current.next_op
    return found


def _counted(ops: Sequence[Operation]) -> list[str]:
    """``linear, add, 2 rope``."""
    counts: dict[str, int] = {}
    for op in ops:
        if not is_free(op):
            name = op.name.removeprefix("forge.")
            counts[name] = counts.get(name, 0) + 1
    return [name if count == 1 else f"{count} {name}" for name, count in counts.items()]
