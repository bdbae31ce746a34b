"""Memory that faults when it is left: arenas, inputs and results end at a page that nobody may touch."""

from __future__ import annotations

import ctypes
import mmap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import torch

from forgec.runtime.arrays import to_array
from forgec.runtime.dtypes import from_torch, itemsize, torch_dtype
from forgec.runtime.executor import Arena, Lane
from forgec.runtime.extents import element_span
from forgec.runtime.numpy_library import NumpyLibrary
from forgec.runtime.plan import ALIGNMENT

_LIBRARY = ctypes.CDLL(None, use_errno=True)
PAGE = mmap.PAGESIZE
CANARY = 0xA5
MANY = 2000
LARGEST = 1 << 28
"""Larger tensors come from torch's allocator: their last bytes lie before unmapped pages anyway."""


class Guard:
    """Hands out guarded memory and knows the bytes beside it, which must keep their value."""

    def __init__(self) -> None:
        self._regions: list[tuple[mmap.mmap, int, int]] = []
        self._text = ""
        self._empty_strided = torch.empty_strided

    def bytes(self, nbytes: int) -> torch.Tensor:
        """A uint8 tensor at the end of its pages; behind them, and before the first one, every access faults."""
        if nbytes <= 0 or nbytes > LARGEST:
            return torch.empty(nbytes, dtype=torch.uint8)
        room = -(-nbytes // ALIGNMENT) * ALIGNMENT
        pages = -(-room // PAGE) * PAGE
        region = mmap.mmap(-1, pages + 2 * PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        start = PAGE + pages - room
        region[PAGE : PAGE + pages] = bytes([CANARY]) * pages
        anchor = ctypes.c_char.from_buffer(region)
        address = ctypes.addressof(anchor)
        del anchor
        for edge in (address, address + PAGE + pages):
            _protect(edge)
        if len(self._regions) >= MANY:  # a loop: a process has a limited number of mappings
            self._check()
        self._regions.append((region, start, nbytes))
        return torch.frombuffer(region, dtype=torch.uint8, count=nbytes, offset=start)

    def empty_strided(self, shape: Sequence[int], strides: Sequence[int], **options: Any) -> torch.Tensor:
        """``torch.empty_strided`` in guarded memory."""
        dtype = options.get("dtype") or torch.float32
        name = from_torch(dtype)
        plain = str(options.get("device", "cpu")) == "cpu" and not options.get("pin_memory")
        span = element_span(shape, strides) if name and plain else 0
        if not name or not 0 < span * itemsize(name) <= LARGEST:
            return self._empty_strided(shape, strides, **options)
        return self.bytes(span * itemsize(name)).view(dtype).as_strided(tuple(shape), tuple(strides))

    def copy(self, tensor: torch.Tensor) -> torch.Tensor:
        """The tensor's values in guarded memory."""
        return self.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype).copy_(tensor)

    def broken(self) -> str:
        """Which bytes beside the memory were written; empty when none were. Forgets all regions."""
        self._check()
        text, self._text = self._text, ""
        return text

    def _check(self) -> None:
        for region, start, nbytes in self._regions:
            slack = region[PAGE:start] + region[start + nbytes : len(region) - PAGE]
            if slack.count(CANARY) != len(slack):
                self._text = f"bytes beside a tensor of {nbytes} bytes were written"
        self._regions.clear()


def _protect(address: int) -> None:
    if _LIBRARY.mprotect(ctypes.c_void_p(address), ctypes.c_size_t(PAGE), 0):
        raise OSError(ctypes.get_errno(), "mprotect failed")


@contextmanager
def guarded() -> Iterator[Guard]:
    """The runtime's arenas, and all that it makes with ``torch.empty_strided`` or as arrays, in guarded memory."""
    guard = Guard()

    def reserve(lane: Lane, device: str, nbytes: int) -> None:
        known = lane.arenas.get(device)
        if known is None or known.nbytes < nbytes:
            plain = device == "cpu"
            memory = guard.bytes(nbytes) if plain else torch.empty(nbytes, dtype=torch.uint8, device=device)
            lane.arenas[device] = Arena(lane.library.adopt(memory), nbytes, memory.data_ptr())

    def empty(_: NumpyLibrary, dtype: str, shape: Sequence[int], strides: Sequence[int], device: str) -> Any:
        return to_array(guard.empty_strided(shape, strides, dtype=torch_dtype(dtype)))

    with (
        patch.object(Lane, "_reserve", reserve),
        patch.object(torch, "empty_strided", guard.empty_strided),
        patch.object(NumpyLibrary, "empty", empty),
    ):
        yield guard
