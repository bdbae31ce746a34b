"""The elementwise ops of ``arith`` that xDSL defines for scalars alone, for tiles as well (as MLIR has them).

Each class derives from xDSL's, has its name, and takes tiles too: ``isinstance(op, arith.CmpfOp)`` holds for both.
Comparisons of tiles yield tiles of booleans; ``arith.select`` takes a boolean or a tile of them; casts keep extents.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import ClassVar

from xdsl.dialects import arith, math
from xdsl.dialects.arith import FastMathFlagsAttr
from xdsl.dialects.builtin import AnyFloat, IndexType, IntegerAttr, IntegerType, i1
from xdsl.ir import Attribute, Dialect, Operation, SSAValue
from xdsl.irdl import AnyAttr, IRDLOperation, OpDef, OperandDef, ResultDef, irdl_op_definition, traits_def
from xdsl.parser import Parser
from xdsl.printer import Printer
from xdsl.traits import Pure, SameOperandsAndResultType
from xdsl.utils.exceptions import VerifyException

from forgec.ir.tile.types import element, extents, tile


@cache
def _definition_for_tiles(base: type[IRDLOperation]) -> OpDef:
    """The op's definition with the types of operands and results left to ``verify_``."""
    found = base.get_irdl_definition()
    operands = [(name, OperandDef(AnyAttr())) for name, _ in found.operands]
    results = [(name, ResultDef(AnyAttr())) for name, _ in found.results]
    return replace(found, operands=operands, results=results)


class _OnTiles(IRDLOperation):
    """Derive first from this, then from xDSL's class."""

    @classmethod
    def get_irdl_definition(cls) -> OpDef:
        base = next(c for c in cls.__mro__ if c.__module__ == arith.__name__)
        return _definition_for_tiles(base)  # pyright: ignore[reportArgumentType]

    def verify_(self) -> None:
        type(self).get_irdl_definition().verify(self)
        self.verify_types()

    def verify_types(self) -> None:
        """Raises VerifyException unless the types of operands and results fit."""

    def expect(self, kind: Attribute) -> None:
        """Raises VerifyException unless the result has this type."""
        if self.results[0].type != kind:
            raise VerifyException(f"{self.name} yields {kind}, but the result has type {self.results[0].type}")


def _integer(kind: Attribute) -> bool:
    return isinstance(kind, IntegerType)


def _float(kind: Attribute) -> bool:
    return isinstance(kind, AnyFloat)


class _Cast(_OnTiles):
    SOURCE: ClassVar[Callable[[Attribute], bool]] = staticmethod(_integer)
    TARGET: ClassVar[Callable[[Attribute], bool]] = staticmethod(_integer)
    GROWTH: ClassVar[int] = 0  # of the width: 1 where the result must be wider, -1 narrower

    def verify_types(self) -> None:
        source, target = element(self.operands[0]), element(self.results[0])
        if not type(self).SOURCE(source) or not type(self).TARGET(target):
            raise VerifyException(f"{self.name} does not make {target} of {source}")
        if self.GROWTH and isinstance(source, IntegerType) and isinstance(target, IntegerType):
            change = target.width.data - source.width.data
            if change * self.GROWTH <= 0:
                wanted = "wider" if self.GROWTH > 0 else "narrower"
                raise VerifyException(f"{self.name} yields a {wanted} integer, found {target} of {source}")
        self.expect(tile(target, extents(self.operands[0])))


class IndexCastOp(_Cast, arith.IndexCastOp):
    """Between ``index`` and integers, as signed numbers."""

    def verify_types(self) -> None:
        source, target = element(self.input), element(self.result)
        kinds = {isinstance(kind, IndexType) for kind in (source, target)}
        if kinds != {True, False} or not all(isinstance(kind, (IndexType, IntegerType)) for kind in (source, target)):
            raise VerifyException(f"{self.name} casts between index and integers, found {source} and {target}")
        self.expect(tile(target, extents(self.input)))


class FPToSIOp(_Cast, arith.FPToSIOp):
    """Rounds towards zero to a signed integer; what does not fit becomes the nearest that does, NaN becomes 0."""

    SOURCE = staticmethod(_float)


class FPToUIOp(_Cast, arith.FPToUIOp):
    """Rounds towards zero to an unsigned integer; what does not fit becomes the nearest that does, NaN becomes 0."""

    SOURCE = staticmethod(_float)


class SIToFPOp(_Cast, arith.SIToFPOp):
    """The float that is nearest to a signed integer."""

    TARGET = staticmethod(_float)


class UIToFPOp(_Cast, arith.UIToFPOp):
    """The float that is nearest to an unsigned integer."""

    TARGET = staticmethod(_float)


class TruncIOp(_Cast, arith.TruncIOp):
    """The lowest bits."""

    GROWTH = -1


class ExtSIOp(_Cast, arith.ExtSIOp):
    """The same signed number in more bits."""

    GROWTH = 1


class ExtUIOp(_Cast, arith.ExtUIOp):
    """The same unsigned number in more bits."""

    GROWTH = 1


