"""The functions that every image has beside its kernels: the driver, whose text is in ``driver_ir``, and the copies."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

from forgec.backends.cpu import copy_function
from forgec.backends.cpu.driver_ir import IR
from forgec.runtime.driver import COPY, RUN, WORK, Driver

PAUSES = {"x86_64": "call void @llvm.x86.sse2.pause()", "aarch64": "call void @llvm.aarch64.hint(i32 1)"}
DECLARATIONS = {"x86_64": "declare void @llvm.x86.sse2.pause()", "aarch64": "declare void @llvm.aarch64.hint(i32)"}


def text(machine: str = "x86_64") -> str:
    """The IR for a type of machine."""
    return IR.replace("{pause}", PAUSES[machine]).replace("{declaration}", DECLARATIONS[machine])


@lru_cache(maxsize=1)
def object_code() -> bytes:
    """The driver as an ELF object for any x86-64 processor."""
    from forgec.backends.cpu.compile import compile_text  # kernels out of the cache are linked without LLVM

    return compile_text(text(), cpu="x86-64")


def objects() -> dict[str, bytes]:
    """What every image has beside its kernels, by a name for messages."""
    return {"the driver": object_code(), "copies": copy_function.object_code()}


def place(functions: Mapping[str, int]) -> Driver:
    """Where the driver is, from the offsets of the functions of an image."""
    return Driver(functions[RUN], functions[WORK], functions[COPY])
