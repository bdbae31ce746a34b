"""Every mixture of experts of real models becomes one op; results stay those of eager PyTorch."""

from __future__ import annotations

import copy
import re
from collections import Counter
from typing import Any

import pytest
import torch
import transformers

import forgec
from tests.models.architectures.row import Row
from tests.models.flat import flat
from tests.models.test_architectures import ROWS, eager, rows, same

MIXTURES = {
    "MixtralForCausalLM": 1, "Qwen2MoeForCausalLM": 1, "Qwen3MoeForCausalLM": 1, "GptOssForCausalLM": 2,
    "DeepseekV2ForCausalLM": 1, "DeepseekV3ForCausalLM": 1, "OlmoeForCausalLM": 1, "FlexOlmoForCausalLM": 1,
    "GraniteMoeForCausalLM": 2, "GraniteMoeSharedForCausalLM": 2, "GraniteMoeHybridForCausalLM": 2,
    "PhimoeForCausalLM": 1, "Glm4MoeForCausalLM": 1, "Ernie4_5_MoeForCausalLM": 1, "HunYuanMoEV1ForCausalLM": 1,
    "Dots1ForCausalLM": 1, "MiniMaxForCausalLM": 2, "MiniMaxM2ForCausalLM": 1, "JambaForCausalLM": 1,
    "Lfm2MoeForCausalLM": 1, "Qwen3NextForCausalLM": 2, "AriaTextForCausalLM": 1, "NemotronHForCausalLM-experts": 1,
    "Llama4ForCausalLM": 2,
}  # fmt: skip
"""How many layers of a model are mixtures of experts."""
CHOSEN = [row for row in ROWS if row.name in MIXTURES]
LEFT = ("grouped_matmul", "sort")
"""What is left of no mixture of experts."""


def named(name: str) -> Row:
    return next(row for row in CHOSEN if row.name == name)


def check(row: Row, compiled: Any) -> None:
    """Each mixture is one op, and neither its products nor its sorts are left; every layer names its own place."""
    text = str(flat(compiled.forge))
    found = Counter(re.findall(r"= forge\.(\w+)", text))
    assert found["moe"] == MIXTURES[row.name]
    assert not found.keys() & set(LEFT)
    assert "histc" not in text
    assert not [remark for remark in compiled.report.remarks if "no mixture" in remark.message]


@pytest.mark.parametrize("row", rows(CHOSEN))
def test_every_mixture_is_one_op(row: Row) -> None:
    model, arguments = row.build(), row.arguments()
    compiled = forgec.compile(model, (), arguments)
    check(row, compiled)
    same(compiled(**arguments), eager(model, arguments))


@pytest.mark.parametrize("name", ["MixtralForCausalLM", "GptOssForCausalLM"])
def test_weights_taken_for_each_row(name: str) -> None:
    """transformers' other way to export experts."""
    row = named(name)
    model, arguments = row.build(), row.arguments()
    model.set_experts_implementation("batched_mm")
    compiled = forgec.compile(model, (), arguments)
    check(row, compiled)
    same(compiled(**arguments), eager(model, arguments))


@pytest.mark.parametrize(("hidden", "wide", "chosen"), [(48, 32, 2), (64, 48, 2), (32, 32, 1)])
def test_weights_that_lie_turned(hidden: int, wide: int, chosen: int) -> None:
    """GPT-OSS holds the weights of its experts as [experts, in, out], which grouped products take as they are."""
    torch.manual_seed(0)
    config = transformers.GptOssConfig(
        hidden_size=hidden, intermediate_size=wide, num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=2,
        head_dim=8, vocab_size=9, num_local_experts=4, num_experts_per_tok=chosen,
    )  # fmt: skip
    layer = transformers.GptOssForCausalLM(config).eval().model.layers[0].mlp
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    x = torch.randn(1, 26, hidden)
    same(forgec.compile(layer, (x,), target="cpu:host")(x)[0], layer(x)[0].detach())


def test_dynamic_extents_change_nothing() -> None:
    row = named("DeepseekV3ForCausalLM")
    model = row.build()
    shapes = row.dynamic_shapes(row.dims(row.extents()))
    compiled = forgec.compile(model, (), row.arguments(), dynamic_shapes=shapes)
    check(row, compiled)
    for sizes in ({}, *row.others, {"batch": 1, "length": 3}):
        arguments = row.arguments(sizes)
        same(compiled(**arguments), eager(model, arguments))


@pytest.mark.parametrize("name", ["MixtralForCausalLM", "GptOssForCausalLM"])
def test_bfloat16_is_as_near_to_float64_as_eager(name: str) -> None:
    row = named(name)
    model, arguments = row.build().to(torch.bfloat16), row.arguments()
    wide = copy.deepcopy(model).double()
    wide.set_experts_implementation("batched_mm")
    exact, expected = eager(wide, arguments)[0], eager(model, arguments)[0]
    compiled = forgec.compile(model, (), arguments)
    check(row, compiled)
    errors = [(result.double() - exact).square().mean().sqrt() for result in (compiled(**arguments)[0], expected)]
    assert errors[0] <= 1.1 * errors[1]
