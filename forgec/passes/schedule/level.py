"""What one group does in a block of the kernel: its own, or the body of a loop around scheduled ones."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from xdsl.dialects import scf
from xdsl.ir import Block, SSAValue

from forgec.passes.schedule.flow import Flow
from forgec.passes.schedule.stream_parts import Scope

if TYPE_CHECKING:
    from forgec.passes.schedule.streams import Stream
    from forgec.passes.schedule.trips import Trips

Which = tuple[int, int | None]
"""One of the values that a loop carries, of a part."""


@dataclass(eq=False)
class Level:
    """``block``: that of the tile kernel. ``around``: where the body that is written will stand. ``head``: what comes
    before the first loop of the block, ``main`` what comes from there on.
    """

    block: Block
    around: Scope
    parent: Level | None = None
    body: Block = field(default_factory=Block)
    head: Scope = field(init=False)
    main: Scope = field(init=False)
    streams: dict[Flow, Stream] = field(default_factory=dict)
    bounds: dict[Flow, Trips] = field(default_factory=dict)
    carried: dict[Which, SSAValue] = field(default_factory=dict)
    """What the loop whose body this is carries, in this group."""
    results: dict[scf.ForOp, dict[Which, SSAValue]] = field(default_factory=dict)
    """Of loops around scheduled ones that have been written here."""

    def __post_init__(self) -> None:
        self.head = Scope(self.body, self.around)
        self.main = Scope(Block(), self.head)

    def of(self, block: Block | None) -> Level | None:
        """The level of a block that is this one's or around it."""
        level: Level | None = self
        while level is not None and level.block is not block:
            level = level.parent
        return level

    def joined(self) -> Block:
        """One block of it."""
        for op in list(self.main.block.ops):
            op.detach()
            self.body.add_op(op)
        return self.body
