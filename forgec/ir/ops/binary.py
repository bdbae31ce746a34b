"""Pointwise ops of two operands, with torch's broadcasting and type promotion.

A Python number may stand in place of the second operand (``forge.mul %x, 0.125``). It promotes as torch promotes Python
numbers: it changes the category (int to float), never the width.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Self

from xdsl.dialects.builtin import AnyTensorTypeConstr
from xdsl.ir import Attribute, SSAValue
from xdsl.irdl import irdl_op_definition, operand_def, opt_operand_def, opt_prop_def, result_def
from xdsl.parser import Parser
from xdsl.printer import Printer
from xdsl.utils.exceptions import VerifyException

from forgec.ir import types
from forgec.ir.attributes import ScalarAttr
from forgec.ir.ops.base import ElementwiseOp, TensorSpec
from forgec.ir.text import format_scalar, parse_optional_scalar

if TYPE_CHECKING:
    from forgec.ir.evaluator import Evaluator


class BinaryOp(ElementwiseOp):
    """``result[i] = f(lhs[i], rhs[i])`` with broadcasting; ``rhs`` is a tensor or the Python number ``scalar``."""

    TORCH: ClassVar[str]
    TO_FLOAT: ClassVar[bool] = False
    TO_BOOL: ClassVar[bool] = False
    COMMUTATIVE: ClassVar[bool] = False
    TAKES_NUMBERS: ClassVar[bool] = True  # whether the torch function does; the op always does

    lhs = operand_def(AnyTensorTypeConstr)
    rhs = opt_operand_def(AnyTensorTypeConstr)
    scalar = opt_prop_def(ScalarAttr)
    result = result_def(AnyTensorTypeConstr)

    def infer(self) -> Sequence[TensorSpec]:
        if (self.rhs is None) == (self.scalar is None):
            raise VerifyException(f"{self.name} takes a second tensor or a number, not both")
        scalars = [] if self.scalar is None else [self.scalar.value]
        name = types.result_dtype(self.operands, scalars)
        if self.TO_BOOL:
            name = "i1"
        elif self.TO_FLOAT and name not in (*types.FLOATS, *types.COMPLEX):
            name = "f32"
        return [(name, types.broadcast(*(types.shape(v) for v in self.operands)))]

    def reference(self, ev: Evaluator, *inputs: Any) -> Any:
        lhs, other = inputs[0], inputs[1] if self.scalar is None else self.scalar.value
        target = ev.dtype(self.result)
        if target.is_floating_point and not any(tensor.is_floating_point() for tensor in inputs):
            lhs = lhs.to(
                target
            )  # integers divided (or with a float) become the default float, which float64 mode widens
        if self.scalar is not None and not self.TAKES_NUMBERS:
            other = ev.torch.tensor(other, dtype=None if self.TO_BOOL else target)
        return ev.function(self.TORCH)(lhs, other)

    def print(self, printer: Printer) -> None:
        printer.print_string(" ")
        printer.print_ssa_value(self.lhs)
        printer.print_string(", ")
        if self.rhs is not None:
            printer.print_ssa_value(self.rhs)
        elif self.scalar is not None:
            printer.print_string(self.scalar.data)
        printer.print_op_attributes(self.attributes)
        printer.print_string(" : ")
        printer.print_function_type(self.operand_types, self.result_types)

    @classmethod
    def parse(cls, parser: Parser) -> Self:
        operands = [parser.parse_unresolved_operand()]
        parser.parse_punctuation(",")
        properties: dict[str, Attribute] = {}
        other = parser.parse_optional_unresolved_operand()
        if other is not None:
            operands.append(other)
        else:
            value = parse_optional_scalar(parser)
            if value is None:
                parser.raise_error("expected an operand or a number")
            properties["scalar"] = ScalarAttr(format_scalar(value))
        attributes = parser.parse_optional_attr_dict()
        position = parser.pos
        parser.parse_punctuation(":")
        signature = parser.parse_function_type()
        values = parser.resolve_operands(operands, signature.inputs.data, position)
        return cls.create(
            operands=values, properties=properties, attributes=attributes, result_types=signature.outputs.data
        )

    @classmethod
    def of(cls, lhs: SSAValue, rhs: SSAValue | bool | int | float, **kwargs: Any) -> Self:
        """Build the op from two values, or a value and a Python number."""
        if isinstance(rhs, SSAValue):
            return cls.make([lhs, rhs], **kwargs)
        return cls.make([lhs], {"scalar": ScalarAttr.of(rhs)}, **kwargs)


@irdl_op_definition
class AddOp(BinaryOp):
    """``lhs + rhs`` (booleans: or)."""

    name = "forge.add"
    TORCH: ClassVar = "add"
    COMMUTATIVE: ClassVar = True


@irdl_op_definition
class SubOp(BinaryOp):
    """``lhs - rhs``."""

    name = "forge.sub"
    TORCH: ClassVar = "sub"


@irdl_op_definition
class RsubOp(BinaryOp):
    """``rhs - lhs``."""

    name = "forge.rsub"
    TORCH: ClassVar = "rsub"


@irdl_op_definition
class MulOp(BinaryOp):
    """``lhs * rhs`` (booleans: and)."""

    name = "forge.mul"
    TORCH: ClassVar = "mul"
    COMMUTATIVE: ClassVar = True


@irdl_op_definition
class DivOp(BinaryOp):
    """``lhs / rhs``, in floating point."""

    name = "forge.div"
    TORCH: ClassVar = "div"
    TO_FLOAT: ClassVar = True


@irdl_op_definition
class FloorDivOp(BinaryOp):
    """``floor(lhs / rhs)``."""

    name = "forge.floor_div"
    TORCH: ClassVar = "floor_divide"


@irdl_op_definition
class RemainderOp(BinaryOp):
    """``lhs - rhs * floor(lhs / rhs)``: the sign of ``rhs``."""

    name = "forge.remainder"
    TORCH: ClassVar = "remainder"


@irdl_op_definition
class FmodOp(BinaryOp):
    """``lhs - trunc(lhs / rhs) * rhs``: the remainder with the sign of ``lhs``."""

    name = "forge.fmod"
    TORCH: ClassVar = "fmod"


@irdl_op_definition
class PowOp(BinaryOp):
    """``lhs`` to the power ``rhs``."""

    name = "forge.pow"
    TORCH: ClassVar = "pow"


@irdl_op_definition
class MaximumOp(BinaryOp):
    """the greater; NaN if either is."""

    name = "forge.maximum"
    TORCH: ClassVar = "maximum"
    TAKES_NUMBERS: ClassVar = False
    COMMUTATIVE: ClassVar = True


@irdl_op_definition
class MinimumOp(BinaryOp):
    """the lesser; NaN if either is."""

    name = "forge.minimum"
    TORCH: ClassVar = "minimum"
    TAKES_NUMBERS: ClassVar = False
    COMMUTATIVE: ClassVar = True


@irdl_op_definition
class EqOp(BinaryOp):
    """``lhs == rhs``."""

    name = "forge.eq"
    TORCH: ClassVar = "eq"
    TO_BOOL: ClassVar = True
    COMMUTATIVE: ClassVar = True


@irdl_op_definition
class NeOp(BinaryOp):
    """``lhs != rhs``."""

    name = "forge.ne"
    TORCH: ClassVar = "ne"
    TO_BOOL: ClassVar = True
    COMMUTATIVE: ClassVar = True


@irdl_op_definition
class LtOp(BinaryOp):
    """``lhs < rhs``."""

    name = "forge.lt"
    TORCH: ClassVar = "lt"
    TO_BOOL: ClassVar = True


@irdl_op_definition
class LeOp(BinaryOp):
    """``lhs <= rhs``."""

    name = "forge.le"
    TORCH: ClassVar = "le"
    TO_BOOL: ClassVar = True


@irdl_op_definition
class GtOp(BinaryOp):
    """``lhs > rhs``."""

    name = "forge.gt"
    TORCH: ClassVar = "gt"
    TO_BOOL: ClassVar = True


@irdl_op_definition
class GeOp(BinaryOp):
    """``lhs >= rhs``."""

    name = "forge.ge"
    TORCH: ClassVar = "ge"
    TO_BOOL: ClassVar = True


@irdl_op_definition
class LogicalAndOp(BinaryOp):
    """``lhs != 0 and rhs != 0``."""

    name = "forge.logical_and"
    TORCH: ClassVar = "logical_and"
    TAKES_NUMBERS: ClassVar = False
    TO_BOOL: ClassVar = True
    COMMUTATIVE: ClassVar = True


@irdl_op_definition
class LogicalOrOp(BinaryOp):
    """``lhs != 0 or rhs != 0``."""

    name = "forge.logical_or"
    TORCH: ClassVar = "logical_or"
    TAKES_NUMBERS: ClassVar = False
    TO_BOOL: ClassVar = True
    COMMUTATIVE: ClassVar = True


@irdl_op_definition
class LogicalXorOp(BinaryOp):
    """``(lhs != 0) != (rhs != 0)``."""

    name = "forge.logical_xor"
    TORCH: ClassVar = "logical_xor"
    TAKES_NUMBERS: ClassVar = False
    TO_BOOL: ClassVar = True
    COMMUTATIVE: ClassVar = True


@irdl_op_definition
class BitwiseAndOp(BinaryOp):
    """the bits set in both (booleans: and)."""

    name = "forge.bitwise_and"
    TORCH: ClassVar = "bitwise_and"
    COMMUTATIVE: ClassVar = True


@irdl_op_definition
class BitwiseOrOp(BinaryOp):
    """the bits set in either (booleans: or)."""

    name = "forge.bitwise_or"
    TORCH: ClassVar = "bitwise_or"
    COMMUTATIVE: ClassVar = True


@irdl_op_definition
class BitwiseXorOp(BinaryOp):
    """the bits set in exactly one (booleans: xor)."""

    name = "forge.bitwise_xor"
    TORCH: ClassVar = "bitwise_xor"
    COMMUTATIVE: ClassVar = True


class _ShiftOp(BinaryOp):
    """A shift of the bits of integers."""

    def infer(self) -> Sequence[TensorSpec]:
        ((name, shape),) = super().infer()
        if name in (*types.FLOATS, *types.COMPLEX, "i1"):
            raise VerifyException(f"{self.name} takes integers, found {name}")
        return [(name, shape)]


@irdl_op_definition
class ShiftLeftOp(_ShiftOp):
    """``lhs * 2 ** rhs``, of which the low bits stay; 0 where ``rhs`` is negative or at least the number of bits."""

    name = "forge.shift_left"
    TORCH: ClassVar = "bitwise_left_shift"


@irdl_op_definition
class ShiftRightOp(_ShiftOp):
    """``floor(lhs / 2 ** rhs)``; the sign alone (0 or -1) where ``rhs`` is negative or at least the number of bits."""

    name = "forge.shift_right"
    TORCH: ClassVar = "bitwise_right_shift"
