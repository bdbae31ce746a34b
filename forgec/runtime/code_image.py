"""Machine code in memory: mapped once for a program, readable and executable, never writable at the same time."""

from __future__ import annotations

import ctypes
import os
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from mmap import MAP_ANONYMOUS, MAP_PRIVATE, PAGESIZE, PROT_EXEC, PROT_READ, PROT_WRITE
from typing import Any

from forgec.diagnostics import error
from forgec.runtime import perf_map, processor
from forgec.runtime.kernel_table import FilePlace, Kernel, NativeCode, check_table

_MAP_FAILED = ctypes.c_void_p(-1).value
_RUN: Any = ctypes.CFUNCTYPE(ctypes.c_int32, ctypes.c_void_p)
_FUNCTION: Any = ctypes.CFUNCTYPE(ctypes.c_int32, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64)


@dataclass(frozen=True, slots=True)
class LoadedKernel:
    """A kernel and its function, ``function(None, address of the slots, begin, end)``, which stands at ``address`` and
    releases Python's lock while it runs."""

    kernel: Kernel
    function: Callable[..., int]
    address: int


@dataclass(frozen=True, slots=True)
class LoadedDriver:
    """The functions of a driver: ``run(address of a Job)``, and the addresses of what workers run and of what copies.
    It keeps the image."""

    image: CodeImage
    run: Callable[[int], int]
    work: int
    copy: int


class CodeImage:
    """An image that is mapped, with its kernels by name. It is unmapped with its last reference: whoever calls a
    kernel keeps the image.

    FORGE-A007 when the processor cannot run it, FORGE-A008 when the system allows no executable memory.
    """

    def __init__(self, native: NativeCode) -> None:
        try:
            check_table(native.table, len(native.code))
        except ValueError as reason:
            raise error("FORGE-X001", f"the table of kernels is wrong: {reason}") from None
        processor.require(native.table.isa, native.table.features)
        self.address, nbytes = _map(native)
        weakref.finalize(self, _unmap, self.address, nbytes).atexit = False
        self.kernels = {
            kernel.name: LoadedKernel(kernel, _FUNCTION(self.address + kernel.offset), self.address + kernel.offset)
            for kernel in native.table.kernels
        }
        self._driver = native.table.driver
        if perf_map.is_wanted():
            perf_map.add(self.address, len(native.code), native.table)

    def driver(self) -> LoadedDriver:
        """The driver, which must be there. It refers to the image, so the image does not refer to it."""
        assert self._driver is not None, "check_launches has looked"
        driver, start = self._driver, self.address
        return LoadedDriver(self, _RUN(start + driver.run), start + driver.work, start + driver.copy)


def _map(native: NativeCode) -> tuple[int, int]:
    """Address and size: the pages of the file, else of a copy without a name, else anonymous ones."""
    reasons: list[str] = []
    ways = [("the file", _from_file), ("a file in memory", _from_memory), ("memory", _anonymous)]
    if perf_map.is_wanted():
        ways.insert(0, ways.pop())
    for name, attempt in ways:
        try:
            found = attempt(native)
        except OSError as reason:
            reasons.append(f"mapping {name} executable: {reason.strerror or reason}")
            continue
        if found is not None:
            return found
    raise error(
        "FORGE-A008",
        "this system does not let the process map the kernels' machine code executable",
        notes=tuple(reasons),
        help="allow it (SELinux: execmem, a mount without noexec), or compile for cpu:aten, which has no machine code",
    )


def _from_file(native: NativeCode) -> tuple[int, int] | None:
    """The file's own pages: nothing is copied, and processes share them. None where they are not aligned, or the file
    is no longer the one whose hash was checked."""
    place = native.place
    if place is None or place.start % PAGESIZE or len(native.code) % PAGESIZE:
        return None
    with _opened(place) as descriptor:
        if descriptor is None:
            return None
        return _mmap(len(native.code), PROT_READ | PROT_EXEC, MAP_PRIVATE, descriptor, place.start), len(native.code)


@contextmanager
def _opened(place: FilePlace) -> Iterator[int | None]:
    try:
        descriptor = os.open(place.path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:  # removed since: its bytes are still mapped
        yield None
        return
    try:
        found = os.fstat(descriptor)
        yield descriptor if (found.st_dev, found.st_ino) == place.identity else None
    finally:
        os.close(descriptor)


def _from_memory(native: NativeCode) -> tuple[int, int] | None:
    """Pages that are never writable here, so that a process which must not make writable memory executable may."""
    if not hasattr(os, "memfd_create"):
        return None
    descriptor = os.memfd_create("forgec-kernels")
    try:
        with memoryview(native.code) as code:
            written = 0
            while written < len(code):
                written += os.write(descriptor, code[written:])
        nbytes = _whole_pages(len(native.code))
        os.ftruncate(descriptor, nbytes)
        return _mmap(nbytes, PROT_READ | PROT_EXEC, MAP_PRIVATE, descriptor, 0), nbytes
    finally:
        os.close(descriptor)


def _anonymous(native: NativeCode) -> tuple[int, int]:
    nbytes = _whole_pages(len(native.code))
    address = _mmap(nbytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)
    ctypes.memmove(address, bytes(native.code), len(native.code))
    if _libc().mprotect(address, nbytes, PROT_READ | PROT_EXEC):
        code = ctypes.get_errno()
        _unmap(address, nbytes)
        raise OSError(code, os.strerror(code))
    return address, nbytes


def _whole_pages(nbytes: int) -> int:
    return max(-(-nbytes // PAGESIZE), 1) * PAGESIZE


def _libc() -> Any:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
    libc.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
    return libc


def _mmap(nbytes: int, protection: int, flags: int, descriptor: int, start: int) -> int:
    address = _libc().mmap(None, nbytes, protection, flags, descriptor, start)
    if address is None or address == _MAP_FAILED:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return address


def _unmap(address: int, nbytes: int) -> None:
    _libc().munmap(address, nbytes)
