"""ATen operations by name: looked up and checked against torch's schemas when a program is loaded, never while it
runs."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any

from forgec.diagnostics import error
from forgec.runtime import dtypes
from forgec.runtime.control import is_control
from forgec.runtime.kernels import is_kernel
from forgec.runtime.plan import (
    Arg,
    Device,
    DType,
    Entry,
    Input,
    Launch,
    Layout,
    MemoryFormat,
    Param,
    Plan,
    Reg,
    View,
)
from forgec.runtime.plan_check import registers_in
from forgec.runtime.plan_decode import Malformed
from forgec.runtime.symbolic import SymExpr

REFUSED = frozenset(
    {"from_file", "set_", "set_data", "data", "resize_", "resize_as_", "resize_as_sparse_", "_resize_output_", "resize"}
    | {"requires_grad_", "retain_grad", "_backward", "record_stream", "pin_memory", "_pin_memory", "rename_", "swap"}
)
"""ATen operations that no plan needs: they touch files, replace a tensor's storage or change what autograd records."""

MOST_NAMED = 20
"""Operations that an error names one by one."""

_TENSOR, _TENSORS = "Tensor", "Tensors"
_NUMBERS = frozenset({"number", "int", "float", "bool", "SymInt", "SymFloat", "SymBool"})
_RETURNED = {"int": "i64", "SymInt": "i64", "float": "f64", "SymFloat": "f64", "bool": "i1", "SymBool": "i1"}
"""Numbers that a user's operation may return, which a launch takes as tensors of rank 0."""
BUILT_IN = ("aten", "prims", "prim")
"""Namespaces of torch's own operations."""
_ENUMERATIONS = {"ScalarType": DType, "Device": Device, "Layout": Layout, "MemoryFormat": MemoryFormat}
_SHAPES_OF_TYPES = {
    "Tensor": _TENSOR,
    "Optional[Tensor]": _TENSOR,
    "List[Tensor]": _TENSORS,
    "List[Optional[Tensor]]": _TENSORS,
    "Optional[List[Tensor]]": _TENSORS,
}


@dataclass(frozen=True, slots=True)
class SchemaArgument:
    """``tensors`` is "Tensor", "Tensors" for a list of them, or "" for what is no tensor."""

    name: str
    tensors: str
    optional: bool
    keyword_only: bool
    has_default: bool
    written: bool
    enumeration: type | None = None
    """What an argument has to be whose type is one of torch's enumerations: torch takes any number for those."""
    number: bool = False
    """A number, which a launch may give as a tensor of rank 0."""


@dataclass(frozen=True, slots=True)
class Operation:
    """``call`` is the C function. ``returns_list``: it returns as many tensors as it likes; ``returns`` counts the
    results else.

    ``may_alias``: the schema or the kind of kernel allows a result that shares memory with an argument.
    """

    name: str
    call: Callable[..., Any]
    arguments: tuple[SchemaArgument, ...]
    returns: int
    returns_list: bool
    may_alias: bool

    def numbers(self, launch: Launch) -> list[int | str]:
        """Positions and names of the arguments that the launch gives as tensors and that are numbers here."""
        if not self.arguments:  # a launch that is no ATen operation, too
            return []
        positional = [argument for argument in self.arguments if not argument.keyword_only]
        named = {argument.name: argument for argument in self.arguments}
        given = [*zip(range(len(launch.args)), positional, launch.args, strict=False)]
        given += [(name, named[name], value) for name, value in launch.kwargs]
        return [key for key, argument, value in given if argument.number and isinstance(value, Reg)]


COPY = Operation(
    name="aten::copy_",
    call=lambda *_: None,
    arguments=(
        SchemaArgument("self", _TENSOR, False, False, False, written=True),
        SchemaArgument("src", _TENSOR, False, False, False, written=False),
    ),
    returns=1,
    returns_list=False,
    may_alias=False,
)
"""What ``is_copy`` tells; frames call ``TensorLibrary.copy``."""


