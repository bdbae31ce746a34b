"""Every kernel of a model beside what the machine could do at most: one thread, kernels called by themselves.

``python -m benchmarks roofline [NAME …]``: names of benchmarks or architectures as for ``kernel_compile``. The bounds
are measured in the same run: the rate of a loop of multiply-adds that only uses registers, and the rates at which one
thread reads and copies memory. A kernel's own bound is the slower of both for its operations and for the bytes that it
has to move: the rate of a copy counts for kernels that write half as much as they read.

Weights are read from memory, as in a model whose weights no cache holds: launches go through as many copies of them as
it takes. What else a kernel reads and writes is where the launch before left it, in a cache if one holds it: such
kernels reach more than the bound of memory.
"""

from __future__ import annotations

import ctypes
import itertools
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from xdsl.dialects.builtin import ModuleOp

from benchmarks.kernel_compile import bound_kernels, case_of
from benchmarks.measure import table
from forgec.backends.cpu.backend import level_of, lowered_kernel, vector_bits
from forgec.backends.cpu.compile import compile_module, compile_text
from forgec.backends.cpu.link import link
from forgec.ir import types
from forgec.ir.context import context
from forgec.ir.ops.module import ParamRefOp
from forgec.ir.tile.cost import kernel_cost
from forgec.ir.tile.kernel import KernelOp, LaunchOp
from forgec.ir.tile.types import block_type
from forgec.passes.inline_layers import InlineLayers
from forgec.passes.tile_sizes import symbol_uses
from forgec.runtime.code_image import CodeImage
from forgec.runtime.dtypes import torch_dtype
from forgec.runtime.kernel_table import Kernel, KernelTable, NativeCode
from forgec.runtime.symbolic import evaluate

DEFAULT = ("GPT-2, 128 tokens", "Llama 12 layers, 16 tokens", "BERT base, 128 tokens")
SECONDS = 0.2
"""How long a kernel is run, again and again; the fastest run counts."""
CACHED = 128 << 20
"""Bytes of weights that no cache holds."""


@dataclass(frozen=True)
class Machine:
    """What one thread reached in this run: float32 operations, and bytes read and copied (both sides), per second."""

    flops: float
    read: float
    copied: float


@dataclass(frozen=True)
class Measured:
    """One kernel: its fastest launch, and what it does."""

    name: str
    tiles: str
    launches: int
    seconds: float
    flops: int
    bytes: int
    written: int

    def share(self, machine: Machine) -> float:
        """How much of the machine's bound it reaches."""
        rate = machine.copied if 3 * self.written >= self.bytes else machine.read
        return max(self.flops / machine.flops, self.bytes / rate) / self.seconds


def main(names: Sequence[str] = DEFAULT) -> None:
    """Print a table for each model."""
    level = level_of("cpu:host")
    machine = Machine(_peak_flops(level), *_memory_rates())
    print(
        f"\none thread, {level}: {machine.flops / 1e9:.0f} GFLOP/s in registers, {machine.read / 1e9:.1f} GB/s read, "
        f"{machine.copied / 1e9:.1f} GB/s copied"
    )
    for name in names:
        module = bound_kernels(case_of(name), level)
        found = sorted(measured(module, level), key=lambda each: -each.seconds * each.launches)
        total = sum(each.seconds * each.launches for each in found)
        rows = [
            [
                each.name, each.tiles, str(each.launches), f"{each.seconds * 1e6:.1f}",
                f"{100 * each.seconds * each.launches / total:.1f} %", f"{each.flops / each.seconds / 1e9:.1f}",
                f"{each.bytes / each.seconds / 1e9:.1f}", f"{100 * each.share(machine):.0f} %",
            ]
            for each in found
        ]  # fmt: skip
        header = ["kernel", "tiles", "launches", "µs", "of all", "GFLOP/s", "GB/s", "of the bound"]
        table(f"{name}: {total * 1e3:.1f} ms in kernels", header, rows)


def measured(module: ModuleOp, level: str) -> list[Measured]:
    """The kernels of a module, each run on random numbers."""
    flat = module.clone()
    InlineLayers().apply(context(), flat)
    launches: dict[str, list[LaunchOp]] = {}
    for op in flat.walk():
        if isinstance(op, LaunchOp):
            launches.setdefault(op.kernel.string_value(), []).append(op)
    kernels = [op for op in module.ops if isinstance(op, KernelOp)]
    return [measured_kernel(op, module, level, launches.get(op.sym_name.data, [])) for op in kernels]


