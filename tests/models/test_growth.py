"""No pass walks the module quadratically: the work of each grows with the layers, counted in calls rather than seconds.

``python -m benchmarks compile_time`` shows the same in seconds, at 8, 32 and 128 layers.
"""

from __future__ import annotations

import cProfile
import pstats

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM
from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp
from xdsl.passes import ModulePass

from forgec.capture.capture import export_model, import_program
from forgec.ir.context import context
from forgec.passes.allocate_buffers import AllocateBuffers
from forgec.passes.lower_to_plan import LowerToPlan
from forgec.passes.pipelines import parse

LAYERS = (4, 16)
SOME = 20_000
"""Calls below which what a pass does once for the model may weigh more than what it does for each layer."""


def passes() -> list[ModulePass]:
    return [*parse("@O2"), LowerToPlan("cpu:aten"), AllocateBuffers()]


@pytest.fixture(scope="module")
def calls() -> list[list[int]]:
    """For each number of layers, the calls of functions that each pass makes."""
    found = []
    for layers in LAYERS:
        config = LlamaConfig(
            hidden_size=8,
            intermediate_size=16,
            num_hidden_layers=layers,
            num_attention_heads=2,
            num_key_value_heads=1,
            vocab_size=11,
        )
        model, args = LlamaForCausalLM(config).eval(), (torch.arange(6)[None],)
        kwargs = {"use_cache": False}
        module = import_program(export_model(model, args, kwargs, None), model, args, kwargs, None).module
        found.append([count(pass_, context(), module) for pass_ in passes()])
    return found


def count(pass_: ModulePass, ctx: Context, module: ModuleOp) -> int:
    profile = cProfile.Profile()
    profile.enable()
    pass_.apply(ctx, module)
    profile.disable()
    return pstats.Stats(profile).total_calls  # pyright: ignore[reportAttributeAccessIssue]


def test_each_pass_takes_time_in_proportion_to_the_layers(calls: list[list[int]]) -> None:
    few, many = LAYERS
    too_much = {
        pass_.name: (before, after)
        for pass_, before, after in zip(passes(), *calls, strict=True)
        if after > 1.25 * many / few * before + SOME
    }
    assert not too_much
