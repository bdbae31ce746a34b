"""Every norm and gated unit of real models becomes one op; results stay those of eager PyTorch."""

from __future__ import annotations

import copy
import re
from collections import Counter
from typing import Any

import pytest
import torch

import forgec
from tests.models.architectures.row import Row
from tests.models.test_architectures import ROWS, eager, same

PIPELINE = (
    "canonicalize,constant-fold,cse,canonicalize,fuse-norm,fuse-batch-norm,fuse-activation,canonicalize,fuse-glu,"
    "canonicalize,dce"
)
EXPECTED: dict[str, dict[str, int]] = {
    "LlamaForCausalLM": {"rms_norm": 5, "glu": 2},
    "GemmaForCausalLM": {"rms_norm": 3, "glu": 1},
    "Gemma3ForCausalLM": {"rms_norm": 13, "glu": 2},
    "Cohere2ForCausalLM": {"layer_norm": 3, "glu": 2},
    "Phi3ForCausalLM": {"rms_norm": 3, "glu": 1},
    "Olmo2ForCausalLM": {"rms_norm": 5, "glu": 1},
    "ModernBertDecoderForCausalLM": {"layer_norm": 6, "glu": 2},
    "GPT2LMHeadModel": {"layer_norm": 3, "gelu": 1},
    "BloomForCausalLM": {"layer_norm": 6, "gelu": 2},
    "GptOssForCausalLM": {"rms_norm": 5, "glu": 2},
    "DeepseekV3ForCausalLM": {"rms_norm": 9, "glu": 3},
    "Mamba2ForCausalLM": {"rms_norm": 5},
    "RecurrentGemmaForCausalLM": {"rms_norm": 7, "glu": 3},
    "DebertaModel": {"layer_norm": 3, "gelu": 1},
    "T5ForConditionalGeneration": {"rms_norm": 7},
    "UMT5ForConditionalGeneration": {"rms_norm": 7, "glu": 2},
    "CLIPModel": {"layer_norm": 9, "swish": 3},
    "DetrForObjectDetection": {"layer_norm": 6, "batch_norm": 16},
    "Speech2TextForConditionalGeneration": {"layer_norm": 7, "glu": 2},
}
CHOSEN = [row for row in ROWS if row.name in EXPECTED]
SPELLED = ("rsqrt", "mean", "erf", "silu")
"""What is left of no norm and no unit of these models (but of other things, where a model has them)."""
DYNAMIC = ("LlamaForCausalLM", "Gemma3ForCausalLM", "GptOssForCausalLM", "DebertaModel", "UMT5ForConditionalGeneration")
QUICK = ("LlamaForCausalLM", "DebertaModel")
"""Between them they have both norms, a gated unit and an activation. test_architectures.py compares the results of
Gemma3, GptOss and T5 for extents that vary.
"""
HALF = ["LlamaForCausalLM", "Gemma3ForCausalLM", "Cohere2ForCausalLM", "T5ForConditionalGeneration", "GPT2LMHeadModel"]


def counted(compiled: Any) -> Counter[str]:
    return Counter(re.findall(r"= forge\.(\w+)", compiled.ir()))


@pytest.mark.filterwarnings("ignore:.*FORGE-C007:forgec.ForgecWarning")  # RecurrentGemma keeps its state in attributes
@pytest.mark.parametrize("row", CHOSEN, ids=lambda row: row.name)
def test_every_norm_and_unit_is_one_op(row: Row) -> None:
    model, arguments = row.build(), row.arguments()
    compiled = forgec.compile(model, (), arguments, pipeline=PIPELINE)
    same(compiled(**arguments), eager(model, arguments))
    found = counted(compiled)
    assert {name: found[name] for name in EXPECTED[row.name]} == EXPECTED[row.name]
    if "Mamba" not in row.name:
        assert not found.keys() & set(SPELLED)


@pytest.mark.parametrize(
    "row",
    [
        pytest.param(row, id=row.name, marks=() if row.name in QUICK else pytest.mark.wide)
        for row in CHOSEN
        if row.name in DYNAMIC
    ],
)
def test_dynamic_extents_change_nothing(row: Row) -> None:
    model, arguments = row.build(), row.arguments()
    shapes = row.dynamic_shapes(row.dims(row.extents()))
    compiled = forgec.compile(model, (), arguments, dynamic_shapes=shapes, pipeline=PIPELINE)
    found = counted(compiled)
    assert {name: found[name] for name in EXPECTED[row.name]} == EXPECTED[row.name]
    for sizes in ({}, *row.others):
        other = row.arguments(sizes)
        same(compiled(**other), eager(model, other))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("name", HALF)
def test_half_precision_is_as_near_to_float64_as_eager(name: str, dtype: torch.dtype) -> None:
    row = next(row for row in CHOSEN if row.name == name)
    model, arguments = row.build().to(dtype), row.arguments()
    exact = eager(copy.deepcopy(model).double(), arguments)[0]
    expected = eager(model, arguments)[0]
    compiled = forgec.compile(model, (), arguments, pipeline=PIPELINE)
    found = counted(compiled)
    assert {key: found[key] for key in EXPECTED[name]} == EXPECTED[name]
    errors = [(result.double() - exact).square().mean().sqrt() for result in (compiled(**arguments)[0], expected)]
    assert errors[0] <= 1.1 * errors[1]
