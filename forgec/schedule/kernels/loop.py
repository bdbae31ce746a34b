"""A loop being written down: ops by name and part, copies from global memory, and what reads them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from fractions import Fraction

from forgec.schedule.graph import Dependence, Graph, Op, Read, Value
from forgec.schedule.kernels.problem import Problem


@dataclass
class Brought:
    """A block that copies bring into shared memory, and who reads it. Several copies where each part has a share."""

    name: str
    size: int
    copies: list[Op]
    reads: list[Read] = field(default_factory=list)

    def read_by(self, *readers: Op) -> None:
        """These ops read it, each until its end."""
        self.reads += [Read(reader.name, reader.latency) for reader in readers]


@dataclass
class Loop:
    """Ops and values of a graph to be. ``parts``: equal sub-tiles, on which warps of their own may work."""

    problem: Problem
    parts: int
    ops: list[Op] = field(default_factory=list)
    values: list[Value] = field(default_factory=list)
    dependences: list[Dependence] = field(default_factory=list)
    blocks: list[Brought] = field(default_factory=list)

    def op(
        self, twin: str, role: str, work: Mapping[str, int], shape: tuple[int, ...] = (), part: int | None = None
    ) -> Op:
        """An op; ``twin`` with the part is its name. Kinds of work that are only bookkeeping go by the machine."""
        machine = self.problem.machine
        done = {kind: items for kind, items in work.items() if kind not in OPTIONAL or kind in machine.instructions}
        if part is None:
            made = machine.op(twin, done, role=role, shape=shape)
        else:
            made = machine.op(f"{twin}.{part}", done, part=part, twin=twin, role=role, shape=shape)
        self.ops.append(made)
        return made

    def part_of(self, name: str) -> int | None:
        """The part of the op of that name."""
        return next(op.part for op in self.ops if op.name == name)

    def value(self, name: str, producer: Op, memory: str, size: int, *reads: Read, crossing: bool = False) -> None:
        """A value; its name has the producer's part."""
        title = name if producer.part is None else f"{name}.{producer.part}"
        self.values.append(Value(title, producer.name, memory, size, reads, crossing=crossing))

    def bring(self, name: str, shape: tuple[int, int], *, part: int | None = None, sharers: int = 1) -> Brought:
        """A block of global memory of ``shape``, copied into shared memory in every iteration.

        Args:
            name: of the block; the copy is called ``load_`` and that.
            shape: in elements.
            part: whose it is; None, if all parts read it. Where warps issue copies piece by piece and nothing keeps
                them apart from other work, each part's warps bring an equal share of what all read.
            sharers: how many programs that run at the same time read it, so that main memory gives it once.
        """
        size = shape[0] * shape[1] * self.problem.bytes_each
        shares = self.parts if part is None and self.problem.shares_copies else 1
        piece = -(-size // shares)
        work = {"load": piece, "memory": -(-piece // sharers)}
        copies = [
            self.op(f"load_{name}", "load", work, shape, part if shares == 1 else share) for share in range(shares)
        ]
        block = Brought(name, piece, copies)
        self.blocks.append(block)
        return block

    def graph(
        self,
        name: str,
        *,
        work: Fraction,
        tile: Mapping[str, int],
        shared: int = 0,
        traffic: int = 0,
        trips: int = 1,
    ) -> Graph:
        """The graph. ``shared``: bytes of shared memory that are taken for the whole loop."""
        for block in self.blocks:
            for copy in block.copies:
                self.value(block.name, copy, "shared", block.size, *block.reads)
                mine = [read for read in block.reads if self.part_of(read.op) == copy.part]
                if self.problem.shares_copies and copy.part is not None and mine:
                    # The same threads copy and read: they have one counter of the ring's turns, among the registers
                    # that are kept back for such.
                    self.value(f"{block.name}_turn", copy, "register", 0, *(replace(read, release=0) for read in mine))
        self.blocks = []
        return Graph(
            name,
            tuple(self.ops),
            tuple(self.values),
            tuple(self.dependences),
            work=work,
            tile=dict(tile),
            resident={"shared": shared} if shared else {},
            traffic=traffic,
            trips=trips,
        )


OPTIONAL = ("operand", "memory")
"""Kinds of work that a machine may leave out of account: reading operands, and main memory behind the caches."""
