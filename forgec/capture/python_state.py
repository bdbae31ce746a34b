"""Numbers and tensors that a model's Python code keeps in attributes, from one call to the next, as state of a session.

``self.seen += x.shape[1]`` and ``self.h = x.mean(0)`` happen while a model is traced and at no call. Where tracing
found such an attribute to change, the model is traced once more with a buffer in its place: what ``forward`` finds
there is read from the buffer (a number as torch's symbolic number), and what it leaves there is written into it. So the
program computes with the number of that call; and code that decides by it, which one program cannot, is found out.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch.fx.experimental.symbolic_shapes import statically_known_true
from torch.utils import _pytree

from forgec.capture.attributes import unchanged
from forgec.capture.changes import ABSENT, Change, Slot, restored
from forgec.capture.places import is_user_file, raised_at
from forgec.capture.reached_code import code_of, function_of, named_at
from forgec.capture.sliding_caches import undecided
from forgec.capture.wording import decided
from forgec.diagnostics import ForgeError, Location, error

STATES = "forgec.states"
"""Key in the exported graph's ``meta``: names of the attributes that became buffers, by those of the buffers."""

_PREFIX = "_forgec_state_"
_SYMBOL = re.compile(r"\bz?u(?:f)?\d+\b")
REMEDY = "keep it in a buffer that holds a tensor from the start, and let tensors decide (torch.where)"


@dataclass(frozen=True, eq=False)
class Kept:
    """An attribute, the buffer that stands in for it, and where it changes."""

    change: Change
    slot: Slot
    buffer: str
    symbols: set[str] = field(default_factory=set)
    """Torch's names of the number, in the runs that were traced."""

    @property
    def holds_number(self) -> bool:
        return not isinstance(self.slot.before, torch.Tensor)

    def initial(self) -> torch.Tensor:
        """A tensor of its own with what the attribute holds now: int64 [] or float64 [] of a number."""
        before = self.slot.before
        if isinstance(before, torch.Tensor):
            return before.detach().clone()
        return torch.tensor(before, dtype=torch.float64 if type(before) is float else torch.int64)


def kept_states(changes: Sequence[Change]) -> list[Kept]:
    """The changes that a buffer can stand for: a number in place of a number, a tensor in place of one alike.

    Arguments belong to the caller, and what others may change as well (global variables, attributes of classes) is not
    a session's.
    """
    found: list[Kept] = []
    for change in changes:
        for slot in change.slots if change.what == "attribute" else ():
            if slot.is_single and not slot.shared and _fits(slot):
                found.append(Kept(change, slot, f"{_PREFIX}{len(found)}"))
    return found


def _fits(slot: Slot) -> bool:
    before, after = slot.before, slot.after
    if type(before) in (int, float):
        return type(after) in (type(before), _SYMBOLIC[type(before)]) and _is_stored(before)
    if not isinstance(before, torch.Tensor) or not isinstance(after, torch.Tensor):
        return False
    plain = type(before) is torch.Tensor and before.layout is torch.strided and not before.requires_grad
    return plain and _alike_in_kind(before, after)


_SYMBOLIC: dict[type, type] = {int: torch.SymInt, float: torch.SymFloat}


def _is_stored(number: float) -> bool:
    return type(number) is float or -(2**63) <= number < 2**63


def _alike_in_kind(one: torch.Tensor, other: torch.Tensor) -> bool:
    """True if two tensors surely have the same shape, dtype and device. Symbolic extents are not compared by ``==``,
    which would fix them in the program that is being traced, or has been.
    """
    if (one.dtype, one.device, one.dim()) != (other.dtype, other.device, other.dim()):
        return False
    return all(statically_known_true(a == b) for a, b in zip(one.shape, other.shape, strict=True))