def is_copy(launch: Launch, entry: Entry) -> bool:
    """Whether the launch copies elements as they are, and nobody takes its result: what needs no torch."""
    args = [value for value in launch.args if isinstance(value, Reg)]
    if launch.op != COPY.name or launch.kwargs or len(launch.args) != 2 or len(args) != 2:
        return False
    target, source = (entry.registers[reg.id].spec.dtype for reg in args)
    return target == source and all(result is None for result in launch.results)


def is_of_torch(launch: Launch, entry: Entry) -> bool:
    """Whether torch runs the launch: it is neither a kernel nor something of the runtime's own."""
    return not (is_kernel(launch.op) or is_control(launch.op) or is_copy(launch, entry))


def called_of_torch(plan: Plan) -> tuple[str, ...]:
    """The operations of torch that the plan calls: all that are neither kernels nor the runtime's own, each once."""
    return tuple(
        sorted({launch.op for entry in plan.entries for launch in entry.launches if is_of_torch(launch, entry)})
    )


def require_torch(called: tuple[str, ...], devices: tuple[str, ...], torch_version: str) -> None:
    """Imports torch. FORGE-A006, which names the operations or devices that need it, when that fails."""
    try:
        import torch  # noqa: F401
    except ImportError as reason:
        needed = f"torch {torch_version} or newer" if torch_version else "torch"
        what = f"the plan calls {len(called)} ATen operations" if called else f"the plan needs {', '.join(devices)}"
        message = f"{what} and torch cannot be imported: {reason}"
        notes = tuple(f"it calls {name}" for name in called[:MOST_NAMED])
        if len(called) > MOST_NAMED:
            notes += (f"and {len(called) - MOST_NAMED} more",)
        raise error("FORGE-A006", message, notes=notes, help=f"install {needed}") from None


def require_devices(names: Iterable[str]) -> None:
    """FORGE-A006 unless this torch can make tensors that have memory on each of these devices."""
    import torch

    for name in names:
        try:
            usable = name != "meta" and torch.empty(1, device=name) is not None
            reason = "its tensors have no memory"
        except Exception as refusal:  # torch's backends raise what they like
            usable, reason = False, (str(refusal).splitlines() or [type(refusal).__name__])[0]
        if not usable:
            raise error("FORGE-A006", f"the plan needs device '{name}', which this torch cannot use", notes=(reason,))


@lru_cache(maxsize=4096)
def resolve(name: str) -> Operation | str:
    """The operation ``namespace::name.overload``, or the reason why a plan cannot call it."""
    if is_kernel(name):  # what it calls is in the image of the program
        return Operation(name, call=lambda: None, arguments=(), returns=0, returns_list=True, may_alias=False)
    if is_control(name):
        return Operation(name, call=lambda *args: args, arguments=(), returns=0, returns_list=True, may_alias=True)
    import torch

    namespace, _, rest = name.partition("::")
    base, _, overload = rest.partition(".")
    if namespace == "aten" and base in REFUSED:
        return "this operation is not allowed in a plan"
    # The namespace object has methods (load_library, import_module) beside its namespaces: only the latter are looked
    # at.
    if hasattr(type(torch.ops), namespace):
        return "there is no such namespace"
    try:
        found = getattr(getattr(getattr(torch.ops, namespace), base), overload or "default")
    except (AttributeError, RuntimeError):
        return f"torch {torch.__version__} has no such operation"
    # TorchScript's own builtins (aten::save writes files) have schemas but no kernel at the dispatcher.
    if not isinstance(found, torch._ops.OpOverload) or not torch._C._dispatch_has_kernel(
        found._schema.name + _dot(overload)
    ):
        return f"torch {torch.__version__} has no kernel for it"
    schema: Any = found._schema
    kinds = [str(result.real_type) for result in schema.returns]
    numbers = _RETURNED if namespace not in BUILT_IN and _RETURNED.keys() & {*kinds} else {}
    shapes = [_TENSOR if kind in numbers else _SHAPES_OF_TYPES.get(kind) for kind in kinds]
    if None in shapes:
        return "it returns something else than tensors"
    qualified = schema.name + _dot(overload)
    call = _as_tensors(found._op, [numbers.get(kind) for kind in kinds]) if numbers else found._op
    composite = torch._C._dispatch_has_kernel_for_dispatch_key(qualified, "CompositeImplicitAutograd")
    return Operation(
        name=name,
        call=_flat(call) if _TENSORS in shapes and len(shapes) > 1 else call,
        arguments=tuple(_argument(argument) for argument in schema.arguments),
        returns=len(shapes),
        returns_list=_TENSORS in shapes,
        may_alias=composite or any(result.alias_info is not None for result in schema.returns),
    )


