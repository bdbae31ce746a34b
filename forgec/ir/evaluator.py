"""What the ops' reference implementations may ask for while they run: torch, dtypes, extents, parameters, ATen."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from operator import attrgetter
from typing import Any

from xdsl.dialects.builtin import DenseIntOrFPElementsAttr
from xdsl.ir import Attribute, SSAValue

from forgec.diagnostics import error
from forgec.ir import types
from forgec.ir.literals import to_tensor
from forgec.ir.text import CallArguments
from forgec.runtime.aten import BUILT_IN
from forgec.runtime.dtypes import torch_dtype
from forgec.runtime.plan import Arg, Device, DType, Layout, MemoryFormat, Reg
from forgec.runtime.symbolic import Extent, SymExpr, evaluate

_WIDE: dict[str, str] = {**dict.fromkeys(types.FLOATS, "f64"), **dict.fromkeys(types.COMPLEX, "c128")}


@dataclass
class Evaluator:
    """The environment of reference implementations, on the CPU.

    ``symbols`` are the values of dynamic extents, ``params`` the weights by name. With ``float64`` every floating-point
    tensor is float64 and every complex one complex128, whatever its type says.
    """

    symbols: Mapping[str, int] = field(default_factory=dict)
    params: Mapping[str, Any] = field(default_factory=dict)
    float64: bool = False

    @cached_property
    def torch(self) -> Any:
        """The torch module."""
        import torch

        return torch

    def function(self, path: str) -> Callable[..., Any]:
        """A function of torch by its dotted name (``nn.functional.silu``)."""
        return attrgetter(path)(self.torch)

    def dtype(self, of: SSAValue | Attribute | str) -> Any:
        """The torch dtype that a value, a tensor type or a short name (``"f32"``) stands for here."""
        name = of if isinstance(of, str) else types.dtype(of)
        return torch_dtype(_WIDE.get(name, name) if self.float64 else name)

    def shape(self, of: SSAValue | Attribute) -> tuple[int, ...]:
        """The extents of a value or tensor type, as numbers."""
        return tuple(self.extent(extent) for extent in types.shape(of))

    def extent(self, extent: Extent) -> int:
        """The value of an extent; FORGE-R003 if one of its symbols has none."""
        try:
            return evaluate(extent, self.symbols)
        except KeyError as missing:
            raise error("FORGE-R003", f"no input says what the extent {missing.args[0]} is") from None

    def widen(self, tensor: Any) -> Any:
        """The tensor in the dtype that computation uses here."""
        if self.float64 and tensor.is_complex():
            return tensor.to(self.torch.complex128)
        return tensor.to(self.torch.float64) if self.float64 and tensor.is_floating_point() else tensor

    def param(self, name: str) -> Any:
        """A weight by name; FORGE-R001 if there is none."""
        if name not in self.params:
            raise error("FORGE-R001", f"there is no parameter {name}")
        return self.widen(self.params[name].detach())

    def literal(self, attribute: DenseIntOrFPElementsAttr) -> Any:
        """A literal as a tensor."""
        return self.widen(to_tensor(attribute))

    def call_aten(
        self, callee: str, arguments: CallArguments, inputs: Sequence[Any], outputs: Sequence[SSAValue]
    ) -> tuple[Any, ...]:
        """Call an ATen operator: ``"aten::topk"`` or, with its overload, ``"aten::add.Tensor"``.

        Operand references stand for ``inputs``, symbolic extents for their values; devices become the CPU. The results
        are as many tensors as ``outputs``, in the dtypes of their types.
        """
        tensors = self.call(callee, arguments, inputs)
        if len(tensors) != len(outputs):
            raise error("FORGE-X001", f"{callee} yields {len(tensors)} tensors, the IR says {len(outputs)}")
        return tuple(t.to(self.dtype(value)) for t, value in zip(tensors, outputs, strict=True))

    def call(self, callee: str, arguments: CallArguments, inputs: Sequence[Any]) -> list[Any]:
        """Call an ATen operator for its effects and results: the tensors that it returns."""
        positional, named = arguments
        function = self._operator(callee)
        kinds = {argument.name: str(argument.type) for argument in function._schema.arguments}
        typed = zip(positional, kinds.values(), strict=False)
        args = [self._plain(self._argument(arg, inputs), kind) for arg, kind in typed]
        kwargs = {name: self._plain(self._argument(arg, inputs), kinds[name]) for name, arg in named}
        results = function(*args, **kwargs)
        kinds = {bool: self.torch.bool, int: self.torch.int64, float: self.torch.float64}
        kinds = {} if function.namespace in BUILT_IN else kinds
        found = [self.torch.tensor(r, dtype=kinds[type(r)]) if type(r) in kinds else r for r in _flatten(results)]
        return [r for r in found if isinstance(r, self.torch.Tensor)]

    def _plain(self, value: Any, kind: str) -> Any:
        """A tensor of rank 0 as a number, where the operator takes a number."""
        return value.item() if "Tensor" not in kind and isinstance(value, self.torch.Tensor) else value

    def _operator(self, callee: str) -> Any:
        namespace, _, name = callee.partition("::")
        name, _, overload = name.partition(".")
        try:
            return getattr(getattr(getattr(self.torch.ops, namespace), name), overload or "default")
        except AttributeError:
            raise error("FORGE-I003", f"torch {self.torch.__version__} has no operator {callee}") from None

    def _argument(self, arg: Arg, inputs: Sequence[Any]) -> Any:
        match arg:
            case Reg():
                return inputs[arg.id]
            case SymExpr():
                return self.extent(arg)
            case tuple():
                return [self._argument(item, inputs) for item in arg]
            case DType():
                return self.dtype(arg.name)
            case Device():
                return self.torch.device("cpu")
            case Layout() | MemoryFormat():
                return getattr(self.torch, arg.name)
        return arg


def _flatten(results: Any) -> list[Any]:
    if isinstance(results, (list, tuple)):
        return [item for result in results for item in _flatten(result)]
    return [results]
