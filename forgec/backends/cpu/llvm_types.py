"""Types of the values in kernels, and their spelling in LLVM IR.

bfloat16 is ``i16`` in LLVM IR: LLVM would convert by calls of a run-time library where the CPU has no instructions
for it. So arithmetic on it goes through float32 (``Emitter``), and all that is left are moves of 16 bits.
"""

from __future__ import annotations

from functools import cache
from typing import cast

from xdsl.dialects.builtin import (
    BFloat16Type,
    Float16Type,
    Float32Type,
    Float64Type,
    IntegerType,
    VectorType,
    bf16,
    f16,
    f32,
    f64,
    i1,
)
from xdsl.dialects.llvm import LLVMArrayType, LLVMPointerType, LLVMStructType, LLVMVoidType
from xdsl.ir import Attribute

PTR = LLVMPointerType()
VOID = LLVMVoidType()
i8, i16, i32, i64 = IntegerType(8), IntegerType(16), IntegerType(32), IntegerType(64)
FLOATS = (Float16Type, BFloat16Type, Float32Type, Float64Type)
HALVES = (Float16Type, BFloat16Type)
NEON_BYTES = 16
"""The size of NEON's registers; those of x86 that kernels use are wider. It has no masks, and none of the assembly
statements that LLVM needs for x86 may stand in its code.
"""

_FLOAT_BITS = {Float16Type: 16, BFloat16Type: 16, Float32Type: 32, Float64Type: 64}
_SPELLING = {Float16Type: "half", BFloat16Type: "i16", Float32Type: "float", Float64Type: "double"}
_MANGLED = {Float16Type: "f16", BFloat16Type: "i16", Float32Type: "f32", Float64Type: "f64"}


@cache
def vector(element: Attribute, lanes: int) -> VectorType:
    """``vector<lanes x element>``; one object for equal arguments."""
    return VectorType(element, [lanes])


# These are asked several times for each op that is emitted. The classes have no subclasses, and ``isinstance`` of an
# attribute's class, whose metaclass is ``ABCMeta``, takes ten times as long where the answer is no.


def element_type(type: Attribute) -> Attribute:
    """The type of one lane."""
    return cast(VectorType, type).element_type if type.__class__ is VectorType else type


def lanes(type: Attribute) -> int | None:
    """How many lanes a vector type has; None for scalars."""
    return cast(VectorType, type).shape.data[0].data if type.__class__ is VectorType else None


def with_element(type: Attribute, element: Attribute) -> Attribute:
    """The type with as many lanes whose lanes are ``element``."""
    return vector(element, cast(VectorType, type).shape.data[0].data) if type.__class__ is VectorType else element


def bits(type: Attribute) -> int:
    """The width of one lane in bits; pointers have 64."""
    element = element_type(type)
    if element.__class__ is IntegerType:
        return cast(IntegerType, element).width.data
    return 64 if element.__class__ is LLVMPointerType else _FLOAT_BITS[element.__class__]


def size_bytes(type: Attribute) -> int:
    """The size of one lane in memory; booleans take one byte."""
    return (bits(type) + 7) // 8


def is_float(type: Attribute) -> bool:
    return element_type(type).__class__ in _FLOAT_BITS


def integer_like(type: Attribute) -> Attribute:
    """The type of integers of the same width and number of lanes."""
    return with_element(type, IntegerType(bits(type)))


def spelling(type: Attribute) -> str:
    """The type in LLVM IR.

    Raises:
        TypeError: kernels have no values of this type.
    """
    if isinstance(type, IntegerType):
        return f"i{type.width.data}"
    if isinstance(type, VectorType):
        if len(type.shape) != 1 or type.get_num_scalable_dims():
            raise TypeError(f"{type} is not a vector of a fixed number of lanes")
        return f"<{type.shape.data[0].data} x {spelling(type.element_type)}>"
    if (name := _SPELLING.get(type.__class__)) is not None:
        return name
    match type:
        case LLVMPointerType():
            return "ptr"
        case LLVMVoidType():
            return "void"
        case LLVMArrayType():
            return f"[{type.size.data} x {spelling(type.type)}]"
        case LLVMStructType():
            return "{" + ", ".join(spelling(t) for t in type.types.data) + "}"
    raise TypeError(f"{type} has no spelling in LLVM IR")


def mangled(type: Attribute) -> str:
    """The type as a suffix of an intrinsic's name: ``v8f32``, ``p0``."""
    if isinstance(type, VectorType):
        return f"v{type.shape.data[0].data}{mangled(type.element_type)}"
    if isinstance(type, IntegerType):
        return f"i{type.width.data}"
    return "p0" if isinstance(type, LLVMPointerType) else _MANGLED[type.__class__]


__all__ = [
    "FLOATS",
    "HALVES",
    "NEON_BYTES",
    "PTR",
    "VOID",
    "bf16",
    "bits",
    "element_type",
    "f16",
    "f32",
    "f64",
    "i1",
    "i8",
    "i16",
    "i32",
    "i64",
    "integer_like",
    "is_float",
    "lanes",
    "mangled",
    "size_bytes",
    "spelling",
    "vector",
    "with_element",
]
