"""Large pages for large tensors: memory that is touched for the first time costs a fault for each page.

With pages of 4 KiB the faults of a fresh result of 64 MiB take several times as long as writing it. Systems that give
large pages to who asks (``/sys/kernel/mm/transparent_hugepage/enabled``: ``madvise``) are asked, as NumPy does for its
own arrays; elsewhere nothing happens.
"""

from __future__ import annotations

import ctypes
import mmap
from functools import cache
from typing import Any

LEAST_BYTES = 8 << 20
"""Less is not worth a call of the system."""


def advise(address: int, nbytes: int) -> None:
    """Asks for large pages for memory that is not used yet. Whether there are any is up to the system."""
    if nbytes >= LEAST_BYTES and (call := _madvise()) is not None:
        start = -(-address // mmap.PAGESIZE) * mmap.PAGESIZE
        end = (address + nbytes) // mmap.PAGESIZE * mmap.PAGESIZE
        call(start, end - start, mmap.MADV_HUGEPAGE)


@cache
def _madvise() -> Any:
    """The system's function, None where there is none or no such advice."""
    if not hasattr(mmap, "MADV_HUGEPAGE"):
        return None
    try:
        function = ctypes.CDLL(None).madvise
    except (OSError, AttributeError):
        return None
    function.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    return function
