"""Launches that are no ATen operations: calls of other entries (branches, loops, segments), numbers, and checks.

    forge::item(x)                                               the integer in x is the value of the symbol it defines
    forge::assert(x, message)                                    FORGE-R011 unless the element of x is true
    forge::call(@entry, [tensors])
    forge::if(x, @then, [tensors], @otherwise, [tensors])        the element of x chooses
    forge::while(@before, @after, [carried], [tensors of before], [tensors of after])
    forge::for(@body, lower, upper, step, [carried], [tensors])

``before`` takes the carried tensors and its own, and returns a condition and what it forwards to ``after``, which
returns the next carried tensors; the result is what ``before`` forwards last. ``body`` takes the counter (int64, rank
0), the carried tensors and its own, and returns the next carried tensors; those that it takes as inout it updates in
place and does not return.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from forgec.diagnostics import Location, error
from forgec.runtime.plan import Arg, Entry, EntryRef, Input, Launch, Reg
from forgec.runtime.tensor_library import Tensor, TensorLibrary

NAMESPACE = "forge::"
ITEM, ASSERT, CALL, IF, WHILE, FOR = (NAMESPACE + name for name in ("item", "assert", "call", "if", "while", "for"))

CallEntry = Callable[[str, "Sequence[Tensor]"], "list[Tensor]"]
"""Runs a private entry on tensors."""

_TENSOR, _TENSORS, _ENTRY, _NUMBER, _TEXT = "a tensor", "a list of tensors", "an entry", "an extent", "a text"
_FORMS: dict[str, tuple[str, ...]] = {
    ITEM: (_TENSOR,),
    ASSERT: (_TENSOR, _TEXT),
    CALL: (_ENTRY, _TENSORS),
    IF: (_TENSOR, _ENTRY, _TENSORS, _ENTRY, _TENSORS),
    WHILE: (_ENTRY, _ENTRY, _TENSORS, _TENSORS, _TENSORS),
    FOR: (_ENTRY, _NUMBER, _NUMBER, _NUMBER, _TENSORS, _TENSORS),
}


def is_control(op: str) -> bool:
    """True for the operations of this module."""
    return op.startswith(NAMESPACE)


@dataclass(frozen=True)
class EntryCall:
    """One use of an entry by a launch: the registers that it gets (None: a counter), and how many results are
    wanted."""

    entry: str
    registers: tuple[int | None, ...]
    results: int


def form_error(launch: Launch) -> str | None:
    """What is wrong with the kinds of a control launch's arguments, if anything is."""
    form = _FORMS.get(launch.op)
    if form is None:
        return f"there is no operation {launch.op}"
    if launch.kwargs or len(launch.args) != len(form):
        return f"{launch.op} takes {len(form)} positional arguments"
    for index, (kind, value) in enumerate(zip(form, launch.args, strict=True)):
        if not _fits(kind, value):
            return f"argument {index} of {launch.op} is {kind}"
    return None


def _fits(kind: str, value: Arg) -> bool:
    if kind == _TENSOR:
        return isinstance(value, Reg)
    if kind == _TENSORS:
        return isinstance(value, tuple) and all(isinstance(item, Reg) for item in value)
    if kind == _ENTRY:
        return isinstance(value, EntryRef)
    if kind == _TEXT:
        return isinstance(value, str)
    return not isinstance(value, (Reg, EntryRef, str, tuple, bool, float, complex)) and value is not None


def entry_calls(launch: Launch) -> list[EntryCall]:
    """The entries that a well-formed control launch calls, each with what it gets."""
    args: Any = launch.args
    count = len(launch.results)
    match launch.op:
        case "forge::call":
            return [EntryCall(args[0].name, _ids(args[1]), count)]
        case "forge::if":
            return [EntryCall(args[1].name, _ids(args[2]), count), EntryCall(args[3].name, _ids(args[4]), count)]
        case "forge::while":
            before = EntryCall(args[0].name, (*_ids(args[2]), *_ids(args[3])), 1 + count)
            return [before, EntryCall(args[1].name, (*(None,) * count, *_ids(args[4])), len(args[2]))]
        case "forge::for":
            return [EntryCall(args[0].name, (None, *_ids(args[4]), *_ids(args[5])), count)]
    return []


def _ids(regs: Sequence[Reg]) -> tuple[int, ...]:
    return tuple(reg.id for reg in regs)


def callable_of(
    launch: Launch,
    updated: Callable[[str], list[int]],
    call: CallEntry,
    place: Location | None,
    library: TensorLibrary,
) -> Any:
    """What runs for a launch; ``call`` runs an entry, ``updated`` tells which of its carried tensors the body of a
    loop updates in place. The arguments are as in the plan, registers as tensors of the library.
    """
    match launch.op:
        case "forge::item":
            return lambda tensor: [tensor]
        case "forge::assert":
            return lambda tensor, message: _check(tensor, message, place)
        case "forge::call":
            return lambda entry, tensors: call(entry.name, tensors)
        case "forge::if":
            return lambda chosen, then, given, otherwise, others: (
                call(then.name, given) if chosen.item() else call(otherwise.name, others)
            )
        case "forge::while":
            return lambda before, after, carried, given, others: _loop(
                call, before.name, after.name, carried, given, others
            )
    positions = updated(launch.args[0].name)  # type: ignore[union-attr]
    return lambda body, lower, upper, step, carried, given: _count(
        call, body.name, range(lower, upper, step), carried, given, positions, library
    )


def _check(tensor: Tensor, message: str, place: Location | None) -> list[Tensor]:
    if not tensor.item():
        raise error("FORGE-R011", f"an assertion of the model failed: {message}", location=place)
    return []


def _loop(call: CallEntry, before: str, after: str, carried: Any, given: Any, others: Any) -> list[Tensor]:
    while True:
        go_on, *forwarded = call(before, [*carried, *given])
        if not go_on.item():
            return forwarded
        carried = call(after, [*forwarded, *others])


def updated_positions(body: Entry) -> list[int]:
    """The positions among a loop's carried tensors of those that its body updates in place."""
    inputs = [body.registers[leaf] for leaf in body.inputs if isinstance(leaf, int)]
    return [index - 1 for index, register in enumerate(inputs) if isinstance(register, Input) and register.inout]


def _count(
    call: CallEntry,
    body: str,
    counters: range,
    carried: list[Any],
    given: Any,
    updated: list[int],
    library: TensorLibrary,
) -> list[Tensor]:
    carried = list(carried)
    for position in updated:  # the caller's values stay as they are
        carried[position] = library.clone(carried[position])
    rest = [position for position in range(len(carried)) if position not in updated]
    for counter in counters:
        results = call(body, [library.counter(counter), *carried, *given])
        for position, tensor in zip(rest, results, strict=True):
            carried[position] = tensor
    return carried
