"""The plan dialect: what will run, as registers and launches.

Values are virtual registers and carry the tensor type (with strides) of what they hold. ``plan.entry`` is one entry
point; its body declares registers where they are first needed and lists the launches in order. Results of a
``plan.launch`` are registers that the called operator allocates itself. ``forgec.runtime.plan`` defines the same
things as data.
"""

from __future__ import annotations

from typing import Self

from xdsl.dialects.builtin import (
    AnyTensorTypeConstr,
    DenseIntOrFPElementsAttr,
    IntAttr,
    StringAttr,
    SymbolNameConstraint,
    UnitAttr,
)
from xdsl.ir import Attribute, Dialect, SSAValue
from xdsl.irdl import (
    IRDLOperation,
    irdl_op_definition,
    operand_def,
    opt_prop_def,
    prop_def,
    region_def,
    result_def,
    traits_def,
    var_operand_def,
    var_result_def,
)
from xdsl.parser import Parser
from xdsl.printer import Printer
from xdsl.traits import IsolatedFromAbove, IsTerminator, SymbolOpInterface
from xdsl.utils.exceptions import VerifyException

from forgec.ir import types
from forgec.ir.attributes import ArgsAttr, ExtentAttr, ExtentsAttr, IntsAttr
from forgec.ir.ops.aten import operand_text, parse_operands_and_call, references, resolve
from forgec.ir.ops.format import Bare
from forgec.ir.text import CallArguments, format_call
from forgec.runtime.control import is_control
from forgec.runtime.kernels import form_error, is_kernel
from forgec.runtime.plan import Launch


@irdl_op_definition
class EntryOp(IRDLOperation):
    """One entry point: how it is called, and what runs.

    ``inputs`` has one item for each leaf of the call's arguments: the number of a ``plan.input``, or a fixed value.
    ``in_tree`` and
    ``out_tree`` are the structures of arguments and results, as JSON. A ``private`` entry is a part of the program that
    launches of other entries call; ``given`` are the symbols that its caller tells it.
    """

    name = "plan.entry"

    sym_name = prop_def(SymbolNameConstraint())
    inputs = prop_def(ArgsAttr)
    in_tree = prop_def(StringAttr)
    out_tree = prop_def(StringAttr)
    parameters = prop_def(ArgsAttr)
    arena_bytes = opt_prop_def(ExtentAttr)
    peak_bytes = opt_prop_def(ExtentAttr)
    private = opt_prop_def(UnitAttr)
    given = opt_prop_def(ExtentsAttr)
    body = region_def("single_block")

    custom_directives = (Bare,)

    traits = traits_def(SymbolOpInterface(), IsolatedFromAbove())

    assembly_format = (
        "(`private` $private^)? $sym_name (`given` custom<Bare>($given)^)? "
        "`inputs` custom<Bare>($inputs) `parameters` custom<Bare>($parameters) "
        "`in` custom<Bare>($in_tree) `out` custom<Bare>($out_tree) "
        "(`arena` custom<Bare>($arena_bytes)^)? (`peak` custom<Bare>($peak_bytes)^)? attr-dict-with-keyword $body"
    )

    @property
    def launches(self) -> list[LaunchOp]:
        """The launches in order."""
        return [op for op in self.body.block.ops if isinstance(op, LaunchOp)]


class RegisterOp(IRDLOperation):
    """An op that declares a register."""

    custom_directives = (Bare,)

    result = result_def(AnyTensorTypeConstr)


@irdl_op_definition
class InputOp(RegisterOp):
    """The caller's tensor number ``index``; ``inout`` if the call writes it, ``exact`` if its strides must be these,
    ``offset`` if it must begin there in its storage.
    """

    name = "plan.input"

    index = prop_def(IntAttr)
    label = prop_def(StringAttr)
    inout = opt_prop_def(UnitAttr)
    exact = opt_prop_def(UnitAttr)
    offset = opt_prop_def(IntAttr)

    assembly_format = (
        "custom<Bare>($index) custom<Bare>($label) (`inout` $inout^)? (`exact` $exact^)? "
        "(`offset` custom<Bare>($offset)^)? attr-dict `:` type($result)"
    )


