"""Loads machine code and launches it through libcuda, as a runtime without Triton does."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence

import torch

from forgec.backends.triton.compile import CompiledKernel
from tests.backends.triton.cases import Case

STATIC_SHARED_BYTES = 48 * 1024
MAX_DYNAMIC_SHARED_SIZE_BYTES = 8  # CU_FUNC_ATTRIBUTE_…


class Loaded:
    """A kernel in torch's context of the current device."""

    def __init__(self, kernel: CompiledKernel) -> None:
        torch.zeros(1, device="cuda")  # creates the context
        self.kernel = kernel
        self._cuda = ctypes.CDLL("libcuda.so.1")
        self._module = ctypes.c_void_p()
        self._call("cuModuleLoadData", ctypes.byref(self._module), kernel.code)
        self._function = ctypes.c_void_p()
        self._call("cuModuleGetFunction", ctypes.byref(self._function), self._module, kernel.name.encode())
        if kernel.shared_bytes > STATIC_SHARED_BYTES:
            self._call("cuFuncSetAttribute", self._function, MAX_DYNAMIC_SHARED_SIZE_BYTES, kernel.shared_bytes)

    def launch(self, programs: int, arguments: Sequence[torch.Tensor | int]) -> None:
        """On the current stream; nothing for a grid without programs."""
        kinds = {"i32": ctypes.c_int32, "i64": ctypes.c_int64}
        values: list[ctypes._SimpleCData[int] | ctypes.c_void_p] = []
        for place, ((_, kind), argument) in enumerate(zip(self.kernel.parameters, arguments, strict=True)):
            number = argument.data_ptr() if isinstance(argument, torch.Tensor) else argument
            assert place not in self.kernel.aligned or number % 16 == 0
            values.append(ctypes.c_void_p(number) if kind.startswith("*") else kinds[kind](number))
        values += [ctypes.c_void_p(), ctypes.c_void_p()]  # scratch memory, which is not used
        addresses = (ctypes.c_void_p * len(values))(*(ctypes.addressof(value) for value in values))
        stream = ctypes.c_void_p(torch.cuda.current_stream().cuda_stream)
        if programs:
            threads, shared = 32 * self.kernel.num_warps, self.kernel.shared_bytes
            self._call("cuLaunchKernel", self._function, programs, 1, 1, threads, 1, 1, shared, stream, addresses, None)

    def run(self, case: Case, tensors: Sequence[torch.Tensor]) -> int:
        """Launches a case on copies of its parameters, and writes what becomes of them back. Returns the number of the
        check that failed, 0 if none did.
        """
        storages = [whole(tensor) for tensor in tensors]
        device = [storage.cuda() for storage in storages]
        flag = torch.zeros((), dtype=torch.int32, device="cuda")
        symbols = [case.symbols[symbol] for symbol in case.kernel.symbol_names]
        self.launch(case.programs(), [*device, *symbols, *([flag] if self.kernel.checks else [])])
        torch.cuda.synchronize()
        for storage, result in zip(storages, device, strict=True):
            storage.copy_(result.cpu())
        return int(flag)

    def _call(self, name: str, *arguments: object) -> None:
        status = getattr(self._cuda, name)(*arguments)
        assert status == 0, f"{name} failed with {status}"


def whole(tensor: torch.Tensor) -> torch.Tensor:
    """All elements of the tensor's memory, gaps included: they must stay as they are."""
    return tensor.as_strided((tensor.untyped_storage().nbytes() // tensor.element_size(),), (1,), 0)
