"""Ops that put elements in order: sorting, the greatest few. Each yields the elements and their places."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from xdsl.builder import Builder
from xdsl.dialects.builtin import AnyTensorTypeConstr, IntAttr, UnitAttr
from xdsl.ir import SSAValue
from xdsl.irdl import irdl_op_definition, operand_def, opt_prop_def, prop_def, result_def
from xdsl.utils.exceptions import VerifyException

from forgec.ir import types
from forgec.ir.attributes import ExtentAttr
from forgec.ir.ops.base import ForgeOp, TensorSpec, check_dim
from forgec.ir.ops.decomposition import Emitter
from forgec.runtime.symbolic import Extent

if TYPE_CHECKING:
    from forgec.ir.evaluator import Evaluator


class _OrderOp(ForgeOp):
    """``values`` are elements of the input along ``dim``, ``indices`` (int64) their places there."""

    input = operand_def(AnyTensorTypeConstr)
    values = result_def(AnyTensorTypeConstr)
    indices = result_def(AnyTensorTypeConstr)
    dim = prop_def(IntAttr)

    def selected(self, shape: tuple[Extent, ...], dim: int) -> tuple[Extent, ...]:
        """The shape of both results."""
        return shape

    def infer(self) -> Sequence[TensorSpec]:
        shape = types.shape(self.input)
        shape = self.selected(shape, check_dim(self.dim.data, len(shape)))
        return [(types.dtype(self.input), shape), ("i64", shape)]

    def flops(self) -> Extent:
        return types.numel(self.input)


@irdl_op_definition
class SortOp(_OrderOp):
    """All elements along ``dim`` in ascending order, or ``descending``; NaN counts as the greatest. Where ``stable``
    stands, equal elements keep their order.
    """

    name = "forge.sort"

    descending = opt_prop_def(UnitAttr)
    stable = opt_prop_def(UnitAttr)

    assembly_format = (
        "$input `dim` custom<Bare>($dim) (`descending` $descending^)? (`stable` $stable^)? attr-dict `:` "
        "functional-type(operands, results)"
    )

    def reference(self, ev: Evaluator, *inputs: Any) -> Any:
        settings = {"descending": self.descending is not None, "stable": self.stable is not None}
        return tuple(ev.torch.sort(inputs[0], dim=self.dim.data, **settings))


@irdl_op_definition
class ArgsortOp(ForgeOp):
    """The places (int64) of the elements of each row, the last dimension, in ascending order, or ``descending``; NaN
    counts as the greatest, and equal elements keep their order. What sorting of long rows becomes on a processor.
    """

    name = "forge.argsort"

    input = operand_def(AnyTensorTypeConstr)
    result = result_def(AnyTensorTypeConstr)
    descending = opt_prop_def(UnitAttr)

    assembly_format = "$input (`descending` $descending^)? attr-dict `:` functional-type(operands, results)"

    def infer(self) -> Sequence[TensorSpec]:
        if not types.shape(self.input):
            raise VerifyException("argsort takes rows")
        return [("i64", types.shape(self.input))]

    def flops(self) -> Extent:
        return types.numel(self.input)

    def reference(self, ev: Evaluator, *inputs: Any) -> Any:
        return ev.torch.sort(inputs[0], dim=-1, descending=self.descending is not None, stable=True).indices

    def decompose(self, builder: Builder) -> list[SSAValue]:
        """The places of a sort."""
        flags = {"stable": UnitAttr(), **({} if self.descending is None else {"descending": UnitAttr()})}
        made = SortOp.make([self.input], {"dim": IntAttr(types.rank(self.input) - 1), **flags})
        Emitter(builder, self).insert(made)
        return [made.indices]


@irdl_op_definition
class TopkOp(_OrderOp):
    """The ``k`` greatest elements along ``dim``, greatest first, or the ``smallest``, smallest first; NaN counts as the
    greatest. With ``unsorted`` they may stand in any order.
    """

    name = "forge.topk"

    k = prop_def(ExtentAttr)
    smallest = opt_prop_def(UnitAttr)
    unsorted = opt_prop_def(UnitAttr)

    assembly_format = (
        "$input `k` custom<Bare>($k) `dim` custom<Bare>($dim) (`smallest` $smallest^)? (`unsorted` $unsorted^)? "
        "attr-dict `:` functional-type(operands, results)"
    )

    def selected(self, shape: tuple[Extent, ...], dim: int) -> tuple[Extent, ...]:
        k, extent = self.k.data, shape[dim] if shape else 1
        if (isinstance(k, int) and k < 0) or (isinstance(k, int) and isinstance(extent, int) and k > extent):
            raise VerifyException(f"there are no {k} of {extent} elements")
        return (*shape[:dim], k, *shape[dim + 1 :]) if shape else ()

    def reference(self, ev: Evaluator, *inputs: Any) -> Any:
        settings = {"largest": self.smallest is None, "sorted": self.unsorted is None}
        return tuple(ev.torch.topk(inputs[0], ev.extent(self.k.data), self.dim.data, **settings))


class _ExtremeOp(_OrderOp):
    """The one extreme element along ``dim``."""

    TORCH: ClassVar[str]

    keepdim = opt_prop_def(UnitAttr)

    assembly_format = (
        "$input `dim` custom<Bare>($dim) (`keepdim` $keepdim^)? attr-dict `:` functional-type(operands, results)"
    )

    def selected(self, shape: tuple[Extent, ...], dim: int) -> tuple[Extent, ...]:
        middle = (1,) if self.keepdim is not None and shape else ()
        return shape[:dim] + middle + shape[dim + 1 :]

    def reference(self, ev: Evaluator, *inputs: Any) -> Any:
        return tuple(ev.function(self.TORCH)(inputs[0], self.dim.data, keepdim=self.keepdim is not None))


@irdl_op_definition
class MaxOp(_ExtremeOp):
    """The greatest element along ``dim`` (NaN if any is) and its place; of equal ones, any."""

    name = "forge.max"
    TORCH: ClassVar = "max"


@irdl_op_definition
class MinOp(_ExtremeOp):
    """The least element along ``dim`` (NaN if any is) and its place; of equal ones, any."""

    name = "forge.min"
    TORCH: ClassVar = "min"
