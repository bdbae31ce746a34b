"""Element types by name, and their equivalents in numpy, torch and safetensors. Imports none of these itself."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy
    import torch


@dataclass(frozen=True, slots=True)
class ElementType:
    """``itemsize`` in bytes; ``safetensors`` and ``stored_extent`` say how the bytes are declared in a weights file.

    safetensors has no 128-bit complex: such a tensor is declared as float64 with one more extent of 2.
    """

    name: str
    itemsize: int
    numpy: str
    torch: str
    safetensors: str
    stored_extent: int | None = None


ELEMENT_TYPES: dict[str, ElementType] = {
    entry.name: entry
    for entry in (
        ElementType("f64", 8, "float64", "float64", "F64"),
        ElementType("f32", 4, "float32", "float32", "F32"),
        ElementType("f16", 2, "float16", "float16", "F16"),
        ElementType("bf16", 2, "ml_dtypes.bfloat16", "bfloat16", "BF16"),
        ElementType("f8e4m3fn", 1, "ml_dtypes.float8_e4m3fn", "float8_e4m3fn", "F8_E4M3"),
        ElementType("f8e5m2", 1, "ml_dtypes.float8_e5m2", "float8_e5m2", "F8_E5M2"),
        ElementType("i64", 8, "int64", "int64", "I64"),
        ElementType("i32", 4, "int32", "int32", "I32"),
        ElementType("i16", 2, "int16", "int16", "I16"),
        ElementType("i8", 1, "int8", "int8", "I8"),
        ElementType("ui8", 1, "uint8", "uint8", "U8"),
        ElementType("i1", 1, "bool", "bool", "BOOL"),
        ElementType("c64", 8, "complex64", "complex64", "C64"),
        ElementType("c128", 16, "complex128", "complex128", "F64", stored_extent=2),
    )
}

ITEMSIZE: dict[str, int] = {name: entry.itemsize for name, entry in ELEMENT_TYPES.items()}


def itemsize(name: str) -> int:
    """Bytes of one element. ``KeyError`` for an unknown name."""
    return ITEMSIZE[name]


@cache
def numpy_dtype(name: str) -> numpy.dtype[Any]:
    """The numpy dtype; bfloat16 and the 8-bit floats are those of ml_dtypes."""
    import numpy

    spelled = ELEMENT_TYPES[name].numpy
    if spelled.startswith("ml_dtypes."):
        import ml_dtypes

        return numpy.dtype(getattr(ml_dtypes, spelled.removeprefix("ml_dtypes.")))
    return numpy.dtype(spelled)


@cache
def torch_dtype(name: str) -> torch.dtype:
    """The torch dtype. Imports torch."""
    import torch

    return getattr(torch, ELEMENT_TYPES[name].torch)


@cache
def _names_by_torch() -> dict[Any, str]:
    return {torch_dtype(name): name for name in ELEMENT_TYPES}


@cache
def _names_by_numpy() -> dict[Any, str]:
    return {numpy_dtype(name): name for name in ELEMENT_TYPES}


def from_torch(dtype: torch.dtype) -> str | None:
    """The name of a torch dtype, or None when forgec has none for it."""
    return _names_by_torch().get(dtype)


def from_numpy(dtype: numpy.dtype[Any]) -> str | None:
    """The name of a numpy dtype, or None when forgec has none for it (byte-swapped, structured, object, ...)."""
    return _names_by_numpy().get(dtype)
