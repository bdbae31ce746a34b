"""Ops that are not computations: module-level declarations, state, constants, and calls of ATen."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Self

from xdsl.dialects.builtin import (
    AnyTensorTypeConstr,
    DenseIntOrFPElementsAttr,
    FlatSymbolRefAttrConstr,
    StringAttr,
    SymbolNameConstraint,
    TensorType,
    UnitAttr,
)
from xdsl.ir import Attribute, SSAValue
from xdsl.irdl import (
    IRDLOperation,
    irdl_op_definition,
    operand_def,
    opt_prop_def,
    opt_region_def,
    prop_def,
    result_def,
    traits_def,
    var_operand_def,
    var_result_def,
)
from xdsl.parser import Parser, UnresolvedOperand
from xdsl.printer import Printer
from xdsl.traits import IsTerminator, MemoryWriteEffect, Pure, SymbolOpInterface
from xdsl.utils.exceptions import VerifyException

from forgec.ir import types
from forgec.ir.attributes import ArgsAttr, ExtentAttr, ExtentsAttr, IntsAttr, StateType
from forgec.ir.ops.base import ForgeOp, TensorSpec
from forgec.ir.ops.format import Bare, print_literal, printed
from forgec.ir.text import CallArguments, format_call, parse_call
from forgec.ir.written import names_operator, split_written, yields_views
from forgec.runtime.plan import PREDICATES, Arg, Constraint, Reg
from forgec.runtime.symbolic import Extent

if TYPE_CHECKING:
    from forgec.ir.evaluator import Evaluator


@irdl_op_definition
class SymbolOp(IRDLOperation):
    """``forge.symbol @s0 "seq" min 1 max 2048``: a dynamic extent's name in types, its name for people, and its range.

    The maximum is absent where none was declared.
    """

    name = "forge.symbol"

    sym_name = prop_def(SymbolNameConstraint())
    label = prop_def(StringAttr)
    minimum = prop_def(ExtentAttr)
    maximum = opt_prop_def(ExtentAttr)

    custom_directives = (Bare,)

    traits = traits_def(SymbolOpInterface())

    assembly_format = (
        "$sym_name custom<Bare>($label) `min` custom<Bare>($minimum) (`max` custom<Bare>($maximum)^)? attr-dict"
    )

    @property
    def bounds(self) -> tuple[int, int | None]:
        """The smallest value and the largest, None where none was declared."""
        low, high = self.minimum.data, None if self.maximum is None else self.maximum.data
        assert isinstance(low, int), "the op was verified"
        assert high is None or isinstance(high, int), "the op was verified"
        return low, high

    def verify_(self) -> None:
        low, high = self.minimum.data, None if self.maximum is None else self.maximum.data
        if not isinstance(low, int) or low < 0 or (high is not None and (not isinstance(high, int) or high < low)):
            raise VerifyException(f"range [{low}, {high}] of {self.sym_name.data} is empty or not constant")

    def admits(self, value: int) -> bool:
        """True if the extent may have this value."""
        low, high = self.bounds
        return low <= value and (high is None or value <= high)

    @property
    def range_text(self) -> str:
        """The range for people: ``[1, 2048]``, or ``[1, …)``."""
        return f"[{self.minimum.data}, …)" if self.maximum is None else f"[{self.minimum.data}, {self.maximum.data}]"


@irdl_op_definition
class ConstraintOp(IRDLOperation):
    """``forge.constraint s0 "le" s1 * 2``: a relation between dynamic extents that every call fulfils.

    The predicate is ``eq``, ``ne``, ``le`` or ``lt``. Capture declares what torch.export has relied on while tracing.
    """

    name = "forge.constraint"

    left = prop_def(ExtentAttr)
    predicate = prop_def(StringAttr)
    right = prop_def(ExtentAttr)

    custom_directives = (Bare,)

    assembly_format = "custom<Bare>($left) custom<Bare>($predicate) custom<Bare>($right) attr-dict"

    def verify_(self) -> None:
        if self.predicate.data not in PREDICATES:
            raise VerifyException(f"the predicate is one of {', '.join(PREDICATES)}, not {self.predicate.data!r}")

    @property
    def constraint(self) -> Constraint:
        """The relation itself."""
        return Constraint(self.left.data, self.predicate.data, self.right.data)


@irdl_op_definition
class ParamOp(IRDLOperation):
    """A weight: a tensor of the model, or one that is computed from others when the program is compiled.

    ::

        forge.param @qkv : tensor<96x64xf32> = {
          %0 = forge.param_ref @q : tensor<64x64xf32>
          %1 = forge.param_ref @k : tensor<32x64xf32>
          %2 = forge.concat %0, %1 dim 0 : (tensor<64x64xf32>, tensor<32x64xf32>) -> tensor<96x64xf32>
          forge.yield %2 : tensor<96x64xf32>
        }

    The artifact holds the tensors that the program reads: of these, the computed one alone.
    """

    name = "forge.param"

    sym_name = prop_def(SymbolNameConstraint())
    type = prop_def(AnyTensorTypeConstr)
    init = opt_region_def("single_block")

    traits = traits_def(SymbolOpInterface())

    assembly_format = "$sym_name `:` $type (`=` $init^)? attr-dict"

    def verify_(self) -> None:
        if self.init is None:
            return
        last = self.init.block.last_op
        if not isinstance(last, YieldOp) or [value.type for value in last.operands] != [self.type]:
            raise VerifyException(f"the region must end with forge.yield of a value of type {self.type}")
        for op in self.init.block.ops:
            if not isinstance(op, (ForgeOp, YieldOp)) or getattr(op, "is_pinned", False):
                raise VerifyException(f"{op.name} cannot be part of a parameter")


@irdl_op_definition
class YieldOp(IRDLOperation):
    """What leaves the region of a ``forge.fused`` or a ``forge.param``."""

    name = "forge.yield"

    arguments = var_operand_def(AnyTensorTypeConstr)

    traits = traits_def(IsTerminator(), Pure())

    assembly_format = "$arguments attr-dict `:` type($arguments)"


TRIANGLES = ("tril", "triu", "-inf triu")


@irdl_op_definition
class ParamRefOp(ForgeOp):
    """The value of a ``forge.param``.

    What capture saw in its data may be written down: it ``holds`` a ``"tril"``, matrices with 1 on and below the
    diagonal and 0 above; a ``"triu"``, 1 above the diagonal and 0 on and below; or an ``"-inf triu"``, -inf above.
    """

    name = "forge.param_ref"

    param = prop_def(FlatSymbolRefAttrConstr)
    result = result_def(AnyTensorTypeConstr)
    holds = opt_prop_def(StringAttr)

    assembly_format = "$param (`holds` custom<Bare>($holds)^)? attr-dict `:` type($result)"

    def infer(self) -> Sequence[TensorSpec]:
        if self.holds is not None and (self.holds.data not in TRIANGLES or types.rank(self.result) < 2):
            raise VerifyException(f"a parameter of rank {types.rank(self.result)} cannot hold {self.holds.data!r}")
        return [(types.dtype(self.result), types.shape(self.result))]

    def flops(self) -> Extent:
        return 0

    def bytes_written(self) -> Extent:
        return 0

    def reference(self, ev: Evaluator, *inputs: Any) -> Any:
        return ev.param(self.param.root_reference.data)


@irdl_op_definition
class ConstantOp(ForgeOp):
    """A small literal tensor, row-major."""

    name = "forge.constant"

    value = prop_def(DenseIntOrFPElementsAttr)
    result = result_def(AnyTensorTypeConstr)

    def infer(self) -> Sequence[TensorSpec]:
        literal = self.value.type
        if not isinstance(literal, TensorType) or not types.is_contiguous(literal):
            raise VerifyException("the literal must be a row-major tensor")
        if self.results and self.result.type != literal:
            raise VerifyException(f"a literal of type {literal} cannot have type {self.result.type}")
        return [(types.dtype(literal), types.shape(literal))]

    def print(self, printer: Printer) -> None:
        printer.print_string(" ")
        print_literal(printer, self.value)
        printer.print_op_attributes(self.attributes)

    @classmethod
    def parse(cls, parser: Parser) -> Self:
        literal = parser.parse_attribute()
        if not isinstance(literal, DenseIntOrFPElementsAttr):
            parser.raise_error("expected a dense literal")
        attributes = parser.parse_optional_attr_dict()
        return cls.create(properties={"value": literal}, attributes=attributes, result_types=[literal.type])

    def flops(self) -> Extent:
        return 0

    def bytes_written(self) -> Extent:
        return 0

    def reference(self, ev: Evaluator, *inputs: Any) -> Any:
        return ev.literal(self.value)


@irdl_op_definition
class StateReadOp(IRDLOperation):
    """The value that a version of state holds. Does not consume the version; stands before the op that does."""

    name = "forge.state_read"

    state = operand_def(StateType)
    result = result_def(AnyTensorTypeConstr)

    traits = traits_def(Pure())

    assembly_format = "$state attr-dict `:` functional-type(operands, results)"

    def verify_(self) -> None:
        if not isinstance(self.state.type, StateType) or self.state.type.value != self.result.type:
            raise VerifyException("reading a state yields a value of the type it holds")
        verify_linear(self.state)


@irdl_op_definition
class StateWriteOp(IRDLOperation):
    """Consumes a version of state and yields the next, which holds ``value``."""

    name = "forge.state_write"

    state = operand_def(StateType)
    value = operand_def(AnyTensorTypeConstr)
    result = result_def(StateType)

    traits = traits_def(MemoryWriteEffect())

    assembly_format = "$state `,` $value attr-dict `:` functional-type(operands, results)"

    def verify_(self) -> None:
        if self.state.type != self.result.type or not isinstance(self.state.type, StateType):
            raise VerifyException("a state keeps its type")
        held = self.state.type.value
        if (types.dtype(held), types.shape(held)) != (types.dtype(self.value), types.shape(self.value)):
            raise VerifyException(f"a state of {held} cannot hold a value of type {self.value.type}")
        verify_linear(self.state)
        verify_linear(self.result)


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


def verify_linear(version: SSAValue) -> None:
    """Check that a version of state is consumed exactly once, and read only before that; raises VerifyException."""
    uses = [use.operation for use in version.uses]
    consumers = [op for op in uses if not isinstance(op, StateReadOp)]
    if len(consumers) != 1:
        raise VerifyException(f"a version of state is consumed {len(consumers)} times, it must be consumed once")
    for op in uses:
        same_block = op.parent_block() is consumers[0].parent_block()
        if op is not consumers[0] and same_block and not op.is_before_in_block(consumers[0]):
            raise VerifyException("a version of state is read after it was consumed")