def _flat(call: Callable[..., Any]) -> Callable[..., Any]:
    """An operation that returns a list among other results as one that returns all tensors in order."""

    def flat(*args: Any, **kwargs: Any) -> list[Any]:
        results = call(*args, **kwargs)
        return [tensor for r in results for tensor in (r if isinstance(r, (list, tuple)) else (r,))]

    return flat


def _as_tensors(call: Callable[..., Any], kinds: list[str | None]) -> Callable[..., Any]:
    """An operation that returns numbers, by kind where there is one, as one that returns tensors of rank 0."""
    import torch

    def tensors(*args: Any, **kwargs: Any) -> Any:
        results = call(*args, **kwargs)
        several = results if len(kinds) > 1 else [results]
        found = [
            torch.tensor(value, dtype=dtypes.torch_dtype(kind)) if kind else value
            for value, kind in zip(several, kinds, strict=True)
        ]
        return found if len(kinds) > 1 else found[0]

    return tensors


def _dot(overload: str) -> str:
    return f".{overload}" if overload and overload != "default" else ""


def _argument(argument: Any) -> SchemaArgument:
    kind = str(argument.real_type)
    written = argument.alias_info is not None and argument.alias_info.is_write
    return SchemaArgument(
        name=argument.name,
        tensors=_SHAPES_OF_TYPES.get(kind, ""),
        optional="Optional[" in kind,
        keyword_only=argument.kwarg_only,
        has_default=argument.has_default_value(),
        written=written,
        enumeration=_ENUMERATIONS.get(kind.removeprefix("Optional[").removesuffix("]")),
        number=kind.removeprefix("Optional[").removesuffix("]") in _NUMBERS,
    )


def check_launch(operation: Operation, launch: Launch, entry: Entry) -> None:
    """``Malformed`` unless the arguments fit the schema and everything that the operation writes is declared as
    written."""
    if is_control(operation.name) or is_kernel(operation.name):
        return  # plan_check knows its rules
    accepted = operation.arguments
    positional = [argument for argument in accepted if not argument.keyword_only]
    if len(launch.args) > len(positional):
        raise Malformed(f"{operation.name} takes {len(positional)} positional arguments, not {len(launch.args)}")
    given: dict[str, Arg] = {argument.name: value for argument, value in zip(positional, launch.args, strict=False)}
    for name, value in launch.kwargs:
        if name in given:
            raise Malformed(f"{operation.name} gets argument '{name}' twice")
        given[name] = value
    for argument in accepted:
        if argument.name in given:
            _check_argument(operation, launch, entry, argument, given.pop(argument.name))
        elif not argument.has_default:
            raise Malformed(f"{operation.name} needs argument '{argument.name}'")
    if given:
        raise Malformed(f"{operation.name} has no argument '{next(iter(given))}'")
    if not operation.returns_list and len(launch.results) > operation.returns:
        raise Malformed(f"{operation.name} returns {operation.returns} tensors, not {len(launch.results)}")


