"""Calls of ATen operators that have no op of their own, and how calls are written and read as text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Self

from xdsl.dialects.builtin import (
    AnyTensorTypeConstr,
    StringAttr,
    UnitAttr,
)
from xdsl.ir import Attribute, SSAValue
from xdsl.irdl import (
    irdl_op_definition,
    opt_prop_def,
    prop_def,
    var_operand_def,
    var_result_def,
)
from xdsl.parser import Parser, UnresolvedOperand
from xdsl.printer import Printer
from xdsl.utils.exceptions import VerifyException

from forgec.ir import types
from forgec.ir.attributes import ArgsAttr, ExtentsAttr, IntsAttr
from forgec.ir.ops.base import ForgeOp, TensorSpec
from forgec.ir.ops.format import printed
from forgec.ir.text import CallArguments, format_call, parse_call
from forgec.ir.written import names_operator, split_written, yields_views
from forgec.runtime.plan import Arg, Reg
from forgec.runtime.symbolic import Extent

if TYPE_CHECKING:
    from forgec.ir.evaluator import Evaluator


@irdl_op_definition
class AtenOp(ForgeOp):
    """A call of an ATen operator that has no op of its own: ``forge.aten "aten::topk"(%x, 5, -1)``.

    Arguments follow torch's schema: tensors are operands, everything else is literal. Operators that write their
    arguments are turned into values by capture. Where torch has no functional form of one, ``updates`` lists the
    operands that it writes: the operands stay as they are, and the last results are what they would have become.
    """

    name = "forge.aten"

    inputs = var_operand_def(AnyTensorTypeConstr)
    outputs = var_result_def(AnyTensorTypeConstr)
    callee = prop_def(StringAttr)
    args = prop_def(ArgsAttr)
    random = opt_prop_def(UnitAttr)
    defines = opt_prop_def(ExtentsAttr)
    updates = opt_prop_def(IntsAttr)

    @property
    def updated(self) -> tuple[int, ...]:
        """Operands whose new values are the last results."""
        return () if self.updates is None else self.updates.data

    @property
    def draws_random(self) -> bool:
        """True if the operator draws random numbers: two equal calls differ, and each moves the generator on."""
        return self.random is not None

    @property
    def defined_symbols(self) -> tuple[str, ...]:
        """Extents of the results that only the call tells (``nonzero``): symbols that have a value from here on."""
        return () if self.defines is None else tuple(map(str, self.defines.data))

    @property
    def is_naming(self) -> bool:
        """True if the op only gives a value's extents their symbols: capture's own, and no operation of the model."""
        return self.callee.data == "aten::alias" and self.defines is not None

    @property
    def is_pinned(self) -> bool:
        """True if the call may not be merged, moved or removed."""
        return self.draws_random or self.defines is not None

    @classmethod
    def of(
        cls,
        callee: str,
        args: Sequence[Arg | SSAValue],
        kwargs: Sequence[tuple[str, Arg | SSAValue]],
        result_types: Sequence[Attribute],
        *,
        random: bool = False,
        defines: Sequence[Extent] = (),
        updates: bool = False,
        **rest: Any,
    ) -> Self:
        """Build a call from arguments among which SSA values stand for tensors (also inside lists)."""
        operands: dict[SSAValue, int] = {}

        def literal(arg: Any) -> Arg:
            if isinstance(arg, SSAValue):
                return Reg(operands.setdefault(arg, len(operands)))
            if isinstance(arg, (list, tuple)):
                return tuple(literal(item) for item in arg)
            return arg

        packed = ArgsAttr.of([literal(a) for a in args], [(name, literal(a)) for name, a in kwargs])
        properties: dict[str, Attribute] = {"callee": StringAttr(callee), "args": packed}
        if random:
            properties["random"] = UnitAttr()
        if defines:
            properties["defines"] = ExtentsAttr(defines)
        values = list(operands)
        if updates:
            values = _with_updates(properties, values)
        return cls.create(operands=values, properties=properties, result_types=list(result_types), **rest)

    @property
    def arguments(self) -> CallArguments:
        return self.args.arguments

    def infer(self) -> Sequence[TensorSpec]:
        return [(types.dtype(r), types.shape(r)) for r in self.outputs]

    def bytes_read(self, index: int) -> Extent:
        return 0 if yields_views(self.callee.data) else super().bytes_read(index)

    def bytes_written(self) -> Extent:
        return 0 if yields_views(self.callee.data) else super().bytes_written()

    def verify_(self) -> None:
        used = set(references(self.arguments))
        if used != set(range(len(self.inputs))):
            raise VerifyException(f"the call of {self.callee.data} must use each of its {len(self.inputs)} operands")
        shapes = [types.shape(result) for result in self.outputs]
        for defined in () if self.defines is None else self.defines.data:
            if not str(defined).isidentifier() or not any(defined in shape for shape in shapes):
                raise VerifyException(f"{defined} is no extent of a result")
        kinds = [r.type for r in self.outputs[len(self.outputs) - len(self.updated) :]]
        if self.updated and not names_operator(self.callee.data):
            raise VerifyException(f"torch has no operator {self.callee.data}, so what it updates is not known")
        if not all(index < len(self.inputs) for index in self.updated) or len(kinds) != len(self.updated):
            raise VerifyException("what a call updates are operands, and each has a result")
        for index, kind in zip(self.updated, kinds, strict=True):
            held = self.inputs[index]
            if (types.dtype(held), types.shape(held)) != (types.dtype(kind), types.shape(kind)):
                raise VerifyException(f"operand {index} keeps its dtype and shape when it is updated")
        super().verify_()

    def reference(self, ev: Evaluator, *inputs: Any) -> Any:
        if self.updated:
            return self._update(ev, inputs)
        return ev.call_aten(self.callee.data, self.arguments, inputs, self.outputs)

    def _update(self, ev: Evaluator, inputs: Sequence[Any]) -> tuple[Any, ...]:
        """Call the operator on copies of what it writes; operands that it only reads keep their values."""
        copies = {index: inputs[index].clone() for index in self.updated}
        given = [copies.get(index, tensor) for index, tensor in enumerate(inputs)]
        results = ev.call(self.callee.data, self.arguments, given)
        return (*results[: len(self.outputs) - len(copies)], *copies.values())

    def print(self, printer: Printer) -> None:
        printer.print_string(" ")
        printer.print_string_literal(self.callee.data)
        names = [operand_text(printer, value) for value in self.inputs]
        printer.print_string(format_call(self.arguments, names.__getitem__))
        if self.draws_random:
            printer.print_string(" random")
        if self.defines is not None:
            printer.print_string(f" defines {self.defines.text()}")
        if self.updates is not None:
            printer.print_string(" updates")
        printer.print_op_attributes(self.attributes)
        printer.print_string(" : ")
        # Each value once, in the order in which the call names it: so the text needs no numbers of operands.
        values = dict.fromkeys(self.inputs[index] for index in references(self.arguments))
        printer.print_function_type([value.type for value in values], self.result_types)

    @classmethod
    def parse(cls, parser: Parser) -> Self:
        callee = parser.parse_str_literal()
        operands, arguments = parse_operands_and_call(parser)
        properties: dict[str, Attribute] = {"callee": StringAttr(callee), "args": ArgsAttr.of(*arguments)}
        if parser.parse_optional_keyword("random") is not None:
            properties["random"] = UnitAttr()
        if parser.parse_optional_keyword("defines") is not None:
            properties["defines"] = ExtentsAttr(ExtentsAttr.parse_text(parser))
        updates = parser.parse_optional_keyword("updates") is not None
        attributes = parser.parse_optional_attr_dict()
        values, result_types = resolve(parser, operands)
        if updates:
            values = _with_updates(properties, values)
        return cls.create(operands=values, properties=properties, attributes=attributes, result_types=result_types)


def _with_updates(properties: dict[str, Attribute], values: Sequence[SSAValue]) -> list[SSAValue]:
    """Operands of a call that updates some: what it writes is an operand of its own, even if it is also read."""
    callee, args = properties["callee"], properties["args"]
    assert isinstance(callee, StringAttr)
    assert isinstance(args, ArgsAttr)
    if not names_operator(callee.data):
        raise VerifyException(f"torch has no operator {callee.data}, so what it updates is not known")
    kept, written, arguments = split_written(callee.data, args.arguments, len(values))
    properties["args"] = ArgsAttr.of(*arguments)
    properties["updates"] = IntsAttr(range(len(kept), len(kept) + len(written)))
    return [values[index] for index in (*kept, *written)]


def parse_operands_and_call(parser: Parser) -> tuple[list[UnresolvedOperand], CallArguments]:
    """Parse call arguments among which SSA values stand for tensors: the operands in the order of their first mention,
    each once, and the arguments that refer to them.
    """
    operands: dict[tuple[str, int], UnresolvedOperand] = {}

    def operand() -> int | None:
        found = parser.parse_optional_unresolved_operand()
        if found is None:
            return None
        key = (found.operand_name, found.index)
        operands.setdefault(key, found)
        return list(operands).index(key)

    arguments = parse_call(parser, operand)
    return list(operands.values()), arguments


def resolve(parser: Parser, operands: Sequence[UnresolvedOperand]) -> tuple[Sequence[SSAValue], Sequence[Attribute]]:
    """Parse ``: (types) -> types``: the operands' values, and the result types."""
    position = parser.pos
    parser.parse_punctuation(":")
    signature = parser.parse_function_type()
    return parser.resolve_operands(operands, signature.inputs.data, position), signature.outputs.data


def references(arg: Any) -> list[int]:
    """The operand indices that call arguments name."""
    if isinstance(arg, Reg):
        return [arg.id]
    if isinstance(arg, tuple):
        return [index for item in arg for index in references(item)]
    return []


def operand_text(printer: Printer, value: SSAValue) -> str:
    """The name that the printer gives to a value, without printing it."""
    return printed(printer, lambda: printer.print_ssa_value(value))
