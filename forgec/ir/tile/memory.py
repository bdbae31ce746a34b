"""Loads and stores of tiles: through blocks, or element by element."""

from __future__ import annotations

from collections.abc import Sequence

from xdsl.dialects.builtin import IntAttr, StringAttr, TensorType, UnitAttr
from xdsl.ir import Attribute, Operation, SSAValue
from xdsl.irdl import (
    AnyAttr,
    AttrSizedOperandSegments,
    IRDLOperation,
    base,
    irdl_op_definition,
    operand_def,
    opt_operand_def,
    opt_prop_def,
    prop_def,
    result_def,
    traits_def,
    var_operand_def,
)
from xdsl.traits import MemoryReadEffect, MemoryWriteEffect, Pure
from xdsl.utils.exceptions import VerifyException

from forgec.ir import types
from forgec.ir.attributes import IntsAttr, ScalarAttr
from forgec.ir.ops.format import Bare
from forgec.ir.tile.types import INDEX, BlockType, block_type, element, extents, signless


@irdl_op_definition
class ViewOp(IRDLOperation):
    """A block in a block: it begins ``offset`` elements after the first element of ``source`` and has the extents and
    strides of its type (``memref.reinterpret_cast``). Nothing is checked until it is read: the memory that a load
    reaches must be that of ``source``.
    """

    name = "tile.view"

    source = operand_def(base(BlockType))
    offset = operand_def(INDEX)
    result = result_def(base(BlockType))

    traits = traits_def(Pure())

    assembly_format = "$source `[` $offset `]` attr-dict `:` type($source) `to` type($result)"

    def __init__(self, source: SSAValue, offset: SSAValue, kind: BlockType) -> None:
        Operation.__init__(
            self, operands=(source, offset), result_types=(kind,)
        )  # as TileOp.set_up, for the same reason

    def verify_(self) -> None:
        if types.dtype(block_type(self.source)) != types.dtype(block_type(self.result)):
            raise VerifyException("a view has the element type of its source")


class TileAccess(IRDLOperation):
    """Base of the ops that move tiles between blocks and values."""

    custom_directives = (Bare,)

    def check_in_bounds(self, dims: IntsAttr | None, rank: int) -> None:
        """Raise VerifyException unless these are dimensions of a block."""
        found = () if dims is None else dims.data
        for dim in found:
            if not 0 <= dim < rank:
                raise VerifyException(f"in_bounds names dimension {dim} of a block of rank {rank}")
        if len(set(found)) != len(found):
            raise VerifyException("in_bounds names a dimension twice")

    def check_block(self, block: SSAValue, tile: SSAValue, offsets: Sequence[SSAValue]) -> None:
        """Raise VerifyException unless a tile is one of the block."""
        tensor = block_type(block)
        if element(tile) != signless(tensor.element_type):
            raise VerifyException(f"{self.name} moves elements of type {tensor.element_type}, found {element(tile)}")
        if len(offsets) != types.rank(tensor):
            raise VerifyException(f"{self.name} takes one offset for each dimension of the block")


@irdl_op_definition
class LoadOp(TileAccess):
    """The tile of a block that begins at ``offsets`` (elements along each dimension).

    Tile and block have one rank; with all extents of the block 1 (or rank 0) the result is a scalar. Elements outside
    the block are not read: they are ``other``, 0 if absent. ``in_bounds`` lists the dimensions along which no element
    is outside, for every program.
    """

    name = "tile.load"

    block = operand_def(base(BlockType))
    offsets = var_operand_def(INDEX)
    other = opt_prop_def(ScalarAttr)
    in_bounds = opt_prop_def(IntsAttr)
    result = result_def(AnyAttr())

    traits = traits_def(MemoryReadEffect())

    assembly_format = (
        "$block `[` $offsets `]` (`other` custom<Bare>($other)^)? (`in_bounds` custom<Bare>($in_bounds)^)? attr-dict "
        "`:` type($block) `->` type($result)"
    )

    def __init__(
        self, block: SSAValue, offsets: Sequence[SSAValue], kind: Attribute, other: ScalarAttr | None = None
    ) -> None:
        properties: dict[str, Attribute] = {} if other is None else {"other": other}
        Operation.__init__(self, operands=(block, *offsets), result_types=(kind,), properties=properties)

    def verify_(self) -> None:
        self.check_block(self.block, self.result, self.offsets)
        self.check_in_bounds(self.in_bounds, len(self.offsets))
        if isinstance(self.result.type, TensorType) and len(extents(self.result)) != len(self.offsets):
            raise VerifyException("a tile that is loaded has the rank of the block")


