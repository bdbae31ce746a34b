"""Constants as attributes of LLVM's dialect."""

from __future__ import annotations

import struct
from functools import lru_cache

from xdsl.dialects.builtin import DenseIntOrFPElementsAttr, FloatAttr, IntegerAttr, VectorType
from xdsl.ir import Attribute

from forgec.backends.cpu.llvm_types import is_float


@lru_cache(maxsize=4096)
def constant_attribute(type: Attribute, packed: bytes) -> Attribute:
    """The packed numbers, one or one for each lane, as an attribute. (Packed, zeros differ by their sign.)"""
    floating = is_float(type)
    values = struct.unpack(f"{len(packed) // 8}{'d' if floating else 'q'}", packed)
    if isinstance(type, VectorType):
        count = type.shape.data[0].data
        return DenseIntOrFPElementsAttr.from_list(type, values * count if len(values) == 1 else values)  # pyright: ignore
    return FloatAttr(values[0], type) if floating else IntegerAttr(int(values[0]), type)  # pyright: ignore


def wrapped(value: int, width: int) -> int:
    """The signed number with the same last bits."""
    value &= (1 << width) - 1
    return value - (1 << width) if width > 1 and value >> (width - 1) else value
