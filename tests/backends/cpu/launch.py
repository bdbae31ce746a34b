"""Kernels compiled to machine code, run, and compared with the reference interpreter."""

from __future__ import annotations

import ctypes
import mmap
from collections.abc import Sequence
from math import prod

import numpy as np
import torch

from forgec.backends.cpu.tile_to_llvm import kernel_module
from forgec.ir.tile.interpreter import run_kernel
from forgec.ir.tile.kernel import KernelOp
from tests.backends.cpu.native import Native, register_bytes
from tests.ir.build import parse

DTYPES = {
    "f64": torch.float64, "f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16, "i64": torch.int64,
    "i32": torch.int32, "i16": torch.int16, "i8": torch.int8, "ui8": torch.uint8, "i1": torch.bool,
}  # fmt: skip
TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-5, torch.float16: 1e-3, torch.bfloat16: 8e-3}
_SENTINEL = 0x5A


def kernels_of(text: str) -> list[KernelOp]:
    """The bound kernels of a text."""
    return [op for op in parse(text).ops if isinstance(op, KernelOp)]


def _flat(tensor: torch.Tensor) -> torch.Tensor:
    """The memory from the first element to the last."""
    strides = zip(tensor.shape, tensor.stride(), strict=True)
    span = 1 + sum((n - 1) * s for n, s in strides) if tensor.numel() else 0
    return tensor.as_strided((span,), (1,))


class Guarded:
    """A copy of a tensor, with its strides, that ends where memory ends that may be read."""

    def __init__(self, tensor: torch.Tensor) -> None:
        span = _flat(tensor).numel()
        size = span * tensor.element_size()
        page = mmap.PAGESIZE
        whole = -(-max(size, 1) // page) * page
        self.memory = mmap.mmap(-1, whole + page)
        raw = np.frombuffer(self.memory, dtype=np.uint8)
        raw[:] = _SENTINEL
        self.raw, self.start = raw, whole - size
        view = torch.frombuffer(self.memory, dtype=torch.uint8)[whole - size : whole].view(tensor.dtype)
        view.copy_(_flat(tensor))
        self.tensor = view.as_strided(tensor.shape, tensor.stride())
        self.address = raw.ctypes.data + whole - size
        self._protect(raw.ctypes.data + whole, page, 0)

    @staticmethod
    def _protect(address: int, size: int, access: int) -> None:
        assert ctypes.CDLL(None).mprotect(ctypes.c_void_p(address), ctypes.c_size_t(size), access) == 0

    def is_intact(self) -> bool:
        """True if nothing before the tensor was written."""
        return bool((self.raw[: self.start] == _SENTINEL).all())


def launch(
    native: Native, kernel: KernelOp, tensors: Sequence[torch.Tensor], symbols: Sequence[int]
) -> tuple[int, list[torch.Tensor]]:
    """Run all programs on copies of the tensors: what the function returns, and the copies."""
    held = [Guarded(tensor) for tensor in tensors]
    slots = np.array([*(guarded.address for guarded in held), *symbols], dtype=np.int64)
    count = prod(kernel.programs(dict(zip(kernel.symbol_names, symbols, strict=True))))
    middle = count // 2  # a launch may be run in parts
    code = native(kernel.sym_name.data, np.zeros(1), slots, 0, middle, result=ctypes.c_int32)
    code = code or native(kernel.sym_name.data, np.zeros(1), slots, middle, count, result=ctypes.c_int32)
    assert all(guarded.is_intact() for guarded in held), "memory outside a block was written"
    assert isinstance(code, int)
    return code, [guarded.tensor for guarded in held]


def expected(
    kernel: KernelOp, tensors: Sequence[torch.Tensor], symbols: Sequence[int], *, float64: bool = True
) -> list[torch.Tensor]:
    """What the interpreter makes of the tensors."""
    made: list[torch.Tensor] = []
    for tensor in tensors:
        dtype = torch.float64 if float64 and tensor.is_floating_point() else tensor.dtype
        made.append(_flat(tensor).to(dtype, copy=True).as_strided(tensor.shape, tensor.stride()))
    run_kernel(kernel, made, symbols, float64=float64)
    return made


def assert_close(found: torch.Tensor, wanted: torch.Tensor, scale: float = 1.0) -> None:
    """Equal integers; floats that differ little beside the largest number, NaN and infinities in the same places."""
    if not found.is_floating_point():
        assert torch.equal(found, wanted), f"{found} is not {wanted}"
        return
    finite = torch.isfinite(wanted.to(found.dtype))
    assert torch.equal(found.isnan(), wanted.isnan()), f"NaN at other places: {found} is not {wanted}"
    infinite = ~finite & ~wanted.isnan()
    assert torch.equal(found[infinite], wanted.to(found.dtype)[infinite]), f"{found} is not {wanted}"
    if finite.any():
        difference = (found.double() - wanted.double())[finite].abs().max().item()
        largest = wanted[finite].abs().max().item()
        allowed = scale * TOLERANCE[found.dtype] * max(largest, 1e-30)
        assert difference <= allowed, f"off by {difference}, of {largest}: {found} is not {wanted}"


def agree(
    native: Native,
    kernel: KernelOp,
    tensors: Sequence[torch.Tensor],
    symbols: Sequence[int],
    *,
    float64: bool = True,
    scale: float = 1.0,
) -> None:
    """Assert that machine code and interpreter make the same of the tensors."""
    code, found = launch(native, kernel, tensors, symbols)
    assert code == 0
    wanted = expected(kernel, tensors, symbols, float64=float64)
    for position in kernel.writes.data:
        assert_close(found[position], wanted[position], scale)


def compiled(text: str, cpu: str = "x86-64-v3") -> tuple[Native, dict[str, KernelOp]]:
    """The kernels of a text, by name, and their machine code."""
    kernels = kernels_of(text)
    return Native(kernel_module(kernels, vector_bytes=register_bytes(cpu)), cpu), {k.sym_name.data: k for k in kernels}
