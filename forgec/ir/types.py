"""Tensor types with symbolic extents and strides, and the element types that forgec knows."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from math import prod

from xdsl.dialects.builtin import (
    DYNAMIC_INDEX,
    AnyTensorType,
    BFloat16Type,
    ComplexType,
    Float8E4M3FNType,
    Float8E5M2Type,
    Float16Type,
    Float32Type,
    Float64Type,
    IntegerType,
    NoneAttr,
    Signedness,
    TensorType,
)
from xdsl.ir import Attribute, SSAValue
from xdsl.utils.exceptions import VerifyException

from forgec.ir.attributes import TensorEncodingAttr
from forgec.runtime.symbolic import Extent

ELEMENT_TYPES: dict[str, Attribute] = {
    "f64": Float64Type(),
    "f32": Float32Type(),
    "f16": Float16Type(),
    "bf16": BFloat16Type(),
    "f8e4m3fn": Float8E4M3FNType(),
    "f8e5m2": Float8E5M2Type(),
    "i64": IntegerType(64),
    "i32": IntegerType(32),
    "i16": IntegerType(16),
    "i8": IntegerType(8),
    "ui8": IntegerType(8, Signedness.UNSIGNED),
    "i1": IntegerType(1),
    "c64": ComplexType(Float32Type()),
    "c128": ComplexType(Float64Type()),
}
"""Element types by the short name that plans use; bool is ``i1``, and integers are signless but mean signed numbers."""

_NAMES: dict[Attribute, str] = {attribute: name for name, attribute in ELEMENT_TYPES.items()}
ITEM_BYTES = {
    "f64": 8, "f32": 4, "f16": 2, "bf16": 2, "f8e4m3fn": 1, "f8e5m2": 1,
    "i64": 8, "i32": 4, "i16": 2, "i8": 1, "ui8": 1, "i1": 1, "c64": 8, "c128": 16,
}  # fmt: skip
"""Bytes of one element as stored."""

FLOATS = ("f64", "f32", "f16", "bf16", "f8e4m3fn", "f8e5m2")
COMPLEX = ("c64", "c128")


def contiguous_strides(shape: Sequence[Extent]) -> tuple[Extent, ...]:
    """Row-major strides, in elements."""
    strides: list[Extent] = []
    step: Extent = 1
    for extent in reversed(shape):
        strides.append(step)
        step = step * extent if extent != 0 else step
    return tuple(reversed(strides))


def canonical_strides(shape: Sequence[Extent], strides: Sequence[Extent]) -> tuple[Extent, ...]:
    """``strides`` with those of extent-1 dimensions, which address nothing, set to their row-major values."""
    dense = contiguous_strides(shape)
    if any(extent == 0 for extent in shape):
        return dense
    return tuple(d if extent == 1 else s for extent, s, d in zip(shape, strides, dense, strict=True))


def tensor(dtype: str | Attribute, shape: Iterable[Extent], strides: Iterable[Extent] | None = None) -> AnyTensorType:
    """The canonical tensor type: equal (dtype, shape, strides) give equal attributes (the same object, in fact).

    ``dtype`` is a short name (``"f32"``) or an element type; ``strides`` are in elements, None for row-major.
    """
    name = dtype if isinstance(dtype, str) else _NAMES[dtype]
    return _tensor(name, tuple(shape), None if strides is None else tuple(strides))


@lru_cache(maxsize=65536)
def _tensor(dtype: str, shape: tuple[Extent, ...], strides: tuple[Extent, ...] | None) -> AnyTensorType:
    if strides is not None:
        canonical = canonical_strides(shape, strides)
        if canonical == contiguous_strides(shape):
            return _tensor(dtype, shape, None)
        if canonical != strides:
            return _tensor(dtype, shape, canonical)
    dims = tuple(extent for extent in shape if not isinstance(extent, int))
    encoding = TensorEncodingAttr((dims, strides)) if dims or strides is not None else NoneAttr()
    sizes = [extent if isinstance(extent, int) else DYNAMIC_INDEX for extent in shape]
    return TensorType(ELEMENT_TYPES[dtype], sizes, encoding)


def tensor_type(value: SSAValue | Attribute) -> AnyTensorType:
    """The tensor type of a value; raises VerifyException for values of other types."""
    attribute = value.type if isinstance(value, SSAValue) else value
    if not isinstance(attribute, TensorType):
        raise VerifyException(f"expected a tensor, found {attribute}")
    return attribute


@lru_cache(maxsize=65536)
def _shape(attribute: AnyTensorType) -> tuple[Extent, ...]:
    sizes = attribute.get_shape()
    names: list[Extent] = []
    if isinstance(attribute.encoding, TensorEncodingAttr):
        names = list(attribute.encoding.dims)
    if len(names) != sum(size == DYNAMIC_INDEX for size in sizes):
        raise VerifyException(f"{attribute} must name each dynamic extent once in its encoding")
    names.reverse()
    return tuple(names.pop() if size == DYNAMIC_INDEX else size for size in sizes)


def shape(value: SSAValue | Attribute) -> tuple[Extent, ...]:
    """The extents of a tensor value or type; raises VerifyException if a dynamic extent has no name."""
    return _shape(tensor_type(value))


def strides(value: SSAValue | Attribute) -> tuple[Extent, ...]:
    """The strides of a tensor value or type, in elements."""
    attribute = tensor_type(value)
    if isinstance(attribute.encoding, TensorEncodingAttr) and attribute.encoding.strides is not None:
        return attribute.encoding.strides
    return contiguous_strides(_shape(attribute))


def is_contiguous(value: SSAValue | Attribute) -> bool:
    """True if the value is stored row-major without gaps."""
    attribute = tensor_type(value)
    return not isinstance(attribute.encoding, TensorEncodingAttr) or attribute.encoding.strides is None


@lru_cache(maxsize=65536)
def is_canonical(attribute: AnyTensorType) -> bool:
    """True if the type is what :func:`tensor` builds for its dtype, shape and strides, so that equal types are equal
    attributes.
    """
    return attribute == tensor(attribute.element_type, shape(attribute), strides(attribute))


def dtype(value: SSAValue | Attribute) -> str:
    """The short name of a tensor's element type (``"f32"``)."""
    element = tensor_type(value).element_type
    name = _NAMES.get(element)
    if name is None:
        raise VerifyException(f"element type {element} is none that forgec knows")
    return name


