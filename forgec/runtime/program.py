"""A program in memory: a plan with its weights, ready to be called. Compiled models and loaded artifacts are both
one."""

from __future__ import annotations

import threading
from collections import OrderedDict, deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from forgec.diagnostics import Diagnostic, ForgeError, error, warn
from forgec.runtime import arrays, plan_check, tree
from forgec.runtime.aten import called_of_torch, link, require_devices, require_torch
from forgec.runtime.binding import Binding, Peak, bind, in_range, peak_of
from forgec.runtime.collector import paused_collector
from forgec.runtime.cpu_count import check_threads
from forgec.runtime.dtypes import from_torch
from forgec.runtime.executable import Calls, Executable
from forgec.runtime.executor import Lane, Progress, is_out_of_memory
from forgec.runtime.extents import same_strides, static
from forgec.runtime.forking import renew_after_fork
from forgec.runtime.inputs import Accepted, InputChecker
from forgec.runtime.kernels import NativeCode, check_launches
from forgec.runtime.plan import (
    PREDICATE_SIGNS,
    Entry,
    Input,
    Literal,
    Number,
    Param,
    Plan,
    State,
    TensorSpec,
    View,
)
from forgec.runtime.refusals import NotCopied, refuse_traced
from forgec.runtime.session import Session
from forgec.runtime.signature import Signature
from forgec.runtime.symbolic import SymExpr, symbol
from forgec.runtime.team import TEAM
from forgec.runtime.tensor_bytes import is_torch
from forgec.runtime.tensor_library import (
    Tensor,
    TensorLibrary,
    library_of,
    loaded_torch,
    numpy_library,
    torch_library,
)

if TYPE_CHECKING:
    import numpy
    import torch

    from forgec.runtime.code_image import CodeImage

Stored = TypeVar("Stored", Param, State)

MAX_BINDINGS = 64
"""Call signatures (values of the symbols) of each entry whose sizes and offsets are kept."""
MAX_IDLE_LANES = 16
"""Arenas kept for reuse; beyond that many concurrent calls each allocates its own."""


class Weights(Protocol):
    """Where a program's params and initial states come from."""

    def tensor(self, name: str, spec: TensorSpec, device: str) -> torch.Tensor:
        """The tensor of this name, with exactly the dtype, shape and strides of ``spec``. It is never written."""
        ...

    def array(self, name: str, spec: TensorSpec) -> numpy.ndarray[Any, Any]:
        """The same as an array, without torch."""
        ...


class LiveWeights:
    """Weights that are torch tensors or arrays in this process, shared and not copied: what a model just compiled
    has."""

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        self._tensors = tensors

    def _find(self, name: str) -> Tensor:
        found = self._tensors.get(name)
        if found is None:
            raise error("FORGE-X001", f"the weights have no tensor '{name}'")
        return found

    def array(self, name: str, spec: TensorSpec) -> numpy.ndarray[Any, Any]:
        """See ``Weights.array``. FORGE-X001 when the tensor is missing or not what the plan says."""
        found = self._find(name)
        if is_torch(found):
            return arrays.to_array(self.tensor(name, spec, "cpu"))
        library = numpy_library()
        if not library.is_of(found, spec.dtype) or found.shape != spec.shape:
            raise error("FORGE-X001", f"weight '{name}' is {found.dtype}{list(found.shape)}, the plan has {spec}")
        if not library.lies_as(found, found.shape, static(spec.strides)):
            strides = library.strides(found)
            raise error("FORGE-X001", f"weight '{name}' has strides {strides}, the plan has {spec.strides}")
        return found

    def tensor(self, name: str, spec: TensorSpec, device: str) -> torch.Tensor:
        """See ``Weights.tensor``. FORGE-X001 when the tensor is missing or not what the plan says."""
        found = torch_library().adopt(self._find(name)).detach()
        shape = tuple(found.shape)
        if from_torch(found.dtype) != spec.dtype or shape != spec.shape:
            raise error("FORGE-X001", f"weight '{name}' is {found.dtype}{list(shape)}, the plan has {spec}")
        if not same_strides(shape, found.stride(), static(spec.strides)):
            raise error("FORGE-X001", f"weight '{name}' has strides {found.stride()}, the plan has {spec.strides}")
        return found


