"""Ops that read or write at places given by tensors of indices.

Indices are int64 or int32. Those of reading ops may be negative where torch allows it (``forge.index``,
``forge.index_put``: counted from the end); an index outside its dimension is an error when it is met.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from xdsl.dialects.builtin import AnyTensorTypeConstr, IntAttr, UnitAttr
from xdsl.ir import SSAValue
from xdsl.irdl import irdl_op_definition, operand_def, opt_prop_def, prop_def, result_def, var_operand_def
from xdsl.utils.exceptions import VerifyException

from forgec.ir import types
from forgec.ir.attributes import IntsAttr
from forgec.ir.ops.base import ForgeOp, TensorSpec, check_dim, check_index, check_same_dtype
from forgec.runtime.symbolic import Extent

if TYPE_CHECKING:
    from forgec.ir.evaluator import Evaluator


class IndexingOp(ForgeOp):
    """An op that moves elements to or from computed places; it computes nothing."""

    result = result_def(AnyTensorTypeConstr)

    def flops(self) -> Extent:
        return 0


class GatheringOp(IndexingOp):
    """Reads from its first operand as many elements as the result has."""

    def bytes_read(self, index: int) -> Extent:
        return types.nbytes(self.result) if index == 0 else super().bytes_read(index)


class ScatteringOp(IndexingOp):
    """Yields its first operand with some elements replaced; costs the write of these when the update happens in
    place.
    """

    def bytes_read(self, index: int) -> Extent:
        return 0 if index == 0 else super().bytes_read(index)

    def bytes_written(self) -> Extent:
        return types.nbytes(self.written())

    def written(self) -> SSAValue:
        """The operand whose elements are written."""
        raise NotImplementedError


@irdl_op_definition
class EmbeddingOp(GatheringOp):
    """``result[…, d] = weight[indices[…], d]``: weight [V, D], indices [*B], result [*B, D]."""

    name = "forge.embedding"

    weight = operand_def(AnyTensorTypeConstr)
    indices = operand_def(AnyTensorTypeConstr)

    assembly_format = "$weight `,` $indices attr-dict `:` functional-type(operands, results)"

    def infer(self) -> Sequence[TensorSpec]:
        check_index(self, self.indices)
        weight = types.shape(self.weight)
        if len(weight) != 2:
            raise VerifyException("the weight of an embedding has rank 2")
        return [(types.dtype(self.weight), (*types.shape(self.indices), weight[1]))]

    def reference(self, ev: Evaluator, *inputs: Any) -> Any:
        return ev.torch.nn.functional.embedding(inputs[1], inputs[0])


@irdl_op_definition
class IndexSelectOp(GatheringOp):
    """``result[…, i, …] = input[…, index[i], …]`` along ``dim``: index [I]."""

    name = "forge.index_select"

    input = operand_def(AnyTensorTypeConstr)
    index = operand_def(AnyTensorTypeConstr)
    dim = prop_def(IntAttr)

    assembly_format = "$input `,` $index `dim` custom<Bare>($dim) attr-dict `:` functional-type(operands, results)"

    def infer(self) -> Sequence[TensorSpec]:
        check_index(self, self.index)
        shape = list(types.shape(self.input))
        if not shape or types.rank(self.index) != 1:
            raise VerifyException("index_select takes an input of rank 1 at least and an index of rank 1")
        shape[check_dim(self.dim.data, len(shape))] = types.shape(self.index)[0]
        return [(types.dtype(self.input), tuple(shape))]

    def reference(self, ev: Evaluator, *inputs: Any) -> Any:
        return inputs[0].index_select(self.dim.data, inputs[1])


@irdl_op_definition
class GatherOp(GatheringOp):
    """``result[i…] = input[i with i[dim] replaced by index[i…]]``; the result has the index's shape."""

    name = "forge.gather"

    input = operand_def(AnyTensorTypeConstr)
    index = operand_def(AnyTensorTypeConstr)
    dim = prop_def(IntAttr)

    assembly_format = "$input `,` $index `dim` custom<Bare>($dim) attr-dict `:` functional-type(operands, results)"

    def infer(self) -> Sequence[TensorSpec]:
        check_index(self, self.index)
        _check_within(
            types.shape(self.index), types.shape(self.input), check_dim(self.dim.data, types.rank(self.input))
        )
        return [(types.dtype(self.input), types.shape(self.index))]

    def reference(self, ev: Evaluator, *inputs: Any) -> Any:
        return inputs[0].gather(self.dim.data, inputs[1].long())