@irdl_op_definition
class StoreOp(TileAccess):
    """Writes a tile (or a scalar) to a block, beginning at ``offsets``; elements outside the block are not written."""

    name = "tile.store"

    value = operand_def(AnyAttr())
    block = operand_def(base(BlockType))
    offsets = var_operand_def(INDEX)
    in_bounds = opt_prop_def(IntsAttr)

    traits = traits_def(MemoryWriteEffect())

    assembly_format = (
        "$value `,` $block `[` $offsets `]` (`in_bounds` custom<Bare>($in_bounds)^)? attr-dict "
        "`:` type($value) `,` type($block)"
    )

    def __init__(self, value: SSAValue, block: SSAValue, offsets: Sequence[SSAValue]) -> None:
        Operation.__init__(self, operands=(value, block, *offsets))

    def verify_(self) -> None:
        self.check_block(self.block, self.value, self.offsets)
        self.check_in_bounds(self.in_bounds, len(self.offsets))
        if isinstance(self.value.type, TensorType) and len(extents(self.value)) != len(self.offsets):
            raise VerifyException("a tile that is stored has the rank of the block")


class _ElementAccess(TileAccess):
    def _check_indices(self, tile: SSAValue, indices: Sequence[SSAValue], mask: SSAValue | None) -> None:
        for index in indices:
            if element(index) != INDEX or extents(index) not in ((), extents(tile)):
                raise VerifyException("indices are of type index, scalars or tiles of the extents of what is moved")
        if mask is not None and (element(mask) != types.ELEMENT_TYPES["i1"] or extents(mask) != extents(tile)):
            raise VerifyException("a mask is a tile of booleans of the extents of what is moved")


@irdl_op_definition
class GatherOp(_ElementAccess):
    """``result[t] = block[indices[0][t], indices[1][t], …]`` for the elements t of a tile where ``mask`` is true (all
    if absent); elsewhere nothing is read and the element is ``other``, 0 if absent. Indices are scalars or tiles of the
    result's extents. An index outside the block is an error.
    """

    name = "tile.gather"

    block = operand_def(base(BlockType))
    indices = var_operand_def(AnyAttr())
    mask = opt_operand_def(AnyAttr())
    other = opt_prop_def(ScalarAttr)
    result = result_def(AnyAttr())

    irdl_options = (AttrSizedOperandSegments(as_property=True),)

    traits = traits_def(MemoryReadEffect())

    assembly_format = (
        "$block `[` $indices `]` (`mask` $mask^)? (`other` custom<Bare>($other)^)? attr-dict "
        "`:` type($block) `,` type($indices) (`mask` type($mask)^)? `->` type($result)"
    )

    def __init__(
        self,
        block: SSAValue,
        indices: Sequence[SSAValue],
        kind: Attribute,
        mask: SSAValue | None = None,
        other: ScalarAttr | None = None,
    ) -> None:
        super().__init__(
            operands=[block, list(indices), [] if mask is None else [mask]],
            result_types=[kind],
            properties={} if other is None else {"other": other},
        )

    def verify_(self) -> None:
        self.check_block(self.block, self.result, self.indices)
        self._check_indices(self.result, self.indices, self.mask)


