"""What all kernels share: sizes, dtypes, operands of matrix products, and which tiles cannot fit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

from forgec.diagnostics import error
from forgec.schedule.graph import Graph
from forgec.schedule.machine import Instruction, Machine
from forgec.schedule.pressure import least_bytes

BYTES = {"bf16": 2, "f16": 2, "fp8": 1}
"""Of an element, by the name that machines' products have for its dtype."""


@dataclass(frozen=True)
class Problem:
    """A kernel to be made: ``sizes`` by key, all of them there."""

    name: str
    machine: Machine
    sizes: Mapping[str, int]
    dtype: str

    @property
    def title(self) -> str:
        """The name and the dtype, for graphs."""
        return f"{self.name} {self.dtype}"

    @property
    def product(self) -> str:
        """The kind of the machine's matrix products of this dtype."""
        return f"mma.{self.dtype}"

    @property
    def mma(self) -> Instruction:
        """The machine's matrix product of this dtype."""
        return self.machine.instruction(self.product)

    @property
    def bytes_each(self) -> int:
        """Of an element of the operands."""
        return BYTES[self.dtype]

    @property
    def sums(self) -> str:
        """The memory that products leave their sums in: ``register`` or ``tensor``.

        Raises:
            ForgeError: FORGE-U010, where the machine names neither.
        """
        for memory in self.mma.accumulator:
            if memory in ("register", "tensor"):
                return memory
        raise error(
            "FORGE-U010",
            f"{self.product} of machine {self.machine.name} leaves its sums in {', '.join(self.mma.accumulator)}",
            notes=("kernels are made for sums in register or tensor memory",),
        )

    @property
    def shares_copies(self) -> bool:
        """Whether all warps take part in each copy, because the machine keeps no group for copies alone."""
        return self.machine.isolate == "none" and self.machine.instruction("load").warps > 1

    @property
    def row_choices(self) -> tuple[int, ...]:
        """Rows of a part: those of one product, or of two, which read what is to the right for the one price."""
        return (self.mma.rows, 2 * self.mma.rows)

    def multiple(self, key: str, of: int) -> int:
        """The size of that key.

        Raises:
            ForgeError: FORGE-U010, where it is no multiple.
        """
        size = self.sizes[key]
        if size % of:
            raise error(
                "FORGE-U010",
                f"the size {key} of kernel {self.name} is {size}; machine {self.machine.name} needs a multiple of {of}",
            )
        return size

    def multiply(
        self, rows: int, columns: int, depth: int, left: str = "shared", *, across: bool = False
    ) -> dict[str, int]:
        """The work of a product of [rows, depth] with [depth, columns].

        Operands come out of shared memory, the left one only where ``left`` says so. ``across``: whether warps may
        divide the columns of the result.
        """
        left_bytes = rows * depth * self.bytes_each if left == "shared" else 0
        read = self.mma.operand_bytes(rows, left_bytes, columns * depth * self.bytes_each, across=across)
        return {self.product: rows * columns * depth, "operand": read}

    def columns(self, step: int, most: int | None = None) -> range:
        """Columns of a product in steps, up to what one instruction may have."""
        step = max(step, self.mma.column_step)
        step = -(-step // self.mma.column_step) * self.mma.column_step
        return range(step, min(self.mma.most_columns, most or self.mma.most_columns) + 1, step)

    def filling(self, programs: int) -> Fraction:
        """The share of multiprocessors that have a program to run, over all rounds of them."""
        rounds = -(-programs // self.machine.multiprocessors)
        return Fraction(programs, rounds * self.machine.multiprocessors)

    def may_fit(self, kernel: Sequence[Graph]) -> bool:
        """Whether one buffer of each value is within the machine's memories; if not, no schedule is."""
        for memory in ("shared", "tensor"):
            sizes: dict[str, int] = {}
            for graph in kernel:
                for value in graph.values:
                    if value.memory == memory:
                        sizes[value.name] = max(sizes.get(value.name, 0), value.size)
            resident = max(graph.resident.get(memory, 0) for graph in kernel)
            if resident + sum(sizes.values()) > self.machine.memory_bytes(memory):
                return False
        return self._registers_may_fit(kernel)

    def _registers_may_fit(self, kernel: Sequence[Graph]) -> bool:
        """Whether the least need of each cluster is within a grant, and all needs of a phase within the file."""
        facts = self.machine.registers
        warps = warps_of(kernel)
        for graph in kernel:
            total = 0
            for names in graph.clusters():
                need = least_bytes(graph, names)
                if need > 4 * 32 * warps[names[0]] * (facts.most - facts.reserve):
                    return False
                total += need
            if total > 4 * facts.total:
                return False
        return True


def warps_of(kernel: Sequence[Graph]) -> dict[str, int]:
    """For each op the most warps that any op takes which has to be in its group, over all phases.

    Ops are tied by values in registers that may not cross, which are one storage where they have one name.
    """
    sets: list[tuple[set[str], set[str]]] = []
    for graph in kernel:
        for names in graph.clusters():
            ops = set(names)
            storages = {value.name for value in graph.values if value.producer in ops and not value.may_cross()}
            for other in [each for each in sets if each[0] & ops or each[1] & storages]:
                sets.remove(other)
                ops, storages = ops | other[0], storages | other[1]
            sets.append((ops, storages))
    found: dict[str, int] = {}
    for ops, _ in sets:
        most = max(op.warps for graph in kernel for op in graph.ops if op.name in ops)
        found |= dict.fromkeys(ops, most)
    return found
