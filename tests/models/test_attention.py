"""The attention of transformers' models, spelled out and through SDPA: recognised in every layer, masks in words."""

from __future__ import annotations

from typing import Any

import pytest

from forgec.capture.capture import export_model, import_program
from forgec.ir import context
from forgec.ir.ops.attention import AttentionOp
from forgec.passes import pipelines
from forgec.passes.manager import run_pipeline
from tests.models.test_architectures import CORE, ROWS
from tests.passes.test_fuse_attention import words_of

EXPECTED: dict[str, list[str]] = {
    "LlamaForCausalLM": ["causal keys"] * 2,
    "MistralForCausalLM": ["causal window=4 keys"],
    "Gemma2ForCausalLM": ["causal window=4 keys softcap", "causal keys softcap"],
    "GptOssForCausalLM": ["causal window=4 keys sinks", "causal keys sinks"],
    "GPT2LMHeadModel": ["causal keys"],
    "GPTJForCausalLM": ["causal keys"],
    "CodeGenForCausalLM": ["causal keys"],
    "OPTForCausalLM": ["causal keys"] * 2,
    "XGLMForCausalLM": ["causal keys"] * 2,
    "BloomForCausalLM": ["causal keys bias"] * 2,
    "MptForCausalLM": ["causal keys bias"] * 2,
    "DeepseekV3ForCausalLM": ["causal keys"] * 2,
    "DiffLlamaForCausalLM": ["causal keys"],
    "ModernBertModel": ["keys", "window=3 keys"],
    "BertModel": ["keys"],
    "XLMModel": ["keys"],
    "MPNetModel": ["keys bias"],
    "DebertaV2Model": ["bias"],
    "XLNetModel": ["bias"] * 2,
    "T5ForConditionalGeneration": ["keys bias", "causal bias", "keys"],
    "BartForConditionalGeneration": ["keys", "causal", "keys"],
    "WhisperForConditionalGeneration": ["", "causal", ""],
    "ViTModel": ["", ""],
    "SwinModel": ["bias"] * 3,
    "Swinv2Model": ["bias"] * 3,
    "WavLMModel": ["bias"] * 2,
    "DetrForObjectDetection": ["keys", "", "keys"],
}
"""What the attention ops of a model say, whatever gives an empty row."""


ALWAYS = CORE | {"Swinv2Model"}  # whose attention is of cosines
"""What every run of the tests takes; each of the others is of the kind of one of these."""


def attentions(name: str, implementation: str, dynamic: bool) -> list[AttentionOp]:
    row = next(row for row in ROWS if row.name == name)
    model: Any = row.build()
    model.set_attn_implementation(implementation)
    arguments = row.arguments()
    shapes = row.dynamic_shapes(row.dims(row.extents() - row.fixed.keys())) if dynamic else None
    program = export_model(model, (), arguments, shapes)
    module = import_program(program, model, (), arguments, shapes).module
    run_pipeline(module, pipelines.parse("@O2,inline-layers"), context=context())
    return [op for op in module.walk() if isinstance(op, AttentionOp)]


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in ALWAYS else pytest.mark.wide) for name in EXPECTED]
)
def test_spelled_out(name: str) -> None:
    found = attentions(name, "eager", dynamic=True)
    assert sorted(words(op) for op in found) == sorted(" ".join(sorted(text.split())) for text in EXPECTED[name])


@pytest.mark.parametrize(
    "name", ["LlamaForCausalLM", "MistralForCausalLM", "BertModel", "ModernBertModel", "OPTForCausalLM"]
)
@pytest.mark.parametrize("dynamic", [False, True], ids=["static", "dynamic"])
def test_through_sdpa(name: str, dynamic: bool) -> None:
    found = attentions(name, "sdpa", dynamic)
    assert sorted(words(op) for op in found) == sorted(" ".join(sorted(text.split())) for text in EXPECTED[name])
    assert all(op.empty_row.data == "zero" for op in found)


def words(op: AttentionOp) -> str:
    """What an op says, but for the value of empty rows."""
    return " ".join(sorted(words_of(op) - {"uniform"}))
