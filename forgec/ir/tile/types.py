"""Types of the tile level: tiles are builtin tensors whose extents may name tile parameters; blocks are memory."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache

from xdsl.dialects.builtin import DYNAMIC_INDEX, AnyTensorType, IndexType, IntegerType, NoneAttr, TensorType
from xdsl.ir import Attribute, SSAValue
from xdsl.irdl import irdl_attr_definition
from xdsl.utils.exceptions import VerifyException

from forgec.ir import types
from forgec.ir.attributes import DialectType, TensorEncodingAttr
from forgec.runtime.symbolic import Extent

INDEX = IndexType()


@irdl_attr_definition
class BlockType(DialectType):
    """``!tile.block<tensor<…>>``: memory that holds a tensor, by its dtype, extents and strides; what a kernel gets as
    its parameter, and what ``tile.view`` makes of one (base, shape, strides, offsets: a TMA descriptor).
    """

    name = "tile.block"

    value: AnyTensorType

    def __init__(self, value: TensorType) -> None:
        super().__init__(value)


def signless(kind: Attribute) -> Attribute:
    """The element type that tiles have for numbers stored as ``kind``: unsigned integers are signless in tiles, where
    ops say what they mean.
    """
    return IntegerType(kind.width.data) if isinstance(kind, IntegerType) else kind


def tile(element: Attribute | str, shape: Iterable[Extent]) -> Attribute:
    """The type of a tile of these extents; the element type alone where there are none. ``"index"`` is an element
    type as well.
    """
    return _tile(element, tuple(shape))


@lru_cache(maxsize=1 << 14)
def _tile(element: Attribute | str, extents: tuple[Extent, ...]) -> Attribute:
    found = INDEX if element == "index" else types.ELEMENT_TYPES[element] if isinstance(element, str) else element
    found = signless(found)
    if not extents:
        return found
    dims = tuple(extent for extent in extents if not isinstance(extent, int))
    sizes = [extent if isinstance(extent, int) else DYNAMIC_INDEX for extent in extents]
    return TensorType(found, sizes, TensorEncodingAttr((dims, None)) if dims else NoneAttr())


def block(dtype: str, shape: Iterable[Extent], strides: Iterable[Extent] | None = None) -> BlockType:
    """The type of a block; ``strides`` count elements, None for row-major."""
    return BlockType(types.tensor(dtype, shape, strides))


def extents(value: SSAValue | Attribute) -> tuple[Extent, ...]:
    """The extents of a tile; () of a scalar."""
    kind = value.type if isinstance(value, SSAValue) else value
    return types.shape(kind) if isinstance(kind, TensorType) else ()


def element(value: SSAValue | Attribute) -> Attribute:
    """The element type of a tile, or the type of a scalar."""
    kind = value.type if isinstance(value, SSAValue) else value
    return kind.element_type if isinstance(kind, TensorType) else kind


def block_type(value: SSAValue | Attribute) -> AnyTensorType:
    """The tensor that a block holds. Raises VerifyException for other values."""
    kind = value.type if isinstance(value, SSAValue) else value
    if not isinstance(kind, BlockType):
        raise VerifyException(f"expected a block, found {kind}")
    return kind.value
