"""Tensors of torch, for programs that call ATen and for callers that pass torch tensors."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy
import torch

from forgec.runtime import arrays, dtypes
from forgec.runtime.aten import to_torch
from forgec.runtime.execution_mode import PlainMode
from forgec.runtime.extents import same_strides
from forgec.runtime.huge_pages import LEAST_BYTES, advise
from forgec.runtime.overlap import share_elements
from forgec.runtime.plan import TensorSpec
from forgec.runtime.tensor_library import Leaf, Row

if TYPE_CHECKING:
    from forgec.runtime.program import Weights


class TorchLibrary:
    """See ``TensorLibrary``."""

    name = "torch"
    address = staticmethod(torch.Tensor.data_ptr)
    strides = staticmethod(torch.Tensor.stride)
    clone = staticmethod(torch.Tensor.clone)
    share_elements = staticmethod(share_elements)
    constant = staticmethod(to_torch)
    copy = staticmethod(torch.ops.aten.copy_.default._op)
    mode = staticmethod(PlainMode)
    records_gradients = staticmethod(torch.is_grad_enabled)

    def empty(self, dtype: str, shape: Sequence[int], strides: Sequence[int], device: str) -> torch.Tensor:
        tensor = torch.empty_strided(shape, strides, dtype=dtypes.torch_dtype(dtype), device=device)
        return _with_large_pages(tensor) if tensor.numel() > LEAST_BYTES // 8 else tensor

    def zeros(self, dtype: str, shape: Sequence[int], strides: Sequence[int], device: str) -> torch.Tensor:
        return self.empty(dtype, shape, strides, device).zero_()

    def arena(self, nbytes: int, device: str) -> torch.Tensor:
        # torch's CPU allocator aligns to 64 bytes, its CUDA allocator to 512.
        return _with_large_pages(torch.empty(nbytes, dtype=torch.uint8, device=device))

    def grow(self, arena: torch.Tensor, nbytes: int) -> bool:
        storage = arena.untyped_storage()
        storage.resize_(0)  # first, so that nothing is copied and old and new never exist together
        storage.resize_(nbytes)
        _with_large_pages(arena)
        return True

    def over(
        self, arena: torch.Tensor, dtype: str, shape: Sequence[int], strides: Sequence[int], offset: int
    ) -> torch.Tensor:
        return _over(arena, dtype, shape, strides, offset // dtypes.itemsize(dtype))

    def view(
        self, base: torch.Tensor, dtype: str, shape: Sequence[int], strides: Sequence[int], offset: int
    ) -> torch.Tensor:
        if dtypes.torch_dtype(dtype) is base.dtype:
            return base.as_strided(shape, strides, int(base.storage_offset()) + offset)
        start, itemsize = int(base.storage_offset()) * base.element_size(), dtypes.itemsize(dtype)
        if start % itemsize:
            base, start = base.clone(), 0
        return _over(base, dtype, shape, strides, start // itemsize + offset)

    def lies_as(self, tensor: torch.Tensor, shape: tuple[int, ...], strides: tuple[int, ...]) -> bool:
        found = tensor.stride()
        return found == strides or same_strides(shape, found, strides)

    def storage_offset(self, tensor: torch.Tensor) -> int:
        return int(tensor.storage_offset())

    def is_of(self, tensor: torch.Tensor, dtype: str) -> bool:
        return tensor.dtype is dtypes.torch_dtype(dtype)

    def plain(self, tensor: torch.Tensor) -> torch.Tensor:
        return tensor.resolve_conj().resolve_neg()

    def laid_out(
        self, tensor: torch.Tensor, dtype: str, shape: tuple[int, ...], strides: tuple[int, ...]
    ) -> torch.Tensor:
        owned = list(shape)
        for axis, (extent, stride) in enumerate(zip(shape, strides, strict=True)):
            if stride == 0 and extent > 1:
                tensor, owned[axis] = tensor.narrow(axis, 0, 1), 1
        copied = torch.empty_strided(owned, strides, dtype=tensor.dtype, device=tensor.device).copy_(tensor)
        return copied.expand(shape)

    def may_share(self, left: torch.Tensor, right: torch.Tensor) -> bool:
        return left.untyped_storage().data_ptr() == right.untyped_storage().data_ptr()

    def counter(self, value: int) -> torch.Tensor:
        return torch.tensor(value, dtype=torch.int64)

    def adopt(self, tensor: Any) -> torch.Tensor:
        return tensor if isinstance(tensor, torch.Tensor) else arrays.to_tensor(tensor)

    def weight(self, weights: Weights, name: str, spec: TensorSpec, device: str) -> torch.Tensor:
        return weights.tensor(name, spec, device)

    def rows(self, leaves: Iterable[Leaf]) -> list[Row]:
        return [
            (
                leaf,
                dtypes.torch_dtype(register.spec.dtype),
                torch.device(register.device),
                len(register.spec.shape),
                register.name,
            )
            for leaf, _, register in leaves
        ]

    def accept(
        self, leaves: Sequence[Any], rows: Sequence[Row], gradients: list[str]
    ) -> tuple[list[torch.Tensor], bool] | None:
        tensors: list[torch.Tensor] = []
        saw_tensor = saw_array = False
        for leaf, dtype, device, rank, name in rows:
            value = leaves[leaf]
            if isinstance(value, torch.Tensor):
                saw_tensor = True
            else:
                value = _from_array(value)
                if value is None:
                    return None
                saw_array = True
            if (
                value.dtype is not dtype
                or value.layout is not torch.strided
                or value.is_nested
                or value.device != device
                or value.dim() != rank
            ):
                return None
            if value.requires_grad:
                value = value.detach()
                gradients.append(name)
            if value.is_neg() or value.is_conj():
                value = value.resolve_neg().resolve_conj()
            tensors.append(value)
        return tensors, saw_array and not saw_tensor

    def is_read_only(self, given: Any) -> bool:
        return not isinstance(given, torch.Tensor) and not given.flags.writeable

    def is_over(self, given: Any, tensor: torch.Tensor) -> bool:
        if tensor.numel() == 0:
            return True
        if isinstance(given, torch.Tensor):
            return given.data_ptr() == tensor.data_ptr()
        return given.__array_interface__["data"][0] == tensor.data_ptr()

    def copy_back(self, given: Any, tensor: torch.Tensor) -> None:
        if isinstance(given, torch.Tensor):
            with torch.inference_mode(given.is_inference()), torch.no_grad():
                given.copy_(tensor)
        else:
            given[...] = arrays.to_array(tensor)


def _with_large_pages(tensor: torch.Tensor) -> torch.Tensor:
    storage = tensor.untyped_storage()
    if storage.device.type == "cpu":
        advise(storage.data_ptr(), storage.nbytes())
    return tensor


def _over(owner: torch.Tensor, dtype: str, shape: Sequence[int], strides: Sequence[int], offset: int) -> torch.Tensor:
    """A tensor over another one's storage; ``offset`` in elements from its start."""
    built = torch.empty(0, dtype=dtypes.torch_dtype(dtype), device=owner.device)
    return built.set_(owner.untyped_storage(), offset, shape, strides)  # type: ignore[call-overload] - torch's stubs lack it


def _from_array(value: Any) -> torch.Tensor | None:
    if isinstance(value, (numpy.ndarray, numpy.generic)):
        try:
            return arrays.to_tensor(numpy.asarray(value))
        except TypeError:
            return None
    return None