def _check_argument(operation: Operation, launch: Launch, entry: Entry, argument: SchemaArgument, value: Arg) -> None:
    where = f"argument '{argument.name}' of {operation.name}"
    if argument.tensors == _TENSOR:
        # torch wraps a number in a tensor
        number = isinstance(value, (bool, int, float, complex, SymExpr)) and not argument.written
        if not (isinstance(value, Reg) or number or (value is None and argument.optional)):
            raise Malformed(f"{where} is a tensor")
    elif argument.tensors == _TENSORS:
        items = value if isinstance(value, tuple) else ()
        if not (isinstance(value, tuple) or (value is None and argument.optional)):
            raise Malformed(f"{where} is a list of tensors")
        if not all(isinstance(item, Reg) or (item is None and argument.optional) for item in items):
            raise Malformed(f"{where} is a list of tensors")
    elif isinstance(value, Reg) and argument.number:
        if entry.registers[value.id].spec.shape:
            raise Malformed(f"{where} is a number")
    elif any(True for _ in registers_in(value)):
        raise Malformed(f"{where} is not a tensor")
    elif (enumeration := argument.enumeration) and not isinstance(value, (enumeration, type(None))):
        raise Malformed(f"{where} is a {enumeration.__name__}")
    if not argument.written:
        return
    for number in registers_in(value):
        register = entry.registers[number]
        root = entry.registers[register.base] if isinstance(register, View) else register
        read_only = isinstance(root, Param) or (isinstance(root, Input) and not root.inout)
        if number not in launch.writes or read_only:
            raise Malformed(f"{where} is written, but register {number} is not declared so")


@cache
def _devices(name: str) -> Any:
    import torch

    return torch.device(name)


def to_torch(value: Arg) -> Any:
    """A fixed argument as torch takes it; tuples become lists. Registers and expressions are the caller's to
    replace. Imports torch only for what is torch's own."""
    match value:
        case DType():
            return dtypes.torch_dtype(value.name)
        case Device():
            return _devices(value.name)
        case Layout() | MemoryFormat():
            import torch

            found = getattr(torch, value.name, None)
            expected = torch.layout if isinstance(value, Layout) else torch.memory_format
            if not isinstance(found, expected):
                raise Malformed(
                    f"torch has no {'layout' if isinstance(value, Layout) else 'memory format'} '{value.name}'"
                )
            return found
        case tuple():
            return [to_torch(item) for item in value]
        case Reg() | SymExpr():
            raise AssertionError("registers and expressions are replaced before")
    return value


def link(entry: Entry, torch_version: str) -> tuple[Operation, ...]:
    """The operation of each launch. FORGE-A006 names all that this torch lacks, FORGE-A004 the first that a plan
    misuses."""
    operations: list[Operation] = []
    missing: dict[str, str] = {}
    for number, launch in enumerate(entry.launches):
        operation = COPY if is_copy(launch, entry) else resolve(launch.op)
        if isinstance(operation, str):
            missing[launch.op] = operation
            continue
        try:
            check_launch(operation, launch, entry)
            for value in (*launch.args, *(value for _, value in launch.kwargs)):
                _check_fixed(value)
        except Malformed as reason:
            raise reason.inside(f"entry '{entry.name}'.launches[{number}]").as_error() from None
        operations.append(operation)
    if missing:
        notes = tuple(f"{name}: {reason}" for name, reason in missing.items())
        foreign = sorted({name.partition("::")[0] for name in missing} - {"aten", "prims"})
        if foreign:
            help = f"import the library that registers {', '.join(f'{name}::…' for name in foreign)}, then load again"
        else:
            help = f"install torch {torch_version} or newer" if torch_version else None
        raise error("FORGE-A006", f"{len(missing)} operations of the plan cannot be called", notes=notes, help=help)
    return tuple(operations)


def _check_fixed(value: Arg) -> None:
    if isinstance(value, tuple):
        for item in value:
            _check_fixed(item)
    elif isinstance(value, (DType, Device, Layout, MemoryFormat)):
        try:
            to_torch(value)
        except RuntimeError as reason:
            raise Malformed(f"device '{value.name}': {str(reason).splitlines()[0]}") from None
