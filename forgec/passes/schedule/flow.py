"""Who makes what for whom: the ops of a scheduled loop with their places in their groups' streams, and what flows
between them, in terms of the kernel's values.

A group runs the ops of iteration i of the loop in the order of ``start + i * II``. Taken from the group's first op on,
that is a loop of its own: step t runs, in the order of slots, each op for iteration ``t - stage``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from xdsl.dialects import scf
from xdsl.ir import Block, BlockArgument, Operation, OpResult, SSAValue

from forgec.diagnostics import ForgeError, error
from forgec.ir.locations import location_of
from forgec.ir.tile.compute import DotOp
from forgec.ir.tile.kernel import Kernel, KernelOp
from forgec.ir.tile.memory import CheckOp, LoadOp, ScatterOp, SortOp, StoreOp
from forgec.passes.schedule.body import Body
from forgec.passes.schedule.extract import Extracted
from forgec.schedule.graph import Value
from forgec.schedule.schedule import Schedule, rank

EFFECTS = (StoreOp, ScatterOp, SortOp, CheckOp)

Chain = tuple[BlockArgument, ...]
"""Carried values that a read goes through, the reader's first: as many iterations back as there are."""


def refusal(kernel: Kernel, reason: str, op: Operation | None = None) -> ForgeError:
    """Why a schedule cannot be carried out on a kernel."""
    place = location_of(kernel if op is None else op)
    return error("FORGE-S020", f"{kernel.sym_name.data} cannot be carried out as scheduled: {reason}", location=place)


@dataclass(frozen=True)
class Node:
    """An op of the graph: the tile ops that it stands for, its group, and its place in the group's stream: step t of
    the group runs it for iteration ``t - stage``, ``slot`` cycles after the step's begin.
    """

    name: str
    part: int | None
    ops: tuple[Operation, ...]
    group: int
    start: int
    asynchronous: bool
    stage: int = 0
    slot: int = 0


@dataclass(frozen=True)
class Use:
    """``node`` reads ``value``, that ``holder`` has made of it, ``len(chain)`` iterations before.

    ``accumulates``: only as the accumulator of a product that runs by itself. ``plain``: the carried values on the way
    are the value itself one iteration later, with nothing computed between.
    """

    value: SSAValue
    holder: Node
    chain: Chain
    accumulates: bool
    plain: bool


@dataclass(frozen=True)
class Channel:
    """What a ring holds: a value of the graph that another group reads."""

    title: str
    value: SSAValue
    holder: Node
    memory: str
    depth: int
    readers: tuple[tuple[Node, int], ...]
    """Who reads it, and from how many iterations before."""