class LinkedEntry:
    """An entry point whose operations, params and checks are in place."""

    def __init__(
        self,
        plan: Plan,
        entry: Entry,
        params: Mapping[str, Tensor],
        library: TensorLibrary,
        calls: Calls,
        image: CodeImage | None = None,
        threads: int | None = None,
    ) -> None:
        self.entry = entry
        self.symbols = plan.symbols
        self.signature = Signature(entry, plan.symbols)
        self.checker = InputChecker(entry, plan.symbols, self.signature)
        self.containers = [*tree.registered(entry.in_tree), *tree.registered(entry.out_tree)]
        self.names = entry.given if entry.private else self.checker.names
        self.places = plan.locations
        self.constraints = [] if entry.private else [c for c in plan.constraints if c.symbols <= {*self.names}]
        tensors = {
            number: params[register.name]
            for number, register in enumerate(entry.registers)
            if isinstance(register, Param)
        }
        self.executable = Executable(
            entry,
            link(entry, plan.torch_version),
            tensors,
            library,
            plan.locations,
            plan.symbols,
            calls,
            image,
            threads,
        )
        self.has_state = any(isinstance(register, State) for register in entry.registers)
        self.first_state_write = self._first_state_write()
        self._literals = {library.name: self._literals_in(library)}
        self._bindings: OrderedDict[tuple[int, ...], Binding] = OrderedDict()
        self._lock = threading.Lock()

    def after_fork(self) -> None:
        """See ``Program.after_fork``."""
        self._lock = threading.Lock()

    def _literals_in(self, library: TensorLibrary) -> list[Any]:
        """The fixed values among the results."""
        return [library.constant(leaf.value) if isinstance(leaf, Literal) else None for leaf in self.entry.outputs]

    def _first_state_write(self) -> int:
        registers = self.entry.registers
        for position, launch in enumerate(self.entry.launches):
            for number in launch.writes:
                register = registers[number]
                root = registers[register.base] if isinstance(register, View) else register
                if isinstance(root, State):
                    return position
        return len(self.entry.launches)

    def binding(self, symbols: tuple[int, ...], leaves: list[Any] | None = None) -> Binding:
        """The binding for the symbols' values, in the order of ``names``; built once and kept while it is in use."""
        with self._lock:
            known = self._bindings.get(symbols)
            if known is not None:
                self._bindings.move_to_end(symbols)
                return known
        values = dict(zip(self.names, symbols, strict=True))
        self._check_constraints(values)
        with paused_collector():
            built = bind(self.entry, values)
        with self._lock:
            while len(self._bindings) >= MAX_BINDINGS:
                self._bindings.popitem(last=False)
            return self._bindings.setdefault(symbols, built)

    def _check_constraints(self, values: Mapping[str, int]) -> None:
        """FORGE-R003 where the extents are not related as the program was compiled for."""
        broken = [constraint for constraint in self.constraints if not constraint.holds(values)]
        if broken:
            place = next((self.places[c.location] for c in broken if c.location >= 0), None)
            label = self.signature.describe_extent
            names = sorted({name for constraint in broken for name in constraint.symbols})
            given = ", ".join(f"{label(symbol(name))} = {values[name]}" for name in names)
            texts = [f"{label(c.left)} {PREDICATE_SIGNS[c.predicate]} {label(c.right)}" for c in broken]
            raise error(
                "FORGE-R003",
                f"the artifact was compiled for {texts[0]}, the call has {given}",
                location=place,
                notes=(
                    *(f"and for {text}" for text in texts[1:]),
                    "torch.export took this for granted when it traced the model with the example inputs",
                ),
                help="compile another artifact with example inputs such as these, or write the model so that both run",
            )

    def output_leaf(self, position: int, tensor: Any, binding: Binding, accepted: Accepted) -> Any:
        """The value of one leaf of the results."""
        leaf = self.entry.outputs[position]
        if isinstance(leaf, Literal):
            library = accepted.library
            known = self._literals.get(library.name)
            if known is None:
                known = self._literals[library.name] = self._literals_in(library)
            return known[position]
        if isinstance(leaf, (SymExpr, Number)):
            return tensor
        register = self.entry.registers[leaf]
        if isinstance(register, Input):
            order = [number for _, number, _ in self.checker.tensor_leaves]
            original = accepted.originals[order.index(leaf)]
            if accepted.as_numpy or not original.requires_grad:
                return original
        if accepted.as_numpy and is_torch(tensor):
            return arrays.to_array(tensor)
        return tensor