@contextmanager
def as_buffers(module: torch.nn.Module, states: Sequence[Kept]) -> Iterator[None]:
    """Inside the ``with`` block each run of the module reads the states from buffers, and writes them there.

    Raises ForgeError (C009) from a run that leaves something else in an attribute than it held.
    """
    for kept in states:
        module.register_buffer(kept.buffer, kept.initial(), persistent=False)

    def entering(*_: Any) -> None:
        for kept in states:
            tensor = getattr(module, kept.buffer)
            value = tensor.item() if kept.holds_number else tensor
            if isinstance(value, tuple(_SYMBOLIC.values())):
                kept.symbols.add(str(value.node.expr))
            kept.slot.put(value)

    def leaving(*_: Any) -> None:
        left = [(kept, kept.slot.held()) for kept in states]
        values = [_number_or_copy(kept, value) for kept, value in left]
        for kept, value in zip(states, values, strict=True):
            tensor = getattr(module, kept.buffer)
            if value is not tensor:
                tensor.copy_(value) if isinstance(value, torch.Tensor) else tensor.fill_(value)

    def restoring(*_: Any) -> None:
        for kept in states:
            kept.slot.put(kept.slot.before)

    def _number_or_copy(kept: Kept, value: Any) -> Any:
        tensor = getattr(module, kept.buffer)
        if kept.holds_number:
            kind = type(kept.slot.before)
            if type(value) not in (kind, _SYMBOLIC[kind]):
                raise cannot_keep(kept.change, f"it held {kind.__name__} and then {type(value).__name__}")
            return value
        if value is tensor:
            return tensor
        if not isinstance(value, torch.Tensor) or not _alike_in_kind(value, tensor):
            raise cannot_keep(kept.change, "it held a tensor and then something of another shape or type")
        return value.clone() if len(states) > 1 else value  # states may swap

    hooks = (
        module.register_forward_pre_hook(entering, prepend=True),
        module.register_forward_hook(leaving, prepend=True),
        module.register_forward_hook(restoring, always_call=True),
    )
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
        for kept in states:
            delattr(module, kept.buffer)
            kept.slot.put(kept.slot.before)


def cannot_keep(change: Change, note: str, place: Location | None = None) -> ForgeError:
    """What ``forward`` computes depends on something that it changes and that no program of forgec's can hold."""
    message = f"the model computes with its {change.what} {change.name!r}, which it changes when it runs"
    return error("FORGE-C009", message, location=place or change.place, notes=(note,), help=REMEDY)


@dataclass(frozen=True)
class Traced:
    """An exported model, or why there is none, and what its code did besides while it was traced."""

    program: torch.export.ExportedProgram | None
    changes: Sequence[Change]
    checks: Sequence[Any] = ()
    seeds: Sequence[Any] = ()
    failure: Exception | None = None

    def result(self) -> torch.export.ExportedProgram:
        """The exported model; raises the failure."""
        if self.failure is not None:
            raise self.failure
        assert self.program is not None, "either the program or the failure"
        return self.program


def with_states(
    module: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], trace: Callable[[], Traced]
) -> tuple[Traced, dict[str, str]]:
    """Trace a module with what it keeps in attributes as state; also the names of these attributes, by their buffers'.

    Raises ForgeError (C009) where what the model computes depends on something that it changes and that cannot be
    state: a number that it decides by, or whatever else makes the second call another than the first.
    """
    plain = trace()
    states = kept_states(plain.changes)
    if not states:
        _refuse_what_matters(module, args, kwargs, plain, trace)
        return plain, {}
    with as_buffers(module, states), undecided():
        traced = trace()
        refused = None if traced.failure is None else _decides(states, traced.failure)
        if isinstance(refused, ForgeError):
            raise refused from traced.failure
        if refused is None:
            traced = replace(traced, changes=_others(traced.changes, states))
            _refuse_what_matters(module, args, kwargs, traced, trace)
    if refused is not None:  # not traceable as state: it is a constant, if no later call minds
        _refuse_what_matters(module, args, kwargs, plain, trace)
        return plain, {}
    return traced, {kept.buffer: kept.slot.name for kept in states}


def _others(changes: Sequence[Change], states: Sequence[Kept]) -> list[Change]:
    known = {(id(kept.slot.owner), kept.slot.key) for kept in states}
    return [c for c in changes if not c.slots or any((id(s.owner), s.key) not in known for s in c.slots)]


