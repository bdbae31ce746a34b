"""Where tensors meet control flow: conditions and numbers out of tensors, loop counters, assertions.

Structured control flow itself is the ``scf`` dialect. A number that the model computes is a tensor of rank 0 (``f64``,
``i64`` or ``i1``, as Python computes it); these ops lead from there to what ``scf`` and the types' extents take.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Any

from xdsl.dialects.builtin import AnyTensorTypeConstr, IndexType, StringAttr, TensorType, i1
from xdsl.ir import Operation
from xdsl.irdl import IRDLOperation, base, eq, irdl_op_definition, operand_def, prop_def, result_def, traits_def
from xdsl.traits import EffectInstance, MemoryEffect, MemoryEffectKind, MemoryWriteEffect, Pure
from xdsl.utils.exceptions import VerifyException

from forgec.diagnostics import error
from forgec.ir import types
from forgec.ir.attributes import ExtentAttr, SymType
from forgec.ir.ops.format import Bare
from forgec.runtime.symbolic import Extent

if TYPE_CHECKING:
    from forgec.ir.evaluator import Evaluator


class ControlOp(IRDLOperation):
    """Base of the ops that are no functions on tensors alone."""

    custom_directives = (Bare,)

    @abstractmethod
    def reference(self, ev: Evaluator, *inputs: Any) -> Any:
        """The op's meaning: its result (None where it has none)."""


class _DefinesSymbol(MemoryEffect):
    """An op that says what a symbol is may not be merged, moved or removed: types elsewhere speak of the symbol."""

    @classmethod
    def get_effects(cls, op: Operation) -> frozenset[EffectInstance]:
        if any(isinstance(result.type, SymType) for result in op.results):
            return frozenset({EffectInstance(MemoryEffectKind.WRITE)})
        return frozenset()


@irdl_op_definition
class ItemOp(ControlOp):
    """The element of a tensor of rank 0: a condition (``i1``), or an integer that is the value of an extent from here
    on (``!forge.sym<u0>``); it must lie in the symbol's range.
    """

    name = "forge.item"

    input = operand_def(AnyTensorTypeConstr)
    result = result_def(eq(i1) | base(SymType))

    traits = traits_def(_DefinesSymbol())

    assembly_format = "$input attr-dict `:` functional-type(operands, results)"

    def verify_(self) -> None:
        expected = "i1" if self.result.type == i1 else "i64"
        if (types.dtype(self.input), types.rank(self.input)) != (expected, 0):
            raise VerifyException(f"forge.item to {self.result.type} takes a tensor<{expected}>")

    @property
    def symbol(self) -> str | None:
        """The symbol that the result defines, if it does."""
        return self.result.type.data if isinstance(self.result.type, SymType) else None

    def reference(self, ev: Evaluator, *inputs: Any) -> Any:
        return inputs[0].item()


@irdl_op_definition
class ExtentOp(ControlOp):
    """An extent as a value: of type ``index`` for the bounds of loops, or a tensor of rank 0 (``i64``)."""

    name = "forge.extent"

    value = prop_def(ExtentAttr)
    result = result_def(base(IndexType) | AnyTensorTypeConstr)

    traits = traits_def(Pure())

    assembly_format = "custom<Bare>($value) attr-dict `:` type($result)"

    def verify_(self) -> None:
        if isinstance(self.result.type, TensorType) and self.result.type != types.tensor("i64", ()):
            raise VerifyException("an extent as a tensor has type tensor<i64>")

    def flops(self) -> Extent:
        return 0

    def bytes_moved(self) -> Extent:
        return 0

    def reference(self, ev: Evaluator, *inputs: Any) -> Any:
        value = ev.extent(self.value.data)
        return value if isinstance(self.result.type, IndexType) else ev.torch.tensor(value, dtype=ev.torch.int64)


@irdl_op_definition
class FromIndexOp(ControlOp):
    """A loop's counter as a tensor of rank 0."""

    name = "forge.from_index"

    input = operand_def(IndexType)
    result = result_def(AnyTensorTypeConstr)

    traits = traits_def(Pure())

    assembly_format = "$input attr-dict `:` functional-type(operands, results)"

    def verify_(self) -> None:
        if self.result.type != types.tensor("i64", ()):
            raise VerifyException("a loop's counter as a tensor has type tensor<i64>")

    def reference(self, ev: Evaluator, *inputs: Any) -> Any:
        return ev.torch.tensor(inputs[0], dtype=ev.torch.int64)


@irdl_op_definition
class AssertOp(ControlOp):
    """Stops the program with the model's message unless the condition, a tensor of one element, is true."""

    name = "forge.assert"

    condition = operand_def(AnyTensorTypeConstr)
    message = prop_def(StringAttr)

    traits = traits_def(MemoryWriteEffect())

    assembly_format = "$condition `,` $message attr-dict `:` type($condition)"

    def verify_(self) -> None:
        if types.numel(self.condition) != 1:
            raise VerifyException("a condition is a tensor of one element")

    def reference(self, ev: Evaluator, *inputs: Any) -> Any:
        if not inputs[0].item():
            raise error("FORGE-R011", f"an assertion of the model failed: {self.message.data}")
