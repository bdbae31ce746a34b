"""What the processes of a run do: lower a model, compile a kernel and work out what it should give, launch it."""

from __future__ import annotations

import logging
import time
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache, wraps
from pathlib import Path
from typing import Any, Literal, ParamSpec, TypeVar

import torch
from xdsl.dialects.builtin import ModuleOp

from forgec.backends.kernel_cache import kernel_key
from forgec.backends.triton.compile import CompiledKernel, compile_source
from forgec.capture.capture import export_model, import_program
from forgec.diagnostics import ForgeError
from forgec.ir import context, types
from forgec.ir.ops.base import ForgeOp
from forgec.ir.ops.module import SymbolOp
from forgec.ir.ops.shape import ViewOp, is_free
from forgec.ir.tile.kernel import KernelOp, LaunchOp
from forgec.ir.tile.types import block_type
from forgec.passes.manager import run_pipeline
from forgec.passes.tile_sizes import symbol_uses
from forgec.runtime.symbolic import evaluate
from tests.backends.triton.cases import Case, below, permutation
from tests.ir.tile.kernels import kernel_of
from tests.models.architectures.row import Row
from tests.models.test_architectures import ROWS
from tools.gpu_kernels.judgement import Judgement, judge

DTYPES = {"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}
LENGTH = 11
"""What the dynamic extents of a model are."""
NO_KERNELS = frozenset({"forge.param_ref", "forge.yield", "forge.symbol", "forge.param", "forge.constant"})


Indices = int | Literal["distinct"]
INDICES: tuple[Indices, ...] = (5, 2, 1, "distinct")
"""What is tried, until no index is outside of its table, and no two programs write one element."""


@dataclass(frozen=True)
class Kernel:
    """A bound kernel as text, with the values and the ranges of its symbols."""

    key: str
    name: str
    dtype: str
    text: str
    symbols: dict[str, int]
    ranges: dict[str, tuple[int, int]]

    @property
    def kind(self) -> str:
        """Its name without the hash."""
        return self.name.rpartition("_")[0] or self.name

    def case(self, indices: Indices) -> Case:
        """The kernel with random inputs; integers are places in tables, below a number or all different."""
        kernel = kernel_of(self.text)
        data = {}
        for number, parameter in enumerate(kernel.parameters):
            parameter.name_hint = parameter.name_hint or f"block{number}"
            if types.dtype(block_type(parameter)) in ("i32", "i64"):
                data[parameter.name_hint] = permutation if indices == "distinct" else below(indices)
        return Case(self.name, kernel, self.symbols, data, ranges=self.ranges)


@dataclass(frozen=True)
class Lowered:
    """The kernels of a model, and how many ops of each kind became none."""

    kernels: tuple[Kernel, ...]
    left: dict[str, int]
    seconds: float


@dataclass(frozen=True)
class Prepared:
    """A compiled kernel; ``path`` is a file with its inputs and what it should give, "" where no inputs were found."""

    compiled: CompiledKernel
    compile_seconds: float
    interpret_seconds: float
    path: str
    reason: str


def quiet() -> None:
    """One thread for each process, no words of libraries."""
    torch.set_num_threads(1)
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")


P = ParamSpec("P")
R = TypeVar("R")


class Failed(Exception):
    """What another exception said; that one may hold what no other process can read."""


def _told(task: Callable[P, R]) -> Callable[P, R]:
    @wraps(task)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return task(*args, **kwargs)
        except Exception as reason:
            raise Failed(f"{type(reason).__name__}: {reason}") from None

    return wrapped


@_told
def lower(name: str, dtype: str, target: str, dynamic: bool) -> Lowered:
    """The kernels of an architecture of the tests, whose weights and floating-point inputs have this dtype."""
    quiet()
    started = time.perf_counter()
    row = next(row for row in ROWS if row.name == name)
    module = _module(row, DTYPES[dtype], dynamic)
    run_pipeline(module, f'@O2,lower-to-tile,bind-tiles{{target="{target}"}}', context=context())
    values = _symbol_values(module)
    launches = {op.kernel.string_value(): op for op in module.walk() if isinstance(op, LaunchOp)}
    kernels = []
    for kernel in module.ops:
        if not isinstance(kernel, KernelOp):
            continue
        uses = symbol_uses(kernel, module)
        ranges = {symbol: (use.low, use.high) for symbol, use in uses.items() if use.high is not None}
        extents = launches[kernel.sym_name.data].extents.data
        symbols = {s: evaluate(extent, values) for s, extent in zip(kernel.symbol_names, extents, strict=True)}
        key = kernel_key(kernel, repr(sorted(ranges.items())), repr(sorted(symbols.items())))
        kernels.append(Kernel(key[:16], kernel.sym_name.data, dtype, str(kernel), symbols, ranges))
    return Lowered(tuple(kernels), dict(_left(module)), time.perf_counter() - started)


def _module(row: Row, dtype: torch.dtype, dynamic: bool) -> ModuleOp:
    model = row.build().to(dtype)
    arguments = {
        name: value.to(dtype) if isinstance(value, torch.Tensor) and value.is_floating_point() else value
        for name, value in row.arguments().items()
    }
    shapes = None
    if dynamic:
        shapes = row.dynamic_shapes(dict.fromkeys(row.extents() - row.fixed.keys(), torch.export.Dim.AUTO))
    return import_program(export_model(model, (), arguments, shapes), model).module


def _symbol_values(module: ModuleOp) -> dict[str, int]:
    found = {}
    for op in module.ops:
        if isinstance(op, SymbolOp):
            low, high = op.bounds
            value = max(LENGTH, low)
            found[op.sym_name.data] = value if high is None else min(value, high)
    return found


def _left(module: ModuleOp) -> Counter[str]:
    return Counter(
        op.name
        for op in module.walk()
        if isinstance(op, ForgeOp)
        and not isinstance(op, LaunchOp)
        and not (isinstance(op, ViewOp) and is_free(op))
        and op.name not in NO_KERNELS
    )


@cache
def _warm(architecture: str) -> None:
    """Loads the compiler, so that no kernel's time has that in it."""
    text = "tile.kernel @nothing() writes [] grid [1] {\n  tile.return\n}"
    compile_source(Case("nothing", kernel_of(text), {}).source, architecture)


@_told
def prepare(kernel: Kernel, architecture: str, folder: str) -> Prepared:
    """Compiles a kernel as for an artifact, and runs it in the interpreter: once with all in float64, and once in the
    types of the IR. Raises Failed where the compiler refuses it.
    """
    quiet()
    _warm(architecture)
    case = kernel.case(1)
    started = time.perf_counter()
    compiled = compile_source(case.source, architecture)
    compiled_at = time.perf_counter()
    reason = ""
    for indices in INDICES:
        case = kernel.case(indices)
        try:
            expected = {"exact": replace(case, float64=True).expected(), "typed": case.expected()}
        except ForgeError as failure:
            reason = str(failure).splitlines()[0]
            continue
        path = Path(folder) / f"{kernel.key}.pt"
        torch.save({"indices": indices, **expected}, path)
        return Prepared(compiled, compiled_at - started, time.perf_counter() - compiled_at, str(path), "")
    return Prepared(compiled, compiled_at - started, time.perf_counter() - compiled_at, "", reason)


@_told
def launch(kernel: Kernel, prepared: Prepared, *, dry: bool = False) -> list[Judgement]:
    """Runs a kernel on the device, its outputs poisoned, and compares. ``dry``: what the interpreter gave in the types
    of the IR stands for what the device gave.
    """
    loaded = torch.load(prepared.path, weights_only=True)
    case = kernel.case(loaded["indices"])
    tensors = case.tensors()
    found = loaded["typed"] if dry else tensors
    if not dry:
        _on_device(case, prepared.compiled, tensors)
    return [
        judge(case.parameter_names()[place], found[place], loaded["exact"][place], loaded["typed"][place])
        for place in case.kernel.writes.data
    ]


def _on_device(case: Case, compiled: CompiledKernel, tensors: list[torch.Tensor]) -> None:
    from tests.backends.triton.driver import Loaded

    failed = Loaded(compiled).run(case, tensors)
    if failed:
        raise AssertionError(f"check {failed} failed: {dict(compiled.checks).get(failed)}")


def device() -> tuple[str, str]:
    """The name of the GPU, and its architecture."""
    major, minor = torch.cuda.get_device_capability()
    return torch.cuda.get_device_name(), f"sm_{major}{minor}{'a' if major >= 9 else ''}"


def result(judgements: list[Judgement]) -> dict[str, Any]:
    """The worst of a kernel's outputs, as JSON."""
    worst = max(judgements, key=lambda judgement: judgement.rank)
    return worst.to_json()
