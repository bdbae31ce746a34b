"""The bytes of a weight as they stand in the file, taken from whatever holds the weight, without a copy where it is
dense."""

from __future__ import annotations

import sys
from collections.abc import Hashable
from math import prod
from typing import TYPE_CHECKING, Any, TypeAlias, Union

from forgec.diagnostics import error
from forgec.runtime import dtypes
from forgec.runtime.extents import static
from forgec.runtime.plan import TensorSpec
from forgec.runtime.safetensors_layout import storage_order

if TYPE_CHECKING:
    import numpy
    import torch

TensorLike: TypeAlias = Union["torch.Tensor", "numpy.ndarray[Any, Any]", bytes, bytearray, memoryview]


def bytes_in_file_order(name: str, source: TensorLike, spec: TensorSpec) -> memoryview:
    """The bytes of a tensor of this spec, axes in the order of ``storage_order``. FORGE-X001 when the source is not
    like the spec."""
    order = storage_order(spec)
    if is_torch(source):
        content = _from_torch(name, source, spec, order)
    elif isinstance(source, (bytes, bytearray, memoryview)):
        content = memoryview(source).cast("B")
    else:
        content = _from_numpy(name, source, spec, order)
    expected = prod(static(spec.shape)) * dtypes.itemsize(spec.dtype)
    if content.nbytes != expected:
        raise error("FORGE-X001", f"weight '{name}' has {content.nbytes} bytes, the plan needs {expected}")
    return content


def identity(source: Any) -> Hashable:
    """Equal for two sources whose bytes are certainly the same: one object, or tensors over the same memory."""
    if is_torch(source) and source.numel():
        return ("torch", str(source.device), source.data_ptr())
    return id(source)


def is_torch(source: object) -> bool:
    """Whether the source is a torch tensor. Does not import torch."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(source, torch.Tensor)


def _mismatch(name: str, dtype: object, shape: object, spec: TensorSpec) -> Exception:
    return error("FORGE-X001", f"weight '{name}' is {dtype}{shape}, the plan has {spec.dtype}{list(spec.shape)}")


def _from_torch(name: str, source: Any, spec: TensorSpec, order: tuple[int, ...]) -> memoryview:
    import torch

    if dtypes.from_torch(source.dtype) != spec.dtype or tuple(source.shape) != spec.shape:
        raise _mismatch(name, source.dtype, list(source.shape), spec)
    tensor = source.detach().cpu().resolve_conj().resolve_neg().permute(order).contiguous()
    return memoryview(tensor.reshape(-1).view(torch.uint8).numpy()) if tensor.numel() else memoryview(b"")


def _from_numpy(name: str, source: Any, spec: TensorSpec, order: tuple[int, ...]) -> memoryview:
    import numpy

    if dtypes.from_numpy(source.dtype) != spec.dtype or tuple(source.shape) != spec.shape:
        raise _mismatch(name, source.dtype, list(source.shape), spec)
    dense = numpy.ascontiguousarray(source.transpose(order)).reshape(-1)
    return dense.view(numpy.uint8).data if dense.size else memoryview(b"")