def numel(value: SSAValue | Attribute) -> Extent:
    """The number of elements."""
    return prod(shape(value), start=1)


def nbytes(value: SSAValue | Attribute) -> Extent:
    """Bytes of the elements, stored densely."""
    return _nbytes(tensor_type(value))


@lru_cache(maxsize=65536)
def _nbytes(attribute: AnyTensorType) -> Extent:
    return numel(attribute) * ITEM_BYTES[dtype(attribute)]


def rank(value: SSAValue | Attribute) -> int:
    """The number of dimensions."""
    return len(tensor_type(value).shape.data)


# Type promotion -------------------------------------------------------------------------------------------------------

_CATEGORY = {name: 0 if name == "i1" else 1 if name in ("i64", "i32", "i16", "i8", "ui8") else 2 for name in ITEM_BYTES}
_CATEGORY.update(dict.fromkeys(COMPLEX, 3))
_INT_ORDER = ("i8", "i16", "i32", "i64")


def promote(left: str, right: str) -> str:
    """The dtype that torch's promotion gives for two tensors of rank ≥ 1 (torch.promote_types).

    Raises VerifyException for 8-bit floats, which torch promotes with themselves only.
    """
    if left == right:
        return left
    if left.startswith("f8") or right.startswith("f8"):
        raise VerifyException(f"{left} and {right} do not promote to a common dtype")
    low, high = sorted((left, right), key=lambda name: _CATEGORY[name])
    if _CATEGORY[low] != _CATEGORY[high]:
        if high == "c64" and low == "f64":
            return "c128"
        return high
    if _CATEGORY[low] == 1:
        pair = {low, high}
        if "ui8" in pair:
            other = (pair - {"ui8"}).pop()
            return "i16" if other == "i8" else other
        return max(pair, key=_INT_ORDER.index)
    if _CATEGORY[low] == 3:
        return "c128"
    if ITEM_BYTES[low] == ITEM_BYTES[high]:  # f16 with bf16
        return "f32"
    return low if ITEM_BYTES[low] > ITEM_BYTES[high] else high


def result_dtype(operands: Iterable[SSAValue | Attribute], scalars: Iterable[bool | int | float] = ()) -> str:
    """torch.result_type: tensors of rank ≥ 1 decide within a category, then rank 0, then Python numbers."""
    groups: list[str | None] = [None, None, None]
    for operand in operands:
        index = 0 if rank(operand) else 1
        groups[index] = _joined(groups[index], dtype(operand))
    for scalar in scalars:
        name = "i1" if isinstance(scalar, bool) else "i64" if isinstance(scalar, int) else "f32"
        groups[2] = _joined(groups[2], name)
    result = _combined(groups[0], _combined(groups[1], groups[2]))
    if result is None:
        raise VerifyException("no operand to take a dtype from")
    return result


def _joined(known: str | None, name: str) -> str:
    return name if known is None else promote(known, name)


def _combined(higher: str | None, lower: str | None) -> str | None:
    """The dtype of a group and of one that yields to it: its own, unless the other is of a greater category (torch)."""
    if higher is None or lower is None:
        return higher or lower
    if _CATEGORY[lower] <= _CATEGORY[higher]:
        return higher
    if higher in FLOATS:  # a complex number takes the width of the floats
        return "c128" if higher == "f64" else "c64"
    return promote(higher, lower)


def broadcast(*shapes: Sequence[Extent]) -> tuple[Extent, ...]:
    """The shape that several shapes broadcast to; raises VerifyException where they do not."""
    size = max((len(s) for s in shapes), default=0)
    result: list[Extent] = [1] * size
    for extents in shapes:
        for position, extent in enumerate(extents, size - len(extents)):
            current = result[position]
            if extent == 1 or extent == current:
                continue
            if current != 1:
                raise VerifyException(f"extents {current} and {extent} do not broadcast")
            result[position] = extent
    return tuple(result)
