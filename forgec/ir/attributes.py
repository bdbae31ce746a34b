"""Attributes of the forge and plan dialects: encodings, extents, scalars and call arguments.

Attributes whose data would compare unequal things as equal (``1 == 1.0 == True``, ``0.0 == -0.0``) or equal things as
unequal (NaN) store their canonical text, so that equality is exact and CSE may rely on it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Hashable, Iterable, Sequence
from functools import lru_cache
from typing import TypeVar

from xdsl.context import Context
from xdsl.dialects.builtin import AnyTensorType, TensorType
from xdsl.ir import Attribute, Data, ParametrizedAttribute, TypeAttribute
from xdsl.irdl import irdl_attr_definition
from xdsl.parser import AttrParser, Parser
from xdsl.printer import Printer

from forgec.ir.text import (
    CallArguments,
    format_call,
    format_scalar,
    parse_call,
    parse_extent,
    parse_scalar,
    scalar_value,
)
from forgec.runtime.plan import Arg
from forgec.runtime.symbolic import Extent

Scalar = bool | int | float
DataElement = TypeVar("DataElement", bound=Hashable, covariant=True)


@irdl_attr_definition
class TensorEncodingAttr(Data[tuple[tuple[Extent, ...], tuple[Extent, ...] | None]]):
    """``#forge.tensor<[dims], strides = [..]>``: the names of a type's dynamic extents, and its strides.

    ``dims`` has one expression for each ``?`` of the shape, in order. ``strides`` (elements, one for each dimension)
    stands only when the value is not row-major contiguous. Build types with :func:`forgec.ir.types.tensor`, which keeps
    this canonical.
    """

    name = "forge.tensor"

    @property
    def dims(self) -> tuple[Extent, ...]:
        return self.data[0]

    @property
    def strides(self) -> tuple[Extent, ...] | None:
        return self.data[1]

    @classmethod
    def parse_parameter(cls, parser: AttrParser) -> tuple[tuple[Extent, ...], tuple[Extent, ...] | None]:
        with parser.in_angle_brackets():
            dims = _parse_extents(parser)
            strides = None
            if parser.parse_optional_punctuation(","):
                parser.parse_keyword("strides")
                parser.parse_punctuation("=")
                strides = _parse_extents(parser)
        return dims, strides

    def print_parameter(self, printer: Printer) -> None:
        dims, strides = self.data
        text = _format_extents(dims)
        if strides is not None:
            text += f", strides = {_format_extents(strides)}"
        printer.print_string(f"<{text}>")


class BareAttr(Data[DataElement], ABC):
    """An attribute that ops print by its value alone (``text``); in generic form it stands in angle brackets."""

    @classmethod
    @abstractmethod
    def parse_text(cls, parser: AttrParser) -> DataElement:
        """Parse what ``text`` yields."""

    @abstractmethod
    def text(self) -> str:
        """The value in the syntax of ops."""

    @classmethod
    def parse_parameter(cls, parser: AttrParser) -> DataElement:
        with parser.in_angle_brackets():
            return cls.parse_text(parser)

    def print_parameter(self, printer: Printer) -> None:
        printer.print_string(f"<{self.text()}>")


@irdl_attr_definition
class IntsAttr(BareAttr[tuple[int, ...]]):
    """A list of integers known at compile time (dimensions, permutations), written ``[0, 2]``."""

    name = "forge.ints"

    def __init__(self, values: Iterable[int]) -> None:
        super().__init__(tuple(values))

    @classmethod
    def parse_text(cls, parser: AttrParser) -> tuple[int, ...]:
        return tuple(parser.parse_comma_separated_list(parser.Delimiter.SQUARE, parser.parse_integer))

    def text(self) -> str:
        return _format_extents(self.data)


@irdl_attr_definition
class ExtentsAttr(BareAttr[tuple[Extent, ...]]):
    """A list of extents, some perhaps symbolic, written ``[1, s0, 64]``."""

    name = "forge.extents"

    def __init__(self, values: Iterable[Extent]) -> None:
        super().__init__(tuple(values))

    @classmethod
    def parse_text(cls, parser: AttrParser) -> tuple[Extent, ...]:
        return _parse_extents(parser)

    def text(self) -> str:
        return _format_extents(self.data)


@irdl_attr_definition
class ExtentAttr(BareAttr[Extent]):
    """One extent, perhaps symbolic, written ``s0 * 2``."""

    name = "forge.extent"

    @classmethod
    def parse_text(cls, parser: AttrParser) -> Extent:
        return parse_extent(parser)

    def text(self) -> str:
        return str(self.data)


@irdl_attr_definition
class ScalarAttr(BareAttr[str]):
    """A number of Python's: it has a kind (bool, int, float) but no dtype, and promotes as torch promotes Python
    numbers.
    """

    name = "forge.scalar"

    @staticmethod
    def of(value: Scalar) -> ScalarAttr:
        return ScalarAttr(format_scalar(value))

    @property
    def value(self) -> Scalar:
        return scalar_value(self.data)

    @classmethod
    def parse_text(cls, parser: AttrParser) -> str:
        return format_scalar(parse_scalar(parser))

    def text(self) -> str:
        return self.data


@irdl_attr_definition
class ScalarsAttr(BareAttr[tuple[str, ...]]):
    """A list of numbers of Python's, written ``[2.0, 1.5]``."""

    name = "forge.scalars"

    @staticmethod
    def of(values: Iterable[Scalar]) -> ScalarsAttr:
        return ScalarsAttr(tuple(format_scalar(value) for value in values))

    @property
    def values(self) -> tuple[Scalar, ...]:
        return tuple(scalar_value(text) for text in self.data)

    @classmethod
    def parse_text(cls, parser: AttrParser) -> tuple[str, ...]:
        numbers = parser.parse_comma_separated_list(parser.Delimiter.SQUARE, lambda: parse_scalar(parser))
        return tuple(format_scalar(number) for number in numbers)

    def text(self) -> str:
        return f"[{', '.join(self.data)}]"


