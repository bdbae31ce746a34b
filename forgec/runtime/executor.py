"""Runs an entry point: prebuilt argument lists over an arena, so that a launch is one C call.

A *lane* is the memory of one call in flight: an arena for each device, and the frames built over it. A *frame* is an
entry point, bound to symbol values, with every launch's arguments in place. Tensors that change from call to call
(inputs, states, outputs, externals, and views of these) are patched into the argument lists; all others (buffers,
params, and views of these) are built once.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from forgec.diagnostics import ForgeError, Location, error
from forgec.runtime import dtypes
from forgec.runtime.aten import COPY
from forgec.runtime.binding import Binding, in_range, invalid
from forgec.runtime.collector import paused_collector
from forgec.runtime.control import callable_of, is_control, updated_positions
from forgec.runtime.executable import After, Executable
from forgec.runtime.kernel_launch import Addresses, Slots, programs_of, symbol_values
from forgec.runtime.kernels import is_kernel, kernel_name, parameters_of
from forgec.runtime.launch_arguments import Slot, slots_of, taking_numbers
from forgec.runtime.native_copy import copy_of
from forgec.runtime.plan import Arg, Buffer, EntryRef, Input, Launch, Number, Param, Reg, Register, State, View
from forgec.runtime.segment import KernelLaunch, Segment
from forgec.runtime.symbolic import SymExpr, evaluate
from forgec.runtime.tensor_library import Tensor, TensorLibrary

if TYPE_CHECKING:
    from forgec.runtime.code_image import LoadedDriver

FRAMES_PER_LANE = 16
"""Frames that a lane keeps, one per entry and call signature, or as many as have few registers in all."""
FEW_REGISTERS = 20_000
"""A frame costs about 1 kB for each register of its entry."""

Step: TypeAlias = "tuple[Callable[..., Any], list[Any], dict[str, Any], tuple[After, list[Slot]] | None]"
"""A launch, or a row of kernels: what to call with which arguments; what follows it, and where its tensor arguments
are, if they matter."""


@dataclass(slots=True)
class Arena:
    """Bytes on one device, and where they begin."""

    memory: Tensor
    nbytes: int
    address: int


class Lane:
    """The memory of one call in flight, made by the program's library. Never used by two threads at once."""

    def __init__(self, library: TensorLibrary) -> None:
        self.library = library
        self.arenas: dict[str, Arena] = {}
        self.frames: OrderedDict[tuple[str, tuple[int, ...], str], Frame] = OrderedDict()
        self.registers = 0

    def frame(
        self, executable: Executable, symbols: tuple[int, ...], binding: Binding, library: TensorLibrary
    ) -> Frame:
        """The frame for the entry, the symbols' values and the library of the call, built when it is not there yet."""
        key = (executable.entry.name, symbols, library.name)
        frame = self.frames.get(key)
        if frame is None:
            for device, nbytes in binding.arena_bytes.items():
                self._reserve(device, nbytes)
            with paused_collector():
                frame = Frame(executable, binding, self.arenas, library)
            self.frames[key] = frame
            self.registers += len(frame.entry.registers)
            while len(self.frames) > FRAMES_PER_LANE and self.registers > FEW_REGISTERS:
                _, oldest = self.frames.popitem(last=False)
                self.registers -= len(oldest.entry.registers)
        else:
            self.frames.move_to_end(key)
        return frame

    def _reserve(self, device: str, nbytes: int) -> None:
        """An arena of at least so many bytes. It grows in place, so that the tensors of older frames keep pointing into
        it; where it cannot, frames that have such tensors are forgotten. Old and new never exist together.
        """
        arena = self.arenas.get(device)
        if arena is not None and arena.nbytes >= nbytes:
            return
        if arena is not None and not self.library.grow(arena.memory, nbytes):
            del self.arenas[device], arena.memory
            for key in [key for key, frame in self.frames.items() if frame.points_into_arena]:
                self.registers -= len(self.frames.pop(key).entry.registers)
            arena = None
        memory = self.library.arena(nbytes, device) if arena is None else arena.memory
        self.arenas[device] = Arena(memory, nbytes, self.library.address(memory))


