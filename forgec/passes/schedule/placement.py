"""In which memory the values of a loop lie, who reads them there, and when they are done with.

- What is copied for a product lies in shared memory, other copies are made into registers.
- A product's sums lie where the machine's instruction leaves them: registers, or tensor memory.
- A factor that is computed lies where the instruction takes it from: registers before tensor memory before shared
  memory.
- Tensor memory is read and written by ops of its own (``read_…``, ``write_…``), which only the machine needs. Where
  sums are read by one stretch that makes other sums of them (an accumulator is rescaled), a few columns at a time go
  through registers, within the stretch.
- What is written into tensor memory takes the place of the sums that it was computed of, if it fits there, until it has
  been multiplied.
- Values of one number for each row may be handed to other groups.
- Tiles from outside of the loop are resident: in shared memory as factors, else in registers of each group that reads
  them, where they stand for a value that is handed from iteration to iteration in place.

A stretch overwrites what it reads element by element with a result of the same extents. Where that has fewer bits, all
of the old value counts until the stretch is done, and from then on the new one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from xdsl.dialects.builtin import TensorType
from xdsl.ir import Operation, SSAValue

from forgec.ir.tile.compute import DotOp, ScanOp, TransposeOp
from forgec.ir.tile.types import extents
from forgec.passes.schedule.amounts import factor_memory, product, synchronous
from forgec.passes.schedule.body import bytes_of, is_copy, is_store, known_extents
from forgec.passes.schedule.drafts import DraftDependence, DraftOp, DraftValue
from forgec.schedule.graph import Op, tied
from forgec.schedule.machine import Instruction

if TYPE_CHECKING:
    from forgec.passes.schedule.graph_builder import GraphBuilder

ACCUMULATOR, LEFT, RIGHT, PLAIN = "accumulator", "left", "right", "plain"
Use = tuple[DraftOp, Operation, str, int]
"""Who reads a value: the op of the graph, the node in it, as what, and at which distance."""


class Placement:
    """Adds values (and ops that only the machine needs) to a builder's drafts."""

    def __init__(self, builder: GraphBuilder) -> None:
        self.builder = builder
        self.body = builder.body
        self.machine = builder.machine
        self.resident: dict[str, int] = {}
        self.held: dict[SSAValue, DraftValue] = {}
        self.taken: set[int] = set()
        """Values whose place something else takes already."""

    def place(self) -> None:
        """All values of the loop."""
        uses = self._uses()
        outside: list[tuple[SSAValue, list[Use]]] = []
        for value, found in uses.items():
            owner = value.owner
            if isinstance(owner, Operation) and owner in self.builder.home:
                self._place(value, found)
            else:
                outside.append((value, found))
        self._overwrite()
        for value, found in outside:
            self._reside(value, found)

    def _uses(self) -> dict[SSAValue, list[Use]]:
        """Who reads what a stretch hands to others or to the next iteration, and what is outside."""
        found: dict[SSAValue, list[Use]] = {}
        for node in self.body.nodes:
            for result in node.results:
                found[result] = []
        for node in self.body.nodes:
            reader = self.builder.home[node]
            for index, operand in enumerate(self.body.operands(node)):
                kind = PLAIN
                if isinstance(node, DotOp):
                    kind = (LEFT, RIGHT, ACCUMULATOR)[index] if index < 3 else PLAIN
                for source in self.body.sources(operand):
                    owner = source.value.owner
                    inside = isinstance(owner, Operation) and self.builder.home.get(owner) is reader
                    if not inside or source.distance:
                        found.setdefault(source.value, []).append((reader, node, kind, source.distance))
        yielded = {source.value for value in self.body.yielded for source in self.body.sources(value)}
        return {
            value: uses
            for value, uses in found.items()
            if uses or value in yielded or (isinstance(value.owner, Operation) and isinstance(value.owner, DotOp))
        }

    def _instruction(self, node: Operation) -> Instruction:
        assert isinstance(node, DotOp), "only products are asked"
        return product(self.body.kernel, node, self.machine)[1]

    # Results of ops of the loop

    def _place(self, value: SSAValue, uses: list[Use]) -> None:
        owner = value.owner
        assert isinstance(owner, Operation), "an op of the loop makes it"
        producer = self.builder.home[owner]
        if isinstance(owner, DotOp):
            memory = (self._instruction(owner).accumulator or ("register",))[0]
            draft = self._value(value, producer, memory)
            if memory == "tensor":
                self._read_tensor(value, draft, uses)
            else:
                self._read_plainly(draft, uses)
        elif is_copy(owner):
            multiplied = any(kind in (LEFT, RIGHT) for *_, kind, _ in uses)
            self._read_plainly(self._value(value, producer, "shared" if multiplied else "register"), uses)
        else:
            self._place_computed(value, producer, uses)

    def _place_computed(self, value: SSAValue, producer: DraftOp, uses: list[Use]) -> None:
        """What synchronous code makes: in registers, and where products take it from."""
        by_memory: dict[str, list[Use]] = {}
        for use in uses:
            by_memory.setdefault(self._wanted(use), []).append(use)
        plain = by_memory.pop("register", [])
        through = by_memory.pop("tensor", [])
        folded = bool(through) and not plain and self._rewrites_sums(producer)
        if plain or (through and not folded) or (not by_memory and not through):
            draft = self._value(value, producer, "register")
            self._read_plainly(draft, plain)
            if through:
                self._write_tensor(value, draft, through)
        elif folded:
            draft = self._value(value, producer, "tensor", size=0 if self._sums_of(producer) else None)
            self._read_plainly(draft, through)
        for memory, rest in by_memory.items():
            self._read_plainly(self._value(value, producer, memory), rest)

    def _wanted(self, use: Use) -> str:
        """The memory that a reader takes a computed value from."""
        _, node, kind, _ = use
        if kind == PLAIN:
            return "register"
        instruction = self._instruction(node)
        if kind == ACCUMULATOR:
            return (instruction.accumulator or ("register",))[0]
        return factor_memory(instruction, left=kind == LEFT)

    def _value(
        self, value: SSAValue, producer: DraftOp, memory: str, *, size: int | None = None, name: str | None = None
    ) -> DraftValue:
        wanted = name or self.builder.title(value)
        draft = DraftValue(
            self.builder.names.new(wanted, ("value", memory, str(value.type)), self.builder.value_names, of_value=True),
            producer,
            memory,
            bytes_of(value) if size is None else size,
            value,
            crossing=memory == "register" and len(extents(value)) < 2,
        )
        self.builder.values.append(draft)
        if value not in self.held:
            self.held[value] = draft
        return draft

    def _read_plainly(self, draft: DraftValue, uses: list[Use]) -> None:
        for reader, node, kind, distance in uses:
            if kind == ACCUMULATOR:
                release = 0
            elif isinstance(node, DotOp):
                release = reader.op.latency
            elif is_store(node):
                # It has left when the copying unit is done with it.
                release = max((use.cycles for use in reader.op.uses), default=reader.op.latency)
            else:
                release = reader.op.issue
            draft.add(reader, release, distance)

    # Tensor memory

    def _sums_of(self, stretch: DraftOp) -> list[SSAValue]:
        """The sums in tensor memory that a stretch reads, in the extents in which they lie there."""
        return [
            source.value
            for node in stretch.nodes
            for source in self.body.reads(node)
            if isinstance(source.value.owner, DotOp)
            and "tensor" in self._instruction(source.value.owner).accumulator[:1]
        ]

    def _rewrites_sums(self, stretch: DraftOp) -> bool:
        """Whether all that a stretch makes are other sums, in the place of those that it reads and nobody else does."""
        sums = self._sums_of(stretch)
        made = [result for node in stretch.nodes for result in node.results if self._leaves(result, stretch)]
        if len(sums) != 1 or len(made) != 1 or extents(sums[0]) != extents(made[0]):
            return False
        readers = {id(self.builder.home[node]) for node, _ in self.body.readers(sums[0])}
        return readers == {id(stretch)} and all(
            isinstance(node, DotOp) and any(source.value is made[0] for source in self.body.sources(node.accumulator))
            for node, _ in self.body.readers(made[0])
        )

    def _leaves(self, value: SSAValue, stretch: DraftOp) -> bool:
        return any(self.builder.home[node] is not stretch or distance for node, distance in self.body.readers(value))

    def _read_tensor(self, value: SSAValue, draft: DraftValue, uses: list[Use]) -> None:
        """Products read sums where they lie; others after they were copied into registers."""
        products = [use for use in uses if isinstance(use[1], DotOp)]
        others = [use for use in uses if not isinstance(use[1], DotOp)]
        self._read_plainly(draft, products)
        if not others:
            return
        readers = {id(use[0]): use[0] for use in others}
        (first, *more) = readers.values()
        if not more and self._rewrites_sums(first):
            self._correct(first, value)
            for reader, _, _, distance in others:
                draft.add(reader, 0, distance)
            return
        name = self.builder.title(value)
        work = {"read_tensor": bytes_of(value)}
        role = first.op.role
        op = self.builder.op(f"read_{name}", work, role, draft.producer.op.shape[:2], list(draft.producer.nodes))
        read = DraftOp(self.builder.carried_out_together(op), draft.producer.apart)
        self.builder.ops.insert(self.builder.ops.index(draft.producer) + 1, read)
        draft.add(read, read.op.latency)  # in the product's own iteration, also where only the next ones read the copy
        copy = DraftValue(
            self.builder.names.new(
                f"{draft.name}_read", ("value", "register"), self.builder.value_names, of_value=True
            ),
            read,
            "register",
            draft.size,
            value,
        )
        self.builder.values.append(copy)
        self.held[value] = copy
        self._read_plainly(copy, others)

    def _correct(self, stretch: DraftOp, sums: SSAValue) -> None:
        """The stretch reads sums out of tensor memory and writes others there."""
        moved = bytes_of(sums)
        work = {"read_tensor": moved, **synchronous(stretch.nodes), "write_tensor": moved}
        old = stretch.op
        self.builder.need(work, None, "correction")
        made = self.machine.op(old.name, work, role="correction", shape=old.shape, source=old.source)
        stretch.op = self.builder.carried_out_together(made)

    def _write_tensor(self, value: SSAValue, draft: DraftValue, uses: list[Use]) -> None:
        """A computed factor is written into tensor memory, in the place of sums that it was computed of."""
        name, moved = draft.name, bytes_of(value)
        op = self.builder.op(
            f"write_{name}",
            {"write_tensor": moved},
            draft.producer.op.role,
            known_extents(value),
            list(draft.producer.nodes),
        )
        write = DraftOp(self.builder.carried_out_together(op), draft.producer.apart)
        self.builder.ops.insert(self.builder.ops.index(draft.producer) + 1, write)
        draft.add(write, write.op.issue)
        place = None if any(kind == ACCUMULATOR for *_, kind, _ in uses) else self._room(draft.producer, moved)
        written = DraftValue(
            self.builder.names.new(f"{name}_written", ("value", "tensor"), self.builder.value_names, of_value=True),
            write,
            "tensor",
            moved if place is None else 0,
            value,
        )
        self.builder.values.append(written)
        self._read_plainly(written, uses)
        if place is not None:
            self.taken.add(id(place))
            self._read_plainly(place, uses)

    def _room(self, stretch: DraftOp, needed: int) -> DraftValue | None:
        """Sums in tensor memory that a stretch descends from in the same iteration, and that nothing reads once they
        were copied into registers.
        """
        before = self._before(stretch)
        for draft in self.builder.values:
            if (
                draft.memory == "tensor"
                and draft.size >= needed
                and id(draft) not in self.taken
                and draft.producer.apart == stretch.apart
                and draft.reads
                and all(read.distance == 0 and id(read.reader) in before for read in draft.reads)
            ):
                return draft
        return None

    def _before(self, stretch: DraftOp) -> set[int]:
        """The ops that a stretch waits for in the same iteration."""
        found: set[int] = set()
        waiting = [stretch]
        while waiting:
            op = waiting.pop()
            for draft in self.builder.values:
                if id(draft.producer) not in found and any(
                    read.reader is op and read.distance == 0 for read in draft.reads
                ):
                    found.add(id(draft.producer))
                    waiting.append(draft.producer)
        return found

    # Registers that are written again, and what is resident

    def _overwrite(self) -> None:
        """Results take the place of what was read for them, element by element."""
        for op in self.builder.ops:
            if not op.nodes or op.op.role in ("load", "store", "mma"):
                continue
            made = [draft for draft in self.builder.values if draft.producer is op and draft.memory == "register"]
            for draft in sorted(made, key=lambda each: -each.size):
                # What an op hands to itself first: an accumulator has one place for all iterations.
                for other in sorted(self.builder.values, key=lambda each: (each.producer is not op, -each.size)):
                    if not self._takes_the_place(op, draft, other):
                        continue
                    self.taken.add(id(other))
                    if other.size > draft.size:  # fewer bits, which are all there is when the op is done
                        draft.begin = min(op.op.issue, op.op.latency)
                    else:
                        for read in other.reads:
                            if read.reader is op:
                                read.release = 0
                    break

    def _takes_the_place(self, op: DraftOp, made: DraftValue, other: DraftValue) -> bool:
        if other.memory != "register" or id(other) in self.taken or not other.size:
            return False
        if sum(read.reader is op for read in other.reads) != 1:
            return False
        first, second = made.kernel_value, other.kernel_value
        assert first is not None, "values in registers are those of the kernel"
        assert second is not None, "the same"
        return extents(first) == extents(second) and self._element_by_element(op, second)

    def _element_by_element(self, op: DraftOp, value: SSAValue) -> bool:
        """Whether a stretch is done with an element of a value when it has computed the element of its result: it does
        not read the value along another axis.
        """
        return not any(
            isinstance(node, (ScanOp, TransposeOp)) and any(source.value is value for source in self.body.reads(node))
            for node in op.nodes
        )

    def _reside(self, value: SSAValue, uses: list[Use]) -> None:
        if not isinstance(value.type, TensorType):
            return
        apart = value in self.builder.apart
        if any(kind in (LEFT, RIGHT) for *_, kind, _ in uses):
            taken = bytes_of(value) * self.builder.times(apart)
            self.resident["shared"] = self.resident.get("shared", 0) + taken
            return
        root = self._groups()
        first: dict[str, DraftOp] = {}
        for reader, *_ in uses:
            name = root[reader.name(0)]
            if name not in first or (_runs_by_itself(first[name]) and not _runs_by_itself(reader)):
                first[name] = reader
        for reader in first.values():
            title = f"{self._title_outside(value)}_{reader.op.name}"
            holder = self._holding(title, reader) if _runs_by_itself(reader) else reader
            draft = self._value(value, holder, "register", name=title)
            draft.crossing = False
            draft.add(holder, 0, 1)
            draft.add(reader, 0, 1)

    def _holding(self, title: str, reader: DraftOp) -> DraftOp:
        """An op that does nothing, at most an interval after the reader's start, and stands for what a reader that
        runs by itself finds in registers: its own next instance does not wait until it is done.
        """
        name = self.builder.names.new(f"hold_{title}", ("hold", title), self.builder.here)
        old = reader.op
        op = Op(name, "hold", 0, 0, warps=old.warps, role=old.role, shape=old.shape, source=old.source)
        draft = DraftOp(op, reader.apart)
        self.builder.ops.insert(self.builder.ops.index(reader) + 1, draft)
        self.builder.dependences.append(DraftDependence(reader, draft, 0, 0))
        return draft

    def _title_outside(self, value: SSAValue) -> str:
        title = self.builder.title(value)
        return "outer" if title == "value" else title

    def _groups(self) -> dict[str, str]:
        """For each op of the first part the op by which those that registers tie to it are known."""
        pairs = (
            (read.reader.name(0), draft.producer.name(0))
            for draft in self.builder.values
            if draft.memory == "register" and not draft.crossing
            for read in draft.reads
        )
        return tied((op.name(0) for op in self.builder.ops), pairs)


def _runs_by_itself(draft: DraftOp) -> bool:
    return draft.op.issue < draft.op.latency
