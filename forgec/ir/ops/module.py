"""Ops that are not computations: module-level declarations, state and constants."""

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
)
from xdsl.ir import SSAValue
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
)
from xdsl.parser import Parser
from xdsl.printer import Printer
from xdsl.traits import IsTerminator, MemoryWriteEffect, Pure, SymbolOpInterface
from xdsl.utils.exceptions import VerifyException

from forgec.ir import types
from forgec.ir.attributes import ExtentAttr, StateType
from forgec.ir.ops.base import ForgeOp, TensorSpec
from forgec.ir.ops.format import Bare, print_literal
from forgec.runtime.plan import PREDICATES, Constraint
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
