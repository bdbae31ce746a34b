"""numpy arrays in, numpy arrays out: conversion to and from torch tensors without copies where both sides allow it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from forgec.runtime import dtypes

if TYPE_CHECKING:
    import numpy
    import torch

_BIT_PATTERNS = {2: "uint16", 1: "uint8"}
"""torch and numpy share no bfloat16 or 8-bit float type, so these travel as integers of the same size."""


def to_tensor(array: numpy.ndarray[Any, Any]) -> torch.Tensor:
    """A tensor over the array's memory; a copy when the array is read-only or has negative strides.

    ``TypeError`` for a dtype that forgec does not know (byte-swapped, structured, object, ...).
    """
    import numpy
    import torch

    name = dtypes.from_numpy(array.dtype)
    if name is None:
        raise TypeError(f"numpy dtype {array.dtype} is not supported")
    if not array.flags.writeable or any(stride < 0 for stride in array.strides):
        array = numpy.array(array, order="C")
    element = dtypes.ELEMENT_TYPES[name]
    if element.numpy.startswith("ml_dtypes."):
        patterns = torch.from_numpy(array.view(_BIT_PATTERNS[element.itemsize]))
        return patterns.view(dtypes.torch_dtype(name))
    return torch.from_numpy(array)


def to_array(tensor: torch.Tensor) -> numpy.ndarray[Any, Any]:
    """The tensor as an array of the matching numpy dtype, over the same memory."""
    import torch

    tensor = tensor.detach().cpu().resolve_conj().resolve_neg()
    name = dtypes.from_torch(tensor.dtype)
    if name is not None and dtypes.ELEMENT_TYPES[name].numpy.startswith("ml_dtypes."):
        patterns = getattr(torch, _BIT_PATTERNS[tensor.element_size()])
        return tensor.view(patterns).numpy().view(dtypes.numpy_dtype(name))
    return tensor.numpy()
