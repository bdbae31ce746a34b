"""Functions of llvm modules, compiled and called in this process."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence

import llvmlite.binding as binding
import numpy as np
from xdsl.dialects.builtin import ModuleOp
from xdsl.ir import Attribute, SSAValue

from forgec.backends.cpu.backend import host_level
from forgec.backends.cpu.compile import compile_module
from forgec.backends.cpu.emitter import Emitter, function
from forgec.backends.cpu.llvm_types import PTR, element_type, i64, lanes, size_bytes


class Native:
    """The functions of a module, by name; ``cpu`` must be one that this machine can execute."""

    def __init__(
        self, module: ModuleOp, cpu: str = "host", features: Sequence[str] = (), vector_bits: int | None = None
    ) -> None:
        module.verify()
        added = ",".join(f"+{name}" for name in features) or None
        self.object = compile_module(module, cpu=cpu, features=added, vector_bits=vector_bits)
        backing = binding.parse_assembly("")
        machine = binding.Target.from_default_triple().create_target_machine(jit=True, codemodel="small")
        self.engine = binding.create_mcjit_compiler(backing, machine)
        self.engine.add_object_file(binding.ObjectFileRef.from_data(self.object))
        self.engine.finalize_object()

    def __call__(self, name: str, *arguments: object, result: type | None = None) -> object:
        """Call with arrays (as addresses) and integers (as i64)."""
        address = self.engine.get_function_address(name)
        types = [ctypes.c_void_p if isinstance(a, np.ndarray) else ctypes.c_int64 for a in arguments]
        values = [a.ctypes.data if isinstance(a, np.ndarray) else a for a in arguments]
        return ctypes.CFUNCTYPE(result, *types)(address)(*values)


def register_bytes(cpu: str) -> int:
    """The size of vector registers, as the backend tells it for the levels."""
    return {"x86-64-v4": 64, "x86-64-v3": 32}.get((host_level() or "") if cpu == "host" else cpu, 0)


def elementwise(
    compute: Callable[[Emitter, list[SSAValue]], SSAValue],
    inputs: Sequence[Attribute],
    output: Attribute,
    cpu: str = "host",
) -> Callable[..., None]:
    """A function of arrays, the inputs and then the result, that applies ``compute`` to a vector at a time."""
    func = function("apply", [PTR] * (len(inputs) + 1) + [i64])
    e = Emitter(func)
    e.register_bytes = register_bytes(cpu)
    *pointers, count = e.arguments
    step = lanes(output) or 1

    def body(index: SSAValue, carried: list[SSAValue]) -> list[SSAValue]:
        values = [e.load(t, e.element(p, index, element_type(t))) for t, p in zip(inputs, pointers, strict=False)]
        e.store(compute(e, values), e.element(pointers[-1], index, element_type(output)))
        return []

    e.loop(0, count, step, (), body)
    e.ret()
    native = Native(ModuleOp([func]), cpu)

    def call(*arrays: np.ndarray) -> None:
        for array, type in zip(arrays, [*inputs, output], strict=True):
            assert array.flags.c_contiguous
            assert array.itemsize == size_bytes(type)
            assert array.size % step == 0
        native("apply", *arrays, arrays[-1].size)

    return call
