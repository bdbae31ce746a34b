"""Which operators work, at which stage: the matrix that ``forgec ops`` and docs/coverage.md show.

Nothing here is kept by hand: what capture says in forge is read off its rows, what can be interpreted and lowered off
the ops and the backend's table, and what is refused off ``forgec.ir.unsupported``, whose reasons capture's diagnostics
use as well.
"""

from __future__ import annotations

import importlib
import pkgutil
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from inspect import getsource
from types import CodeType, FunctionType, ModuleType
from typing import Any, Literal

from xdsl.dialects import scf
from xdsl.ir import Operation
from xdsl.traits import SymbolOpInterface

import forgec.capture
import forgec.passes
from forgec.backends.aten.schema import out_variant
from forgec.backends.base import Backend
from forgec.capture import control_flow, operators
from forgec.capture.call import ROWS, Call, Row, schema_of
from forgec.capture.effects import functional_form
from forgec.ir import interpreter, unsupported
from forgec.ir.forge import FORGE
from forgec.ir.ops import creation, shape
from forgec.ir.ops.aten import AtenOp
from forgec.ir.ops.module import ConstraintOp, YieldOp
from forgec.ir.ops.unary import CastOp
from forgec.ir.unsupported import Unsupported
from forgec.passes import lower_to_plan

Cell = str | Unsupported
"""How a stage does it, or why it does not. Empty text would say that nobody knows; a test refuses it."""
Kind = Literal["forge", "control", "row", "fallback", "write", "number", "refused"]
"""What an entry is: an op of the dialect, an operator on functions, or an ATen overload that has a row, becomes
``forge.aten``, is turned into its functional form, yields a number, or is refused."""


@dataclass(frozen=True)
class Entry:
    """One line of the matrix. ``capture`` of an op names the ATen operators that reach it, that of an overload the ops
    that it becomes."""

    name: str
    kind: Kind
    capture: Cell
    reference: Cell
    backend: Cell

    def to_dict(self) -> dict[str, Any]:
        """JSON-compatible data; a refusal is ``{"unsupported": reason}``."""
        cells = {"capture": self.capture, "reference": self.reference, "backend": self.backend}
        shown = {k: {"unsupported": v.reason} if isinstance(v, Unsupported) else v for k, v in cells.items()}
        return {"name": self.name, "kind": self.kind, **shown}


def forge_entries(backend: Backend) -> list[Entry]:
    """Every op of the dialect, by name."""
    return [
        Entry(cls.name, "forge", _captured(cls), _interpreted(cls), _lowered(cls, backend)) for cls in FORGE.operations
    ]


def aten_entries(backend: Backend) -> list[Entry]:
    """Every ATen overload that torch has, by name."""
    return [_aten_entry(overload, backend) for overload in _overloads()]


def control_entries() -> list[Entry]:
    """Torch's operators on functions (``torch.cond``), by name: those that are captured, and what else is loaded."""
    import torch

    found = []
    for name in sorted({*torch._ops._higher_order_ops, *control_flow.CONVERTERS}):
        shown, converter = f"higher_order::{name}", control_flow.CONVERTERS.get(name)
        if converter is None:
            found.append(Entry(shown, "refused", *[unsupported.ON_FUNCTIONS] * 3))
        else:
            ops = sorted(_structured(converter))
            found.append(
                Entry(shown, "control", ", ".join(ops) or "the ops of its body, in place", "yes", "in every plan")
            )
    return found


def _structured(converter: Any) -> set[str]:
    """The ops with regions that a converter of capture makes, itself or in a function that it calls."""
    names = set(_names(converter.__code__))
    found = {op.name for key, op in vars(scf).items() if key in names and key in _REGIONS}
    inner = (vars(control_flow).get(name) for name in names)
    return found.union(*(_structured(f) for f in inner if isinstance(f, FunctionType) and f.__name__ == "_loop"))


_REGIONS = ("IfOp", "WhileOp", "ForOp")


# Ops of the dialect
# --------------------------------------------------------------------------------------------------------------------


@cache
def _classes() -> dict[str, type[Operation]]:
    return {cls.__name__: cls for cls in FORGE.operations}


@cache
def ops_of(row: Row) -> frozenset[type[Operation]]:
    """The ops that a row can emit: those that its code names, or that of a function of capture that it
    calls, or of a class there that it uses."""
    found: set[type[Operation]] = set()
    seen: set[Any] = set()
    _collect(row, found, seen)
    return frozenset(found)


def _collect(value: Any, found: set[type[Operation]], seen: set[Any]) -> None:
    if isinstance(value, type) and value.__name__ in _classes():
        found.add(_classes()[value.__name__])
    elif isinstance(value, type) and value not in seen and value.__module__.startswith("forgec.capture.aten"):
        seen.add(value)
        for method in vars(value).values():
            _collect(method, found, seen)
    elif isinstance(value, FunctionType) and value not in seen and value.__module__.startswith("forgec.capture"):
        seen.add(value)
        for cell in value.__closure__ or ():
            _collect(cell.cell_contents, found, seen)
        for name in _names(value.__code__):
            _collect(_classes().get(name), found, seen)
            _collect(value.__globals__.get(name, getattr(Call, name, None)), found, seen)


def _names(code: CodeType) -> Iterator[str]:
    """Names of globals and attributes that a code object mentions, nested functions included."""
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names(constant)


