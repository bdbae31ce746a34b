"""Arrays of numpy, for programs that run machine code alone. bfloat16 and the 8-bit floats are dtypes of ml_dtypes."""

from __future__ import annotations

import ctypes
from collections.abc import Iterable, Sequence
from functools import lru_cache
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy

from forgec.runtime import arrays, dtypes
from forgec.runtime.extents import element_span, same_strides
from forgec.runtime.overlap import EFFORT
from forgec.runtime.plan import ALIGNMENT, Arg, Device, DType, Layout, MemoryFormat, TensorSpec, row_major
from forgec.runtime.tensor_library import Leaf, Row

if TYPE_CHECKING:
    from forgec.runtime.program import Weights

Array = numpy.ndarray[Any, Any]

ALIGNED_BYTES = 1 << 14
"""From here on memory is aligned for vectors; below, numpy's own 16 bytes do, and cost less."""

_ADDRESS: Any = ctypes.c_char * 0
_BYTE = numpy.dtype("uint8")


class NumpyLibrary:
    """See ``TensorLibrary``. All memory is the host's, so devices are ignored."""

    name = "numpy"

    def empty(self, dtype: str, shape: Sequence[int], strides: Sequence[int], device: str) -> Array:
        kind, span, dense = _layout(dtype, tuple(shape), tuple(strides))
        nbytes = span * kind.itemsize
        if dense:
            if nbytes < ALIGNED_BYTES:
                return numpy.empty(shape, kind)
            return numpy.ndarray(shape, kind, _aligned(nbytes, numpy.empty))
        return _strided(_aligned(nbytes, numpy.empty), 0, kind, shape, strides)

    def zeros(self, dtype: str, shape: Sequence[int], strides: Sequence[int], device: str) -> Array:
        kind, span, _ = _layout(dtype, tuple(shape), tuple(strides))
        return _strided(_aligned(span * kind.itemsize, numpy.zeros), 0, kind, shape, strides)

    def arena(self, nbytes: int, device: str) -> Array:
        return _aligned(nbytes, numpy.empty)

    def grow(self, arena: Array, nbytes: int) -> bool:
        return False

    def over(self, arena: Array, dtype: str, shape: Sequence[int], strides: Sequence[int], offset: int) -> Array:
        return _strided(arena, offset, dtypes.numpy_dtype(dtype), shape, strides)

    def view(self, base: Array, dtype: str, shape: Sequence[int], strides: Sequence[int], offset: int) -> Array:
        kind = dtypes.numpy_dtype(dtype)
        return _strided(base, offset * kind.itemsize, kind, shape, strides)

    def address(self, tensor: Array) -> int:
        try:  # a quarter of the time
            return ctypes.addressof(_ADDRESS.from_buffer(tensor))
        except (TypeError, ValueError, BufferError):  # read-only, with gaps, or a dtype that buffers do not know
            return tensor.__array_interface__["data"][0]

    def strides(self, tensor: Array) -> tuple[int, ...]:
        return tuple([stride // tensor.itemsize for stride in tensor.strides])

    def lies_as(self, tensor: Array, shape: tuple[int, ...], strides: tuple[int, ...]) -> bool:
        if tensor.strides == _in_bytes(strides, tensor.itemsize):
            return True
        return same_strides(shape, self.strides(tensor), strides)

    def storage_offset(self, tensor: Array) -> int:
        """An array is not known as a part of another."""
        return 0

    def is_of(self, tensor: Array, dtype: str) -> bool:
        return tensor.dtype == dtypes.numpy_dtype(dtype)

    def plain(self, tensor: Array) -> Array:
        return tensor

    def clone(self, tensor: Array) -> Array:
        return tensor.copy(order="K")

    def copy(self, target: Array, source: Array) -> None:
        numpy.copyto(target, source, casting="no")

    def laid_out(self, tensor: Array, dtype: str, shape: tuple[int, ...], strides: tuple[int, ...]) -> Array:
        owned = list(shape)
        for axis, (extent, stride) in enumerate(zip(shape, strides, strict=True)):
            if stride == 0 and extent > 1:
                tensor, owned[axis] = tensor[(slice(None),) * axis + (slice(0, 1),)], 1
        copied = self.empty(dtype, owned, strides, "cpu")
        copied[...] = tensor
        return copied if owned == list(shape) else _strided(copied, 0, copied.dtype, shape, strides)

    def may_share(self, left: Array, right: Array) -> bool:
        return numpy.may_share_memory(left, right)

    def share_elements(self, left: Array, right: Array) -> bool:
        if not numpy.may_share_memory(left, right):
            return False
        max_work: Any = EFFORT
        try:
            return numpy.shares_memory(left, right, max_work)
        except numpy.exceptions.TooHardError:
            return True

    def counter(self, value: int) -> Array:
        return numpy.array(value, numpy.int64)

    def constant(self, value: Arg) -> Any:
        match value:
            case DType():
                return dtypes.numpy_dtype(value.name)
            case Device() | Layout() | MemoryFormat():  # numpy has none of these
                return value.name
            case tuple():
                return [self.constant(item) for item in value]
        return value

    def adopt(self, tensor: Any) -> Array:
        return tensor if isinstance(tensor, numpy.ndarray) else arrays.to_array(tensor)

    def weight(self, weights: Weights, name: str, spec: TensorSpec, device: str) -> Array:
        return weights.array(name, spec)

    def rows(self, leaves: Iterable[Leaf]) -> list[Row]:
        return [
            (leaf, dtypes.numpy_dtype(register.spec.dtype), None, len(register.spec.shape), register.name)
            for leaf, _, register in leaves
        ]

    def accept(
        self, leaves: Sequence[Any], rows: Sequence[Row], gradients: list[str]
    ) -> tuple[list[Array], bool] | None:
        accepted: list[Array] = []
        for leaf, dtype, _, rank, _ in rows:
            value = leaves[leaf]
            if type(value) is not numpy.ndarray:
                if not isinstance(value, (numpy.ndarray, numpy.generic)):
                    return None
                value = numpy.asarray(value)
            if value.dtype != dtype or value.ndim != rank:
                return None
            if not value.flags.c_contiguous and not _counts_elements(value):
                value = numpy.array(value, order="C")
            accepted.append(value)
        return accepted, True

    def is_read_only(self, given: Any) -> bool:
        return not given.flags.writeable

    def is_over(self, given: Any, tensor: Array) -> bool:
        return given is tensor or tensor.size == 0 or _interface(given) == _interface(tensor)

    def copy_back(self, given: Any, tensor: Array) -> None:
        given[...] = tensor

    def mode(self, threads: int | None) -> _NoMode:
        return _NO_MODE

    def records_gradients(self) -> bool:
        return False


class _NoMode:
    """numpy has no state that a call would have to change."""

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass


_NO_MODE = _NoMode()


class _Memory:
    """Stands for memory of an array where numpy wants an array, and keeps it alive."""

    def __init__(self, owner: Array, offset: int, itemsize: int, shape: Sequence[int], strides: Sequence[int]) -> None:
        self.owner = owner
        self.__array_interface__: dict[str, Any] = {
            "version": 3,
            "typestr": f"|V{itemsize}",
            "data": (_interface(owner) + offset, not owner.flags.writeable),
            "shape": tuple(shape),
            "strides": _in_bytes(tuple(strides), itemsize),
        }


def _strided(owner: Array, offset: int, dtype: numpy.dtype[Any], shape: Sequence[int], strides: Sequence[int]) -> Array:
    """An array over memory of another one, ``offset`` bytes from its first element."""
    return numpy.asarray(_Memory(owner, offset, dtype.itemsize, shape, strides)).view(dtype)


def _interface(array: Any) -> int:
    return array.__array_interface__["data"][0]


def _aligned(nbytes: int, allocate: Any) -> Array:
    """Bytes that begin at a multiple of 64."""
    try:
        whole = allocate(nbytes + ALIGNMENT, _BYTE)
    except ValueError as reason:  # more than an address can say
        raise MemoryError(str(reason)) from None
    start = -ctypes.addressof(_ADDRESS.from_buffer(whole)) % ALIGNMENT
    return whole[start : start + nbytes]


@lru_cache(maxsize=4096)
def _layout(dtype: str, shape: tuple[int, ...], strides: tuple[int, ...]) -> tuple[numpy.dtype[Any], int, bool]:
    """The dtype, how many elements the memory spans, and whether it is row-major."""
    dense = same_strides(shape, row_major(shape), strides)  # type: ignore[arg-type] - static extents
    return dtypes.numpy_dtype(dtype), element_span(shape, strides), dense


@lru_cache(maxsize=4096)
def _in_bytes(strides: tuple[int, ...], itemsize: int) -> tuple[int, ...]:
    return tuple([stride * itemsize for stride in strides])


def _counts_elements(array: Array) -> bool:
    """Whether its strides are whole elements, forwards: what a plan's strides can say."""
    return all(stride >= 0 and stride % array.itemsize == 0 for stride in array.strides)