@irdl_attr_definition
class ArgsAttr(BareAttr[str]):
    """The arguments of a call of an ATen operator: literals, and references to the op's operands.

    Positional arguments first, then keyword arguments (``dim = 1``). ``Reg(i)`` stands for operand ``i``, written
    ``operand<i>``.
    """

    name = "forge.args"

    @staticmethod
    def of(args: Sequence[Arg], kwargs: Iterable[tuple[str, Arg]] = ()) -> ArgsAttr:
        return ArgsAttr(format_call((tuple(args), tuple(kwargs))))

    @property
    def arguments(self) -> CallArguments:
        """Positional and keyword arguments."""
        return _parse_call_text(self.data)

    @classmethod
    def parse_text(cls, parser: AttrParser) -> str:
        return format_call(parse_call(parser))

    def text(self) -> str:
        return self.data


class DialectType(ParametrizedAttribute, TypeAttribute, ABC):
    """A type with parameters in angle brackets; another number of them than it has is a syntax error."""

    @classmethod
    def parse_parameters(cls, parser: AttrParser) -> Sequence[Attribute]:
        found = parser.parse_paramattr_parameters()
        wanted = len(cls.get_irdl_definition().parameters)
        if len(found) != wanted:
            count = f"{wanted or 'no'} parameter{'' if wanted == 1 else 's'}"
            parser.raise_error(f"!{cls.name} takes {count} in angle brackets, found {len(found)}")
        return found


@irdl_attr_definition
class StateType(DialectType):
    """``!forge.state<tensor<…>>``: one version of a piece of state that the model mutates. Linear: consumed exactly
    once.
    """

    name = "forge.state"

    value: AnyTensorType

    def __init__(self, value: TensorType) -> None:
        super().__init__(value)


@irdl_attr_definition
class SymType(Data[str], TypeAttribute):
    """``!forge.sym<u0>``: an integer that only the run of the program tells, and that is the extent ``u0`` in types."""

    name = "forge.sym"

    @classmethod
    def parse_parameter(cls, parser: AttrParser) -> str:
        with parser.in_angle_brackets():
            return parser.parse_identifier()

    def print_parameter(self, printer: Printer) -> None:
        printer.print_string(f"<{self.data}>")


@lru_cache(maxsize=4096)
def _parse_call_text(text: str) -> CallArguments:
    return parse_call(Parser(Context(), text))


def _parse_extents(parser: AttrParser) -> tuple[Extent, ...]:
    return tuple(parser.parse_comma_separated_list(parser.Delimiter.SQUARE, lambda: parse_extent(parser)))


def _format_extents(values: Iterable[Extent]) -> str:
    return f"[{', '.join(str(v) for v in values)}]"
