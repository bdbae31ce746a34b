"""What capture builds with: the values of the exported graph's nodes, types, parameters, and where ops go."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.export import ExportedProgram
from xdsl.builder import Builder
from xdsl.dialects.builtin import AnyTensorType, LocationAttr, StringAttr, SymbolRefAttr, UnknownLoc
from xdsl.ir import Attribute, Block, Operation, SSAValue
from xdsl.rewriter import InsertPoint

from forgec.capture.checks import Check
from forgec.capture.effects import identity, leaves
from forgec.capture.symbols import SymbolTable
from forgec.diagnostics import Diagnostic
from forgec.ir import types, unsupported
from forgec.ir.ops.module import ParamOp, ParamRefOp
from forgec.runtime.dtypes import from_torch
from forgec.runtime.plan import Device, DType, Layout, MemoryFormat

_NUMBERS: dict[type, str] = {torch.SymInt: "i64", torch.SymFloat: "f64", torch.SymBool: "i1"}
_NUMBERS.update({int: "i64", float: "f64", bool: "i1"})


class Blocked(Exception):
    """What is converted depends on something that cannot be captured, which is reported already."""


@dataclass
class Values:
    """The state of a capture: what each node of the exported graph has become, and the op that is inserted next."""

    program: ExportedProgram
    symbols: SymbolTable
    builder: Builder
    params: dict[str, torch.Tensor] = field(default_factory=dict)
    handles: dict[Any, Any] = field(default_factory=dict)
    """fx node → Handle, a list of Handles, an extent or a literal."""
    header: list[Operation] = field(default_factory=list)
    """Ops of the module that stand before its function: parameters."""
    by_tensor: dict[Any, str] = field(default_factory=dict)
    param_values: dict[str, SSAValue] = field(default_factory=dict)
    numbers: dict[Any, SSAValue] = field(default_factory=dict)
    """Node → the number that it computes, where an op has computed it already."""
    taken: dict[Any, SSAValue] = field(default_factory=dict)
    """Node that takes a number out of a tensor → the tensor as it was then."""
    checks: list[Check] = field(default_factory=list)
    """What the model demands of numbers, in its own words."""
    asserted: list[Check] = field(default_factory=list)
    """Those of which assertions have been made."""
    failures: list[Diagnostic] = field(default_factory=list)
    """What cannot be captured."""
    rebinds: dict[Any, Any] = field(default_factory=dict)
    """Handles that ``set_`` and its like have made → the node of the input or buffer that they are about."""
    rebound: dict[Any, Any] = field(default_factory=dict)
    """The handle of an input or a buffer that got other memory → the handle of that."""
    blocked: set[Any] = field(default_factory=set)
    """Nodes that have no handles, because they or what they depend on cannot be captured."""
    location: LocationAttr = field(default_factory=UnknownLoc)
    """The place of what is converted now."""
    outermost: Builder | None = None
    """Where ops go that stand outside of all regions, while a region is built."""

    @contextmanager
    def inside(self, block: Block) -> Iterator[None]:
        """Insert into a region's block; what gets a value in there has it in there only."""
        before = self.builder, self.numbers, self.symbols.known, self.outermost
        self.outermost = self.outermost or self.builder
        self.builder = Builder(InsertPoint.at_end(block))
        self.numbers, self.symbols.known = dict(self.numbers), set(self.symbols.known)
        try:
            yield
        finally:
            self.builder, self.numbers, self.symbols.known, self.outermost = before

    def free_name(self, name: str) -> str:
        """``name``, or one made of it that no parameter or state has yet."""
        return name if name not in self.params else self.free_name(f"{name}_")

    def param(self, name: str, tensor: torch.Tensor) -> SSAValue:
        """The value of a weight; tensors that are the same memory are one parameter."""
        tensor = tensor.detach()
        known = self.by_tensor.get(identity(tensor))
        name = self.free_name(name) if known is None else known
        self.by_tensor[identity(tensor)] = name
        if name not in self.param_values:
            kind = self.type_of(tensor)
            self.params[name] = tensor
            self.header.append(ParamOp.create(properties={"sym_name": StringAttr(name), "type": kind}))
            ref = ParamRefOp.create(properties={"param": SymbolRefAttr(name), **_seen_in(tensor)}, result_types=[kind])
            (self.outermost or self.builder).insert(ref)
            ref.results[0].name_hint = hint(name)
            self.param_values[name] = ref.results[0]
        return self.param_values[name]

    def type_of(self, value: torch.Tensor) -> AnyTensorType:
        """The type of a (fake) tensor: its dtype, extents and strides."""
        if value.layout is not torch.strided:
            raise unsupported.of_layout(value.layout).error(f"a tensor of layout {value.layout}", "FORGE-C004")
        name = from_torch(value.dtype)
        if name is None:
            raise unsupported.of_dtype(value.dtype).error(f"a tensor of dtype {value.dtype}", "FORGE-C004")
        return types.tensor(name, self.symbols.extents(value.shape), self.symbols.strides(value.stride()))

    def name_results(self, node: Any, results: Sequence[SSAValue]) -> None:
        for result in results:
            if result.name_hint is None and isinstance(result.owner, Operation):
                result.name_hint = hint(node.name)

    def result_types(self, value: Any) -> list[AnyTensorType | None]:
        return [self._result_type(v) for v in leaves(value)]

    def _result_type(self, value: Any) -> AnyTensorType | None:
        if isinstance(value, torch.Tensor):
            return self.type_of(value)
        name = _NUMBERS.get(type(value))
        return None if name is None else types.tensor(name, ())

    def insert(self, op: Operation) -> SSAValue:
        self.builder.insert(op)
        return op.results[0]


_TRIANGLES = (torch.bool, torch.uint8, torch.int64, torch.float16, torch.bfloat16, torch.float32)


def _seen_in(tensor: torch.Tensor) -> dict[str, Attribute]:
    """What is worth knowing about a constant's data: that it is a causal mask."""
    square = tensor.ndim >= 2 and tensor.shape[-1] == tensor.shape[-2] > 1 and tensor.shape[-1] ** 2 == tensor.numel()
    if not square or tensor.requires_grad or tensor.dtype not in _TRIANGLES or tensor.device.type != "cpu":
        return {}
    matrix = tensor.reshape(tensor.shape[-2:])
    lower, upper = float(matrix[1, 0]), float(matrix[0, 1])
    name = {(1.0, 0.0): "tril", (0.0, 1.0): "triu", (0.0, -float("inf")): "-inf triu"}.get((lower, upper))
    if name is None or float(matrix[0, 0]) != lower:
        return {}
    above = torch.full_like(matrix, upper).triu(1)
    return {"holds": StringAttr(name)} if torch.equal(matrix, above + torch.full_like(matrix, lower).tril()) else {}


def literal(value: Any) -> Any:
    """A literal of torch's as a literal of the plan's."""
    if isinstance(value, torch.dtype):
        name = from_torch(value)
        if name is None:
            raise unsupported.of_dtype(value).error(f"the dtype {value}", "FORGE-C004")
        return DType(name)
    if isinstance(value, torch.device):
        return Device(str(value))
    if isinstance(value, torch.layout):
        return Layout(str(value).removeprefix("torch."))
    if isinstance(value, torch.memory_format):
        return MemoryFormat(str(value).removeprefix("torch."))
    return value


def hint(name: str) -> str:
    """A name as the printer takes it: letters, digits and underscores, not beginning with a digit."""
    text = re.sub(r"[^A-Za-z0-9_]", "_", name)
    return f"_{text}" if text[:1].isdigit() or not text else text
