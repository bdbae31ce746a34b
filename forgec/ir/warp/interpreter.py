"""The reference meaning of scheduled kernels: groups as coroutines, asynchronous ops that are done at any later time.

Whenever several groups can go on, or asynchronous ops may be done, a *scheduler* chooses what happens next, so that all
that a GPU might do can be tried. What a kernel must not rely on shows in its results: the result of an asynchronous op
is poison (NaN, the smallest integer) until it is done, and so is a slot from the moment on at which it is freed. Where
no group can go on, it is a deadlock, and FORGE-X002 says who waits for what.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any

from xdsl.dialects import scf
from xdsl.ir import Block, Operation, SSAValue

from forgec.diagnostics import ForgeError, error
from forgec.ir.locations import location_of
from forgec.ir.tile.elementwise_reference import dtype_of
from forgec.ir.tile.interpreter import Program, poison
from forgec.ir.tile.kernel import Kernel
from forgec.ir.tile.memory_model import fault
from forgec.ir.warp.asynchronous import AsyncLoadOp, CopyOp, DoneOp, MmaOp, PoisonOp, WaitOp
from forgec.ir.warp.channels import ConsumedOp, CreateOp, GetOp, PutOp
from forgec.ir.warp.kernel import GroupOp, KernelOp
from forgec.ir.warp.types import TokenType

Scheduler = Callable[[int, int], int]
"""Of so many groups that can go on and so many asynchronous ops that may be done: the number of the one to take, groups
first."""


def in_turn(groups: int, running: int) -> int:
    """Groups go on as they stand in the kernel; an asynchronous op is done when nothing else can be."""
    return 0


def at_random(seed: int) -> Scheduler:
    """Chooses at random. Of three seeds, with one asynchronous ops are as late as can be, and with one as early."""
    random = Random(seed)

    def choose(groups: int, running: int) -> int:
        if seed % 3 == 0 and groups:
            return random.randrange(groups)
        if seed % 3 == 1 and running:
            return groups + random.randrange(running)
        return random.randrange(groups + running)

    return choose


@dataclass
class AllOrders:
    """Schedulers that together take every order, one for each run: ``for scheduler in AllOrders(): run(…)``.

    ``runs`` counts them; after ``most`` it ends, and ``complete`` is False.
    """

    most: int = 10_000
    runs: int = 0
    complete: bool = False

    def __iter__(self) -> Iterator[Scheduler]:
        path: list[tuple[int, int]] = []  # the choice that was made, and of how many
        while self.runs < self.most:
            place = 0

            def choose(groups: int, running: int) -> int:
                nonlocal place
                if place == len(path):
                    path.append((0, groups + running))
                place += 1
                return path[place - 1][0]

            self.runs += 1
            yield choose
            while path and path[-1][0] + 1 == path[-1][1]:
                path.pop()
            if not path:
                self.complete = True
                return
            path[-1] = (path[-1][0] + 1, path[-1][1])


@dataclass
class Token:
    """An asynchronous op: what it does when it is done, and what is to happen then."""

    title: str
    finish: Callable[[], None] = lambda: None
    is_done: bool = False


@dataclass
class Slot:
    """One slot of a channel: how often it was filled, whether that is complete, and how many readers are done."""

    content: Any
    puts: int = 0
    full: bool = False
    taken: bool = False
    freed: int = 0


@dataclass
class Ring:
    """A channel."""

    name: str
    slots: list[Slot]
    readers: int


@dataclass
class Wait:
    """What a group waits for."""

    ready: Callable[[], bool]
    text: Callable[[], str]


Steps = Generator[Wait, None, list[Any]]


@dataclass
class _Later:
    """Something that happens once several tokens are done."""

    tokens: Sequence[Token]
    act: Callable[[], None]


@dataclass
class _Run:
    """One program: its asynchronous ops that are not done yet, by group in the order of issue."""

    program: Program
    copies: list[Token] = field(default_factory=list)
    products: dict[str, list[Token]] = field(default_factory=dict)
    later: list[_Later] = field(default_factory=list)

    def running(self) -> list[Token]:
        """What may be done next: any copy, and the oldest product of each group."""
        return [*self.copies, *(queue[0] for queue in self.products.values() if queue)]

    def finish(self, token: Token) -> None:
        """An asynchronous op is done."""
        token.finish()
        token.is_done = True
        self.copies = [each for each in self.copies if each is not token]
        for queue in self.products.values():
            if queue and queue[0] is token:
                queue.pop(0)
        self.settle()

    def settle(self) -> None:
        """Do what has become due."""
        due = [each for each in self.later if all(token.is_done for token in each.tokens)]
        self.later = [each for each in self.later if each not in due]
        for each in due:
            each.act()

    def when(self, tokens: Sequence[Token], act: Callable[[], None]) -> None:
        """Do something once tokens are done, perhaps at once."""
        self.later.append(_Later(tokens, act))
        self.settle()


def run_groups(kernel: Kernel, program: Program, parameters: Sequence[Any], scheduler: Scheduler | None = None) -> None:
    """Run one program of a scheduled kernel.

    Raises:
        ForgeError: FORGE-X002 where groups wait for each other, FORGE-X001 where channels are used wrongly, or hold
            something at the end.
    """
    assert isinstance(kernel, KernelOp), "other kernels have no groups"
    choose = scheduler or in_turn
    run = _Run(program)
    values: dict[SSAValue, Any] = dict(zip(kernel.body.block.args, parameters, strict=True))
    streams: list[tuple[GroupOp, Steps]] = []
    waits: dict[GroupOp, Wait] = {}
    for op in kernel.body.block.ops:
        if isinstance(op, GroupOp):
            streams.append((op, _Stream(run, op).steps(op.body.block, [], dict(values))))
        elif isinstance(op, CreateOp):
            values[op.ring] = _ring(program, op)
        elif op.results:
            values.update(zip(op.results, program.results_of(op, values), strict=True))
    live = [(group, steps) for group, steps in streams if _advanced(group, steps, waits)]
    while live:
        ready = [each for each in live if waits[each[0]].ready()]
        running = run.running()
        if not ready and not running:
            raise _deadlock(kernel, program, [(group, waits[group]) for group, _ in live])
        choice = choose(len(ready), len(running))
        if choice >= len(ready):
            run.finish(running[choice - len(ready)])
        elif not _advanced(*ready[choice], waits):
            live = [each for each in live if each is not ready[choice]]
    while run.running():
        run.finish(run.running()[0])
    for op in kernel.body.block.ops:
        if isinstance(op, CreateOp):
            _all_freed(values[op.ring], op)


def _advanced(group: GroupOp, steps: Steps, waits: dict[GroupOp, Wait]) -> bool:
    """Let a group go on to its next wait; False if it has come to its end."""
    try:
        waits[group] = next(steps)
    except StopIteration:
        return False
    return True


def _deadlock(kernel: KernelOp, program: Program, waiting: Sequence[tuple[GroupOp, Wait]]) -> ForgeError:
    return error(
        "FORGE-X002",
        f"the groups of {kernel.sym_name.data} wait for each other in program {program.number}",
        location=location_of(kernel),
        notes=tuple(f"group {group.group_name.data!r} waits for {wait.text()}" for group, wait in waiting),
    )


def _all_freed(ring: Ring, op: CreateOp) -> None:
    """At the end each slot is as it was at the beginning: a program of a persistent grid finds it so."""
    for place, slot in enumerate(ring.slots):
        if slot.taken:
            number = (slot.puts - 1) * len(ring.slots) + place
            raise fault(f"number {number} of {ring.name} is still there at the end: nobody has freed it").at(
                location_of(op)
            )


def _ring(program: Program, op: CreateOp) -> Ring:
    kind = op.ring.type.value  # type: ignore[attr-defined] - the verifier lets only rings in
    name = f"%{op.ring.name_hint}" if op.ring.name_hint else "a channel"
    return Ring(name, [Slot(_undefined(program, kind)) for _ in range(op.depth.data)], op.readers.data)


def _undefined(program: Program, kind: Any) -> Any:
    """A tile of its own that holds poison."""
    dtype = dtype_of(program.ev, kind)
    return poison(program.torch, dtype).expand(program.shape(kind)).clone()


class _Stream:
    """The ops of one group of one program."""

    def __init__(self, run: _Run, group: GroupOp) -> None:
        self.run, self.program = run, run.program
        self.name = group.group_name.data

    def steps(self, block: Block, inputs: Sequence[Any], values: dict[SSAValue, Any]) -> Steps:
        """Execute a block; yields where the group waits, and at the end what the block's terminator takes."""
        values.update(zip(block.args, inputs, strict=True))
        for op in block.ops:
            operands = [values[operand] for operand in op.operands]
            if isinstance(op, scf.YieldOp):
                return operands
            if isinstance(op, (PutOp, GetOp, ConsumedOp, WaitOp, AsyncLoadOp, MmaOp, CopyOp, DoneOp, PoisonOp)):
                try:
                    results = yield from self._own(op, operands)
                except ForgeError as failure:
                    raise failure.at(location_of(op)) from failure
            elif isinstance(op, (scf.IfOp, scf.ForOp)):
                results = yield from self._control(op, operands, values)
            else:
                results = self.program.results_of(op, values)
            values.update(zip(op.results, results, strict=True))
        return []

    def _control(self, op: Operation, operands: list[Any], values: dict[SSAValue, Any]) -> Steps:
        match op:
            case scf.IfOp():
                region = op.true_region if bool(operands[0]) else op.false_region
                return (yield from self.steps(region.block, [], values)) if region.blocks else []
            case scf.ForOp():
                lower, upper, step, *carried = operands
                if int(step) <= 0:
                    raise fault(f"a loop's step is {int(step)}")
                for counter in range(int(lower), int(upper), int(step)):
                    number = self.program.torch.tensor(counter, dtype=lower.dtype)
                    carried = yield from self.steps(op.body.block, [number, *carried], values)
                return carried
        raise AssertionError("there are no other ones")

    def _own(self, op: Operation, operands: list[Any]) -> Steps:
        match op:
            case PutOp():
                yield from self._put(operands[0], int(operands[1]), operands[2], operands[3:])
            case GetOp():
                return [(yield from self._get(*operands))]
            case ConsumedOp():
                self._consumed(operands[0], int(operands[1]), operands[2:])
            case WaitOp():
                token: Token = operands[0]
                yield Wait(lambda: token.is_done, lambda: token.title)
            case AsyncLoadOp():
                block, *offsets = operands
                result = _undefined(self.program, op.result.type)
                token = Token("a load", lambda: result.copy_(self.program.load(op, block, offsets)))
                self.run.copies.append(token)
                return [result, token]
            case MmaOp():
                result = _undefined(self.program, op.result.type)
                token = Token("a product", lambda: result.copy_(self.program.dot(op, *operands)))
                self.run.products.setdefault(self.name, []).append(token)
                return [result, token]
            case CopyOp():
                return [operands[0].clone()]
            case DoneOp():
                return [Token("nothing", is_done=True)]
            case PoisonOp():
                if isinstance(op.result.type, TokenType):
                    raise fault("a token is no poison")
                return [_undefined(self.program, op.result.type)]
        return []

    def _put(self, ring: Ring, number: int, value: Any, after: Sequence[Token]) -> Steps:
        slot = ring.slots[number % len(ring.slots)]
        round_ = number // len(ring.slots)
        if slot.puts != round_:
            raise fault(f"number {number} is put to {ring.name} out of turn")
        yield Wait(lambda: not slot.taken, lambda: f"an empty slot of {ring.name}, for number {number}")
        slot.puts, slot.taken, slot.full, slot.freed = round_ + 1, True, False, 0

        def fill() -> None:
            slot.content.copy_(value)
            slot.full = True

        self.run.when(after, fill)
        return []

    def _get(self, ring: Ring, number: Any) -> Generator[Wait, None, Any]:
        place = int(number)
        if place < 0:
            raise fault(f"number {place} of {ring.name} is read, which nothing puts")
        slot = ring.slots[place % len(ring.slots)]
        wanted = place // len(ring.slots) + 1
        yield Wait(
            lambda: slot.puts > wanted or (slot.puts == wanted and (slot.full or not slot.taken)),
            lambda: f"number {place} of {ring.name}",
        )
        return slot.content  # poison, if it was freed before, or the number of a later round

    def _consumed(self, ring: Ring, number: int, after: Sequence[Token]) -> None:
        slot = ring.slots[number % len(ring.slots)]

        def free() -> None:
            if not slot.taken or slot.puts != number // len(ring.slots) + 1:
                raise fault(f"number {number} of {ring.name} is freed, which holds another")
            slot.freed += 1
            if slot.freed == ring.readers:
                slot.taken = slot.full = False
                slot.content.copy_(poison(self.program.torch, slot.content.dtype).expand(slot.content.shape))

        self.run.when(after, free)
