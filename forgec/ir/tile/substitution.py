"""Replaces symbols and tile parameters in a kernel: in the types of its values, and in what its ops say."""

from __future__ import annotations

from collections.abc import Mapping

from xdsl.dialects.builtin import AnyTensorType, TensorType
from xdsl.ir import Attribute, Block, Operation
from xdsl.rewriter import Rewriter

from forgec.ir import types
from forgec.ir.attributes import ExtentAttr, ExtentsAttr
from forgec.ir.tile.kernel import KernelOp, TileParameter, TileParametersAttr
from forgec.ir.tile.types import BlockType, tile
from forgec.runtime.symbolic import Extent, free_symbols, substitute


def substitute_symbols(kernel: KernelOp, values: Mapping[str, Extent]) -> None:
    """Replace names by extents throughout a kernel."""
    for name in ("symbols", "grid"):
        found = kernel.properties[name]
        assert isinstance(found, ExtentsAttr), name
        replaced = [substitute(extent, values) for extent in found.data]
        kernel.properties[name] = ExtentsAttr(
            extent for extent in replaced if name == "grid" or not isinstance(extent, int)
        )
    kernel.properties["tiles"] = TileParametersAttr(
        tuple(TileParameter(p.name, substitute(p.extent, values), p.whole) for p in kernel.tiles.data)
    )
    for block in kernel.body.blocks:
        _in_block(block, values)


def _in_block(block: Block, values: Mapping[str, Extent]) -> None:
    for argument in block.args:
        kind = substituted_type(argument.type, values)
        if kind is not argument.type:
            Rewriter.replace_value_with_new_type(argument, kind)
    for op in block.ops:
        _in_op(op, values)
        for region in op.regions:
            for inner in region.blocks:
                _in_block(inner, values)


def _in_op(op: Operation, values: Mapping[str, Extent]) -> None:
    for name, found in op.properties.items():
        if isinstance(found, ExtentAttr) and not isinstance(found.data, int):
            op.properties[name] = ExtentAttr(substitute(found.data, values))
        elif isinstance(found, ExtentsAttr):
            op.properties[name] = ExtentsAttr(substitute(extent, values) for extent in found.data)
    for result in op.results:
        kind = substituted_type(result.type, values)
        if kind is not result.type:
            Rewriter.replace_value_with_new_type(result, kind)


def substituted_type(kind: Attribute, values: Mapping[str, Extent]) -> Attribute:
    """The type with symbols replaced; the same object where it names none of them."""
    if isinstance(kind, BlockType):
        shape, strides = types.shape(kind.value), types.strides(kind.value)
        if not any(free_symbols(extent) & values.keys() for extent in (*shape, *strides)):
            return kind
        return BlockType(substituted_tensor(kind.value, values))
    if isinstance(kind, TensorType):
        shape = types.shape(kind)
        if not any(free_symbols(extent) & values.keys() for extent in shape):
            return kind
        return tile(kind.element_type, [substitute(extent, values) for extent in shape])
    return kind


def substituted_tensor(kind: AnyTensorType, values: Mapping[str, Extent]) -> AnyTensorType:
    """The type of what a block holds with symbols replaced, in its shape and its strides."""
    shape = [substitute(extent, values) for extent in types.shape(kind)]
    strides = [substitute(stride, values) for stride in types.strides(kind)]
    return types.tensor(types.dtype(kind), shape, strides)