class CmpiOp(_OnTiles, arith.CmpiOp):
    """Compares integers: ``arith.cmpi slt, %a, %b : tensor<8xi32>`` yields ``tensor<8xi1>``."""

    def __init__(self, operand1: SSAValue | Operation, operand2: SSAValue | Operation, arg: int | str) -> None:
        left = SSAValue.get(operand1)
        predicate = arith.CMPI_COMPARISON_OPERATIONS.index(arg) if isinstance(arg, str) else arg
        IRDLOperation.__init__(
            self,
            operands=[left, SSAValue.get(operand2)],
            result_types=[tile(i1, extents(left))],
            properties={"predicate": IntegerAttr(predicate, 64)},
        )

    def verify_types(self) -> None:
        if not isinstance(element(self.lhs), (IntegerType, IndexType)) or self.lhs.type != self.rhs.type:
            raise VerifyException(f"{self.name} compares integers of one type")
        self.expect(tile(i1, extents(self.lhs)))


class CmpfOp(_OnTiles, arith.CmpfOp):
    """Compares floats: ``arith.cmpf olt, %a, %b : tensor<8xf32>`` yields ``tensor<8xi1>``."""

    def __init__(
        self,
        operand1: SSAValue | Operation,
        operand2: SSAValue | Operation,
        arg: int | str,
        fastmath: FastMathFlagsAttr | None = None,
    ) -> None:
        left = SSAValue.get(operand1)
        predicate = arith.CMPF_COMPARISON_OPERATIONS.index(arg) if isinstance(arg, str) else arg
        IRDLOperation.__init__(
            self,
            operands=[left, SSAValue.get(operand2)],
            result_types=[tile(i1, extents(left))],
            properties={"predicate": IntegerAttr(predicate, 64), "fastmath": fastmath or FastMathFlagsAttr("none")},
        )

    def verify_types(self) -> None:
        if not _float(element(self.lhs)) or self.lhs.type != self.rhs.type:
            raise VerifyException(f"{self.name} compares floats of one type")
        self.expect(tile(i1, extents(self.lhs)))


class SelectOp(_OnTiles, arith.SelectOp):
    """``%c ? %a : %b``, element by element: ``arith.select %c, %a, %b : tensor<8xi1>, tensor<8xf32>``; with a scalar
    condition the first type is left out.
    """

    @classmethod
    def parse(cls, parser: Parser) -> SelectOp:
        names = [parser.parse_unresolved_operand()]
        for _ in range(2):
            parser.parse_punctuation(",")
            names.append(parser.parse_unresolved_operand())
        attributes = parser.parse_optional_attr_dict()
        parser.parse_punctuation(":")
        condition: Attribute = i1
        kind = parser.parse_type()
        if parser.parse_optional_punctuation(","):
            condition, kind = kind, parser.parse_type()
        operands = parser.resolve_operands(names, [condition, kind, kind], parser.pos)
        found = cls(*operands)
        found.attributes.update(attributes)
        return found

    def print(self, printer: Printer) -> None:
        printer.print_string(" ")
        printer.print_list(self.operands, printer.print_operand)
        printer.print_op_attributes(self.attributes)
        printer.print_string(" : ")
        if self.cond.type != i1:
            printer.print_attribute(self.cond.type)
            printer.print_string(", ")
        printer.print_attribute(self.lhs.type)

    def verify_types(self) -> None:
        if self.cond.type != i1 and self.cond.type != tile(i1, extents(self.lhs)):
            raise VerifyException(f"{self.name} takes a boolean, or a tile of booleans of the extents of its operands")
        if self.lhs.type != self.rhs.type:
            raise VerifyException(f"{self.name} chooses between values of one type")
        self.expect(self.lhs.type)


@irdl_op_definition
class RemFOp(arith.FloatingPointLikeBinaryOperation):
    """The exact remainder of a division rounded towards zero, with the sign of the dividend (C's ``fmod``); MLIR has
    it, xDSL does not.
    """

    name = "arith.remf"

    traits = traits_def(Pure())


@irdl_op_definition
class ErfcOp(math.FloatingPointLikeUnaryMathOperation):
    """``1 - erf(x)``, accurate where that is nearly 0; MLIR has it, xDSL does not."""

    name = "math.erfc"

    traits = traits_def(Pure(), SameOperandsAndResultType())


_FOR_TILES: tuple[type[Operation], ...] = (
    IndexCastOp, FPToSIOp, FPToUIOp, SIToFPOp, UIToFPOp, TruncIOp, ExtSIOp, ExtUIOp, CmpiOp, CmpfOp, SelectOp
)  # fmt: skip
_BY_NAME = {op.name: op for op in _FOR_TILES}

ARITH = Dialect(
    "arith",
    [*(_BY_NAME.get(op.name, op) for op in arith.Arith.operations), RemFOp],
    list(arith.Arith.attributes),
    [arith.ArithConstantMaterializationInterface()],
)
"""xDSL's arith dialect with the ops above in place of its own."""

MATH = Dialect("math", [*math.Math.operations, ErfcOp], list(math.Math.attributes))
"""xDSL's math dialect with what it lacks."""
