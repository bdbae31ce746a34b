"""The kernels of models as cases: what lowering and ``bind-tiles`` make of a small GPT-2 and a small Llama."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from xdsl.dialects.builtin import ModuleOp

from forgec.capture.capture import export_model, import_program
from forgec.ir import context, types
from forgec.ir.tile.kernel import KernelOp
from forgec.ir.tile.types import block_type
from forgec.passes.manager import run_pipeline
from forgec.passes.tile_sizes import symbol_uses
from tests.backends.triton.cases import Case, Data, below
from tests.models.test_launches import build

LENGTH = 11
"""What dynamic extents are: a length that fills no tile."""


def model_cases(name: str, target: str = "cuda:sm_90a", *, dynamic: bool = True) -> dict[str, Case]:
    """The kernels of one of the small models, by their names; ``dynamic`` for all lengths of the input."""
    model, inputs = build(name, 1, "sdpa")
    shapes = {"input_ids": {1: torch.export.Dim.AUTO(min=2, max=64)}} if dynamic else None
    module = import_program(export_model(model, (), inputs, shapes), model).module
    run_pipeline(module, f'@O2,lower-to-tile,bind-tiles{{target="{target}"}}', context=context())
    return {kernel.sym_name.data: _case(kernel, module) for kernel in module.ops if isinstance(kernel, KernelOp)}


def _case(kernel: KernelOp, module: ModuleOp) -> Case:
    uses = symbol_uses(kernel, module)
    symbols = {name: LENGTH if use.high is None else min(LENGTH, use.high) for name, use in uses.items()}
    ranges = {name: (use.low, use.high) for name, use in uses.items() if use.high is not None}
    return Case(kernel.sym_name.data, kernel, symbols, _indices(kernel), ranges=ranges, float64=True)


def _indices(kernel: KernelOp) -> Mapping[str, Data]:
    """Integers are places in small tables."""
    found: dict[str, Data] = {}
    for number, parameter in enumerate(kernel.parameters):
        parameter.name_hint = parameter.name_hint or f"block{number}"
        if types.dtype(block_type(parameter)) in ("i32", "i64"):
            found[parameter.name_hint] = below(5)
    return found