@dataclass(eq=False)
class Flow:
    """The ops of a loop as scheduled: of phase ``number`` of the schedule."""

    kernel: KernelOp
    extracted: Extracted
    schedule: Schedule
    number: int = 0
    nodes: dict[str, Node] = field(init=False)

    def __post_init__(self) -> None:
        self.phase = self.schedule.phases[self.number]
        self.loop = self.extracted.loop
        self.block = self.loop.body.block
        self.body = Body(self.kernel, self.loop)
        end = self.block.last_op
        assert isinstance(end, scf.YieldOp), "a loop's body ends so"
        self.yielded = tuple(end.operands)
        self.nodes = self._nodes()
        self.owners: dict[Operation, dict[int | None, Node]] = {}
        for node in self.nodes.values():
            for op in node.ops:
                self.owners.setdefault(op, {})[node.part] = node
        self._check_ops()

    # Nodes

    def _nodes(self) -> dict[str, Node]:
        ii, home = self.phase.ii, self.schedule.group_of
        found: dict[str, Node] = {}
        first: dict[int, int] = {}
        for op in self.phase.graph.ops:
            group, start = home[op.name], self.phase.starts[op.name]
            first[group] = min(first.get(group, start), start)
            ops = tuple(self.extracted.ops.get(op.name, ()))
            runs_by_itself = op.issue < op.latency and len(ops) == 1 and self._may_run_by_itself(ops[0])
            found[op.name] = Node(op.name, op.part, ops, group, start, runs_by_itself)
        for name, node in found.items():
            stage, slot = divmod(node.start - first[node.group], ii)
            found[name] = Node(
                name, node.part, node.ops, node.group, node.start, node.asynchronous, stage=stage, slot=slot
            )
        return found

    def _may_run_by_itself(self, op: Operation) -> bool:
        """Whether an op may be done at any later time: what is written before the next op reads it may not."""
        if isinstance(op, LoadOp):
            return self.body.root(op.block) not in self.body.written
        return isinstance(op, DotOp)

    def _check_ops(self) -> None:
        for op in self.block.ops:
            if op in self.owners or isinstance(op, scf.YieldOp):
                continue
            if any(isinstance(each, EFFECTS) for each in op.walk()):
                raise refusal(self.kernel, f"{op.name} of the loop is no op of the graph", op)

    def in_group(self, group: int) -> list[Node]:
        """The nodes of a group in the order of a step."""
        return [node for node in self.in_order if node.group == group]

    @cached_property
    def in_order(self) -> list[Node]:
        """All nodes by slot; at one slot in the order that the definition of a legal schedule gives them."""
        place = rank(self.phase, self.schedule.depths)
        return sorted(self.nodes.values(), key=lambda node: (node.group, node.slot, place[node.name]))

    def position(self, node: Node) -> int:
        """Where a node stands in a step of its group."""
        return self._positions[node.name]

    @cached_property
    def _positions(self) -> dict[str, int]:
        return {node.name: position for position, node in enumerate(self.in_order)}

    # What flows

    def maker(self, value: SSAValue, part: int | None) -> Node | None:
        """The node whose op yields a value of the body; None for what is free."""
        owner = value.owner
        owners = {} if isinstance(owner, Block) else self.owners.get(owner, {})
        return owners.get(part) or owners.get(None)

    def outside(self, value: SSAValue) -> Iterator[SSAValue]:
        """What a value of the body is computed of that is outside of the loop, not counting what nodes compute."""
        waiting, seen = [value], {value}
        while waiting:
            value = waiting.pop()
            owner = value.owner
            more: list[SSAValue] = []
            if isinstance(owner, Block):
                if owner is self.block and isinstance(value, BlockArgument) and value.index:
                    yield self.loop.iter_args[value.index - 1]
                    more = [self.yielded[value.index - 1]]
                elif owner is not self.block:
                    yield value
            elif owner.parent_block() is not self.block:
                yield value
            elif owner not in self.owners:
                more = operands(owner)
            waiting += [each for each in more if each not in seen]
            seen.update(more)

    def uses(self, node: Node) -> list[Use]:
        """What a node reads of other nodes and of itself in earlier iterations, each once for each way."""
        if node.name not in self._uses:
            self._uses[node.name] = self._found_uses(node)
        return self._uses[node.name]

    @cached_property
    def _uses(self) -> dict[str, list[Use]]:
        return {}

    def _found_uses(self, node: Node) -> list[Use]:
        found: dict[tuple[SSAValue, str, Chain], Use] = {}
        for op in node.ops:
            for number, operand in enumerate(operands(op)):
                accumulates = node.asynchronous and isinstance(op, DotOp) and number == 2
                for value, chain, plain, direct in self.sources(operand, node.part):
                    holder = self.holder(value, node, chain)
                    if holder is node and not chain:
                        continue
                    key = (value, holder.name, chain)
                    exempt = accumulates and direct and plain
                    if key in found:
                        exempt = exempt and found[key].accumulates
                    found[key] = Use(value, holder, chain, exempt, plain)
        if not node.ops:
            for value, holder in self.copied(node):
                found[value, holder.name, ()] = Use(value, holder, (), False, True)
        return list(found.values())

    def sources(
        self, value: SSAValue, part: int | None, chain: Chain = (), plain: bool = True, direct: bool = True
    ) -> Iterator[tuple[SSAValue, Chain, bool, bool]]:
        """The results of nodes that a value of the body is computed of, with the carried values on the way, whether
        nothing is computed after them, and whether it is that result itself.
        """
        owner = value.owner
        if isinstance(owner, Block):
            if owner is not self.block or not isinstance(value, BlockArgument) or not value.index:
                return
            if self.never_changes(value):
                return
            if value in chain:
                raise refusal(self.kernel, f"carried value {value.index - 1} is made by no op of the graph", self.loop)
            carried = (*chain, value)
            yield from self.sources(
                self.yielded[value.index - 1], part, carried, plain and self.is_plain(value), direct
            )
        elif owner.parent_block() is self.block:
            if self.maker(value, part) is not None:
                yield value, chain, plain, direct
                return
            for operand in operands(owner):
                yield from self.sources(operand, part, chain, plain, False)

    def decided(self, value: SSAValue, part: int | None, distance: int = 0) -> Iterator[int]:
        """How many iterations back a value is read through carried values that are computed anew from others."""
        owner = value.owner
        if isinstance(owner, Block):
            if owner is self.block and isinstance(value, BlockArgument) and value.index:
                if self.never_changes(value):
                    return
                if not self.is_plain(value):
                    yield distance + 1
                if distance <= len(self.yielded):
                    yield from self.decided(self.yielded[value.index - 1], part, distance + 1)
        elif owner.parent_block() is self.block and self.maker(value, part) is None:
            for operand in operands(owner):
                yield from self.decided(operand, part, distance)

    def is_plain(self, carried: BlockArgument) -> bool:
        """Whether a carried value is what a node made in the iteration before (or before that)."""
        seen: set[SSAValue] = set()
        value: SSAValue = carried
        while isinstance(value, BlockArgument) and value.owner is self.block and value.index and value not in seen:
            seen.add(value)
            value = self.yielded[value.index - 1]
        owner = value.owner
        return not isinstance(owner, Block) and owner in self.owners

    def never_changes(self, carried: BlockArgument) -> bool:
        """Whether a carried value stays what it was before the loop."""
        return self.yielded[carried.index - 1] is carried

    def unbroken(self, chain: Chain) -> Chain:
        """The end of a chain that nothing is computed between."""
        while chain and not self.is_plain(chain[0]):
            chain = chain[1:]
        return chain

    def holder(self, value: SSAValue, reader: Node, chain: Chain) -> Node:
        """The node from which a reader has a value: the one that makes it, or one that copies it to where the graph
        says that it is read.
        """
        for held in self._held(value):
            if any(read.op == reader.name and read.distance == len(chain) for read in held.reads):
                return self.nodes[held.producer]
        found = self.maker(value, reader.part)
        assert found is not None, "the caller has looked"
        return found

    def _held(self, value: SSAValue) -> list[Value]:
        return self._by_value.get(value, [])

    @cached_property
    def _by_value(self) -> dict[SSAValue, list[Value]]:
        found: dict[SSAValue, list[Value]] = {}
        for held in self.phase.graph.values:
            value = self.extracted.values.get(held.name)
            if value is not None and self.inside(value):
                found.setdefault(value, []).append(held)
        return found

    def title(self, value: SSAValue, holder: Node) -> str | None:
        """What readers of the IR know a value by: its name in the text, else that of the graph, without the number by
        which equal names are told apart.
        """
        if value.name_hint is not None:
            return value.name_hint
        held = next((each.name for each in self._held(value) if each.producer == holder.name), None)
        return None if held is None else SSAValue.extract_valid_name(held)

    def inside(self, value: SSAValue) -> bool:
        """Whether an op of the loop's body yields a value."""
        return not isinstance(value.owner, Block) and value.owner.parent_block() is self.block

    def copied(self, node: Node) -> list[tuple[SSAValue, Node]]:
        """What a node that stands for no tile op copies, and from whom."""
        found: list[tuple[SSAValue, Node]] = []
        for held in self.phase.graph.values:
            value = self.extracted.values.get(held.name)
            if value is None or not self.inside(value):
                continue
            if any(read.op == node.name and read.distance for read in held.reads):
                raise refusal(self.kernel, f"{node.name} copies what an earlier iteration made", self.loop)
            if held.producer == node.name:
                maker = self.holder(value, node, ())
                if maker is node:
                    raise refusal(self.kernel, f"{node.name} copies what it makes itself", self.loop)
                if (value, maker) not in found:
                    found.append((value, maker))
        return found

    # Channels

    @cached_property
    def channels(self) -> list[Channel]:
        """What groups hand to one another."""
        readers: dict[tuple[SSAValue, str], dict[tuple[str, int], None]] = {}
        for node in self.nodes.values():
            for use in self.uses(node):
                if use.holder.group != node.group:
                    key = (use.value, use.holder.name)
                    readers.setdefault(key, {})[node.name, len(use.chain)] = None
        return [self._channel(value, self.nodes[name], list(found)) for (value, name), found in readers.items()]

    def _channel(self, value: SSAValue, holder: Node, readers: Sequence[tuple[str, int]]) -> Channel:
        held = [each for each in self._held(value) if each.producer == holder.name]
        names = {name for name, _ in readers}
        held.sort(key=lambda each: -len(names & {read.op for read in each.reads}))
        if not held:
            reader = self.nodes[readers[0][0]]
            raise refusal(
                self.kernel,
                f"{reader.name} reads a value of {holder.name}, in another group, that the graph does not name",
                None if isinstance(value.owner, Block) else value.owner,
            )
        memory = "tensor" if held[0].memory == "tensor" else "shared"
        nodes = tuple((self.nodes[name], distance) for name, distance in readers)
        depth, ii = self.schedule.depths[held[0].name], self.phase.ii
        for node, distance in nodes:
            if node.start + distance * ii > holder.start + depth * ii:
                raise refusal(self.kernel, f"{node.name} reads {held[0].name} after its slot is to be filled again")
        return Channel(held[0].name, value, holder, memory, depth, nodes)


def operands(op: Operation) -> list[SSAValue]:
    """The operands of an op, and what its regions read from around it."""
    found = list(op.operands)
    inner = {id(each) for region in op.regions for each in region.walk()}
    blocks = {id(block) for region in op.regions for each in (region,) for block in _blocks(each)}
    for region in op.regions:
        for each in region.walk():
            for operand in each.operands:
                owner = operand.owner
                if id(owner) not in inner and id(owner) not in blocks:
                    found.append(operand)
    return found


def _blocks(region) -> Iterator[Block]:
    for block in region.blocks:
        yield block
        for op in block.ops:
            for inner in op.regions:
                yield from _blocks(inner)


def number_of(result: SSAValue) -> int:
    """The place of a value among the results of its op."""
    assert isinstance(result, OpResult), "the caller has looked"
    return result.index
