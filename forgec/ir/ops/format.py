"""Text of the forge dialect's ops where xDSL's assembly formats do not reach.

``Bare`` prints an attribute by its value alone inside an assembly format. ``KeywordFormatOp`` reads and prints ops
with several optional operands, whose types xDSL cannot tell apart in a functional type.
"""

from __future__ import annotations

from abc import ABC
from collections.abc import Callable
from io import StringIO
from typing import Any, Self

from xdsl.dialects.builtin import DenseIntOrFPElementsAttr, IntAttr, StringAttr, UnitAttr
from xdsl.ir import Attribute
from xdsl.irdl import AttrSizedOperandSegments, IRDLOperation, OptOperandDef
from xdsl.irdl.declarative_assembly_format import (
    AttributeVariable,
    CustomDirective,
    ParsingState,
    PrintingState,
    UniqueBaseAttributeVariable,
    irdl_custom_directive,
)
from xdsl.parser import Parser
from xdsl.printer import Printer

from forgec.ir.attributes import BareAttr
from forgec.ir.text import parse_optional_string

_SEGMENTS = AttrSizedOperandSegments.attribute_name


@irdl_custom_directive
class Bare(CustomDirective):
    """``custom<Bare>($dim)``: an attribute by its value alone, ``2`` rather than ``#builtin.int<2>``."""

    value: AttributeVariable

    def parse(self, parser: Parser, state: ParsingState) -> None:
        # xDSL keeps the base of an attribute only where it is no builtin.
        if isinstance(self.value, UniqueBaseAttributeVariable):
            base = self.value.unique_base
        else:
            (base,) = state.op_type.get_irdl_definition().properties[self.value.name].constr.get_bases() or {IntAttr}
        self.value.set(state, parse_bare(parser, base))

    def print(self, printer: Printer, state: PrintingState, op: IRDLOperation) -> None:
        attribute = self.value.get(op)
        if attribute is not None:
            state.print_whitespace(printer)
            print_bare(printer, attribute)

    def is_anchorable(self) -> bool:
        return self.value.is_anchorable()

    def is_present(self, op: IRDLOperation) -> bool:
        return self.value.is_present(op)


def print_bare(printer: Printer, attribute: Attribute) -> None:
    """Print an attribute's value without the attribute's name."""
    match attribute:
        case IntAttr():
            printer.print_string(str(attribute.data))
        case StringAttr():
            printer.print_string_literal(attribute.data)
        case BareAttr():
            printer.print_string(attribute.text())
        case DenseIntOrFPElementsAttr():
            print_literal(printer, attribute)
        case _:
            printer.print_attribute(attribute)


def parse_bare(parser: Parser, base: type[Attribute]) -> Attribute:
    """Parse what ``print_bare`` printed for an attribute of class ``base``."""
    if base is IntAttr:
        return IntAttr(parser.parse_integer(allow_boolean=False))
    if base is StringAttr:
        text = parse_optional_string(parser)
        return StringAttr(parser.parse_str_literal() if text is None else text)
    if issubclass(base, BareAttr):
        return base.new(base.parse_text(parser))
    return parser.parse_attribute()


def print_literal(printer: Printer, literal: DenseIntOrFPElementsAttr) -> None:
    """Print a literal with its type so that it parses back bit by bit.

    xDSL writes floats that have no short decimal form (infinities, NaN, 2**24) as the hexadecimal digits of their bits,
    which it reads back as integers, and takes zeros of both signs for equal. A literal that has such elements is
    written whole as a string of bytes instead, which xDSL reads right.
    """
    data, length = literal.data.data, max(len(literal), 1)
    same = data == data[: len(data) // length] * length
    text = printed(printer, lambda: printer.print_attribute(literal))
    elements, _, _ = text.rpartition(" : ")
    if "0x" not in elements and (same or not literal.is_splat()):
        printer.print_string(text)
        return
    printer.print_string(f'dense<"0x{data.hex()}"> : ')
    printer.print_attribute(literal.type)


def printed(printer: Printer, show: Callable[[], object]) -> str:
    """What ``show`` prints, without printing it."""
    stream, printer.stream = printer.stream, StringIO()
    try:
        show()
        return printer.stream.getvalue()
    finally:
        printer.stream = stream


class KeywordFormatOp(IRDLOperation, ABC):
    """Reads and prints ``forge.op %a, %b mask %m causal scale 0.125 : (types) -> types``.

    Required operands come first, separated by commas. Every optional operand and every property follows its own name,
    in the order of definition (parsing accepts any order); a unit attribute is its name alone, and a property with its
    default value is left out.
    """

    def print(self, printer: Printer) -> None:
        definition = self.get_irdl_definition()
        required = [name for name, spec in definition.operands if not isinstance(spec, OptOperandDef)]
        printer.print_string(" ")
        printer.print_list(required, lambda name: printer.print_ssa_value(getattr(self, name)))
        for name, spec in definition.operands:
            if isinstance(spec, OptOperandDef) and (value := getattr(self, name)) is not None:
                printer.print_string(f" {name} ")
                printer.print_ssa_value(value)
        for name, spec in definition.properties.items():
            value = self.properties.get(name)
            if name == _SEGMENTS or value is None or value == spec.default_value:
                continue
            printer.print_string(f" {name}")
            if not isinstance(value, UnitAttr):
                printer.print_string(" ")
                print_bare(printer, value)
        printer.print_op_attributes(self.attributes)
        printer.print_string(" : ")
        printer.print_function_type(self.operand_types, self.result_types)

    @classmethod
    def parse(cls, parser: Parser) -> Self:
        definition = cls.get_irdl_definition()
        required = [name for name, spec in definition.operands if not isinstance(spec, OptOperandDef)]
        operands: dict[str, Any] = {}
        for index, name in enumerate(required):
            if index:
                parser.parse_punctuation(",")
            operands[name] = parser.parse_unresolved_operand()
        properties: dict[str, Attribute] = {}
        expected = [name for name, _ in definition.operands if name not in operands]
        expected += [name for name in definition.properties if name != _SEGMENTS]
        while (
            keyword := next((n for n in expected if parser.parse_optional_keyword(n) is not None), None)
        ) is not None:
            expected.remove(keyword)
            if keyword in definition.properties:
                (base,) = definition.properties[keyword].constr.get_bases() or {Attribute}
                properties[keyword] = UnitAttr() if base is UnitAttr else parse_bare(parser, base)
            else:
                operands[keyword] = parser.parse_unresolved_operand()
        attributes = parser.parse_optional_attr_dict()
        position = parser.pos
        parser.parse_punctuation(":")
        signature = parser.parse_function_type()
        present = [operands[name] for name, _ in definition.operands if name in operands]
        values = iter(parser.resolve_operands(present, signature.inputs.data, position))
        return cls.build(
            operands=[next(values) if name in operands else None for name, _ in definition.operands],
            properties=properties,
            attributes=attributes,
            result_types=list(signature.outputs.data),
        )
