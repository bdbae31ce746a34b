"""What all kernels share: sizes, dtypes, the choices of a matrix product's shape, and which tiles cannot fit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from forgec.diagnostics import error
from forgec.schedule.graph import Graph
from forgec.schedule.machine import Instruction, Machine

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
        return True