class Frame:
    """One entry point, bound and ready to run. ``run`` may be called again and again, by one thread at a time."""

    def __init__(
        self, executable: Executable, binding: Binding, arenas: Mapping[str, Arena], library: TensorLibrary
    ) -> None:
        self.executable = executable
        self.library = library
        self.binding = binding
        self.values = binding.values
        self.entry = executable.entry
        self.arenas = arenas
        self.slots: dict[int, list[Slot]] = {}
        self.fixed: dict[int, Tensor] = {}
        self.points_into_arena = False
        self.addresses = Addresses(library.address)
        self.results: list[Any] = [None] * len(self.entry.outputs)
        self.trusted = False
        self.segments: dict[int, Segment] = {}
        self.steps = [self._build_step(*row) for row in executable.rows]
        addressed = {number for number, _ in executable.states if self._is_only_addressed(number)}
        self.addressed = [row for row in executable.states if row[0] in addressed]
        self.assigned = [row for row in executable.states if row[0] not in addressed]
        self.released = [number for number in executable.transient if number not in addressed]
        self.generation: object = None
        """Whose states the slots of kernels have the addresses of."""

    # Building

    def _build_step(self, position: int, end: int) -> Step:
        launch, after = self.entry.launches[position], self.executable.after[end - 1]
        if self.executable.native[position]:
            driver = self.executable.driver
            assert driver is not None, "check_launches has looked"
            launches = [
                self._kernel_launch(number) if is_kernel(self.entry.launches[number].op) else self._copy(number, driver)
                for number in range(position, end)
            ]
            segment = self.segments[position] = Segment(driver, launches, self.executable.threads)
            return segment.run, [], {}, (after, []) if after else None
        args: list[Any] = [None] * len(launch.args)
        for index, value in enumerate(launch.args):
            self._place(args, index, value)
        kwargs: dict[str, Any] = {}
        for name, value in launch.kwargs:
            kwargs[name] = None
            self._place(kwargs, name, value)
        call = self._callable(position)
        if not after:
            return call, args, kwargs, None
        arguments = slots_of(args, kwargs, launch) if after.may_alias and after.takes else []
        return call, args, kwargs, (after, arguments)

    def _kernel_launch(self, position: int) -> KernelLaunch:
        """A launch of machine code over all programs of the grid, with the addresses of its tensors in slots."""
        launch = self.entry.launches[position]
        loaded = self.executable.kernels[kernel_name(launch.op)]
        count = parameters_of(launch)
        slots = Slots(count, symbol_values(launch.args[count:], self.binding.values))
        for index, value in enumerate(launch.args[:count]):
            assert isinstance(value, Reg)
            self._place_address(slots, index, value.id)
        programs = programs_of(launch, self.binding.values)
        return KernelLaunch(loaded.kernel, loaded.address, slots, programs, position, self._place_of(launch))

    def _copy(self, position: int, driver: LoadedDriver) -> KernelLaunch:
        """A launch that copies, among those of kernels. FORGE-A004 when the shapes do not fit."""
        launch, binding = self.entry.launches[position], self.binding
        target, source = (value.id for value in launch.args if isinstance(value, Reg))
        layouts = [(binding.shapes[number], binding.strides[number]) for number in (target, source)]
        try:
            copy = copy_of(dtypes.itemsize(self.entry.registers[target].spec.dtype), layouts[0], layouts[1])
        except ValueError as reason:
            raise invalid(binding.values, str(reason)) from None
        slots = Slots(2, copy.numbers)
        self._place_address(slots, 0, target)
        self._place_address(slots, 1, source)
        return KernelLaunch(copy.kernel, driver.copy, slots, copy.programs, position, self._place_of(launch))

    def _is_only_addressed(self, number: int) -> bool:
        """Whether a transient register is used by machine code alone."""
        shown = (number, *self.executable.views.get(number, ()))
        return number in self.addresses.moving and not any(
            each in self.slots or each in self.executable.leaves for each in shown
        )

    def _place_address(self, slots: Slots, index: int, number: int) -> None:
        """Puts the address of a tensor's first element into a slot, or notes where it will have to be put."""
        root, register = self.executable.roots[number], self.entry.registers[number]
        base = self.entry.registers[root]
        offset = self.binding.offsets[number] * dtypes.itemsize(register.spec.dtype) if root != number else 0
        if isinstance(base, Buffer):
            self.addresses.in_arena.append((slots.values, index, self.binding.offsets[root] + offset))
        elif isinstance(base, Param):
            slots.keep(index, *self.executable.param_address(root), offset)
        else:
            self.addresses.moving.setdefault(root, []).append((slots.values, index, offset))

    def _callable(self, position: int) -> Callable[..., Any]:
        launch = self.entry.launches[position]
        calls = self.executable.calls
        if is_control(launch.op) and calls is not None:
            return callable_of(
                launch,
                lambda name: updated_positions(calls.find(name)),
                lambda name, tensors: calls.call_private(name, self.values, tensors, self.library),
                self._place_of(launch),
                self.library,
            )
        operation, numbers = self.executable.operations[position], self.executable.numbers[position]
        if operation is COPY:
            return self.library.copy
        call = operation.call
        return taking_numbers(call, numbers) if numbers else call

    def _place(self, container: Any, key: Any, value: Arg) -> None:
        """Puts an argument where the launch finds it, or notes where it will have to be put."""
        if isinstance(value, Reg):
            if self.executable.is_transient(value.id):
                self.slots.setdefault(value.id, []).append((container, key))
            else:
                container[key] = self.tensor(value.id)
        elif isinstance(value, SymExpr):
            container[key] = evaluate(value, self.binding.values)
        elif isinstance(value, EntryRef):
            container[key] = value
        elif isinstance(value, tuple):
            items: list[Any] = [None] * len(value)
            for index, item in enumerate(value):
                self._place(items, index, item)
            container[key] = items
        else:
            container[key] = self.library.constant(value)

    def tensor(self, number: int) -> Tensor:
        """The tensor of a register that stays the same from call to call."""
        known = self.fixed.get(number)
        if known is not None:
            return known
        register = self.entry.registers[number]
        if isinstance(register, View):
            base = self.entry.registers[register.base]
            if isinstance(base, Buffer):
                offset = self.binding.offsets[register.base]
                built = self._in_arena(number, register, offset)
            else:
                built = self.view_of(self.tensor(register.base), number)
        elif isinstance(register, Param):
            built = self.library.adopt(self.executable.params[number])
        else:
            built = self._in_arena(number, register, 0)
        self.fixed[number] = built
        return built

    def _in_arena(self, number: int, register: Register, base_bytes: int) -> Tensor:
        offset, dtype = self.binding.offsets[number], register.spec.dtype
        if isinstance(register, View):
            offset = base_bytes + offset * dtypes.itemsize(dtype)
        self.points_into_arena = True
        arena = self.library.adopt(self.arenas[register.device].memory)
        return self.library.over(arena, dtype, self.binding.shapes[number], self.binding.strides[number], offset)

    def view_of(self, base: Tensor, number: int) -> Tensor:
        """The view register ``number`` of its base's tensor."""
        dtype, offset = self.entry.registers[number].spec.dtype, self.binding.offsets[number]
        return self.library.view(base, dtype, self.binding.shapes[number], self.binding.strides[number], offset)

    # Running

    def run(
        self, inputs: Sequence[Tensor], states: Mapping[str, Tensor], progress: Progress, generation: object = None
    ) -> list[Any]:
        """One call. Returns a tensor for each register among the entry's outputs, None for its other leaves.

        Calls with the same ``generation`` have the same states. The caller has switched off autograd. FORGE-R007 when
        an operation fails; then the frame must not be used again.
        """
        executable = self.executable
        self.values = self.binding.values
        if self.addresses.in_arena:
            self.addresses.follow(self.arenas["cpu"].address)
        for number, tensor in zip(executable.inputs, inputs, strict=True):
            self.assign(number, self._accepted(number, tensor) if self.entry.private else tensor)
        if generation is not self.generation:
            for number, name in self.addressed:
                self.addresses.point(number, states[name])
            self.generation = generation
        for number, name in self.assigned:
            self.assign(number, states[name])
        for number in executable.allocated_first:
            self.allocate(number)
        self._launch_all(progress)
        results = [self._result(leaf, number) for leaf, number in enumerate(self.entry.outputs)]
        for number in self.released:
            self.release(number)
        self.results = [None] * len(self.results)
        return results

    def _launch_all(self, progress: Progress) -> None:
        if not self.trusted:
            self._launch_checked(progress)
            self.trusted = True
            return
        step: Step | None = None
        try:
            for step in self.steps:
                call, args, kwargs, after = step
                result = call(*args, **kwargs)
                if after is not None:
                    self.follow(*after, result)
        except BaseException as reason:
            number = next((i for i, known in enumerate(self.steps) if known is step), 0)
            progress.position = self._position(number)
            raise self._failed(progress.position, reason) from reason

    def _launch_checked(self, progress: Progress) -> None:
        """The first run: also verifies that operations leave the shape and place of what they write as the plan has
        it."""
        for number, (call, args, kwargs, after) in enumerate(self.steps):
            progress.position = self.executable.rows[number][0]
            written = self._written(number)
            before = [*map(self._layout_of, written)]
            try:
                result = call(*args, **kwargs)
                if [*map(self._layout_of, written)] != before:
                    raise RuntimeError("the operation changed the shape of a tensor that it writes")
                if after is not None:
                    self.follow(*after, result)
            except BaseException as reason:
                progress.position = self._position(number)
                raise self._failed(progress.position, reason) from reason

    def _layout_of(self, tensor: Tensor) -> Any:
        return tensor.shape, self.library.strides(tensor), self.library.address(tensor)

    def _position(self, number: int) -> int:
        """The launch at which a step stopped."""
        position = self.executable.rows[number][0]
        return self.segments[position].failed if position in self.segments else position

    def _written(self, number: int) -> list[Tensor]:
        launch = self.entry.launches[self.executable.rows[number][0]]
        if self.executable.native[self.executable.rows[number][0]]:  # gets addresses, and cannot change a shape
            return []
        _, args, kwargs, _ = self.steps[number]
        written = {Reg(number) for number in launch.writes}
        slots = slots_of(args, kwargs, launch, written)
        return [container[key] for container, key in slots]

    def follow(self, after: After, arguments: list[Slot], result: Any) -> None:
        """What happens between a launch and the next one."""
        for position, name in after.defines:
            self.define(name, int(result[position]))
        for position, number in after.takes:
            self.assign(number, self._taken(number, result if position is None else result[position], arguments))
        for number in after.drops:
            self.release(number)
        for number in after.allocates:
            self.allocate(number)

    def _taken(self, number: int, tensor: Any, arguments: list[Slot]) -> Tensor:
        """The result of a launch as the plan describes it: in the compiled layout, sharing memory with nothing."""
        library = self.library
        shape, strides = self.binding.shapes[number], self.binding.strides[number]
        dtype = self.entry.registers[number].spec.dtype
        if number in self.binding.open:
            shape, strides = self._found(number, tensor)
        if number in self.addresses.moving:
            tensor = library.plain(tensor)
        if tensor.shape != shape or not library.is_of(tensor, dtype):
            expected = f"{dtype}{list(shape)}"
            raise RuntimeError(
                f"the operation returned {tensor.dtype}{list(tensor.shape)}, the plan expects {expected}"
            )
        if not library.lies_as(tensor, shape, strides):
            return library.laid_out(tensor, dtype, shape, strides)
        for container, key in arguments:
            if library.may_share(container[key], tensor):
                return library.clone(tensor)
        return tensor

    def _found(self, number: int, tensor: Tensor) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """The shape and strides that an external has for the extents that its tensor tells."""
        spec = self.entry.registers[number].spec
        if len(tensor.shape) == len(spec.shape):
            for extent, size in zip(spec.shape, tensor.shape, strict=True):
                if isinstance(extent, SymExpr) and str(extent).isidentifier() and str(extent) not in self.values:
                    self.define(str(extent), size)
        try:
            shape = tuple(evaluate(extent, self.values) for extent in spec.shape)
            return shape, tuple(evaluate(stride, self.values) for stride in spec.strides)
        except KeyError as missing:
            raise RuntimeError(f"nothing tells what the extent {missing.args[0]} is") from None

    def define(self, name: str, value: int) -> None:
        """From here on in this call, a symbol has a value. FORGE-R004 when that is outside the declared range."""
        declared = self.executable.symbols.get(name)
        if declared is not None and not in_range(declared, value):
            high = "…)" if declared.maximum is None else f"{declared.maximum}]"
            label = declared.label or name
            raise error("FORGE-R004", f"'{label}' is {value}, outside its range [{declared.minimum}, {high}")
        self.values = {**self.values, name: value}

    def _accepted(self, number: int, tensor: Tensor) -> Tensor:
        """An argument of a private entry, in the layout that the entry was compiled for."""
        register = self.entry.registers[number]
        shape, strides = self.binding.shapes[number], self.binding.strides[number]
        if tensor.shape != shape or not self.library.is_of(tensor, register.spec.dtype):
            raise RuntimeError(
                f"the entry got {tensor.dtype}{list(tensor.shape)} for {register.spec.dtype}{list(shape)}"
            )
        if self.library.lies_as(tensor, shape, strides):
            return tensor
        if isinstance(register, Input) and register.inout:
            raise RuntimeError("a tensor that the entry writes has other strides")
        return self.library.laid_out(tensor, register.spec.dtype, shape, strides)

    def assign(self, number: int, tensor: Tensor) -> None:
        """Puts a tensor, and the views of it, where launches and results expect them."""
        for container, key in self.slots.get(number, ()):
            container[key] = tensor
        if number in self.addresses.moving:
            self.addresses.take(number, tensor)
        for leaf in self.executable.leaves.get(number, ()):
            self.results[leaf] = tensor
        for view in self.executable.views.get(number, ()):
            self.assign(view, self.view_of(tensor, view))

    def release(self, number: int) -> None:
        """Forgets a tensor and the views of it, so that its memory is freed with its last reference."""
        for container, key in self.slots.get(number, ()):
            container[key] = None
        self.addresses.held.pop(number, None)
        for view in self.executable.views.get(number, ()):
            self.release(view)

    def allocate(self, number: int) -> None:
        register, binding = self.entry.registers[number], self.binding
        shape, strides = binding.shapes[number], binding.strides[number]
        self.assign(number, self.library.empty(register.spec.dtype, shape, strides, register.device))

    def _result(self, leaf: int, number: Any) -> Any:
        if isinstance(number, SymExpr):
            return evaluate(number, self.values)
        if isinstance(number, Number):
            held = self.results[leaf]
            return (self.tensor(number.id) if held is None else held).item()
        if not isinstance(number, int):
            return None
        register = self.entry.registers[number]
        root = self.entry.registers[register.base] if isinstance(register, View) else register
        if isinstance(root, Param):
            return self.library.clone(self.tensor(number))
        return self.library.clone(self.results[leaf]) if isinstance(root, State) else self.results[leaf]

    def _place_of(self, launch: Launch) -> Location | None:
        return self.executable.locations[launch.location] if launch.location >= 0 else None

    def _failed(self, position: int, reason: BaseException) -> BaseException:
        if not isinstance(reason, Exception):
            return reason
        launch = self.entry.launches[position]
        if isinstance(reason, ForgeError):
            return reason.at(self._place_of(launch))
        text = str(reason)
        message = text.splitlines()[0] if text.strip() else type(reason).__name__
        place = self._place_of(launch)
        notes = [f"launch {position} of entry '{self.entry.name}'"]
        if launch.source:
            notes.append(f"it comes from {launch.source}")
        code = "FORGE-R010" if is_out_of_memory(reason) else "FORGE-R007"
        return error(code, f"{launch.op} failed: {message}", location=place, notes=tuple(notes))


@dataclass(slots=True)
class Progress:
    """How far a call came: the number of the launch that failed."""

    position: int = -1


def is_out_of_memory(reason: BaseException) -> bool:
    return isinstance(reason, MemoryError) or "allocate memory" in str(reason) or "out of memory" in str(reason)