@irdl_op_definition
class ParamOp(RegisterOp):
    """An immutable tensor of the weights."""

    name = "plan.param"

    label = prop_def(StringAttr)

    assembly_format = "custom<Bare>($label) attr-dict `:` type($result)"


@irdl_op_definition
class ConstantOp(RegisterOp):
    """A literal tensor, stored with the weights."""

    name = "plan.constant"

    value = prop_def(DenseIntOrFPElementsAttr)

    assembly_format = "custom<Bare>($value) attr-dict `:` type($result)"


@irdl_op_definition
class StateOp(RegisterOp):
    """A tensor that belongs to a session; it starts as ``zeros`` or as the weights' tensor of the same name."""

    name = "plan.state"

    label = prop_def(StringAttr)
    zeros = opt_prop_def(UnitAttr)

    assembly_format = "custom<Bare>($label) (`zeros` $zeros^)? attr-dict `:` type($result)"


@irdl_op_definition
class BufferOp(RegisterOp):
    """Bytes of the arena, live in launches ``[first, last)``; ``offset`` is in bytes, absent until allocated or in
    dynamic plans."""

    name = "plan.buffer"

    nbytes = prop_def(ExtentAttr)
    offset = opt_prop_def(ExtentAttr)
    live = opt_prop_def(IntsAttr)

    assembly_format = (
        "`bytes` custom<Bare>($nbytes) (`at` custom<Bare>($offset)^)? (`live` custom<Bare>($live)^)? "
        "attr-dict `:` type($result)"
    )

    def verify_(self) -> None:
        if self.live is not None and (len(self.live.data) != 2 or self.live.data[0] >= self.live.data[1]):
            raise VerifyException("a live range is [first, last) and not empty")
        if types.nbytes(self.result) != self.nbytes.data and types.is_contiguous(self.result):
            raise VerifyException(f"the buffer's type takes {types.nbytes(self.result)} bytes, not {self.nbytes.data}")


@irdl_op_definition
class OutputOp(RegisterOp):
    """A fresh tensor for each call, the caller's afterwards."""

    name = "plan.output"

    assembly_format = "attr-dict `:` type($result)"


@irdl_op_definition
class ViewOp(RegisterOp):
    """Another shape over the bytes of ``base``: starts ``offset`` elements (of the view's dtype) in. Costs nothing."""

    name = "plan.view"

    base = operand_def(AnyTensorTypeConstr)
    offset = prop_def(ExtentAttr)

    assembly_format = "$base `offset` custom<Bare>($offset) attr-dict `:` functional-type(operands, results)"

    def verify_(self) -> None:
        if isinstance(self.base.owner, ViewOp):
            raise VerifyException("a view of a view must name the register that owns the bytes")


