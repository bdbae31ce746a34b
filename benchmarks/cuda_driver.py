"""CUDA's driver by ctypes: load PTX, launch a kernel, read what it wrote. And ptxas, which needs no device."""

from __future__ import annotations

import ctypes
import importlib.util
import shutil
import subprocess
import tempfile
from pathlib import Path

COMPUTE_MAJOR, COMPUTE_MINOR, MULTIPROCESSORS = 75, 76, 16
MOST_SHARED = 8
"""``CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES``."""


def ptxas() -> str | None:
    """Triton's own, which is as new as the PTX needs, or that of the path."""
    found = importlib.util.find_spec("triton")
    if found is not None and found.origin is not None:
        own = Path(found.origin).parent / "backends" / "nvidia" / "bin" / "ptxas-blackwell"
        if own.is_file():
            return str(own)
    return shutil.which("ptxas")


def cubin(ptx: str, target: str) -> bytes | None:
    """PTX as a binary; None where there is no ptxas.

    Raises:
        RuntimeError: what ptxas says of PTX that it refuses.
    """
    tool = ptxas()
    if tool is None:
        return None
    with tempfile.TemporaryDirectory() as folder:
        source, result = Path(folder) / "probe.ptx", Path(folder) / "probe.cubin"
        source.write_text(ptx, encoding="utf-8")
        run = subprocess.run([tool, f"-arch={target}", str(source), "-o", str(result)], capture_output=True, text=True)
        if run.returncode:
            raise RuntimeError(run.stderr.strip() or run.stdout.strip())
        return result.read_bytes()


class Device:
    """The first device of this machine.

    Raises:
        RuntimeError: where there is no driver or no device, or a call of the driver fails.
    """

    def __init__(self) -> None:
        try:
            self.library = ctypes.CDLL("libcuda.so.1")
        except OSError as caught:
            raise RuntimeError(f"there is no CUDA driver: {caught}") from None
        self._call("cuInit", 0)
        self.device = ctypes.c_int()
        self._call("cuDeviceGet", ctypes.byref(self.device), 0)
        self.context = ctypes.c_void_p()
        self._call("cuDevicePrimaryCtxRetain", ctypes.byref(self.context), self.device)
        self._call("cuCtxSetCurrent", self.context)

    def _call(self, name: str, *arguments: object) -> None:
        code = getattr(self.library, name)(*arguments)
        if code:
            text = ctypes.c_char_p()
            self.library.cuGetErrorName(code, ctypes.byref(text))
            raise RuntimeError(f"{name}: {(text.value or b'unknown error').decode()}")

    def attribute(self, number: int) -> int:
        """An attribute of the device."""
        value = ctypes.c_int()
        self._call("cuDeviceGetAttribute", ctypes.byref(value), number, self.device)
        return value.value

    @property
    def capability(self) -> int:
        """90 for compute capability 9.0."""
        return 10 * self.attribute(COMPUTE_MAJOR) + self.attribute(COMPUTE_MINOR)

    def allocate(self, size: int) -> int:
        """Bytes of zeros."""
        pointer = ctypes.c_uint64()
        self._call("cuMemAlloc_v2", ctypes.byref(pointer), ctypes.c_size_t(size))
        self.clear(pointer.value, size)
        return pointer.value

    def clear(self, pointer: int, size: int) -> None:
        """Write zeros."""
        self._call("cuMemsetD8_v2", ctypes.c_uint64(pointer), ctypes.c_ubyte(0), ctypes.c_size_t(size))

    def function(self, image: bytes, name: str, shared: int) -> ctypes.c_void_p:
        """A kernel of a binary or of PTX, with so much dynamic shared memory."""
        module, function = ctypes.c_void_p(), ctypes.c_void_p()
        self._call("cuModuleLoadData", ctypes.byref(module), image)
        self._call("cuModuleGetFunction", ctypes.byref(function), module, name.encode())
        self._call("cuFuncSetAttribute", function, MOST_SHARED, shared)
        return function

    def launch(
        self, function: ctypes.c_void_p, grid: int, threads: int, shared: int, out: int, source: int, count: int
    ) -> list[int]:
        """Run a kernel of (out, source, count), and what each block wrote into ``out``: one 64-bit number."""
        values = (ctypes.c_uint64(out), ctypes.c_uint64(source), ctypes.c_uint32(count))
        pointers = (ctypes.c_void_p * 3)(*(ctypes.cast(ctypes.byref(each), ctypes.c_void_p) for each in values))
        self._call("cuLaunchKernel", function, grid, 1, 1, threads, 1, 1, shared, None, pointers, None)
        self._call("cuCtxSynchronize")
        result = (ctypes.c_int64 * grid)()
        self._call("cuMemcpyDtoH_v2", result, ctypes.c_uint64(out), ctypes.c_size_t(8 * grid))
        return list(result)