def _decides(states: Sequence[Kept], failure: Exception) -> Exception:
    """C009 if the model cannot be traced because it decides by a number that is state now; else why it cannot."""
    text = str(failure).strip()
    asked = re.search(r"data-dependent expression (.*?) \(unhinted", text)
    named = set(_SYMBOL.findall(asked[1])) if asked is not None else set()
    about = next((kept for kept in states if kept.symbols & named), None)
    if asked is None or about is None:
        return failure
    place = raised_at(failure.__traceback__)
    return cannot_keep(about.change, f"it decides by it: {decided(asked[1], place)}", place)


MANY_CALLS = 1000
"""How far lists and numbers are let grow that no buffer can stand for, to see whether the model minds."""


def _refuse_what_matters(
    module: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], first: Traced, trace: Callable[[], Traced]
) -> None:
    """Raises ForgeError (C009) if a later call computes something else than the first, because of what that changed
    (but for tensors' elements, which are state).

    After an eager call the second one is traced, and, where lists and numbers have grown, one with what many calls make
    of them. Only where one of them is computed in another way are two more run, to see whether it gives what the first
    gives for the same inputs (as with a cache that the first call fills): then it is the same call.
    """
    changed = [change for change in first.changes if change.what != "argument"]
    if not changed:
        return
    program = first.result()
    others = _pytree.tree_map_only(torch.Tensor, _turned, (args, kwargs))

    def later(which: str) -> tuple[str, Traced, list[Any] | None] | None:
        """A call as things are now, and what it gives for other inputs; None if it is traced as the first was."""
        traced = trace()
        if traced.program is not None and _same(program, traced.program):
            return None
        return which, traced, None if traced.program is None else _results(module, *others)

    with restored(module):
        try:
            _called(module, args, kwargs)
        except Exception:  # whatever the model raises without being traced: nothing is known, and the warning stays
            return
        laters = [later("second")]
        if _as_after_many_calls(changed):
            laters.append(later(f"{MANY_CALLS + 1}st"))
    for which, traced, results in filter(None, laters):
        note = f"its {which} call computes something else than its first"
        if traced.failure is not None:
            note = f"its {which} call cannot be traced: {str(traced.failure).strip().partition(chr(10))[0]}"
        elif _alike(_results(module, *others), results):  # in another way, as by a cache that the first call fills
            continue
        names = ", ".join(repr(change.name) for change in changed[1:4])
        note = f"{note}; it also changes {names}" if names else note
        raise cannot_keep(changed[0], note, changed[0].place or _named_at(module, changed[0]))


def _called(module: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Any]:
    """The leaves of what an eager call returns, which changes what Python keeps and nothing else."""
    with unchanged(module), torch.random.fork_rng(devices=()):
        given = _pytree.tree_map_only(torch.Tensor, torch.clone, (args, kwargs))
        return _pytree.tree_leaves(module(*given[0], **given[1]))


def _turned(tensor: torch.Tensor) -> torch.Tensor:
    """Another input of the kind: what the first call kept of its own does not fit it."""
    if not tensor.dim():
        return tensor
    return tensor.flip(tuple(range(tensor.dim()))) * 2 if tensor.is_floating_point() else tensor.flip(-1)


def _results(module: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Any] | None:
    """What an eager call gives as things are now, leaving them so; None if it fails."""
    try:
        with restored(module):
            return _called(module, args, kwargs)
    except Exception:  # whatever the model raises
        return None


def _alike(first: list[Any] | None, later: list[Any] | None) -> bool:
    """True if two calls gave the same, up to rounding."""
    if first is None or later is None or len(first) != len(later):
        return False
    return all(_equal(*pair) for pair in zip(first, later, strict=True))


def _equal(first: Any, later: Any) -> bool:
    if not isinstance(first, torch.Tensor) or not isinstance(later, torch.Tensor):
        return type(first) is type(later) and bool(first == later)
    if first.shape != later.shape or first.dtype != later.dtype:
        return False
    return bool(torch.allclose(first, later, rtol=1e-5, atol=1e-6, equal_nan=True))


