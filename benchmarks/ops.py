"""Ops that memory bounds, on tensors that no cache holds, beside the rate at which the same run copies memory.

``python -m benchmarks ops [NAME …]``: all, or those whose names begin so. Each op is compiled as a model of its own for
this machine; its kernels run in one native call, as in an artifact, on memory such as the runtime makes (in large
pages) that has been used before, with one thread and with two. What it has to move are its operands and its result,
once each. A copy is what is measured so as well: the same bytes from one tensor to another, by the C library or by
torch, whichever is faster. Kernels write large results past the caches, so that they may be faster than that.
"""

from __future__ import annotations

import ctypes
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod
from threading import Thread
from typing import Any

import torch
import torch.nn.functional as F
from xdsl.dialects.builtin import ModuleOp

from benchmarks.kernel_compile import bound_kernels
from benchmarks.measure import table
from benchmarks.models import Case
from forgec.backends.cpu.backend import level_of, native
from forgec.ir import types
from forgec.ir.context import context
from forgec.ir.ops.module import ParamRefOp
from forgec.ir.tile.kernel import KernelOp, LaunchOp
from forgec.ir.tile.types import block_type
from forgec.passes.inline_layers import InlineLayers
from forgec.runtime.code_image import CodeImage
from forgec.runtime.dtypes import from_torch
from forgec.runtime.kernel_launch import Slots
from forgec.runtime.segment import KernelLaunch, Segment
from forgec.runtime.symbolic import evaluate
from forgec.runtime.torch_library import TorchLibrary

SECONDS = 0.3
"""How long an op is run, again and again; the fastest run counts."""
THREADS = (1, 2)
LIBRARY = TorchLibrary()
COPIED = 128 << 20
"""Bytes that the copies read and write."""


class Op(torch.nn.Module):
    """A function as a model."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *args: torch.Tensor) -> Any:
        return self.function(*args)


@dataclass(frozen=True)
class Measured:
    """Seconds of the fastest run with so many threads, and the bytes that are moved."""

    seconds: tuple[float, ...]
    nbytes: int
    kernels: int


def with_large_pages(tensor: torch.Tensor) -> torch.Tensor:
    """The numbers in memory as the runtime makes it (``forgec.runtime.huge_pages``)."""
    memory = LIBRARY.empty(from_torch(tensor.dtype) or "", tensor.shape, tensor.stride(), "cpu")
    return memory.copy_(tensor)


def rotate(x: torch.Tensor, cosine: torch.Tensor, sine: torch.Tensor) -> torch.Tensor:
    """x [heads, places, width], as Llama rotates it; cosine and sine [places, width]."""
    half = x.shape[-1] // 2
    return x * cosine + torch.cat((-x[..., half:], x[..., :half]), -1) * sine


def cases(dtype: torch.dtype, part: int = 1) -> dict[str, tuple[Callable[..., Any], tuple[torch.Tensor, ...]]]:
    """By name, functions and what they are called with: tensors of 64 MiB in float32, or of that by ``part``."""

    def numbers(rows: int, *others: int) -> torch.Tensor:
        shape = (max(rows // part, 1), *others)
        return with_large_pages(torch.randn(*shape, generator=torch.Generator().manual_seed(0)).to(dtype))

    square, rows, width = numbers(4096, 4096), numbers(16384, 1024), numbers(1024 * part)
    return {
        "copy, x + 1": (lambda x: x + 1, (square,)),
        "relu": (torch.relu, (square,)),
        "add": (torch.add, (square, numbers(4096, 4096))),
        "exp": (torch.exp, (square,)),
        "tanh": (torch.tanh, (square,)),
        "sigmoid": (torch.sigmoid, (square,)),
        "sin": (torch.sin, (square,)),
        "log": (torch.log, (with_large_pages(square.abs() + 0.5),)),
        "GELU (erf)": (F.gelu, (square,)),
        "GELU (tanh)": (lambda x: F.gelu(x, approximate="tanh"), (square,)),
        "SiLU": (F.silu, (square,)),
        "SwiGLU": (lambda x, y: F.silu(x) * y, (square, numbers(4096, 4096))),
        "GeGLU, halves of one tensor": (lambda x: F.glu(x), (numbers(2048, 8192),)),
        "layer norm": (lambda x, w, b: F.layer_norm(x, (1024,), w, b), (rows, width, width + 1)),
        "layer norm of a sum": (
            lambda x, r, w, b: F.layer_norm(x + r, (1024,), w, b),
            (rows, numbers(16384, 1024), width, width),
        ),
        "RMS norm": (lambda x, w: F.rms_norm(x, (1024,), w), (rows, width)),
        "RMS norm, rows of 4096": (lambda x, w: F.rms_norm(x, (4096,), w), (square, numbers(4096 * part))),
        "softmax": (lambda x: F.softmax(x, -1), (rows,)),
        "log softmax": (lambda x: F.log_softmax(x, -1), (rows,)),
        "rotary embedding": (rotate, (numbers(16, 4096, 128), numbers(4096 * part, 128), numbers(4096 * part, 128))),
        "sum of rows": (lambda x: x.sum(-1), (square,)),
        "sum of columns": (lambda x: x.sum(0), (square,)),
        "largest of rows": (lambda x: x.amax(-1), (square,)),
        "transposing copy": (lambda x: x.transpose(0, 1).contiguous(), (square,)),
        "heads to the front": (lambda x: x.view(-1, 32, 128).transpose(0, 1).contiguous(), (square,)),
        "concatenation": (lambda x, y: torch.cat((x, y), -1), (numbers(2048, 4096), numbers(2048, 4096))),
        "embedding": (F.embedding, (torch.randint(0, 32000 // part, (16384 // part,)), numbers(32000, 1024))),
    }


DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def main(names: Sequence[str] = ()) -> None:
    """Print a table for each dtype."""
    rates = [copied(threads) for threads in THREADS]
    header = ["op", *(f"{what}, {n} thread{'s' * (n > 1)}" for n in THREADS for what in ("ms", "GB/s", "of a copy"))]
    print(f"\n{level_of('cpu:host')}; copied: {', '.join(f'{rate / 1e9:.1f} GB/s' for rate in rates)}")
    dtypes = {name: dtype for name, dtype in DTYPES.items() if name in names} or DTYPES
    wanted = [name for name in names if name not in DTYPES]
    for kind, dtype in dtypes.items():
        rows = []
        for name, (function, arguments) in cases(dtype).items():
            if wanted and not any(name.startswith(each) for each in wanted):
                continue
            found = measured(Case(name, lambda f=function: Op(f), arguments, {}))
            cells = [name if found.kernels == 1 else f"{name} ({found.kernels} kernels)"]
            for seconds, rate in zip(found.seconds, rates, strict=True):
                reached = found.nbytes / seconds
                cells += [f"{1e3 * seconds:.2f}", f"{reached / 1e9:.1f}", f"{100 * reached / rate:.0f} %"]
            rows.append(cells)
        table(f"{kind}", header, rows)


def measured(case: Case) -> Measured:
    """An op's kernels, in memory that has been used."""
    module = bound_kernels(case, level_of("cpu:host"))
    segments, tensors, kernels, keep = prepared(module, case.args)
    seconds = tuple(fastest(segment.run) for segment in segments)
    del keep
    return Measured(seconds, sum(nbytes(tensor) for tensor in tensors), kernels)


