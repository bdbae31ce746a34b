"""Whether two tensors have elements in common: told by their addresses, without a look at the memory."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from forgec.runtime.extents import element_span

if TYPE_CHECKING:
    import torch

EFFORT = 100_000
"""How long numpy searches; layouts for which that is not enough count as overlapping."""


class _Addresses:
    """Stands for a tensor where numpy wants an array; the memory may be of another device."""

    def __init__(self, tensor: torch.Tensor) -> None:
        width = tensor.element_size()
        strides = tuple(stride * width for stride in tensor.stride())
        self.__array_interface__: dict[str, Any] = {
            "version": 3,
            "typestr": f"|V{width}",
            "data": (tensor.data_ptr(), False),
            "shape": tuple(tensor.shape),
            "strides": strides,
        }


def share_elements(left: torch.Tensor, right: torch.Tensor) -> bool:
    """Whether some element of one tensor lies in the bytes of an element of the other."""
    if left.device != right.device or left.numel() == 0 or right.numel() == 0:
        return False
    first, second = left.data_ptr(), right.data_ptr()
    if first + _nbytes(left) <= second or second + _nbytes(right) <= first:
        return False
    import numpy

    max_work: Any = EFFORT
    try:
        return numpy.shares_memory(numpy.asarray(_Addresses(left)), numpy.asarray(_Addresses(right)), max_work)
    except numpy.exceptions.TooHardError:
        return True


def _nbytes(tensor: torch.Tensor) -> int:
    return element_span(tuple(tensor.shape), tensor.stride()) * tensor.element_size()
