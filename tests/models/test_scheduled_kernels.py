"""Kernels of models in groups of warps: what they compute is what the tile kernels compute, bit by bit."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from xdsl.dialects.builtin import ModuleOp

from forgec.capture.capture import export_model, import_program
from forgec.ir.context import context
from forgec.ir.evaluator import Evaluator
from forgec.ir.tile.interpreter import bound_symbols, placed, run_kernel
from forgec.ir.tile.kernel import Kernel, KernelOp
from forgec.ir.tile.types import block_type
from forgec.ir.warp.interpreter import at_random
from forgec.ir.warp.kernel import KernelOp as WarpKernelOp
from forgec.passes.instruments import VerifyEach
from forgec.passes.manager import run_pipeline
from forgec.passes.schedule.body import loops_of
from tests.models.test_architectures import ROWS
from tests.passes.schedule.scheduled import is_same

ROW_OF = {row.name: row for row in ROWS}
NAMES = (
    "LlamaForCausalLM", "GPT2LMHeadModel", "MixtralForCausalLM", "Qwen3MoeForCausalLM", "BertModel",
    "T5ForConditionalGeneration", "ViTModel", "Gemma3ForCausalLM", "MambaForCausalLM", "DeepseekV3ForCausalLM",
)  # fmt: skip
QUICK = ("ViTModel",)


def lowered(name: str) -> ModuleOp:
    """The tile kernels of a model in bfloat16."""
    row = ROW_OF[name]
    model = row.build().to(torch.bfloat16)
    inputs = {
        key: value.bfloat16() if isinstance(value, torch.Tensor) and value.is_floating_point() else value
        for key, value in row.arguments().items()
    }
    module = import_program(export_model(model, (), inputs, None), model).module
    run_pipeline(module, '@O2,lower-to-tile,bind-tiles{target="cuda:sm_90a"}', context=context())
    return module


def arguments(kernel: Kernel) -> list[Any]:
    """Random blocks: integers are small and rise, as counts of rows do; 7 stands in what is written."""
    evaluator = Evaluator(bound_symbols(kernel, [], None), {}, False)
    generator = torch.Generator().manual_seed(0)
    found = []
    for position, parameter in enumerate(kernel.parameters):
        kind = block_type(parameter)
        shape, dtype = tuple(evaluator.shape(kind)), evaluator.dtype(kind)
        if position in kernel.writes.data:
            value = torch.full(shape, 7).to(dtype)
        elif dtype == torch.bool:
            value = torch.rand(shape, generator=generator) < 0.7
        elif dtype.is_floating_point:
            value = torch.randn(shape, generator=generator).to(dtype)
        else:
            value = torch.randint(0, 5, shape, generator=generator).sort().values.to(dtype)
        found.append(placed(evaluator, kind, value))
    return found


def written(kernel: Kernel, seed: int = 0) -> Sequence[Any]:
    blocks = arguments(kernel)
    run_kernel(kernel, blocks, [], scheduler=at_random(seed))
    return [blocks[position] for position in kernel.writes.data]


@pytest.mark.parametrize(
    "name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.wide) for name in NAMES]
)
def test_kernels_of_models_do_the_same_in_groups_of_warps(name: str) -> None:
    module = lowered(name)
    before = {op.sym_name.data: op.clone() for op in module.ops if isinstance(op, KernelOp)}
    run_pipeline(
        module, "schedule-kernel{target=sm_90a parts=1 limit=10}", context=context(), instruments=[VerifyEach()]
    )
    left = [op.sym_name.data for op in module.ops if isinstance(op, KernelOp) and loops_of(op)]
    # What is left multiplies in a dtype that the tensor cores do not have.
    assert len(left) <= (name == "DeepseekV3ForCausalLM"), left
    scheduled = [op for op in module.ops if isinstance(op, WarpKernelOp)]
    assert scheduled
    for kernel in scheduled:
        expected = written(before[kernel.sym_name.data])
        for seed in range(2):
            assert is_same(written(kernel, seed), expected), f"{kernel.sym_name.data}, seed {seed}"