def prepared(
    module: ModuleOp, arguments: Sequence[torch.Tensor]
) -> tuple[list[Segment], list[torch.Tensor], int, CodeImage]:
    """Segments of a module's launches for each number of threads; what they read and write from outside."""
    InlineLayers().apply(context(), module)
    (code,) = native(module, "cpu:host")[-1:]
    image = CodeImage(code)
    launches = [op for op in module.walk() if isinstance(op, LaunchOp)]
    kernels = {op.sym_name.data: op for op in module.ops if isinstance(op, KernelOp)}
    memory: dict[Any, torch.Tensor] = {}
    entry = launches[0].parent
    assert entry is not None
    memory.update(zip(entry.args, arguments, strict=True))
    made: list[KernelLaunch] = []
    for number, op in enumerate(launches):
        name = op.kernel.string_value()
        tensors: list[torch.Tensor] = []
        for (operand, result), parameter in zip(op.parameters(), kernels[name].parameters, strict=True):
            value = operand if result is None else op.results[result]
            assert value is not None
            if value not in memory:
                assert result is not None or isinstance(value.owner, ParamRefOp), "ops between launches are not run"
                kind = block_type(parameter)
                shape = [evaluate(extent, {}) for extent in types.shape(kind)]
                strides = [evaluate(stride, {}) for stride in types.strides(kind)]
                memory[value] = LIBRARY.zeros(types.dtype(kind), shape, strides, "cpu")
            tensors.append(memory[value])
        slots = Slots(len(tensors), [evaluate(extent, {}) for extent in op.extents.data])
        for position, tensor in enumerate(tensors):
            slots.keep(position, tensor, tensor.data_ptr(), 0)
        programs = prod(evaluate(substituted, {}) for substituted in _grid(op, kernels[name]))
        loaded = image.kernels[name]
        made.append(KernelLaunch(loaded.kernel, loaded.address, slots, programs, number, None))
    outside = [*arguments, *(memory[value] for value in launches[-1].results)]
    segments = [Segment(image.driver(), made, threads) for threads in THREADS]
    return segments, outside, len(made), image


def _grid(op: LaunchOp, kernel: KernelOp) -> Sequence[Any]:
    values = dict(zip(kernel.symbol_names, (evaluate(extent, {}) for extent in op.extents.data), strict=True))
    return [evaluate(extent, values) for extent in kernel.grid.data]


def nbytes(tensor: torch.Tensor) -> int:
    """What a tensor's elements take."""
    return tensor.numel() * tensor.element_size()


def fastest(call: Callable[[], Any]) -> float:
    """Seconds of the fastest call."""
    call()
    least, end = float("inf"), time.perf_counter() + SECONDS
    while time.perf_counter() < end:
        started = time.perf_counter()
        call()
        least = min(least, time.perf_counter() - started)
    return least


def copied(threads: int) -> float:
    """Bytes per second, read and written, of a copy by so many threads: the fastest of the C library's and torch's."""
    source, target = (with_large_pages(torch.ones(COPIED // 8)) for _ in range(2))
    part = nbytes(source) // threads
    copy = ctypes.CDLL(None).memcpy
    copy.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)

    def halves() -> None:
        ends = [(target.data_ptr() + n * part, source.data_ptr() + n * part, part) for n in range(threads)]
        others = [Thread(target=copy, args=each) for each in ends[1:]]
        for thread in others:
            thread.start()
        copy(*ends[0])
        for thread in others:
            thread.join()

    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        return COPIED / min(fastest(halves), fastest(lambda: target.copy_(source)))
    finally:
        torch.set_num_threads(before)


if __name__ == "__main__":
    main(sys.argv[1:])