@irdl_op_definition
class LaunchOp(IRDLOperation):
    """One call of an operator. ``writes`` are the operands that it writes; results are registers that it allocates
    itself; ``defines`` names the symbols (as strings) whose values are the integers in the first results. Operators
    ``forge::…`` call other entries, see :mod:`forgec.runtime.control`. Operators ``kernel::NAME`` are native kernels,
    which take tensors, then extents, and as ``grid`` the extents whose product is the number of their programs::

        plan.launch "kernel::scale_3f9a"(%x, %y, expr<s0>, grid = [expr<s0>, 4]) writes [1] from "forge.mul" : …
    """

    name = "plan.launch"

    inputs = var_operand_def(AnyTensorTypeConstr)
    outputs = var_result_def(AnyTensorTypeConstr)
    callee = prop_def(StringAttr)
    args = prop_def(ArgsAttr)
    writes = prop_def(IntsAttr)
    defines = opt_prop_def(ArgsAttr)
    source = prop_def(StringAttr)

    @property
    def arguments(self) -> CallArguments:
        return self.args.arguments

    def verify_(self) -> None:
        if set(references(self.arguments)) != set(range(len(self.inputs))):
            raise VerifyException("the call must use each of its operands")
        if not set(self.writes.data) <= set(range(len(self.inputs))):
            raise VerifyException("a launch writes operands only")
        if is_kernel(self.callee.data):
            args, kwargs = self.arguments
            results = (None,) * len(self.outputs)
            defines = () if self.defines is None else (None,)
            wrong = form_error(Launch(self.callee.data, tuple(args), tuple(kwargs), results, defines=defines))
            if wrong is not None:
                raise VerifyException(wrong)
        if not self.writes.data and not self.outputs and not is_control(self.callee.data):
            raise VerifyException("a launch without effect")

    def print(self, printer: Printer) -> None:
        printer.print_string(" ")
        printer.print_string_literal(self.callee.data)
        names = [operand_text(printer, value) for value in self.inputs]
        printer.print_string(format_call(self.arguments, names.__getitem__))
        # Each value once, in the order in which the call names it: the numbers of operands in the text are these.
        values = list(dict.fromkeys(self.inputs[index] for index in references(self.arguments)))
        writes = dict.fromkeys(values.index(self.inputs[index]) for index in self.writes.data)
        printer.print_string(" writes ")
        printer.print_string(IntsAttr(list(writes)).text())
        if self.defines is not None:
            printer.print_string(f" defines {self.defines.text()}")
        printer.print_string(" from ")
        printer.print_string_literal(self.source.data)
        printer.print_op_attributes(self.attributes)
        printer.print_string(" : ")
        printer.print_function_type([value.type for value in values], self.result_types)

    @classmethod
    def parse(cls, parser: Parser) -> Self:
        callee = parser.parse_str_literal()
        operands, arguments = parse_operands_and_call(parser)
        parser.parse_keyword("writes")
        writes = IntsAttr(IntsAttr.parse_text(parser))
        defines = None
        if parser.parse_optional_keyword("defines") is not None:
            defines = ArgsAttr(ArgsAttr.parse_text(parser))
        parser.parse_keyword("from")
        source = parser.parse_str_literal()
        attributes = parser.parse_optional_attr_dict()
        values, result_types = resolve(parser, operands)
        properties: dict[str, Attribute] = {
            "callee": StringAttr(callee),
            "args": ArgsAttr.of(*arguments),
            "writes": writes,
            "source": StringAttr(source),
        }
        if defines is not None:
            properties["defines"] = defines
        return cls.create(operands=values, properties=properties, attributes=attributes, result_types=result_types)


@irdl_op_definition
class ReturnOp(IRDLOperation):
    """The leaves of the result: registers and fixed values; ``[%r]`` is the number in a register of rank 0."""

    name = "plan.return"

    inputs = var_operand_def(AnyTensorTypeConstr)
    leaves = prop_def(ArgsAttr)

    traits = traits_def(IsTerminator())

    def print(self, printer: Printer) -> None:
        names = [operand_text(printer, value) for value in self.inputs]
        printer.print_string(f" {format_call(self.leaves.arguments, names.__getitem__)}")
        printer.print_op_attributes(self.attributes)
        printer.print_string(" : ")
        printer.print_function_type(self.operand_types, ())

    @classmethod
    def parse(cls, parser: Parser) -> Self:
        operands, arguments = parse_operands_and_call(parser)
        attributes = parser.parse_optional_attr_dict()
        values, _ = resolve(parser, operands)
        return cls.create(operands=values, properties={"leaves": ArgsAttr.of(*arguments)}, attributes=attributes)


def base_of(value: SSAValue) -> SSAValue:
    """The register that owns the bytes of ``value``."""
    owner = value.owner
    return owner.base if isinstance(owner, ViewOp) else value


PLAN = Dialect(
    "plan",
    [EntryOp, InputOp, ParamOp, ConstantOp, StateOp, BufferOp, OutputOp, ViewOp, LaunchOp, ReturnOp],
    [],
)
