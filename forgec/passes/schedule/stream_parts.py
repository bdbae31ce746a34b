"""What streams are written with: places for ops, iterations, and values that are kept for later steps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from xdsl.ir import Block, Operation, SSAValue

from forgec.ir.locations import inherit
from forgec.ir.tile.compute import IndexOp
from forgec.passes.schedule.flow import Chain, Node
from forgec.runtime.symbolic import Extent, symbol


@dataclass(frozen=True)
class Turn:
    """An iteration: number ``n`` (``at``), ``n`` before the step's number (``step``), or before the last one's
    successor (``end``).
    """

    kind: str
    n: int

    def before(self, distance: int) -> Turn:
        """That of so many iterations earlier."""
        return Turn(self.kind, self.n - distance if self.kind == "at" else self.n + distance)


@dataclass
class Scope:
    """A block that ops are added to, and what has been computed in it and around it."""

    block: Block
    parent: Scope | None = None
    known: dict[Any, Any] = field(default_factory=dict)

    def find(self, key: Any) -> Any:
        """What is known under a key, here or around."""
        if key in self.known:
            return self.known[key]
        return None if self.parent is None else self.parent.find(key)

    def add(self, op: Operation, source: Operation | None = None) -> Operation:
        """Add an op, with the location of the one that it stands for."""
        self.block.add_op(op if source is None else inherit(op, source))
        return op

    def index(self, expression: Extent, inputs: Sequence[SSAValue] = ()) -> SSAValue:
        """An index, computed once."""
        key = ("index", str(expression), tuple(inputs))
        found = self.find(key)
        if found is None:
            found = self.known[key] = self.add(IndexOp(expression, inputs)).results[0]
        return found


@dataclass
class Terms:
    """The terms of an expression: numbers stand for themselves, values for the symbols ``p0``, ``p1``, … of an
    ``tile.index`` that takes them as ``inputs``.
    """

    inputs: list[SSAValue] = field(default_factory=list)

    def of(self, value: Extent | SSAValue) -> Extent:
        """A number or a value as a term."""
        if not isinstance(value, SSAValue):
            return value
        self.inputs.append(value)
        return symbol(f"p{len(self.inputs) - 1}")


@dataclass(frozen=True)
class Pair:
    """A value of a group, and the token to be waited for before it is read. None: there is none yet."""

    value: SSAValue | None = None
    token: SSAValue | None = None


@dataclass(eq=False)
class Kept:
    """What a node made and nodes of its group read: ``ages`` steps later at most. Before its first iteration it is what
    ``chain`` begins with; ``final`` are iterations before the end that are read after the loop.
    """

    value: SSAValue
    holder: Node
    chain: Chain
    readers: list[tuple[Node, int]] = field(default_factory=list)
    final: set[int] = field(default_factory=set)

    @property
    def ages(self) -> int:
        """How many steps back it is read."""
        found = [node.stage + distance - self.holder.stage for node, distance in self.readers]
        return max([0, *found, *(label - self.holder.stage for label in self.final)])


def is_read_later(kept: Kept, nodes: Sequence[Node], step: int, before: int) -> bool:
    """Whether what nodes make in a step near the end is read after them."""
    if before in kept.final:
        return True
    for node, distance in kept.readers:
        age = node.stage + distance - kept.holder.stage
        if (age or node not in nodes) and step + age < node.stage:
            return True
    return False
