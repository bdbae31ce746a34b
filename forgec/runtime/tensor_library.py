"""What the runtime needs of a library of tensors: memory, views, addresses, copies. There are two, torch and numpy.

A program that calls ATen works on torch tensors. One that runs machine code alone only needs addresses: its weights,
arenas and states are numpy arrays, and each call runs in the library of the tensors that the caller passed, without
copies. So it needs no torch, and what torch's users get are torch tensors all the same.

Tensors of either library have ``shape``, ``dtype``, ``nbytes`` and ``item()``; all else goes through here. Strides
count elements; dtypes are forgec's names (``bf16``).
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from functools import cache
from types import ModuleType
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from forgec.runtime.plan import Arg, Input, TensorSpec

if TYPE_CHECKING:
    from forgec.runtime.program import Weights

Tensor: TypeAlias = Any
"""A torch tensor, or a numpy array."""
Leaf: TypeAlias = "tuple[int, int, Input]"
"""A tensor among the arguments of an entry: the position of its leaf, its register's number, and the register."""
Row: TypeAlias = "tuple[int, Any, Any, int, str]"
"""What a call's leaf has to be: its position, the library's dtype and device, the rank, and a name for messages."""


class TensorLibrary(Protocol):
    """The operations on tensors that executing a plan takes."""

    name: str

    def empty(self, dtype: str, shape: Sequence[int], strides: Sequence[int], device: str) -> Tensor:
        """New memory, not initialised. ``MemoryError`` or ``RuntimeError`` when there is none."""
        ...

    def zeros(self, dtype: str, shape: Sequence[int], strides: Sequence[int], device: str) -> Tensor:
        """New memory, all zero."""
        ...

    def arena(self, nbytes: int, device: str) -> Tensor:
        """So many bytes, aligned to 64."""
        ...

    def grow(self, arena: Tensor, nbytes: int) -> bool:
        """Gives an arena more bytes, losing what it holds. False when the library cannot: then a new one is needed."""
        ...

    def over(self, arena: Tensor, dtype: str, shape: Sequence[int], strides: Sequence[int], offset: int) -> Tensor:
        """The tensor that begins at a byte of an arena."""
        ...

    def view(self, base: Tensor, dtype: str, shape: Sequence[int], strides: Sequence[int], offset: int) -> Tensor:
        """A view of a tensor's memory, possibly as another dtype; ``offset`` in elements of ``dtype`` from its first
        one."""
        ...

    def address(self, tensor: Tensor, /) -> int:
        """The address of the first element."""
        ...

    def strides(self, tensor: Tensor, /) -> tuple[int, ...]:
        """Its strides in elements."""
        ...

    def lies_as(self, tensor: Tensor, shape: tuple[int, ...], strides: tuple[int, ...]) -> bool:
        """Whether a tensor of this shape has its elements where these strides say."""
        ...

    def storage_offset(self, tensor: Tensor, /) -> int:
        """Elements between the beginning of what the tensor is a view of, and its first one."""
        ...

    def is_of(self, tensor: Tensor, dtype: str) -> bool:
        """Whether the tensor has this dtype."""
        ...

    def plain(self, tensor: Tensor, /) -> Tensor:
        """The tensor, whose memory holds its values; a copy where it says to negate or conjugate what it reads."""
        ...

    def clone(self, tensor: Tensor, /) -> Tensor:
        """A copy of its own."""
        ...

    def copy(self, target: Tensor, source: Tensor, /) -> Any:
        """Copies the elements of a tensor of the same dtype, repeated where its extents are 1, into another."""
        ...

    def laid_out(self, tensor: Tensor, dtype: str, shape: tuple[int, ...], strides: tuple[int, ...]) -> Tensor:
        """A copy with other strides; a stride of 0 repeats one element."""
        ...

    def may_share(self, left: Tensor, right: Tensor, /) -> bool:
        """False only if memory of one tensor may be written without a change of the other."""
        ...

    def share_elements(self, left: Tensor, right: Tensor, /) -> bool:
        """Whether some element of one tensor lies in the bytes of an element of the other."""
        ...

    def counter(self, value: int) -> Tensor:
        """A number as a tensor of rank 0, int64."""
        ...

    def constant(self, value: Arg, /) -> Any:
        """A fixed value of the plan as the library's users write it."""
        ...

    def adopt(self, tensor: Tensor, /) -> Tensor:
        """A tensor of any library as one of this library, over the same memory."""
        ...

    def weight(self, weights: Weights, name: str, spec: TensorSpec, device: str) -> Tensor:
        """A tensor of the weights."""
        ...

    def rows(self, leaves: Iterable[Leaf]) -> list[Row]:
        """What ``accept`` needs to know of the tensors among an entry's arguments."""
        ...

    def accept(
        self, leaves: Sequence[Any], rows: Sequence[Row], gradients: list[str]
    ) -> tuple[list[Tensor], bool] | None:
        """The tensors among a call's leaves, and whether all of them came as arrays. None when dtype, rank, device or
        kind of one is wrong. ``gradients`` gets the names of those that require grad."""
        ...

    def is_read_only(self, given: Any) -> bool:
        """Whether what the caller passed cannot be written."""
        ...

    def is_over(self, given: Any, tensor: Tensor) -> bool:
        """Whether writing the tensor writes what the caller passed."""
        ...

    def copy_back(self, given: Any, tensor: Tensor) -> None:
        """Writes the tensor's values into what the caller passed."""
        ...

    def mode(self, threads: int | None) -> AbstractContextManager[None]:
        """The state of the library that a call needs, and the caller's afterwards."""
        ...

    def records_gradients(self) -> bool:
        """Whether the caller's operations are recorded for differentiation."""
        ...


_loaded: ModuleType | None = None


def loaded_torch() -> Any:
    """torch if this process has imported it, else None. A module that another thread is still importing is not there
    yet."""
    global _loaded
    if _loaded is None:
        found = sys.modules.get("torch")
        if found is None or getattr(found.__spec__, "_initializing", False):
            return None
        _loaded = found
    return _loaded


@cache
def numpy_library() -> TensorLibrary:
    """numpy's arrays."""
    from forgec.runtime.numpy_library import NumpyLibrary

    return NumpyLibrary()


@cache
def torch_library() -> TensorLibrary:
    """torch's tensors. Imports torch."""
    from forgec.runtime.torch_library import TorchLibrary

    return TorchLibrary()


def usual_library() -> TensorLibrary:
    """The library of tensors that nobody passed: torch's where the process has it."""
    return numpy_library() if loaded_torch() is None else torch_library()


def library_of(leaves: Sequence[Any], tensors: Sequence[Leaf]) -> TensorLibrary:
    """The library in which a call runs that could run in both: torch's if one of its tensors is a torch tensor."""
    torch = loaded_torch()
    if torch is None:
        return numpy_library()
    for leaf, _, _ in tensors:
        if isinstance(leaves[leaf], torch.Tensor):
            return torch_library()
    return numpy_library() if tensors else torch_library()
