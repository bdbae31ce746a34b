"""How much has been put into each channel so far, as each group that uses it counts.

Numbers in a channel go on from loop to loop, and from one turn of a loop around scheduled ones to the next: what an
iteration puts has the number of the iteration, and in front of it the iterations of all that have run before. Who reads
counts the iterations of the group that puts. What has one history has one counter.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from xdsl.dialects import scf
from xdsl.ir import SSAValue

from forgec.ir.warp.channels import CreateOp
from forgec.passes.schedule.flow import Flow
from forgec.passes.schedule.nest import Nest
from forgec.passes.schedule.stream_parts import Scope, Terms
from forgec.passes.schedule.trips import Trips
from forgec.runtime.symbolic import symbol

User = tuple[Flow, int | None]
"""A loop that uses a channel, and the part of the op that puts into it there."""
Counter = tuple[User, ...] | scf.ForOp
"""The iterations of these loops so far; the turns of a loop around scheduled ones."""


@dataclass
class Ring:
    """A channel with the loops that use it."""

    op: CreateOp
    users: list[User] = field(default_factory=list)

    @property
    def counter(self) -> Counter:
        """What counts what is put into it."""
        return tuple(self.users)


@dataclass
class Count:
    """A sum of numbers, values, and iterations of loops in the kernel's own block."""

    number: int = 0
    values: list[SSAValue] = field(default_factory=list)
    loops: list[User] = field(default_factory=list)


@dataclass
class Counts:
    """The counters of one group, as they stand at the place that is written."""

    nest: Nest
    counters: list[Counter]
    bounds: Callable[[Flow], Trips]
    constants: Scope
    _now: dict[Counter, Count] = field(default_factory=dict)

    def within(self, loop: scf.ForOp) -> list[Counter]:
        """The counters that a loop around scheduled ones changes."""
        return [each for each in self.counters if self._is_changed(each, loop)]

    def _is_changed(self, counter: Counter, loop: scf.ForOp) -> bool:
        if isinstance(counter, scf.ForOp):
            return self.nest.is_within(counter, loop)
        return any(flow in self.nest.inside[loop] for flow, _ in counter)

    def value(self, counter: Counter, scope: Scope, added: SSAValue | None = None) -> SSAValue:
        """A counter, and perhaps a value beside."""
        found = self._now.get(counter, Count())
        terms = Terms()
        total = terms.of(0 if added is None else added) + found.number
        counts = [*found.values, *(self.bounds(flow).of({part}) for flow, part in found.loops)]
        for count in counts:
            total = total + terms.of(count)
        if len(terms.inputs) == 1 and total == symbol("p0"):
            return terms.inputs[0]
        return (self.constants if isinstance(total, int) else scope).index(total, terms.inputs)

    def number(self, ring: Ring, number: SSAValue, scope: Scope) -> SSAValue:
        """The number in a channel of what is put in an iteration of the loop that is written."""
        return self.value(ring.counter, scope, number)

    def set(self, counter: Counter, value: SSAValue) -> None:
        """A counter is this now."""
        self._now[counter] = Count(0, [value])

    def advance(self, flow: Flow) -> None:
        """A loop has run."""
        inner = self.nest.loop_of(flow.loop.parent_block()) is not None
        for counter in self.counters:
            for user in counter if isinstance(counter, tuple) else ():
                if user[0] is flow:
                    self._add(counter, self.bounds(flow).of({user[1]}) if inner else user)

    def turn(self, loop: scf.ForOp) -> None:
        """A turn of a loop around scheduled ones has run."""
        if loop in self.counters:
            self._add(loop, 1)

    def _add(self, counter: Counter, count: int | SSAValue | User) -> None:
        now = self._now.setdefault(counter, Count())
        match count:
            case int():
                now.number += count
            case SSAValue():
                now.values.append(count)
            case _:
                now.loops.append(count)