@cache
def reaching() -> dict[type[Operation], list[str]]:
    """For each op, the ATen overloads whose rows can emit it; not those where it only prepares an operand."""
    found: dict[type[Operation], list[str]] = {}
    for name, row in sorted(ROWS.items()):
        classes = ops_of(row)
        for cls in classes - _steps() or classes:
            found.setdefault(cls, []).append(name)
    return found


@cache
def _steps() -> frozenset[type[Operation]]:
    """Ops that only prepare operands: those that make, rearrange or convert values."""
    modules = (creation.__name__, shape.__name__)
    return frozenset(op for op in FORGE.operations if op is CastOp or op.__module__ in modules)


def _captured(cls: type[Operation]) -> Cell:
    if cls is AtenOp:
        return "every other operator of ATen, and those of others"
    if cls in reaching():
        names = (name.removeprefix("aten::").partition(".")[0] for name in reaching()[cls])
        return ", ".join(dict.fromkeys(names))
    if cls in _mentioned(_modules(forgec.capture)):
        return "the graph itself"
    made = [module.__name__.rpartition(".")[2] for module in _modules(forgec.passes) if _makes(module, cls)]
    if made:
        return ", ".join(f"pass {name.replace('_', '-')}" for name in made)
    return unsupported.FORGE_OPS.get(cls.name, "")


def _modules(package: ModuleType) -> list[ModuleType]:
    found = pkgutil.walk_packages(package.__path__, f"{package.__name__}.")
    return [importlib.import_module(info.name) for info in found]


def _mentioned(modules: Iterable[ModuleType]) -> set[Any]:
    """The classes among the names of modules."""
    return {value for module in modules for value in vars(module).values() if isinstance(value, type)}


def _makes(module: ModuleType, cls: type[Operation]) -> bool:
    pattern = rf"\b{cls.__name__}\.(create|make|of)\(|\(\s*{cls.__name__},"
    return vars(module).get(cls.__name__) is cls and re.search(pattern, getsource(module)) is not None


def _interpreted(cls: type[Operation]) -> Cell:
    if cls in (ConstraintOp, YieldOp) or cls.has_trait(SymbolOpInterface):
        return "declaration"
    if cls is AtenOp:
        return "torch"
    return "yes" if hasattr(cls, "reference") or cls in _mentioned([interpreter]) else ""


def _lowered(cls: type[Operation], backend: Backend) -> Cell:
    if cls in (ConstraintOp, YieldOp) or cls.has_trait(SymbolOpInterface):
        return "declaration"
    if cls in backend.lowerings:
        return "lowering"
    if hasattr(cls, "decompose"):
        return "decomposed"
    return "in every plan" if cls in _mentioned(_plan_making()) else ""


def _plan_making() -> list[ModuleType]:
    """The pass that makes plans, and those that it uses."""
    owners = {getattr(value, "__module__", getattr(value, "__name__", "")) for value in vars(lower_to_plan).values()}
    names = {name for name in owners if isinstance(name, str) and name.startswith("forgec.passes.")}
    names |= {value.__name__ for value in vars(lower_to_plan).values() if isinstance(value, ModuleType)}
    found = [importlib.import_module(name) for name in sorted(names) if name.startswith("forgec.passes.")]
    return [lower_to_plan, *found]


# ATen
# --------------------------------------------------------------------------------------------------------------------


def _overloads() -> list[Any]:
    """The overloads that torch registers in its dispatcher."""
    import torch

    found = []
    for name in sorted(torch._C._dispatch_get_all_op_names()):
        if name.startswith("aten::"):
            packet, _, overload = name.removeprefix("aten::").partition(".")
            operator = getattr(getattr(torch.ops.aten, packet, None), overload or "default", None)
            if operator is not None:
                found.append(operator)
    return found


def _aten_entry(overload: Any, backend: Backend) -> Entry:
    name = overload.name()
    if name in operators.IGNORED:
        return Entry(name, "row", "nothing: types say it", "nothing", "nothing")
    if name in ROWS:
        classes = sorted(ops_of(ROWS[name]), key=lambda cls: cls.name)
        lowered = [cell for cls in classes if isinstance(cell := _lowered(cls, backend), Unsupported) or not cell]
        return Entry(name, "row", ", ".join(cls.name for cls in classes), "yes", lowered[0] if lowered else "lowering")
    refused = unsupported.of_operator(overload)
    if refused is not None:
        return Entry(name, "refused", refused, refused, refused)
    if unsupported.yields_number(overload._schema):
        return Entry(name, "number", "a number of the program", "yes", "in every plan")
    if schema_of(overload).writes:
        return _writing_entry(overload, backend)
    return Entry(name, "fallback", AtenOp.name, "torch", _call(name))


def _writing_entry(overload: Any, backend: Backend) -> Entry:
    """An operator that writes its arguments: as its functional form, and the result written back."""
    name, functional = overload.name(), functional_form(overload)[0]
    if functional is None or len(schema_of(overload).writes) != 1:
        return Entry(name, "write", f"{AtenOp.name}, then written back", "torch", _call(name))
    inner = _aten_entry(functional, backend)
    if isinstance(inner.capture, Unsupported):
        return Entry(name, "refused", inner.capture, inner.reference, inner.backend)
    return Entry(name, "write", f"as {functional.name()}", inner.reference, inner.backend)


def _call(name: str) -> str:
    """How a ``forge.aten`` runs: into memory of the plan, or into memory of its own."""
    variant = out_variant(name)
    return "call" if variant is None else f"call of {variant.name.removeprefix('aten::')}"