def _check_within(inner: Sequence[Extent], outer: Sequence[Extent], skipped: int | None) -> None:
    """Ranks agree, and no constant extent of ``inner`` exceeds that of ``outer``, but for one dimension."""
    if len(inner) != len(outer):
        raise VerifyException(f"ranks {len(inner)} and {len(outer)} differ")
    for dim, (small, large) in enumerate(zip(inner, outer, strict=True)):
        if dim != skipped and isinstance(small, int) and isinstance(large, int) and small > large:
            raise VerifyException(f"extent {small} of dimension {dim} exceeds {large}")


def indexed_shape(shape: Sequence[Extent], dims: Sequence[int], indices: Sequence[SSAValue]) -> tuple[Extent, ...]:
    """The shape of ``input[indices at dims]`` by torch's (NumPy's) rule of advanced indexing."""
    if not dims or len(dims) != len(indices):
        raise VerifyException(f"{len(indices)} index tensors for {len(dims)} dimensions")
    for dim in dims:
        check_dim(dim, len(shape))
    if not shape or any(a >= b for a, b in pairwise(dims)):
        raise VerifyException("indexed dimensions must exist and ascend")
    places = types.broadcast(*(types.shape(v) for v in indices))
    rest = [extent for dim, extent in enumerate(shape) if dim not in dims]
    front = dims[0] if dims[-1] - dims[0] == len(dims) - 1 else 0
    return (*rest[:front], *places, *rest[front:])


def _subscript(dims: Sequence[int], indices: Sequence[Any]) -> tuple[Any, ...]:
    result: list[Any] = [slice(None)] * (dims[-1] + 1)
    for dim, index in zip(dims, indices, strict=True):
        result[dim] = index.long()
    return tuple(result)


@irdl_op_definition
class IndexOp(GatheringOp):
    """``input[:, indices[0], :, indices[1], …]``: index tensor k addresses dimension ``dims[k]``; index tensors
    broadcast together.

    Their broadcast shape takes the place of the addressed dimensions where these are adjacent, and leads the result
    otherwise, as in torch and NumPy. A boolean mask is no index here (its result's extent is not known).
    """

    name = "forge.index"

    input = operand_def(AnyTensorTypeConstr)
    indices = var_operand_def(AnyTensorTypeConstr)
    dims = prop_def(IntsAttr)

    assembly_format = "$input `at` $indices `dims` custom<Bare>($dims) attr-dict `:` functional-type(operands, results)"

    def infer(self) -> Sequence[TensorSpec]:
        for index in self.indices:
            check_index(self, index)
        return [(types.dtype(self.input), indexed_shape(types.shape(self.input), self.dims.data, self.indices))]

    def reference(self, ev: Evaluator, *inputs: Any) -> Any:
        return inputs[0][_subscript(self.dims.data, inputs[1:])]


@irdl_op_definition
class IndexPutOp(ScatteringOp):
    """``destination`` with the elements that ``forge.index`` would read replaced by ``values`` (broadcast to their
    shape).

    With ``accumulate`` the values are added, all of them where places repeat; without it, one of those for a repeated
    place stays.
    """

    name = "forge.index_put"

    destination = operand_def(AnyTensorTypeConstr)
    values = operand_def(AnyTensorTypeConstr)
    indices = var_operand_def(AnyTensorTypeConstr)
    dims = prop_def(IntsAttr)
    accumulate = opt_prop_def(UnitAttr)

    assembly_format = (
        "$destination `,` $values `at` $indices `dims` custom<Bare>($dims) (`accumulate` $accumulate^)? attr-dict `:` "
        "functional-type(operands, results)"
    )

    def infer(self) -> Sequence[TensorSpec]:
        for index in self.indices:
            check_index(self, index)
        place = indexed_shape(types.shape(self.destination), self.dims.data, self.indices)
        if types.broadcast(types.shape(self.values), place) != place:
            raise VerifyException(f"the values do not broadcast to {list(map(str, place))}")
        return [(check_same_dtype(self, self.destination, self.values), types.shape(self.destination))]

    def written(self) -> SSAValue:
        return self.values

    def flops(self) -> Extent:
        return 0 if self.accumulate is None else types.numel(self.values)

    def reference(self, ev: Evaluator, *inputs: Any) -> Any:
        destination, values, *indices = inputs
        # index_put_ takes None for a dimension that is not indexed, as a subscript takes a full slice
        places = [None if isinstance(i, slice) else i for i in _subscript(self.dims.data, indices)]
        return ev.torch.ops.aten.index_put(destination, places, values, self.accumulate is not None)


