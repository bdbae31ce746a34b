"""What capture builds with: the values of the exported graph's nodes, types, parameters, and where ops go."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.export import ExportedProgram
from xdsl.builder import Builder
from xdsl.dialects.builtin import AnyTensorType, StringAttr, SymbolRefAttr
from xdsl.ir import Operation, SSAValue

from forgec.capture.aliasing import Handle
from forgec.capture.effects import identity
from forgec.capture.symbols import SymbolTable
from forgec.diagnostics import error
from forgec.ir import types
from forgec.ir.ops.module import ParamOp, ParamRefOp
from forgec.runtime.dtypes import from_torch
from forgec.runtime.plan import Device, DType, Layout, MemoryFormat


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
            ref = ParamRefOp.create(properties={"param": SymbolRefAttr(name)}, result_types=[kind])
            self.builder.insert(ref)
            ref.results[0].name_hint = hint(name)
            self.param_values[name] = ref.results[0]
        return self.param_values[name]

    def type_of(self, value: torch.Tensor) -> AnyTensorType:
        """The type of a (fake) tensor: its dtype, extents and strides."""
        if value.layout is not torch.strided:
            raise error(
                "FORGE-C004", f"a tensor of layout {value.layout} cannot be captured", help="convert it to dense"
            )
        name = from_torch(value.dtype)
        if name is None:
            raise error("FORGE-C004", f"a tensor of dtype {value.dtype} cannot be captured")
        return types.tensor(name, self.symbols.extents(value.shape), self.symbols.extents(value.stride()))

    def argument(self, value: Any) -> Any:
        """An fx argument as the rows see it."""
        if isinstance(value, torch.fx.Node):
            held = self.handles[value]
            if isinstance(held, (torch.SymFloat, torch.SymBool)):
                raise error(
                    "FORGE-C003",
                    f"a number or condition that is known only when the model runs cannot be captured: {held}",
                    help="compute it from extents with integers, or from tensors as a tensor",
                )
            return held.value(self.builder.insert) if isinstance(held, Handle) else held
        if isinstance(value, (list, tuple)):
            return [self.argument(item) for item in value]
        return literal(value)

    def name_results(self, node: Any, results: Sequence[SSAValue]) -> None:
        for result in results:
            if result.name_hint is None and isinstance(result.owner, Operation):
                result.name_hint = hint(node.name)

    def result_types(self, value: Any) -> list[AnyTensorType | None]:
        values = value if isinstance(value, (list, tuple)) else [value]
        return [self.type_of(v) if isinstance(v, torch.Tensor) else None for v in values]

    def insert(self, op: Operation) -> SSAValue:
        self.builder.insert(op)
        return op.results[0]


def literal(value: Any) -> Any:
    """A literal of torch's as a literal of the plan's."""
    if isinstance(value, torch.dtype):
        name = from_torch(value)
        if name is None:
            raise error("FORGE-C004", f"the dtype {value} cannot be captured")
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
