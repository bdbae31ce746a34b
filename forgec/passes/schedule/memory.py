"""What a kernel does to memory in an order: groups are not ordered against each other, so that one group has to do it.

A block that the kernel writes with several ops, or reads as well, belongs to one group, whose stream keeps the order of
the text: within an iteration, from each to the next, and from loop to loop. Parts of a kernel are programs of their
own, which order nothing against each other.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations

from xdsl.ir import Operation, SSAValue

from forgec.ir.tile.memory import GatherOp, LoadOp, ScatterOp, SortOp, StoreOp
from forgec.passes.schedule.flow import Flow, Node, refusal
from forgec.passes.schedule.nest import Nest

Homes = dict[tuple[SSAValue, int | None], int]
"""The group that has a block of memory, for a part."""


@dataclass(frozen=True)
class Access:
    """An op reads or writes a block of memory: in a scheduled loop, as part of ``top`` in its body, or outside."""

    op: Operation
    block: SSAValue
    writes: bool
    flow: Flow | None = None
    top: Operation | None = None

    def node(self, part: int | None) -> Node | None:
        """The op of the graph that it is part of."""
        owners = {} if self.flow is None or self.top is None else self.flow.owners.get(self.top, {})
        return owners.get(part) or owners.get(None)


def homes(nest: Nest) -> Homes:
    """The groups to which blocks belong that scheduled loops write, and that something else reads or writes too.

    Raises:
        ForgeError: FORGE-S020, where several groups would have to do it, or one in another order.
    """
    found: Homes = {}
    by_block: dict[SSAValue, list[Access]] = {}
    for access in _accesses(nest):
        by_block.setdefault(access.block, []).append(access)
    first = nest.flows[0]
    parts = [None] if first.extracted.axis is None else range(first.extracted.parts)
    for block, accesses in by_block.items():
        if len(accesses) == 1 or not any(access.writes for access in accesses):
            continue
        reads = [access for access in accesses if not access.writes]
        reason = "it reads memory that it writes" if reads else "several stores may meet in memory"
        if any(access.flow is None for access in reads):
            raise refusal(nest.kernel, reason, reads[0].op)
        inside = [access for access in accesses if access.flow is not None]
        for part in parts:
            nodes = [node for access in inside if (node := access.node(part)) is not None]
            groups = {node.group for node in nodes}
            if len(groups) > 1 or not all(_is_in_order(*pair, part) for pair in combinations(inside, 2)):
                raise refusal(nest.kernel, reason, inside[0].op)
            for group in groups:
                found[block, part] = group
    return found


def _accesses(nest: Nest) -> Iterator[Access]:
    """All of the kernel's, in the order of the text."""
    body = nest.flows[0].body
    for op in nest.kernel.body.walk():
        touched: list[tuple[SSAValue, bool]] = []
        if isinstance(op, (LoadOp, GatherOp)):
            touched = [(op.block, False)]
        elif isinstance(op, (StoreOp, ScatterOp)):
            touched = [(op.block, True)]
        elif isinstance(op, SortOp):
            touched = [(op.block, False), (op.places, True)]
        flow, top = _place(nest, op)
        for block, writes in touched:
            yield Access(op, body.root(block), writes, flow, top)


def _place(nest: Nest, op: Operation) -> tuple[Flow | None, Operation | None]:
    """The scheduled loop in which an op stands, and the op of its body that it is part of."""
    found: Operation | None = op
    while found is not None:
        parent = found.parent_op()
        if parent is not None and parent in nest.by_loop:
            return nest.by_loop[parent], found
        found = parent
    return None, None


def _is_in_order(one: Access, other: Access, part: int | None) -> bool:
    """Whether a group runs two ops as the text has them: the first before the second, and that before the first of the
    next iteration.
    """
    flow, before, after = one.flow, one.node(part), other.node(part)
    if flow is None or flow is not other.flow or not (one.writes or other.writes):
        return True
    if before is None or after is None:
        return False
    if before is after:  # one op of the graph is written in the order of the text
        return True
    places = [(node.stage, flow.position(node)) for node in (before, after)]
    following = (before.stage + 1, flow.position(before))
    return places[0] < places[1] < following
