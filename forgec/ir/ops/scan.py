"""Loops over the places of a dimension, whose steps pass values on to the next: recurrences."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any, Self

from xdsl.builder import Builder
from xdsl.dialects.builtin import AnyTensorTypeConstr, IntAttr
from xdsl.ir import Attribute, SSAValue
from xdsl.irdl import (
    AttrSizedOperandSegments,
    irdl_op_definition,
    prop_def,
    region_def,
    traits_def,
    var_operand_def,
    var_result_def,
)
from xdsl.parser import Parser, UnresolvedOperand
from xdsl.printer import Printer
from xdsl.traits import IsolatedFromAbove
from xdsl.utils.exceptions import VerifyException

from forgec.ir import types
from forgec.ir.attributes import IntsAttr
from forgec.ir.blocks import evaluate_block
from forgec.ir.locations import inherit
from forgec.ir.ops.base import ForgeEffects, ForgeOp, TensorSpec, check_dim
from forgec.ir.ops.decomposition import Emitter
from forgec.ir.ops.module import YieldOp
from forgec.ir.ops.shape import ConcatOp
from forgec.runtime.symbolic import Extent

if TYPE_CHECKING:
    from forgec.ir.evaluator import Evaluator

_KINDS = ("carried", "over", "with")


@irdl_op_definition
class ScanOp(ForgeOp):
    """The same computation for each place of a dimension, one after the other (``jax.lax.scan``): the region gets what
    is ``carried`` from the step before, the step's slice of each tensor it runs ``over`` (which lacks the dimension
    ``dim``), and what is the same ``with`` all steps. It yields the next carried values, then results of the step.
    Results are the last carried values, and the results of all steps along a new first dimension.

    ::

        %last, %sums = forge.scan 5 (carried %s = %zeros : tensor<8xf32>, over %a = %x dim 1 : tensor<8x5xf32>) {
          %0 = forge.add %s, %a : (tensor<8xf32>, tensor<8xf32>) -> tensor<8xf32>
          forge.yield %0, %0 : tensor<8xf32>, tensor<8xf32>
        } : tensor<8xf32>, tensor<5x8xf32>

    There is at least one step. The region holds pure ops and sees nothing but its arguments, which lie densely.
    """

    name = "forge.scan"

    steps = prop_def(IntAttr)
    dims = prop_def(IntsAttr)
    carried = var_operand_def(AnyTensorTypeConstr)
    over = var_operand_def(AnyTensorTypeConstr)
    shared = var_operand_def(AnyTensorTypeConstr)
    outputs = var_result_def(AnyTensorTypeConstr)
    body = region_def("single_block")

    irdl_options = (AttrSizedOperandSegments(as_property=True),)

    traits = traits_def(ForgeEffects(), IsolatedFromAbove())

    @classmethod
    def of(
        cls,
        steps: int,
        carried: Sequence[SSAValue],
        over: Sequence[SSAValue],
        dims: Sequence[int],
        shared: Sequence[SSAValue],
        body: Any,
    ) -> Self:
        """Build the op around a region that ends with ``forge.yield``."""
        last = body.block.last_op
        assert isinstance(last, YieldOp), "a region ends with its yield"
        count = len(carried)
        kinds = [types.tensor(types.dtype(value), types.shape(value)) for value in last.operands[:count]]
        kinds += [types.tensor(types.dtype(v), (steps, *types.shape(v))) for v in last.operands[count:]]
        return cls.build(
            operands=[list(carried), list(over), list(shared)],
            result_types=[kinds],
            properties={"steps": IntAttr(steps), "dims": IntsAttr(dims)},
            regions=[body],
        )

    @property
    def yielded(self) -> Sequence[SSAValue]:
        """The next carried values, and the results of a step."""
        last = self.body.block.last_op
        assert isinstance(last, YieldOp), "the verifier has seen to it"
        return last.operands

    def infer(self) -> Sequence[TensorSpec]:
        count = len(self.carried)
        specs = [(types.dtype(value), types.shape(value)) for value in self.yielded]
        return specs[:count] + [(dtype, (self.steps.data, *shape)) for dtype, shape in specs[count:]]

    def verify_(self) -> None:
        block, steps = self.body.block, self.steps.data
        if not isinstance(block.last_op, YieldOp):
            raise VerifyException("the region must end with forge.yield")
        for op in block.ops:
            if not isinstance(op, (ForgeOp, YieldOp)) or getattr(op, "is_pinned", False):
                raise VerifyException(f"{op.name} cannot be part of a scan")
        if steps < 1 or len(self.dims.data) != len(self.over):
            raise VerifyException("a scan has a step, and a dimension for each tensor that it runs over")
        for value, dim in zip(self.over, self.dims.data, strict=True):
            check_dim(dim, types.rank(value))
            if types.shape(value)[dim] != steps:
                raise VerifyException(f"a scan of {steps} steps runs over dimensions of {steps} places")
        if list(block.arg_types) != argument_types(self.carried, self.over, self.dims.data, self.shared):
            raise VerifyException("the region's arguments do not fit the operands")
        count = len(self.carried)
        if list(block.arg_types[:count]) != [_dense(types.dtype(v), types.shape(v)) for v in self.yielded[:count]]:
            raise VerifyException("what is carried keeps its type")
        super().verify_()

    def flops(self) -> Extent:
        return self.steps.data * sum((op.flops() for op in self.body.block.ops if isinstance(op, ForgeOp)), start=0)

    def reference(self, ev: Evaluator, *inputs: Any) -> Any:
        count, last = len(self.carried), len(self.carried) + len(self.over)
        carried, over, shared = list(inputs[:count]), inputs[count:last], inputs[last:]
        found: list[list[Any]] = []
        for step in range(self.steps.data):
            slices = [value.select(dim, step) for value, dim in zip(over, self.dims.data, strict=True)]
            made = evaluate_block(self.body.block, ev, [*carried, *slices, *shared])
            carried = made[:count]
            found.append(made[count:])
        return (*carried, *(ev.torch.stack(list(each)) for each in zip(*found, strict=True)))

    def decompose(self, builder: Builder) -> list[SSAValue]:
        """The steps, one after the other."""
        emit, block, count = Emitter(builder, self), self.body.block, len(self.carried)
        carried = list(self.carried)
        found: list[list[SSAValue]] = [[] for _ in self.yielded[count:]]
        for step in range(self.steps.data):
            slices = []
            for value, dim in zip(self.over, self.dims.data, strict=True):
                shape = types.shape(value)
                slices.append(emit.reshape(emit.slice(value, dim, step, 1), (*shape[:dim], *shape[dim + 1 :])))
            given = [*carried, *slices, *self.shared]
            mapping: dict[SSAValue, SSAValue] = dict(zip(block.args, given, strict=True))
            for op in block.ops:
                if isinstance(op, ForgeOp):
                    builder.insert(inherit(op.clone(mapping), self))
            made = [mapping[value] for value in self.yielded]
            carried = made[:count]
            for results, value in zip(found, made[count:], strict=True):
                results.append(emit.reshape(value, (1, *types.shape(value))))
        return [*carried, *(emit(ConcatOp, *results, dim=IntAttr(0)) for results in found)]

    def print(self, printer: Printer) -> None:
        printer.print_string(f" {self.steps.data} (")
        values = chain(
            ((0, value, None) for value in self.carried),
            ((1, value, dim) for value, dim in zip(self.over, self.dims.data, strict=True)),
            ((2, value, None) for value in self.shared),
        )
        for number, ((kind, value, dim), argument) in enumerate(zip(values, self.body.block.args, strict=True)):
            printer.print_string(f"{', ' if number else ''}{_KINDS[kind]} ")
            printer.print_ssa_value(argument)
            printer.print_string(" = ")
            printer.print_ssa_value(value)
            printer.print_string("" if dim is None else f" dim {dim}")
            printer.print_string(" : ")
            printer.print_attribute(value.type)
        printer.print_string(")")
        printer.print_op_attributes(self.attributes, print_keyword=True)
        printer.print_string(" ")
        printer.print_region(self.body, print_entry_block_args=False)
        printer.print_string(" : ")
        printer.print_list(self.result_types, printer.print_attribute)

    @classmethod
    def parse(cls, parser: Parser) -> Self:
        steps = parser.parse_integer(allow_boolean=False)

        def argument() -> tuple[str, Parser.UnresolvedArgument, UnresolvedOperand, int, Attribute]:
            kind = next((kind for kind in _KINDS if parser.parse_optional_keyword(kind) is not None), None)
            if kind is None:
                parser.raise_error("a value of a scan is carried, over or with")
            name = parser.parse_argument(expect_type=False)
            parser.parse_punctuation("=")
            operand = parser.parse_unresolved_operand()
            dim = 0
            if kind == "over":
                parser.parse_keyword("dim")
                dim = parser.parse_integer(allow_boolean=False)
            parser.parse_punctuation(":")
            return kind, name, operand, dim, parser.parse_type()

        given = parser.parse_comma_separated_list(parser.Delimiter.PAREN, argument)
        attributes = parser.parse_optional_attr_dict_with_keyword()
        values = {kind: [parser.resolve_operand(g[2], g[4]) for g in given if g[0] == kind] for kind in _KINDS}
        dims = [g[3] for g in given if g[0] == "over"]
        kinds = argument_types(values["carried"], values["over"], dims, values["with"])
        names = [g[1] for kind in _KINDS for g in given if g[0] == kind]
        region = parser.parse_region([name.resolve(kind) for name, kind in zip(names, kinds, strict=True)])
        parser.parse_punctuation(":")
        results = parser.parse_comma_separated_list(parser.Delimiter.NONE, parser.parse_type)
        op = cls.of(steps, values["carried"], values["over"], dims, values["with"], region)
        if list(op.result_types) != results:
            parser.raise_error(f"a scan yields {', '.join(map(str, op.result_types))}")
        if attributes is not None:
            op.attributes.update(attributes.data)
        return op


def argument_types(
    carried: Sequence[SSAValue], over: Sequence[SSAValue], dims: Sequence[int], shared: Sequence[SSAValue]
) -> list[Attribute]:
    """The types of a region's arguments."""
    slices = [
        _dense(types.dtype(v), (*types.shape(v)[:dim], *types.shape(v)[dim + 1 :]))
        for v, dim in zip(over, dims, strict=True)
    ]
    return [*(_dense(types.dtype(v), types.shape(v)) for v in carried), *slices, *(value.type for value in shared)]


def _dense(dtype: str, shape: Sequence[Extent]) -> Attribute:
    return types.tensor(dtype, shape)