class PlacedOp(ScatteringOp):
    """An update along one dimension: destination, index, source."""

    destination = operand_def(AnyTensorTypeConstr)
    index = operand_def(AnyTensorTypeConstr)
    source = operand_def(AnyTensorTypeConstr)
    dim = prop_def(IntAttr)

    assembly_format = (
        "$destination `,` $index `,` $source `dim` custom<Bare>($dim) attr-dict `:` functional-type(operands, results)"
    )

    def written(self) -> SSAValue:
        return self.source


class _SlicesOp(PlacedOp):
    """An update of whole slices along ``dim``: index [I], source [..., I, ...]."""

    def infer(self) -> Sequence[TensorSpec]:
        check_index(self, self.index)
        target = types.shape(self.destination)
        dim = check_dim(self.dim.data, len(target))
        if not target or types.rank(self.index) != 1:
            raise VerifyException(f"{self.name} takes a destination of rank 1 at least and an index of rank 1")
        expected = (*target[:dim], types.shape(self.index)[0], *target[dim + 1 :])
        if types.shape(self.source) != expected:
            raise VerifyException(f"the source must have shape {list(map(str, expected))}")
        return [(check_same_dtype(self, self.destination, self.source), target)]


@irdl_op_definition
class IndexCopyOp(_SlicesOp):
    """``destination`` with ``result[…, index[i], …] = source[…, i, …]`` along ``dim``: index [I]; places must not
    repeat.
    """

    name = "forge.index_copy"

    def reference(self, ev: Evaluator, *inputs: Any) -> Any:
        destination, index, source = inputs
        return destination.index_copy(self.dim.data, index.long(), source)


@irdl_op_definition
class IndexAddOp(_SlicesOp):
    """``destination`` with ``source[…, i, …]`` added at ``[…, index[i], …]`` along ``dim``: index [I]; all of them
    where places repeat.
    """

    name = "forge.index_add"

    def flops(self) -> Extent:
        return types.numel(self.source)

    def reference(self, ev: Evaluator, *inputs: Any) -> Any:
        destination, index, source = inputs
        return destination.index_add(self.dim.data, index.long(), source)


class _ElementsOp(PlacedOp):
    """An update of single elements: index and source have one element for each."""

    def infer(self) -> Sequence[TensorSpec]:
        check_index(self, self.index)
        index, target = types.shape(self.index), types.shape(self.destination)
        _check_within(index, target, check_dim(self.dim.data, len(target)))
        _check_within(index, types.shape(self.source), None)
        return [(check_same_dtype(self, self.destination, self.source), target)]


@irdl_op_definition
class ScatterOp(_ElementsOp):
    """``destination`` with ``result[i with i[dim] replaced by index[i…]] = source[i…]`` for every i of the index's
    shape.

    Of several sources for one place, one stays.
    """

    name = "forge.scatter"

    def reference(self, ev: Evaluator, *inputs: Any) -> Any:
        destination, index, source = inputs
        return destination.scatter(self.dim.data, index.long(), source)


@irdl_op_definition
class ScatterAddOp(_ElementsOp):
    """``destination`` with ``source[i…]`` added at ``i with i[dim] replaced by index[i…]`` for every i of the index's
    shape; all of them where places repeat.
    """

    name = "forge.scatter_add"

    def flops(self) -> Extent:
        return types.numel(self.index)

    def reference(self, ev: Evaluator, *inputs: Any) -> Any:
        destination, index, source = inputs
        return destination.scatter_add(self.dim.data, index.long(), source)