def measured_kernel(
    kernel: KernelOp,
    module: ModuleOp,
    level: str,
    launches: Sequence[LaunchOp],
    values: Mapping[str, int] | None = None,
) -> Measured:
    """The fastest of many launches, for ``values`` of the module's symbols, else for typical extents."""
    uses = symbol_uses(kernel, module)
    symbols = {name: uses[name].typical for name in kernel.symbol_names}
    if values and launches:
        symbols = {
            name: evaluate(extent, values)
            for name, extent in zip(kernel.symbol_names, launches[0].extents.data, strict=True)
        }
    tensors = [_tensor(types.tensor_type(block_type(value)), symbols) for value in kernel.parameters]
    weights = [n for n, v in enumerate(launches[0].operands if launches else ()) if isinstance(v.owner, ParamRefOp)]
    programs = prod(kernel.programs(symbols))
    image, function = _loaded(kernel, level)
    cost = kernel_cost(kernel).at(symbols)
    moved = evaluate(cost.footprint_bytes, {})
    read = min(sum(_nbytes(tensors[n]) for n in weights), moved)
    sets = [tensors]
    while weights and read * 64 > CACHED > read * len(sets):
        sets.append([_copied(t) if n in weights else t for n, t in enumerate(tensors)])
    slots = [
        (ctypes.c_int64 * (len(own) + len(symbols)))(*(t.data_ptr() for t in own), *symbols.values()) for own in sets
    ]
    turn = itertools.cycle(ctypes.addressof(each) for each in slots)
    seconds = fastest(lambda: function(None, next(turn), 0, programs))
    flops = evaluate(cost.launch.dot_flops, {}) + evaluate(cost.launch.flops, {})  # of each section its own programs
    tiles = ",".join(f"{name}={extent}" for name, extent in kernel.bindings.items())
    written = sum(_nbytes(tensors[n]) for n in kernel.writes.data)
    del image
    return Measured(kernel.sym_name.data, tiles, len(launches), seconds, flops, moved, written)


def _nbytes(tensor: torch.Tensor) -> int:
    return tensor.untyped_storage().nbytes()


def _copied(tensor: torch.Tensor) -> torch.Tensor:
    memory = torch.empty_like(tensor.as_strided((tensor.untyped_storage().nbytes() // tensor.element_size(),), (1,)))
    return memory.zero_().as_strided(tensor.shape, tensor.stride())


def fastest(call: Callable[[], Any]) -> float:
    """Seconds of CPU time of the fastest call."""
    call()
    least, end = float("inf"), time.perf_counter() + SECONDS
    while time.perf_counter() < end:
        started = time.thread_time()
        call()
        least = min(least, time.thread_time() - started)
    return least


def _loaded(kernel: KernelOp, level: str) -> tuple[CodeImage, Callable[..., int]]:
    name = kernel.sym_name.data
    code = compile_module(lowered_kernel(kernel, level), cpu=level, features="", vector_bits=vector_bits(level))
    return _mapped({name: code}, name, level, len(kernel.parameters), len(kernel.symbol_names))


def _mapped(
    objects: Mapping[str, bytes], name: str, level: str, parameters: int, symbols: int
) -> tuple[CodeImage, Callable[..., int]]:
    linked = link(objects)
    entry = Kernel(name, linked.functions[name], parameters, symbols, ("",) * 64)
    image = CodeImage(NativeCode(KernelTable(level, (entry,)), linked.code))
    return image, image.kernels[name].function


def _tensor(kind: types.AnyTensorType, symbols: Mapping[str, int]) -> torch.Tensor:
    shape = [evaluate(extent, symbols) for extent in types.shape(kind)]
    strides = [evaluate(stride, symbols) for stride in types.strides(kind)]
    span = 1 + sum((n - 1) * s for n, s in zip(shape, strides, strict=True)) if 0 not in shape else 0
    dtype = torch_dtype(types.dtype(kind))
    memory = (
        torch.randn(span).mul_(0.1).to(dtype) if dtype.is_floating_point else torch.randint(0, 2, (span,)).to(dtype)
    )
    return memory.as_strided(shape, strides)


def _peak_flops(level: str, count: int = 12, turns: int = 200_000) -> float:
    """Operations per second of multiply-adds of float32 that wait for nothing."""
    lanes = vector_bits(level) // 32
    kind = f"<{lanes} x float>"
    first = "\n".join(f"  %a{n} = phi {kind} [zeroinitializer, %entry], [%b{n}, %loop]" for n in range(count))
    fma = f"@llvm.fma.v{lanes}f32"
    body = "\n".join(f"  %b{n} = call {kind} {fma}({kind} %x, {kind} %x, {kind} %a{n})" for n in range(count))
    sums = "\n".join(f"  %r{n} = fadd {kind} %{f'r{n - 1}' if n else 'x'}, %b{n}" for n in range(count))
    text = f"""
declare {kind} {fma}({kind}, {kind}, {kind})
define i32 @peak(ptr %context, ptr %memory, i64 %begin, i64 %end) "prefer-vector-width"="{vector_bits(level)}" {{
entry:
  %x = load {kind}, ptr %memory, align 4
  br label %loop
loop:
  %i = phi i64 [%begin, %entry], [%next, %loop]
{first}
{body}
  %next = add i64 %i, 1
  %more = icmp slt i64 %next, %end
  br i1 %more, label %loop, label %done
done:
{sums}
  store {kind} %r{count - 1}, ptr %memory, align 4
  ret i32 0
}}
"""
    image, function = _mapped({"peak": compile_text(text, cpu=level)}, "peak", level, 1, 0)
    memory = torch.zeros(64)
    seconds = fastest(lambda: function(None, memory.data_ptr(), 0, turns))
    del image
    return turns * count * lanes * 2 / seconds


def _memory_rates(nbytes: int = 256 << 20) -> tuple[float, float]:
    """Bytes per second of memory that one thread reads, for a sum, and that it reads and writes, for a copy."""
    memory, threads = torch.ones(nbytes // 4), torch.get_num_threads()
    other = torch.zeros_like(memory)
    torch.set_num_threads(1)
    try:
        return nbytes / fastest(memory.sum), 2 * nbytes / fastest(lambda: other.copy_(memory))
    finally:
        torch.set_num_threads(threads)


if __name__ == "__main__":
    main(sys.argv[1:] or DEFAULT)
