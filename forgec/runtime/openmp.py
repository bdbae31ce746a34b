"""The OpenMP library that the process has already, if it has one: its threads are used, and no others started.

Two sets of threads on the same cores are far slower than one: the idle ones of the one keep looking for work while
those of the other compute.
"""

from __future__ import annotations

import ctypes
import os
import sys
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

MAPS = Path("/proc/self/maps")
_LIBRARIES = ("libgomp", "libiomp5", "libomp")
"""GNU's, Intel's and LLVM's. All have GNU's entry points, which are what compilers call."""


@dataclass(frozen=True, slots=True)
class OpenMP:
    """Addresses of ``void GOMP_parallel(void (*)(void *), void *, unsigned, unsigned)``, ``omp_get_thread_num`` and
    ``omp_get_num_threads``. ``library`` keeps it loaded."""

    parallel: int
    thread_number: int
    thread_count: int
    library: Any = field(repr=False, compare=False)


def mapped_libraries(maps: str) -> list[str]:
    """The paths of OpenMP libraries in the text of ``/proc/self/maps``, in the order of their addresses."""
    paths = (line.split(maxsplit=5)[5] for line in maps.splitlines() if len(line.split(maxsplit=5)) == 6)
    return [path for path in dict.fromkeys(paths) if os.path.basename(path).startswith(_LIBRARIES)]


def find() -> OpenMP | None:
    """What the process has loaded; of several libraries the one that came with torch. Nothing is loaded."""
    try:
        paths = mapped_libraries(MAPS.read_text(errors="replace"))
    except OSError:
        return None
    home = os.path.dirname(getattr(sys.modules.get("torch"), "__file__", None) or "/nowhere/")
    paths.sort(key=lambda path: not path.startswith((home + os.sep, home + ".libs" + os.sep)))
    return next((found for found in map(_opened, paths) if found is not None), None)


@cache
def _opened(path: str) -> OpenMP | None:
    try:
        library = ctypes.CDLL(path, mode=os.RTLD_NOLOAD | os.RTLD_LAZY)
        names = (library.GOMP_parallel, library.omp_get_thread_num, library.omp_get_num_threads)
    except (OSError, AttributeError):  # it is gone, or is none
        return None
    parallel, number, count = (ctypes.cast(function, ctypes.c_void_p).value for function in names)
    return OpenMP(parallel, number, count, library) if parallel and number and count else None