@irdl_op_definition
class ScatterOp(_ElementAccess):
    """``block[indices[0][t], indices[1][t], …] = value[t]`` for the elements t of a tile where ``mask`` is true (all if
    absent). With ``combine`` (``add``, ``max``, ``min``) the value is combined with what is there, atomically:
    several programs, and several elements of one tile, may meet; with ``any`` one of those that meet stays. Without,
    two elements that meet are an error.
    """

    name = "tile.scatter"

    value = operand_def(AnyAttr())
    block = operand_def(base(BlockType))
    indices = var_operand_def(AnyAttr())
    mask = opt_operand_def(AnyAttr())
    combine = opt_prop_def(StringAttr)

    irdl_options = (AttrSizedOperandSegments(as_property=True),)

    traits = traits_def(MemoryWriteEffect(), MemoryReadEffect())

    assembly_format = (
        "$value `,` $block `[` $indices `]` (`mask` $mask^)? (`combine` custom<Bare>($combine)^)? attr-dict "
        "`:` type($value) `,` type($block) `,` type($indices) (`mask` type($mask)^)?"
    )

    def __init__(
        self,
        value: SSAValue,
        block: SSAValue,
        indices: Sequence[SSAValue],
        mask: SSAValue | None = None,
        combine: str | None = None,
    ) -> None:
        super().__init__(
            operands=[value, block, list(indices), [] if mask is None else [mask]],
            properties={} if combine is None else {"combine": StringAttr(combine)},
        )

    def verify_(self) -> None:
        self.check_block(self.block, self.value, self.indices)
        self._check_indices(self.value, self.indices, self.mask)
        if self.combine is not None and self.combine.data not in ("any", "add", "max", "min"):
            raise VerifyException(f"there is no combination {self.combine.data!r}")


@irdl_op_definition
class SortOp(TileAccess):
    """Writes to ``places`` (a row of i64) where the elements of the row ``block`` stand, from the least to the greatest
    or, ``descending``, the other way; equal ones in their order. NaN is greater than all numbers, -0 and 0 are equal.
    Blocks are of rank 1 and of one extent; the places lie without gaps, and nothing but the op reads or writes them.
    """

    name = "tile.sort"

    block = operand_def(base(BlockType))
    places = operand_def(base(BlockType))
    descending = opt_prop_def(UnitAttr)

    traits = traits_def(MemoryReadEffect(), MemoryWriteEffect())

    assembly_format = "$block `into` $places (`descending` $descending^)? attr-dict `:` type($block) `,` type($places)"

    def __init__(self, block: SSAValue, places: SSAValue, descending: bool) -> None:
        super().__init__(operands=[block, places], properties={"descending": UnitAttr()} if descending else {})

    def verify_(self) -> None:
        keys, places = block_type(self.block), block_type(self.places)
        if types.rank(keys) != 1 or types.shape(keys) != types.shape(places):
            raise VerifyException("tile.sort takes rows of one extent")
        if types.dtype(places) != "i64" or types.strides(places) != (1,):
            raise VerifyException("tile.sort writes places of type i64 without gaps")


@irdl_op_definition
class CheckOp(IRDLOperation):
    """Stops the launch with check ``number`` and its message unless ``condition`` (a boolean, or all of a tile of
    them) is true. What the kernel wrote until then is undefined.
    """

    name = "tile.check"

    condition = operand_def(AnyAttr())
    number = prop_def(IntAttr)
    message = prop_def(StringAttr)

    custom_directives = (Bare,)

    traits = traits_def(MemoryWriteEffect())

    assembly_format = "$condition `,` custom<Bare>($number) custom<Bare>($message) attr-dict `:` type($condition)"

    def __init__(self, condition: SSAValue, number: int, message: str) -> None:
        super().__init__(operands=[condition], properties={"number": IntAttr(number), "message": StringAttr(message)})
