"""What the kernels of models cost to compile for the CPU: CPU time from the tile level to an object, by kind of kernel.

``python -m benchmarks kernel_compile [NAME …]``: names of the benchmarks' models (or how they begin), at real sizes, or
of the tests' architectures; by default some of both. Each distinct kernel is compiled three times, without caches; what
counts is the least CPU time of each stage.
"""

from __future__ import annotations

import gc
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from xdsl.dialects.builtin import ModuleOp

from benchmarks.measure import table
from benchmarks.models import CASES, DECODING, Case
from forgec.backends.cpu.backend import level_of, lowered_kernel, vector_bits
from forgec.backends.cpu.compile import STAGES, staged_object
from forgec.capture.capture import export_model, import_program
from forgec.ir import context
from forgec.ir.tile.kernel import KernelOp
from forgec.passes.manager import run_pipeline

DEFAULT = (
    *("GPT-2, 128 tokens", "Llama 12 layers, 128 tokens", "BERT base, 128 tokens", "ViT base", "Gemma 2", "T5 small"),
    *("Mixtral", "GPT2LMHeadModel", "LlamaForCausalLM", "BertModel", "ViTModel", "T5ForConditionalGeneration"),
    *("Gemma2ForCausalLM", "MixtralForCausalLM", "MambaForCausalLM", "Mamba2ForCausalLM", "SwinModel"),
    *("ConvNextModel", "Wav2Vec2Model", "DebertaModel"),
)
ROUNDS = 3
TARGET_SECONDS = 0.030
COLUMNS = ("lowering", *STAGES)


@dataclass(frozen=True)
class Cost:
    """Seconds of CPU time of each stage, and how many instructions LLVM gets."""

    name: str
    seconds: tuple[float, ...]
    instructions: int

    @property
    def kind(self) -> str:
        return self.name.rpartition("_")[0] or self.name

    @property
    def total(self) -> float:
        return sum(self.seconds)


def main(names: Sequence[str] = DEFAULT) -> None:
    """Print the table."""
    level = level_of("cpu:host")
    kernels: dict[str, KernelOp] = {}
    for name in names:
        for op in bound_kernels(case_of(name), level).ops:
            if isinstance(op, KernelOp):
                kernels.setdefault(op.sym_name.data, op)
    costs = [measured(kernel, level) for kernel in kernels.values()]
    kinds: dict[str, list[Cost]] = {}
    for cost in costs:
        kinds.setdefault(cost.kind, []).append(cost)
    ordered = sorted(kinds.items(), key=lambda item: -max(cost.total for cost in item[1]))
    rows = [row(kind, found) for kind, found in ordered] + [row("all", costs)]
    header = ["kernel", "count", "median", "worst", *COLUMNS, "instructions", f"over {TARGET_SECONDS * 1e3:.0f} ms"]
    table(f"CPU time to compile a kernel to an object ({level}, {len(names)} models; stages: medians)", header, rows)


def row(kind: str, costs: Sequence[Cost]) -> list[str]:
    totals = [cost.total for cost in costs]
    stages = [statistics.median(seconds) for seconds in zip(*(cost.seconds for cost in costs), strict=True)]
    late = sum(total > TARGET_SECONDS for total in totals)
    milliseconds = [f"{1e3 * s:.1f}" for s in (statistics.median(totals), max(totals), *stages)]
    instructions = f"{statistics.median(cost.instructions for cost in costs):.0f}"
    return [kind, str(len(costs)), *milliseconds, instructions, f"{late} ({100 * late / len(costs):.0f} %)"]


def case_of(name: str) -> Case:
    """The benchmark whose name begins so, or the architecture of the tests."""
    from tests.models.test_architectures import ROWS

    for case in (*CASES, *DECODING):
        if case.name.startswith(name):
            return case
    for found in ROWS:
        if found.name == name:
            return Case(name, found.build, (), dict(found.arguments()))
    sys.exit(f"there is neither a benchmark nor an architecture {name}")


def bound_kernels(case: Case, level: str) -> ModuleOp:
    """A model's module with its kernels, whose tiles have extents."""
    model: Any = case.build()
    module = import_program(export_model(model, case.args, case.kwargs, None), model).module
    run_pipeline(module, f'@O2,lower-to-tile{{panel=32}},bind-tiles{{target="cpu:{level}"}}', context=context())
    return module


def measured(kernel: KernelOp, level: str, rounds: int = ROUNDS) -> Cost:
    """What a kernel costs; the collector is off meanwhile, as when forgec compiles it."""
    samples: list[tuple[float, ...]] = []
    instructions = 0
    for _ in range(rounds):
        gc.collect(0)
        gc.disable()
        try:
            started = time.process_time()
            module = lowered_kernel(kernel, level)
            lowered = time.process_time() - started
            seconds: dict[str, float] = {}
            staged_object(module, cpu=level, features="", vector_bits=vector_bits(level), seconds=seconds)
        finally:
            gc.enable()
        samples.append((lowered, *(seconds[stage] for stage in STAGES)))
        instructions = sum(len(block.ops) for op in module.ops for region in op.regions for block in region.blocks)
    least = tuple(min(values) for values in zip(*samples, strict=True))
    return Cost(kernel.sym_name.data, least, instructions)


if __name__ == "__main__":
    main(sys.argv[1:] or DEFAULT)