def _named_at(module: torch.nn.Module, change: Change) -> Location | None:
    """A line of the user's that assigns or names what changes: in the methods of the object that holds it, or else in
    what the module may call."""
    name = re.findall(r"[A-Za-z_]\w*", change.name.partition("[")[0])[-1:]
    if not name or not change.slots:
        return None
    owner = change.slots[0].owner
    methods = [function_of(value) for value in vars(owner if isinstance(owner, type) else type(owner)).values()]
    known = [method for method in methods if method is not None and is_user_file(method.__code__.co_filename)]
    return named_at(name[0], known) or named_at(name[0], code_of(module).functions)


def _as_after_many_calls(changed: Sequence[Change]) -> bool:
    """After one call: lists and numbers grow as often again as many calls would let them; True if there are any."""
    grown: dict[int, tuple[list[Any], int]] = {}
    found = False
    for slot in (slot for change in changed for slot in change.slots):
        now = slot.held()
        if isinstance(slot.owner, list) and slot.before is ABSENT:
            grown[id(slot.owner)] = (slot.owner, grown.get(id(slot.owner), (slot.owner, 0))[1] + 1)
        elif isinstance(now, list) and isinstance(slot.before, list) and len(now) > len(slot.before):
            grown[id(now)] = (now, len(now) - len(slot.before))
        elif type(now) is int and type(slot.before) is int and slot.is_single:
            slot.put(now + MANY_CALLS * (now - slot.before))
            found = True
    for items, count in grown.values():
        list.extend(items, items[-count:] * MANY_CALLS)
    return found or bool(grown)


def _same(one: torch.export.ExportedProgram, other: torch.export.ExportedProgram) -> bool:
    """True if two programs are the same operations on the same tensors, but for results that nothing uses."""
    (ours, tensors), (theirs, others) = _written(one), _written(other)
    return ours == theirs and all(
        a is b or (isinstance(a, torch.Tensor) and _alike_in_kind(a, b) and torch.equal(a, b))
        for a, b in zip(tensors, others, strict=True)
    )


def _written(program: torch.export.ExportedProgram) -> tuple[list[str], list[Any]]:
    """The operations that matter, one a line, with values numbered; and the tensors of the model's that they use."""
    held = {spec.arg.name: spec.target for spec in program.graph_signature.input_specs if spec.target is not None}
    lines: list[str] = []
    tensors: list[Any] = []
    for path, module in program.graph_module.named_modules():
        if isinstance(module, torch.fx.GraphModule):
            names: dict[torch.fx.Node, str] = {}
            for node in _live(module.graph):
                names[node] = f"%{len(names)}"
                target = node.target
                if node.op == "placeholder" and not path and node.name in held:
                    target = ""
                    tensors.append(program.constants.get(held[node.name], program.state_dict.get(held[node.name])))
                arguments = torch.fx.map_arg((node.args, node.kwargs), lambda used, names=names: _Named(names[used]))
                lines.append(f"{path} {names[node]} = {node.op} {target} {arguments}")
    return lines, tensors


class _Named(str):
    """A value's name in a line: without quotes."""

    __repr__ = str.__str__


def _live(graph: torch.fx.Graph) -> list[torch.fx.Node]:
    """The operations whose results are used or that write, the inputs that are used, and the output."""
    live: set[torch.fx.Node] = set()
    for node in reversed(graph.nodes):
        writes = node.op == "output" or (node.op == "call_function" and _is_needed(node))
        if writes or any(user in live for user in node.users):
            live.add(node)
    return [node for node in graph.nodes if node in live]


def _is_needed(node: torch.fx.Node) -> bool:
    """True for operators that do something besides what they return (of those that call graphs, nothing is known)."""
    schema = getattr(node.target, "_schema", None)
    writes = schema is not None and schema.is_mutable
    return writes or isinstance(node.target, torch._ops.HigherOrderOperator) or node.is_impure()
