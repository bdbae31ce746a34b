"""Ops that run as one kernel: a region of ordinary forge ops, of which only the results leave."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Self

from xdsl.builder import Builder
from xdsl.dialects.builtin import AnyTensorTypeConstr, StringAttr
from xdsl.ir import Attribute, Block, Operation, Region, SSAValue
from xdsl.irdl import (
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
from forgec.ir.blocks import evaluate_block
from forgec.ir.layout import stored_bytes
from forgec.ir.locations import inherit
from forgec.ir.ops.base import ForgeEffects, ForgeOp, TensorSpec
from forgec.ir.ops.module import YieldOp
from forgec.ir.ops.shape import is_free
from forgec.runtime.symbolic import Extent, sym_min

if TYPE_CHECKING:
    from forgec.ir.evaluator import Evaluator


@irdl_op_definition
class FusedOp(ForgeOp):
    """Several ops as one kernel: it reads the operands once, computes what the region says, and writes what the region
    yields; the values in between never reach memory.

    ::

        %y = forge.fused "linear" (%a = %x : tensor<9x64xf32>, %w = %weight : tensor<64x64xf32>, %r = %residual : …) {
          %0 = forge.linear %a, %w : (tensor<9x64xf32>, tensor<64x64xf32>) -> tensor<9x64xf32>
          %1 = forge.add %r, %0 : (tensor<9x64xf32>, tensor<9x64xf32>) -> tensor<9x64xf32>
          forge.yield %1 : tensor<9x64xf32>
        } : tensor<9x64xf32>

    ``kind`` names the op that decides how the kernel is made: the one of greatest cost, or ``elementwise``. The region
    holds pure ops and sees nothing but its arguments.
    """

    name = "forge.fused"

    kind = prop_def(StringAttr)
    inputs = var_operand_def(AnyTensorTypeConstr)
    outputs = var_result_def(AnyTensorTypeConstr)
    body = region_def("single_block")

    traits = traits_def(ForgeEffects(), IsolatedFromAbove())

    @staticmethod
    def of(kind: str, ops: Sequence[Operation], inputs: Sequence[SSAValue], outputs: Sequence[SSAValue]) -> FusedOp:
        """Build the op with copies of ``ops``, which are in order and use nothing but ``inputs`` and one another."""
        block = Block(arg_types=[value.type for value in inputs])
        mapping: dict[SSAValue, SSAValue] = dict(zip(inputs, block.args, strict=True))
        for value, argument in mapping.items():
            argument.name_hint = value.name_hint
        for op in ops:
            block.add_op(op.clone(mapping))
        block.add_op(YieldOp.create(operands=[mapping[value] for value in outputs]))
        return FusedOp.with_region(kind, block, inputs)

    @staticmethod
    def with_region(kind: str, block: Block, inputs: Sequence[SSAValue]) -> FusedOp:
        """Build the op around a block that takes ``inputs`` and ends with ``forge.yield``."""
        last = block.last_op
        assert isinstance(last, YieldOp), "a region ends with its yield"
        return FusedOp.create(
            operands=list(inputs),
            properties={"kind": StringAttr(kind)},
            result_types=[value.type for value in last.operands],
            regions=[Region(block)],
        )

    @property
    def inner(self) -> Iterator[ForgeOp]:
        """The ops of the region, without its terminator."""
        return (op for op in self.body.block.ops if isinstance(op, ForgeOp))

    @property
    def yielded(self) -> Sequence[SSAValue]:
        """The values of the region that are the results."""
        last = self.body.block.last_op
        assert isinstance(last, YieldOp), "the verifier has seen to it"
        return last.operands

    def infer(self) -> Sequence[TensorSpec]:
        return [(types.dtype(value), types.shape(value)) for value in self.yielded]

    def verify_(self) -> None:
        block = self.body.block
        if not isinstance(block.last_op, YieldOp):
            raise VerifyException("the region must end with forge.yield")
        for op in block.ops:
            if not isinstance(op, (ForgeOp, YieldOp)) or getattr(op, "is_pinned", False):
                raise VerifyException(f"{op.name} cannot be part of a kernel")
        if list(block.arg_types) != list(self.operand_types):
            raise VerifyException("the region's arguments and the operands differ in type")
        if [value.type for value in self.yielded] != list(self.result_types):
            raise VerifyException("what the region yields and the results differ in type")
        super().verify_()

    def flops(self) -> Extent:
        return sum((op.flops() for op in self.inner), start=0)

    def bytes_read(self, index: int) -> Extent:
        """What the ops of the region read of an operand together: of a gathered or sliced one that part alone."""
        return _read(self.body.block.args[index])

    def reference(self, ev: Evaluator, *inputs: Any) -> Any:
        return tuple(evaluate_block(self.body.block, ev, inputs))

    def decompose(self, builder: Builder) -> list[SSAValue]:
        """The ops of the region, one by one."""
        mapping: dict[SSAValue, SSAValue] = dict(zip(self.body.block.args, self.operands, strict=True))
        for op in self.inner:
            copied = builder.insert(inherit(op.clone(mapping), self))
            for old, new in zip(op.results, copied.results, strict=True):
                new.name_hint = old.name_hint
        return [mapping[value] for value in self.yielded]

    def print(self, printer: Printer) -> None:
        printer.print_string(" ")
        printer.print_string_literal(self.kind.data)
        printer.print_string(" (")
        printer.print_list(
            zip(self.body.block.args, self.operands, strict=True), lambda pair: _print_argument(printer, *pair)
        )
        printer.print_string(")")
        printer.print_op_attributes(self.attributes, print_keyword=True)
        printer.print_string(" ")
        printer.print_region(self.body, print_entry_block_args=False)
        printer.print_string(" : ")
        printer.print_list(self.result_types, printer.print_attribute)

    @classmethod
    def parse(cls, parser: Parser) -> Self:
        kind = parser.parse_str_literal()

        def argument() -> tuple[Parser.UnresolvedArgument, UnresolvedOperand, Attribute]:
            name = parser.parse_argument(expect_type=False)
            parser.parse_punctuation("=")
            operand = parser.parse_unresolved_operand()
            parser.parse_punctuation(":")
            return name, operand, parser.parse_type()

        given = parser.parse_comma_separated_list(parser.Delimiter.PAREN, argument)
        attributes = parser.parse_optional_attr_dict_with_keyword()
        region = parser.parse_region([name.resolve(kind) for name, _, kind in given])
        parser.parse_punctuation(":")
        results = parser.parse_comma_separated_list(parser.Delimiter.NONE, parser.parse_type)
        return cls.create(
            operands=[parser.resolve_operand(operand, kind) for _, operand, kind in given],
            properties={"kind": StringAttr(kind)},
            attributes={} if attributes is None else attributes.data,
            result_types=results,
            regions=[region],
        )


def _read(value: SSAValue) -> Extent:
    """Bytes of a value of the region that its users read, itself or through free views."""
    whole = stored_bytes(types.tensor_type(value))
    total: Extent = 0
    for use in value.uses:
        user = use.operation
        if not isinstance(user, ForgeOp):
            return whole
        part = _read(user.results[0]) if is_free(user) else user.bytes_read(use.index)
        if part == whole:
            return whole
        total = total + part
    return sym_min(total, whole)


def _print_argument(printer: Printer, argument: SSAValue, operand: SSAValue) -> None:
    printer.print_ssa_value(argument)
    printer.print_string(" = ")
    printer.print_ssa_value(operand)
    printer.print_string(" : ")
    printer.print_attribute(operand.type)