class Program(NotCopied):
    """A plan with weights. Calls are thread safe: each in flight has its own arena; state belongs to a ``Session``.

    ``threads`` is how many threads compute during calls, kernels and torch's operations; None for as many as torch has
    at the call, or without torch as the process may use (``cpu_count.default_threads``). ``plan_is_checked`` says that
    the plan comes from ``plan.from_json``, which has checked it. ``kernels`` is the machine code that the plan
    launches. torch is imported if the plan calls ATen or has tensors on another device than the CPU; ``library`` holds
    weights, arenas and states. Raises FORGE-A004 when the plan is not valid, FORGE-A006 when torch or one of the
    plan's operations is missing, FORGE-A007 and A008 when this machine cannot run the kernels.
    """

    def __init__(
        self,
        plan: Plan,
        weights: Weights,
        *,
        threads: int | None = None,
        plan_is_checked: bool = False,
        kernels: NativeCode | None = None,
    ) -> None:
        check_threads(threads)
        if not plan_is_checked:
            plan_check.check(plan)
        check_launches(plan, kernels and kernels.table)
        devices = dict.fromkeys(register.device for entry in plan.entries for register in entry.registers)
        called = called_of_torch(plan)
        self.needs_torch = bool(called) or not devices.keys() <= {"cpu"}
        if self.needs_torch:
            require_torch(called, tuple(devices), plan.torch_version)
            require_devices(devices)
        self.library = torch_library() if self.needs_torch else numpy_library()
        self.plan = plan
        self.threads = threads
        self._weights = weights
        image = _mapped(kernels)
        with _preparing("the weights"):
            params = {
                name: self.library.weight(weights, name, register.spec, register.device)
                for name, register in _distinct(plan, Param).items()
            }
        self._states = _distinct(plan, State)
        self._linked = {
            entry.name: LinkedEntry(plan, entry, params, self.library, self, image, threads) for entry in plan.entries
        }
        self._all = {entry.name: entry for entry in plan.entries}
        self._lanes: deque[Lane] = deque(maxlen=MAX_IDLE_LANES)
        self._default: Session | None = None
        self._warned_of_gradients = False
        self._lock = threading.Lock()
        renew_after_fork(self)

    def after_fork(self) -> None:
        """Locks that other threads held are renewed; the arenas of their calls are lost."""
        self._lock = threading.Lock()
        for linked in self._linked.values():
            linked.after_fork()

    @property
    def entries(self) -> tuple[str, ...]:
        """The names of the entry points; the first is called by default."""
        return tuple(entry.name for entry in self.plan.public)

    def session(self) -> Session:
        """A new session, whose states have their initial values."""
        return Session(self)

    def reset(self) -> None:
        """The default session's states have their initial values again."""
        with self._lock:
            default = self._default
        if default is not None:
            default.reset()

    def __call__(self, *args: Any, entry: str | None = None, **kwargs: Any) -> Any:
        """Calls an entry point with the default session's state. Same structure of arguments and results as the model.

        Tensors may be torch tensors or numpy arrays; when arrays are passed and no tensor, the results are arrays (also
        when nothing is passed, and the process has not imported torch).
        FORGE-R001 to R006 and R008 before anything runs, FORGE-R007 when an operation fails, FORGE-R010 when memory
        runs out.
        """
        with self._lock:
            if self._default is None:
                self._default = self.session()
        return self.call(self._default, entry, args, kwargs)

    def call(self, session: Session, entry: str | None, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        """Calls an entry point with the session's state."""
        linked = self._find(entry)
        for node in linked.containers:
            if tree.find_class(node) is None:
                raise tree.unknown(node)
        leaves = linked.signature.leaves(args, kwargs)
        if loaded_torch() is not None:
            refuse_traced(leaves)
        library = self.library if self.needs_torch else library_of(leaves, linked.checker.tensor_leaves)
        with_gradients = not self._warned_of_gradients and library.records_gradients()
        with library.mode(self.threads):
            accepted = linked.checker.accept(leaves, library)
            if with_gradients and accepted.requires_grad:
                self._warn_of_gradients(accepted.requires_grad)
            binding = linked.binding(accepted.symbols)
            try:
                linked.checker.check_extents(leaves, accepted, binding)
            except (RuntimeError, MemoryError) as reason:
                raise _unprepared("the arguments", reason) from reason
            if linked.has_state:
                with session._lock:
                    results = self._run_with_state(linked, binding, accepted, session)
            else:
                results = self._run(linked, binding, accepted, {}, Progress())
            for original, copy in accepted.copies:
                library.copy_back(original, copy)
        values = [linked.output_leaf(i, tensor, binding, accepted) for i, tensor in enumerate(results)]
        try:
            return tree.unflatten(linked.entry.out_tree, values)
        except Exception as reason:  # the constructor of a class that the plan names
            raise error("FORGE-A004", f"the result cannot be rebuilt: {reason}") from reason

    def _warn_of_gradients(self, names: Sequence[str]) -> None:
        self._warned_of_gradients = True
        message = f"gradients do not flow through a compiled program, but {', '.join(names)} requires grad"
        remedy = "call it under torch.no_grad(), or train the model that it was compiled from"
        warn([Diagnostic("FORGE-R013", message, help=remedy, severity="warning")])

    def _find(self, entry: str | None) -> LinkedEntry:
        if entry is None:
            return next(iter(self._linked.values()))
        found = self._linked.get(entry)
        if found is None or found.entry.private:
            raise error("FORGE-U005", f"there is no entry '{entry}'", help=f"the entries are {', '.join(self.entries)}")
        return found

    def find(self, name: str) -> Entry:
        """An entry by name, private ones too."""
        return self._linked[name].entry

    def call_private(
        self, name: str, values: Mapping[str, int], tensors: Sequence[Tensor], library: TensorLibrary
    ) -> list[Any]:
        """Runs a private entry: a part of the program, for another entry that is running."""
        linked = self._linked[name]
        symbols = tuple(values[symbol] for symbol in linked.names)
        try:
            lane = self._lanes.pop()
        except IndexError:
            lane = Lane(self.library)
        frame = lane.frame(linked.executable, symbols, linked.binding(symbols), library)
        results = frame.run(tensors, {}, Progress())
        self._lanes.append(lane)
        return results

    def _run_with_state(self, linked: LinkedEntry, binding: Binding, accepted: Accepted, session: Session) -> list[Any]:
        if session._broken:
            message = "an earlier call of this session failed while it was writing state, so the state is undefined"
            raise error(
                "FORGE-R009", message, help="call reset(), of the session or of the model, or open a new session"
            )
        progress = Progress(len(linked.entry.launches))
        session._broken = True
        try:
            states = session._states_in(accepted.library)
            results = self._run(linked, binding, accepted, states, progress, session._generation)
        except BaseException:
            session._broken = progress.position >= linked.first_state_write
            raise
        session._broken = False
        return results

    def _run(
        self,
        linked: LinkedEntry,
        binding: Binding,
        accepted: Accepted,
        states: Mapping[str, Tensor],
        progress: Progress,
        generation: object = None,
    ) -> list[Any]:
        try:
            lane = self._lanes.pop()
        except IndexError:
            lane = Lane(self.library)
        progress.position = -1
        try:
            frame = lane.frame(linked.executable, accepted.symbols, binding, accepted.library)
            results = frame.run(accepted.tensors, states, progress, generation)
        except ForgeError:  # what launches raise
            raise
        except (RuntimeError, MemoryError) as reason:
            if not is_out_of_memory(reason):
                raise error("FORGE-A004", f"the plan cannot be prepared to run: {reason}") from reason
            needed = peak_of(linked.entry, binding, entries=self._all).total_bytes
            raise error("FORGE-R010", f"the call needs {needed} bytes: {reason}") from reason
        self._lanes.append(lane)  # only now: a lane whose call failed is dropped with all that it refers to
        return results

    def peak_bytes(self, entry: str | None = None, **symbols: int) -> Peak:
        """What a call allocates at most at one time, for the given values of the symbols, by name or label.

        FORGE-U005 for an unknown or missing symbol, FORGE-R004 for one out of its range.
        """
        linked = self._find(entry)
        values: list[int] = []
        for name, declared in zip(linked.checker.names, linked.checker.ranges, strict=True):
            value = symbols.pop(name, symbols.pop(declared.label, None))
            if value is None:
                raise error("FORGE-U005", f"a value for the symbol '{declared.label or name}' is needed")
            if not in_range(declared, value):
                raise error("FORGE-R004", f"'{declared.label or name}' is {value}, outside its declared range")
            values.append(value)
        if symbols:
            raise error("FORGE-U005", f"there is no symbol '{next(iter(symbols))}'")
        threads = TEAM.threads() if self.threads is None else self.threads
        return peak_of(linked.entry, linked.binding(tuple(values)), threads, self._all)

    def release_memory(self) -> None:
        """Frees the arenas that no call uses."""
        self._lanes.clear()

    def initial_states(self) -> dict[str, Tensor]:
        """New tensors of the program's library with the initial value of each state."""
        library = self.library
        states: dict[str, Tensor] = {}
        with library.mode(None), _preparing("the states"):
            for name, register in self._states.items():
                spec, device = register.spec, register.device
                make = library.zeros if register.zeros else library.empty
                states[name] = make(spec.dtype, static(spec.shape), static(spec.strides), device)
                if not register.zeros:
                    library.copy_back(states[name], library.weight(self._weights, name, spec, device))
        return states


@contextmanager
def _preparing(what: str) -> Iterator[None]:
    """Errors of torch become FORGE-R010 when memory runs out, else FORGE-A004: then the plan asks for what cannot
    be."""
    try:
        yield
    except (RuntimeError, MemoryError) as reason:
        raise _unprepared(what, reason) from reason


def _unprepared(what: str, reason: Exception) -> ForgeError:
    code = "FORGE-R010" if is_out_of_memory(reason) else "FORGE-A004"
    first = (str(reason).splitlines() or [type(reason).__name__])[0]
    return error(code, f"{what} cannot be prepared: {first}")


def _mapped(kernels: NativeCode | None) -> CodeImage | None:
    """The kernels, ready to be called. Nothing is imported for a program without."""
    if kernels is None or not kernels.table.kernels:
        return None
    from forgec.runtime.code_image import CodeImage

    return CodeImage(kernels)


def _distinct(plan: Plan, kind: type[Stored]) -> dict[str, Stored]:
    """The params or states of all entries by name."""
    return {
        register.name: register for entry in plan.entries for register in entry.registers if isinstance(register, kind)
    }
