"""Where the scheduled loops of a kernel stand: in the kernel itself, or in loops around them, which groups run too."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from xdsl.dialects import scf
from xdsl.ir import Block, BlockArgument, Operation, OpResult, SSAValue

from forgec.passes.schedule.body import loops_around
from forgec.passes.schedule.flow import EFFECTS, Flow, operands, refusal


def yielded(loop: scf.ForOp) -> tuple[SSAValue, ...]:
    """What an iteration hands to the next."""
    end = loop.body.block.last_op
    assert isinstance(end, scf.YieldOp), "a loop's body ends so"
    return tuple(end.operands)


@dataclass
class Nest:
    """The scheduled loops (``flows``, in the order of the text) and those around them.

    Raises:
        ForgeError: FORGE-S020, where a scheduled loop is part of a branch.
    """

    flows: Sequence[Flow]
    by_loop: dict[Operation, Flow] = field(init=False)
    inside: dict[scf.ForOp, list[Flow]] = field(init=False, default_factory=dict)
    """For each loop around scheduled ones those that it holds."""
    _common: dict[SSAValue, bool] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        self.kernel = self.flows[0].kernel
        self.by_loop = {flow.loop: flow for flow in self.flows}
        for flow in self.flows:
            outer = loops_around(flow.loop, self.kernel)
            if outer is None:
                raise refusal(self.kernel, "the loop is part of a branch", flow.loop)
            for each in outer:
                if each in self.by_loop:
                    raise refusal(self.kernel, "a loop around another one has a schedule of its own", each)
                self.inside.setdefault(each, []).append(flow)

    def loops(self, block: Block) -> Iterator[scf.ForOp]:
        """The loops of a block that are scheduled, or hold scheduled ones, in their order."""
        for op in block.ops:
            if isinstance(op, scf.ForOp) and (op in self.by_loop or op in self.inside):
                yield op

    def blocks(self) -> list[Block]:
        """The kernel's block, and the bodies of loops around scheduled ones."""
        return [self.kernel.body.block, *(loop.body.block for loop in self.inside)]

    def block_of(self, carried: BlockArgument) -> Block:
        """The block in which a scheduled loop stands that carries a value."""
        loop = carried.block.parent_op()
        block = None if loop is None else loop.parent
        assert block is not None, "loops are parts of kernels"
        return block

    def loop_of(self, block: Block | None) -> scf.ForOp | None:
        """The loop whose body a block is; None for the kernel's own."""
        parent = None if block is None else block.parent_op()
        return parent if isinstance(parent, scf.ForOp) else None

    def is_within(self, inner: Operation, outer: scf.ForOp) -> bool:
        """Whether a loop is another one, or part of it."""
        found: Operation | None = inner
        while found is not None and found is not outer:
            found = found.parent_op()
        return found is outer

    def carried(self, value: SSAValue) -> tuple[scf.ForOp, int] | None:
        """The loop around scheduled ones that carries a value or results in it, and its number among those carried."""
        owner = value.owner
        if isinstance(value, OpResult):
            return (owner, value.index) if isinstance(owner, scf.ForOp) and owner in self.inside else None
        loop = owner.parent_op() if isinstance(owner, Block) else None
        if isinstance(loop, scf.ForOp) and loop in self.inside and isinstance(value, BlockArgument) and value.index:
            return loop, value.index - 1
        return None

    def flow_of(self, value: SSAValue) -> tuple[Flow, BlockArgument] | None:
        """The scheduled loop that results in a value, and what carries it there."""
        owner = value.owner
        if isinstance(owner, Block) or owner not in self.by_loop or not isinstance(value, OpResult):
            return None
        flow = self.by_loop[owner]
        return flow, flow.block.args[value.index + 1]

    def part(self, value: SSAValue, part: int | None) -> int | None:
        """The part of a value from outside of the scheduled loops: None of what is the same for all."""
        if value not in self._apart:
            return None
        return 0 if self.flows[0].extracted.parts == 1 else part

    @cached_property
    def _apart(self) -> set[SSAValue]:
        extracted = self.flows[0].extracted
        return set() if extracted.axis is None else self.flows[0].body.depends_on(extracted.axis)

    def before(self, value: SSAValue) -> list[SSAValue]:
        """The values that a value from outside of the scheduled loops is computed of at once: of what a loop around
        them carries, what it begins with and what is handed on. None where it is a scheduled loop's result.
        """
        found = self.carried(value)
        if found is not None:
            loop, number = found
            return [loop.iter_args[number], yielded(loop)[number]]
        owner = value.owner
        return [] if isinstance(owner, Block) or owner in self.by_loop else operands(owner)

    def is_common(self, value: SSAValue) -> bool:
        """Whether each group can compute a value by itself: of nothing that a scheduled loop makes."""
        if value not in self._common:
            seen, waiting = {value}, [value]
            found = True
            while waiting:
                each = waiting.pop()
                owner = each.owner
                if not isinstance(owner, Block) and (
                    owner in self.by_loop or any(isinstance(inner, EFFECTS) for inner in owner.walk())
                ):
                    found = owner in self.inside and self.carried(each) is not None
                    if not found:
                        break
                more = [other for other in self.before(each) if other not in seen]
                seen.update(more)
                waiting += more
            self._common[value] = found
        return self._common[value]
