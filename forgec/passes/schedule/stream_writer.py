"""Ops and values of one group: what an op of the graph is in an iteration, and where it finds what it reads."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NoReturn

from xdsl.dialects import scf
from xdsl.ir import Attribute, Block, BlockArgument, Operation, Region, SSAValue

from forgec.ir.tile.compute import DotOp
from forgec.ir.tile.elementwise import CmpiOp
from forgec.ir.tile.memory import LoadOp
from forgec.ir.warp.asynchronous import AsyncLoadOp, CopyOp, DoneOp, MmaOp, PoisonOp, WaitOp
from forgec.ir.warp.channels import ConsumedOp, GetOp, PutOp
from forgec.passes.schedule.flow import EFFECTS, Chain, Channel, Flow, Node, number_of, operands, refusal
from forgec.passes.schedule.stream_parts import Kept, Pair, Scope, Terms, Turn
from forgec.runtime.symbolic import Extent, symbol

if TYPE_CHECKING:
    from forgec.passes.schedule.group_body import GroupBody
    from forgec.passes.schedule.level import Level


class Writer:
    """Writes ops of one group at a place; which, and in which order, says ``Stream``."""

    def __init__(
        self,
        flow: Flow,
        body: GroupBody,
        exits: Sequence[tuple[BlockArgument, int | None]],
        place: Level,
    ) -> None:
        self.flow, self.frame, self.group, self.body, self.place = flow, body.frame, body.number, body, place
        self.bounds = body.bounds(flow)
        self.nodes = flow.in_group(self.group)
        self.exits = list(dict.fromkeys(exits))
        parts = {node.part for node in self.nodes}
        self.trips = self.bounds.of(parts)
        self.is_mixed = not self.bounds.alike and len(parts) > 1
        """Whether ops of parts run here that have other numbers of iterations: then as many as of the most."""
        self.head = place.head
        self.scope = place.main
        self.stages = 1 + max((node.stage for node in self.nodes), default=0)
        self.kept: list[Kept] = []
        self.state: dict[Kept, list[Pair]] = {}
        self.step: dict[Kept, Pair] = {}
        self.labels: dict[tuple[Kept, int], Pair] = {}
        self.at_end = False
        self.number: SSAValue | None = None
        self.local: dict[SSAValue, Pair] = {}
        self._find_kept()
        self._prepare_parts()

    # What is kept

    def _inside(self, inner: Scope, write: Callable[[], Any]) -> tuple[Any, Scope]:
        outer, self.scope = self.scope, inner
        return write(), outer

    def _when_there_are(self, count: int, write: Callable[[], None]) -> None:
        """Write something for the case that there are so many iterations."""
        trips = self.trips
        if isinstance(trips, int):
            if trips >= count:
                write()
            return
        inner = Scope(Block(), self.scope)
        _, self.scope = self._inside(inner, write)
        self._if(self.bounds.at_least(self.trips, count), inner, [], [])

    def _find_kept(self) -> None:
        wanted: list[tuple[int, SSAValue, Node, Chain, Node | None, int]] = []
        for node in self.nodes:
            for use in self.flow.uses(node):
                if use.holder.group == self.group:
                    if node.stage + len(use.chain) < use.holder.stage:
                        raise refusal(
                            self.flow.kernel, f"{node.name} runs before {use.holder.name}, which it waits for"
                        )
                    chain = self.flow.unbroken(use.chain)
                    wanted.append((len(chain), use.value, use.holder, chain, node, len(use.chain)))
        for carried, part in self.exits:
            for value, chain, _, _ in self.flow.sources(carried, part):
                holder = self._own_holder(value, part)
                if holder is not None:
                    chain_kept = self.flow.unbroken(chain)
                    wanted.append((len(chain_kept), value, holder, chain_kept, None, len(chain)))
        for _, value, holder, chain, node, distance in sorted(wanted, key=lambda each: -each[0]):
            kept = self._kept(value, holder, chain)
            if kept is None:
                kept = Kept(value, holder, chain)
                self.kept.append(kept)
            if node is None:
                kept.final.add(distance)
            else:
                kept.readers.append((node, distance))

    def _prepare_parts(self) -> None:
        """Where parts with other numbers of iterations share the group: what is made last stays for those that follow,
        in which a part has nothing to do.
        """
        if not self.is_mixed:
            return
        for kept in self.kept:
            if kept.final - {1} and kept.holder.part is not None:
                self._refuse_parts()
            kept.final |= set(range(1, kept.holder.stage + 2)) if kept.final else set()
        if any(distance for node in self.nodes if node.part is not None for _, distance in self.channels_of(node)):
            self._refuse_parts()

    def _refuse_parts(self) -> NoReturn:
        message = "how often its loop runs differs between parts of one group"
        raise refusal(self.flow.kernel, message, self.flow.loop)

    def channels_of(self, node: Node) -> list[tuple[Channel, int]]:
        """The channels that a node reads, and of how many iterations before."""
        return [(c, distance) for c in self.flow.channels for reader, distance in c.readers if reader is node]

    def _own_holder(self, value: SSAValue, part: int | None) -> Node | None:
        """The node of this group from which code after the loop has a value."""
        found = self.flow.maker(value, part)
        if found is not None and found.group != self.group:
            copies = [n for n in self.nodes if not n.ops and n.part in (part, None)]
            found = next((n for n in copies if any(v is value for v, _ in self.flow.copied(n))), None)
        return found

    def _kept(self, value: SSAValue, holder: Node, chain: Chain) -> Kept | None:
        for kept in self.kept:
            if kept.value is value and kept.holder is holder and kept.chain[len(kept.chain) - len(chain) :] == chain:
                return kept
        return None

    def _virtual(self, kept: Kept, turn: int) -> Pair:
        """What is read as the value of an iteration before the first."""
        if turn >= 0 or -turn > len(kept.chain):
            return Pair()
        return Pair(self._initial(kept.chain[turn], kept.holder.part))

    def _initial(self, carried: BlockArgument, part: int | None) -> SSAValue:
        return self.outer(self.flow.loop.iter_args[carried.index - 1], part)

    def _made(self, node: Node) -> list[Kept]:
        return [kept for kept in self.kept if kept.holder is node]

    # Control flow

    def _if(
        self,
        condition: SSAValue,
        inner: Scope,
        there: Sequence[tuple[SSAValue | None, Attribute]],
        missing: Sequence[tuple[SSAValue | None, Attribute]],
        otherwise: Scope | None = None,
    ) -> Sequence[SSAValue]:
        kinds = [kind for _, kind in there]
        outer = otherwise or Scope(Block(), self.scope)
        if not kinds and not inner.block.ops and not outer.block.ops:
            return ()
        inner.add(scf.YieldOp(*(self._real(value, kind) for value, kind in there)))
        other = Region()
        if kinds or outer.block.ops:
            outer.add(scf.YieldOp(*(self._real(value, kind) for value, kind in missing)))
            other = Region(outer.block)
        return self.scope.add(scf.IfOp(condition, kinds, Region(inner.block), other), self.flow.loop).results

    def _flat(self, state: dict[Kept, list[Pair]]) -> list[tuple[SSAValue | None, Attribute]]:
        found: list[tuple[SSAValue | None, Attribute]] = []
        for kept, pairs in state.items():
            for pair in pairs:
                found.append((pair.value, kept.value.type))
                if kept.holder.asynchronous:
                    found.append((pair.token, DoneOp.KIND))
        return found

    def _unflat(self, values: Sequence[SSAValue], counts: dict[Kept, int] | None = None) -> dict[Kept, list[Pair]]:
        rest = iter(values)

        def named(kept: Kept) -> SSAValue:
            found = next(rest)
            found.name_hint = self.flow.title(kept.value, kept.holder)
            return found

        counts = {kept: kept.ages for kept in self.kept} if counts is None else counts
        return {
            kept: [Pair(named(kept), next(rest) if kept.holder.asynchronous else None) for _ in range(count)]
            for kept, count in counts.items()
        }

    def _real(self, value: SSAValue | None, kind: Attribute) -> SSAValue:
        if value is not None:
            return value
        found = self.head.find(("nothing", kind))
        if found is None:
            op = DoneOp() if kind == DoneOp.KIND else PoisonOp(kind)
            found = self.head.known["nothing", kind] = self.head.add(op).results[0]
        return found

    # Ops

    def _node(self, node: Node, turn: Turn) -> None:
        """One op of the graph in one iteration, if its part has so many."""
        if not self.is_mixed or node.part is None:
            self._iteration(node, turn)
            return
        made = self._made(node)
        before = {kept: [self._previous(kept, turn)] for kept in made}
        number, trips = self.at(turn), self.bounds.value(self.bounds.of({node.part}))
        there = self.scope.add(CmpiOp(number, trips, "slt")).results[0]
        inner, missing = Scope(Block(), self.scope), Scope(Block(), self.scope)
        _, self.scope = self._inside(inner, lambda: self._iteration(node, turn))
        after = {kept: [self.labels[kept, turn.n] if self.at_end else self.step[kept]] for kept in made}
        _, self.scope = self._inside(missing, lambda: self._free_shared(node, number))
        results = self._if(there, inner, self._flat(after), self._flat(before), missing)
        for kept, pairs in self._unflat(results, dict.fromkeys(made, 1)).items():
            self._keep(kept, turn, pairs[0])

    def _previous(self, kept: Kept, turn: Turn) -> Pair:
        """What an op made in the iteration before."""
        if self.at_end:
            return self.labels.get((kept, turn.n + 1), Pair())
        return self.state[kept][0] if kept.ages else Pair()

    def _keep(self, kept: Kept, turn: Turn, pair: Pair) -> None:
        if self.at_end:
            self.labels[kept, turn.n] = pair
        else:
            self.step[kept] = pair

    def _free_shared(self, node: Node, number: SSAValue) -> None:
        """What an op does in an iteration that its part does not have: let pass what was put for all parts."""
        for channel, distance in self.channels_of(node):
            if channel.holder.part is None:
                self.free(channel, node, distance, number)

    def free(self, channel: Channel, node: Node, distance: int, number: SSAValue) -> None:
        """Frees what a node does not read."""
        ring, place = self.ring(channel.holder, channel.value, number)
        self.scope.add(GetOp(ring, place))
        self.consumed(channel, node, distance, number)

    def _iteration(self, node: Node, turn: Turn) -> None:
        made = self.local = {}
        for op in node.ops:
            accumulator = op.operands[2] if node.asynchronous and isinstance(op, DotOp) else None
            values = {operand: self.value(operand, node, (), turn, operand is accumulator) for operand in operands(op)}
            if node.asynchronous:
                new = self._asynchronous(node, op, [values[operand] for operand in op.operands])
                made[op.results[0]] = Pair(*new.results)
                self.scope.add(new, op)
            elif any(isinstance(each, EFFECTS) for each in op.walk()):
                self.frame.guarded(
                    self.scope, node.part, lambda scope, op=op, values=values: scope.add(op.clone(values))
                )
            else:
                new = self.scope.add(op.clone(dict(values)))
                made.update({old: Pair(result) for old, result in zip(op.results, new.results, strict=True)})
            for old in op.results:
                value = made[old].value if old in made else None
                if value is not None and value.name_hint is None:
                    value.name_hint = self.flow.title(old, node)
        if not node.ops:
            for value, _ in self.flow.copied(node):
                copy = self.scope.add(CopyOp(self.value(value, node, (), turn))).results[0]
                copy.name_hint = self.flow.title(value, node)
                made[value] = Pair(copy)
        tokens = [pair.token for pair in made.values() if pair.token is not None]
        for channel in self.flow.channels:
            for reader, distance in channel.readers:
                if reader is node:
                    self._consume(channel, node, turn, distance, tokens)
        for channel in self.flow.channels:
            if channel.holder is node:
                pair = made[channel.value]
                assert pair.value is not None, "it has just been computed"
                ring, number = self.ring(channel.holder, channel.value, self.at(turn))
                after = [] if pair.token is None else [pair.token]
                self.scope.add(PutOp(ring, number, pair.value, after))
        for kept in self._made(node):
            self._keep(kept, turn, made[kept.value])

    def _asynchronous(self, node: Node, op: Operation, values: Sequence[SSAValue]) -> Operation:
        memories = [held.memory for held in self.flow.phase.graph.values if held.producer == node.name]
        memory = memories[0] if memories else "register"
        if isinstance(op, LoadOp):
            return AsyncLoadOp(op, values, memory)
        assert isinstance(op, DotOp), "nothing else runs by itself"
        return MmaOp(op, values, memory)

    def ring(self, holder: Node, value: SSAValue, number: SSAValue) -> tuple[SSAValue, SSAValue]:
        """The channel of a value, and the number in it of what an iteration has put there."""
        found = self.frame.rings[holder.name, value]
        return found.op.ring, self.body.counts.number(found, number, self.scope)

    def consumed(
        self, channel: Channel, node: Node, distance: int, number: SSAValue, tokens: Sequence[SSAValue] = ()
    ) -> None:
        """A reader is done with a slot. Where another loop has more readers of the ring, the first stands for them."""
        ring, place = self.ring(channel.holder, channel.value, number)
        readers = self.frame.rings[channel.holder.name, channel.value].op.readers.data
        missing = readers - len(channel.readers) if channel.readers[0] == (node, distance) else 0
        for _ in range(1 + missing):
            self.scope.add(ConsumedOp(ring, place, tokens))

    def _consume(self, channel: Channel, node: Node, turn: Turn, distance: int, tokens: Sequence[SSAValue]) -> None:
        def write() -> None:
            self.consumed(channel, node, distance, self.at(turn.before(distance)), tokens)

        if distance and turn.kind == "at" and turn.n < distance:
            return
        if distance and turn.kind == "end":
            self._when_there_are(turn.n + distance, write)
        else:
            write()

    # Values

    def at(self, turn: Turn) -> SSAValue:
        """The number of an iteration."""
        trips = self.trips
        match turn.kind:
            case "at":
                return self.frame.constant(turn.n)
            case "step":
                assert self.number is not None, "the loop has begun"
                return self.number if not turn.n else self.scope.index(symbol("p0") - turn.n, [self.number])
        if isinstance(trips, int):
            return self.frame.constant(trips - turn.n)
        return self.bounds.scope.index(symbol("p0") - turn.n, [trips])

    def _place(self, turn: Turn) -> SSAValue:
        """The loop's own variable in an iteration."""
        terms = Terms()
        if turn.kind == "at":
            number: Extent = turn.n
        elif turn.kind == "step":
            assert self.number is not None, "the loop has begun"
            number = terms.of(self.number) - turn.n
        else:
            number = terms.of(self.trips) - turn.n
        expression = terms.of(self.bounds.lower) + number * terms.of(self.bounds.step)
        scope = self.scope if turn.kind == "step" else self.bounds.scope
        return scope.index(expression, terms.inputs)

    def value(
        self, value: SSAValue, node: Node | None, chain: Chain, turn: Turn, accumulates: bool = False, part: Any = None
    ) -> SSAValue:
        """What a value of the body is for a node (None: for code after the loop) in an iteration, ``chain`` back."""
        part = part if node is None else node.part
        owner = value.owner
        if isinstance(owner, Block):
            if owner is not self.flow.block or not isinstance(value, BlockArgument):
                return self.outer(value, part)
            if not value.index:
                return self._place(turn.before(len(chain)))
            return self._carried(value, node, chain, turn, accumulates, part)
        if owner.parent_block() is not self.flow.block:
            return self.outer(value, part)
        if node is not None and not chain and node.ops and value in self.local:
            return self._waited(self.local[value])
        if self.flow.maker(value, part) is not None:
            return self._read(value, node, chain, turn, accumulates, part)
        key = ("free", owner, part, turn.before(len(chain)))
        found = self.scope.find(key)
        if found is None:
            values = {operand: self.value(operand, node, chain, turn, False, part) for operand in operands(owner)}
            found = self.scope.add(owner.clone(values))
            self.scope.known[key] = found
        return found.results[number_of(value)]

    def _carried(
        self, value: BlockArgument, node: Node | None, chain: Chain, turn: Turn, accumulates: bool, part: Any
    ) -> SSAValue:
        if self.flow.never_changes(value):
            return self._initial(value, part)
        after, further = self.flow.yielded[value.index - 1], (*chain, value)
        if self._is_kept(value, node, part):
            return self.value(after, node, further, turn, accumulates, part)
        here = turn.before(len(chain))
        trips = self.trips
        if here.kind == "end" and isinstance(trips, int):
            here = Turn("at", trips - here.n)
        if here.kind == "at" and here.n <= 0:
            return self._initial(value, part)
        if here.kind != "end":
            return self.value(after, node, further, turn, accumulates, part)
        inner = Scope(Block(), self.scope)
        found, self.scope = self._inside(inner, lambda: self.value(after, node, further, turn, accumulates, part))
        start = self._initial(value, part)
        (result,) = self._if(
            self.bounds.at_least(self.trips, here.n + 1), inner, [(found, value.type)], [(start, value.type)]
        )
        return result

    def _is_kept(self, value: BlockArgument, node: Node | None, part: Any) -> bool:
        """Whether a carried value is one that this group keeps from what it makes."""
        if not self.flow.is_plain(value):
            return False
        for source, chain, _, _ in self.flow.sources(value, part):
            holder = self._own_holder(source, part) if node is None else self.flow.holder(source, node, chain)
            return holder is not None and holder.group == self.group
        return False

    def _read(
        self, value: SSAValue, node: Node | None, chain: Chain, turn: Turn, accumulates: bool, part: Any
    ) -> SSAValue:
        holder = self._own_holder(value, part) if node is None else self.flow.holder(value, node, chain)
        assert holder is not None, "exits are read in the group that has them"
        before = turn.before(len(chain))
        if holder.group != self.group:
            key = ("get", holder.name, value, before)
            found = self.scope.find(key)
            if found is None:
                ring, number = self.ring(holder, value, self.at(before))
                found = self.scope.known[key] = self.scope.add(GetOp(ring, number)).results[0]
                found.name_hint = self.flow.title(value, holder)
            return found
        pair = self._look_up(value, holder, chain, before, node)
        if pair.value is None:
            return self._real(None, value.type)
        exempt = accumulates and isinstance(holder.ops[0] if holder.ops else None, DotOp)
        return pair.value if exempt else self._waited(pair)

    def _look_up(self, value: SSAValue, holder: Node, chain: Chain, before: Turn, node: Node | None) -> Pair:
        kept = self._kept(value, holder, self.flow.unbroken(chain))
        assert kept is not None, "all reads have been gathered"
        if self.at_end:
            return self.labels.get((kept, before.n), Pair())
        assert node is not None, "code after the loop is at its end"
        age = node.stage + len(chain) - holder.stage
        if age:
            return self.state[kept][age - 1]
        if kept not in self.step:
            raise refusal(self.flow.kernel, f"{node.name} runs before {holder.name}, which it waits for")
        return self.step[kept]

    def _waited(self, pair: Pair) -> SSAValue:
        assert pair.value is not None, "it is there"
        if pair.token is not None and self.scope.find(("waited", pair.token)) is None:
            self.scope.add(WaitOp(pair.token))
            self.scope.known["waited", pair.token] = True
        return pair.value

    def outer(self, value: SSAValue, part: int | None) -> SSAValue:
        """What a value from outside of the loop is in this group."""
        return self.body.outer(value, part)

    def result(self, carried: BlockArgument, part: int | None) -> SSAValue:
        """A result of the loop, in this group, after it."""
        self.at_end = True
        return self.value(carried, None, (), Turn("end", 0), False, part)
