"""A call's leaves become tensors: everything about them is checked before anything runs, and all problems are told
together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from forgec.diagnostics import Diagnostic, ForgeError, error
from forgec.runtime import dtypes
from forgec.runtime.binding import Binding, in_range
from forgec.runtime.extents import overlaps_itself, symbol_sources
from forgec.runtime.plan import Arg, Device, DType, Entry, Input, Layout, Literal, MemoryFormat, SymbolDecl
from forgec.runtime.signature import Signature, describe_literal, describe_value, dtype_name
from forgec.runtime.symbolic import SymExpr, evaluate, free_symbols
from forgec.runtime.tensor_bytes import is_torch
from forgec.runtime.tensor_library import Leaf, Row, Tensor, TensorLibrary


@dataclass(slots=True)
class Accepted:
    """The arguments of one call as tensors of a library, one for each tensor leaf in order, and the values of the
    symbols.

    ``copies`` are (caller's tensor or array, compiled-layout copy) of inout arguments: the call writes the copy, then
    it is copied back. ``as_numpy``: the caller passed arrays and no tensor, so the results are arrays as well.
    ``requires_grad`` names the tensors that do.
    """

    library: TensorLibrary
    tensors: list[Tensor]
    originals: list[Any]
    symbols: tuple[int, ...]
    as_numpy: bool
    copies: list[tuple[Any, Tensor]] = field(default_factory=list)
    requires_grad: list[str] = field(default_factory=list)


class InputChecker:
    """The checks of one entry point, prepared once."""

    def __init__(self, entry: Entry, symbols: Sequence[SymbolDecl], signature: Signature) -> None:
        self.entry = entry
        self.signature = signature
        self.sources = symbol_sources(entry)
        self.names = tuple(source.symbol for source in self.sources)
        declared = {symbol.name: symbol for symbol in symbols}
        self.ranges = tuple(declared[name] for name in self.names)
        self.tensor_leaves: list[Leaf] = []
        self.fixed: list[tuple[int, Literal]] = []
        self.extents: list[tuple[int, SymExpr]] = []
        for leaf, described in enumerate(entry.inputs):
            if isinstance(described, Literal):
                self.fixed.append((leaf, described))
            elif isinstance(described, SymExpr):
                self.extents.append((leaf, described))
            else:
                register = entry.registers[described]
                assert isinstance(register, Input)
                self.tensor_leaves.append((leaf, described, register))
        self.writes = [position for position, leaf in enumerate(self.tensor_leaves) if leaf[2].inout]
        self._rows: dict[str, list[Row]] = {}

    def accept(self, leaves: list[Any], library: TensorLibrary) -> Accepted:
        """Converts and checks all but the extents, which ``check_extents`` compares once the binding is known.

        FORGE-R001/R002/R003/R004/R005/R006/R008, all that apply.
        """
        rows = self._rows.get(library.name)
        if rows is None:
            rows = self._rows[library.name] = library.rows(self.tensor_leaves)
        requires_grad: list[str] = []
        found = library.accept(leaves, rows, requires_grad)
        if found is None:
            raise self.explain(leaves)
        tensors, as_numpy = found
        for leaf, literal in self.fixed:
            if not same_literal(leaves[leaf], literal.value):
                raise self.explain(leaves)
        symbols = self._symbols(leaves)
        if symbols is None:
            raise self.explain(leaves)
        originals = [leaves[leaf] for leaf, _, _ in self.tensor_leaves]
        return Accepted(library, tensors, originals, symbols, as_numpy, requires_grad=requires_grad)

    def _symbols(self, leaves: Sequence[Any]) -> tuple[int, ...] | None:
        if not self.sources:
            return ()
        found: list[int] = []
        for source, declared in zip(self.sources, self.ranges, strict=True):
            extent = leaves[source.leaf] if source.axis is None else leaves[source.leaf].shape[source.axis]
            value = source.solve(extent) if type(extent) is int else None
            if value is None or not in_range(declared, value):
                return None
            found.append(value)
        return tuple(found)

    def check_extents(self, leaves: list[Any], accepted: Accepted, binding: Binding) -> None:
        """Compares every extent with the binding's, and copies tensors of another layout into the compiled one."""
        library = accepted.library
        if self.writes:
            self._refuse_shared_inputs(accepted.tensors, library)
        for position, (_, number, register) in enumerate(self.tensor_leaves):
            tensor = accepted.tensors[position]
            shape, strides = binding.shapes[number], binding.strides[number]
            if tensor.shape != shape:
                raise self.explain(leaves)
            if register.offset is not None and (offset := library.storage_offset(tensor)) != register.offset:
                raise other_layout(register.name, f"storage offset {offset}", str(register.offset))
            if not library.lies_as(tensor, shape, strides):
                if register.exact:
                    raise other_layout(register.name, f"strides {list(library.strides(tensor))}", str(list(strides)))
                if overlaps_itself(shape, strides, repeats=False):
                    raise shared_elements(register.name, f"was compiled with strides {list(strides)}")
                accepted.tensors[position] = library.laid_out(tensor, register.spec.dtype, shape, strides)
            if register.inout:
                original = accepted.originals[position]
                if library.is_read_only(original):
                    message = f"{register.name} is written by the call, and the array is read-only"
                    raise error("FORGE-R008", message, help="pass a copy")
                if overlaps_itself(shape, library.strides(tensor), repeats=False):
                    raise shared_elements(register.name, "is written by the call")
                given = accepted.tensors[position]
                if not library.is_over(original, given):
                    accepted.copies.append((original, given))
        for leaf, expression in self.extents:
            if type(leaves[leaf]) is not int or evaluate(expression, binding.values) != leaves[leaf]:
                raise self.explain(leaves)

    def _refuse_shared_inputs(self, tensors: Sequence[Tensor], library: TensorLibrary) -> None:
        """FORGE-R008 where an input that the call writes has elements in common with another: eager PyTorch reads the
        other one after the write as well, the program may have read it before.
        """
        for written in self.writes:
            for other, tensor in enumerate(tensors):
                if other != written and library.share_elements(tensors[written], tensor):
                    names = [self.tensor_leaves[position][2].name for position in (written, other)]
                    message = f"{names[0]} is written by the call, and shares memory with {names[1]}"
                    raise error("FORGE-R008", message, help="pass a copy of one of them")

    def explain(self, leaves: list[Any]) -> ForgeError:
        """Everything that is wrong with these leaves, as one error."""
        return ForgeError(_Explainer(self, leaves).diagnostics())


def shared_elements(name: str, reason: str) -> ForgeError:
    """FORGE-R008 for a tensor such as ``expand`` makes, where values of its own for each element are needed."""
    return error("FORGE-R008", f"{name} {reason}, and several elements of it share memory", help="pass a copy")


def other_layout(name: str, given: str, compiled: str) -> ForgeError:
    """FORGE-R008 where the model's meaning depends on where in memory the elements lie."""
    message = f"{name} has {given}, the artifact was compiled for {compiled}"
    note = "the model reads or writes through this tensor's memory (as_strided, or a write into what reshape returned)"
    return error("FORGE-R008", message, notes=(note,), help="pass a tensor that lies so, for example a contiguous copy")


def on_device(tensor: Any, name: str) -> bool:
    """Whether a torch tensor is on the device of this name."""
    import torch

    return tensor.device == torch.device(name)


def same_literal(value: Any, fixed: Arg) -> bool:
    """Whether a leaf of the call is the fixed value: of the same type and equal, NaN equal to itself."""
    match fixed:
        case DType():
            return str(value).removeprefix("torch.") == dtypes.ELEMENT_TYPES[fixed.name].torch
        case Device() | Layout() | MemoryFormat():
            return str(value).removeprefix("torch.") == fixed.name
    if type(value) is not type(fixed):
        return False
    return value == fixed or (isinstance(value, float) and value != value and fixed != fixed)


class _Explainer:
    """The slow path: looks at every leaf and collects what is wrong."""

    def __init__(self, checker: InputChecker, leaves: list[Any]) -> None:
        self.checker = checker
        self.leaves = leaves
        self.found: list[Diagnostic] = []
        self.values: dict[str, tuple[int, str]] = {}

    def add(self, code: str, message: str, *notes: str, help: str | None = None) -> None:
        self.found.append(Diagnostic(code, message, notes=notes, help=help))

    def diagnostics(self) -> list[Diagnostic]:
        checker, signature = self.checker, self.checker.signature
        good: dict[int, tuple[int, ...]] = {}
        for leaf, _, register in checker.tensor_leaves:
            if self.check_tensor(leaf, register):
                good[leaf] = tuple(self.leaves[leaf].shape)
        for leaf, literal in checker.fixed:
            if not same_literal(self.leaves[leaf], literal.value):
                given = describe_value(self.leaves[leaf])
                expected = describe_literal(literal.value)
                self.add(
                    "FORGE-R006", f"{signature.leaf_names[leaf]} is {given}, the artifact was compiled with {expected}"
                )
        for leaf, _ in checker.extents:
            if type(self.leaves[leaf]) is not int:
                self.add(
                    "FORGE-R001",
                    f"{signature.leaf_names[leaf]} is {describe_value(self.leaves[leaf])}, an int is needed",
                )
        self.find_symbols(good)
        for leaf, _, register in checker.tensor_leaves:
            for axis, extent in enumerate(register.spec.shape if leaf in good else ()):
                self.check_extent(f"extent {axis} of {register.name}", extent, good[leaf][axis])
        for leaf, expression in checker.extents:
            if type(self.leaves[leaf]) is int:
                self.check_extent(signature.leaf_names[leaf], expression, self.leaves[leaf])
        if not self.found:  # what the fast path refused must have a reason here
            self.add("FORGE-X001", "the arguments were refused, but every check of them holds", signature.describe())
        return self.found

    def check_tensor(self, leaf: int, register: Input) -> bool:
        import numpy

        value, name = self.leaves[leaf], register.name
        is_tensor = is_torch(value)
        if is_tensor and value.is_nested:
            self.add("FORGE-R008", f"{name} is a nested tensor, only strided tensors are accepted")
            return False
        if is_tensor and str(value.layout) != "torch.strided":
            self.add("FORGE-R008", f"{name} has layout {value.layout}, only strided tensors are accepted")
            return False
        compiled = self.checker.signature.describe_spec(register.spec)
        given = describe_value(value)
        if not is_tensor and not isinstance(value, (numpy.ndarray, numpy.generic)):
            self.add("FORGE-R001", f"{name} is {given}, the artifact was compiled for a tensor {compiled}")
            return False
        if dtype_name(value) != register.spec.dtype:
            self.add("FORGE-R002", f"{name} is {given}, the artifact was compiled for {compiled}")
        if is_tensor and not on_device(value, register.device):
            self.add("FORGE-R005", f"{name} is on {value.device}, the artifact was compiled for {register.device}")
        if len(value.shape) != len(register.spec.shape):
            self.add("FORGE-R003", f"{name} is {given}, the artifact was compiled for {compiled}")
            return False
        return True

    def find_symbols(self, good: dict[int, tuple[int, ...]]) -> None:
        for source, declared in zip(self.checker.sources, self.checker.ranges, strict=True):
            place = self.checker.entry.inputs[source.leaf]
            if source.axis is None:
                where, extent = self.checker.signature.leaf_names[source.leaf], self.leaves[source.leaf]
            elif source.leaf in good and isinstance(place, int):
                register = self.checker.entry.registers[place]
                assert isinstance(register, Input)
                where, extent = f"extent {source.axis} of {register.name}", good[source.leaf][source.axis]
            else:
                continue
            value = source.solve(extent) if type(extent) is int else None
            if value is None and type(extent) is int and extent < 0 and (source.scale, source.shift) == (1, 0):
                value = extent
            if value is None:
                continue  # reported as a wrong extent
            self.values[source.symbol] = (value, where)
            if in_range(declared, value):
                continue
            label = declared.label or declared.name
            bound = f"[{declared.minimum}, {'any' if declared.maximum is None else declared.maximum}]"
            named = label.isidentifier() and (source.axis is not None or label != where)
            told = "what dynamic_shapes declares and torch.export can trace"
            below = value < declared.minimum
            limit = f"at least {declared.minimum}" if below else f"at most {declared.maximum}"
            if below and value < 2 and source.axis is not None:
                remedy = "compile another artifact for it: torch.export treats extents of 0 and 1 as special"
            elif named and below:
                remedy = f'compile with forgec.Dim("{label}", min={value})'
            elif named:
                remedy = f'compile with forgec.Dim("{label}", max={value}), or split the input'
            else:
                told = "so far the model takes the same way as with the example inputs"
                remedy = f"compile another artifact with an example such as {value}, on the other side of the bound"
            shown = f"{where} is {extent}" + ("" if extent == value else f" ('{label}' is {value})")
            given = label if extent == value else self.describe(source.leaf, source.axis)
            also = "" if extent == value else f", '{label}'"
            which = "" if source.axis is None and given == where else f" '{given}'{also}"
            note = f"{where} is{which} in {bound}: {told}"
            self.add("FORGE-R004", f"{shown}, the artifact accepts {limit}", note, help=remedy)

    def describe(self, leaf: int, axis: int | None) -> str:
        described = self.checker.entry.inputs[leaf]
        if isinstance(described, int) and axis is not None:
            return self.checker.signature.describe_extent(self.checker.entry.registers[described].spec.shape[axis])
        return str(described)

    def check_extent(self, where: str, extent: int | SymExpr, given: int) -> None:
        if isinstance(extent, int):
            if extent != given:
                self.add("FORGE-R003", f"{where} is {given}, the artifact was compiled for {extent}")
            return
        label = self.checker.signature.describe_extent(extent)
        names = free_symbols(extent)
        if not names <= self.values.keys():
            self.add("FORGE-R003", f"{where} is {given}, which is not of the form {label}")
            return
        try:
            expected = evaluate(extent, {name: self.values[name][0] for name in names})
        except ZeroDivisionError:
            expected = -1
        if expected != given:
            labels = self.checker.signature.labels
            known = [(labels.get(name, name), *self.values[name]) for name in sorted(names)]
            notes = tuple(f"{place} makes '{called}' {value}" for called, value, place in known)
            self.add("FORGE-R003", f"{where} is {given}, but '{label}' is {expected}", *notes)
