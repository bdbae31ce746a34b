"""What is recognised in models of transformers, through SDPA and spelled out, and that nothing of it is left over.

``python -m tools.recognition`` shows the same of every architecture of the tests.
"""

from __future__ import annotations

from typing import Any

import pytest

from tests.models.leftovers import Recognition, captured, implementations, recognise
from tests.models.test_architectures import CORE, ROWS

EXPECTED: dict[str, str] = {
    # Decoders
    "LlamaForCausalLM": "attention 2 norm 5 rope 4 glu 2 launches 19",
    "MistralForCausalLM": "attention 1 norm 3 rope 2 glu 1 launches 12",
    "Qwen2ForCausalLM": "attention 2 norm 5 rope 4 glu 2 launches 19",
    "Qwen3ForCausalLM": "attention 1 norm 5 rope 2 glu 1 launches 14",
    "GemmaForCausalLM": "attention 1 norm 3 rope 2 glu 1 launches 12",
    "Gemma3ForCausalLM": "attention 2 norm 13 rope 4 glu 2 launches 24",
    "PhiForCausalLM": "attention 1 norm 2 rope 2 activation 1 launches 11",
    "Phi3ForCausalLM": "attention 1 norm 3 rope 2 glu 1 launches 14",
    "Starcoder2ForCausalLM": "attention 1 norm 3 rope 2 activation 1 launches 12",
    "Olmo2ForCausalLM": "attention 1 norm 5 rope 2 glu 1 launches 13",
    "CohereForCausalLM": "attention 1 norm 2 rope 2 glu 1 launches 10",
    "NemotronForCausalLM": "attention 1 norm 3 rope 2 launches 15",
    "GPTNeoXForCausalLM": "attention 1 norm 3 rope 2 activation 1 launches 12",
    "Glm4ForCausalLM": "attention 1 norm 5 rope 2 glu 1 launches 12",
    "SmolLM3ForCausalLM": "attention 1 norm 3 rope 2 glu 1 launches 12",
    "Ernie4_5ForCausalLM": "attention 1 norm 3 rope 2 glu 1 launches 12",
    "GPT2LMHeadModel": "attention 1 norm 3 activation 1 launches 12",
    "GPTBigCodeForCausalLM": "attention 1 norm 3 activation 1 launches 12",
    "GPTJForCausalLM": "attention 1 norm 2 rope 2 activation 1 launches 10",
    "OPTForCausalLM": "attention 2 norm 5 launches 23",
    "BloomForCausalLM": "attention 2 norm 6 activation 2 launches 21",
    # Mixtures of experts
    "MixtralForCausalLM": "attention 1 norm 3 rope 2",
    "Qwen3MoeForCausalLM": "attention 1 norm 5 rope 2",
    "DeepseekV3ForCausalLM": "attention 2 norm 9 rope 4",
    "OlmoeForCausalLM": "attention 1 norm 5 rope 2",
    # State space, convolution and recurrence beside attention
    "BambaForCausalLM": "attention 1 norm 6 rope 2",
    "Lfm2ForCausalLM": "attention 1 norm 7 rope 2",
    # Encoders
    "BertModel": "attention 1 norm 3 activation 1 launches 13",
    "RobertaModel": "attention 1 norm 3 activation 1 launches 17",
    "ElectraForPreTraining": "attention 1 norm 3 activation 2 launches 16",
    "DistilBertModel": "attention 2 norm 5 activation 2 launches 18",
    "ModernBertModel": "attention 2 norm 5 rope 4 glu 2 launches 19",
    "EsmModel": "attention 1 norm 3 rope 2 activation 1 launches 12",
    "AlbertModel": "attention 1 norm 3 activation 1 launches 15",
    "NomicBertModel": "attention 1 norm 3 rope 2 glu 1 launches 12",
    # Encoders with decoders
    "T5ForConditionalGeneration": "attention 3 norm 7 launches 27",
    "UMT5ForConditionalGeneration": "attention 3 norm 7 glu 2 launches 27",
    "BartForConditionalGeneration": "attention 3 norm 7 activation 2 launches 27",
    "MBartForConditionalGeneration": "attention 3 norm 9 activation 2 launches 27",
    # Vision
    "ViTModel": "attention 2 norm 5 activation 2 launches 18",
    "Dinov2Model": "attention 2 norm 5 activation 2 launches 17",
    "DINOv3ViTModel": "attention 2 norm 5 rope 4 activation 2 launches 22",
    "CLIPVisionModel": "attention 2 norm 6 activation 2 launches 18",
    "SiglipVisionModel": "attention 3 norm 6 activation 3 launches 25",
    "SwinModel": "attention 3 norm 9 activation 3 launches 39",
    "VitDetModel": "attention 2 norm 7 activation 4 launches 33",
    # Speech
    "WhisperForConditionalGeneration": "attention 3 norm 7 activation 4 launches 27",
    "Wav2Vec2Model": "attention 2 norm 7 activation 5 launches 23",
    "HubertModel": "attention 2 norm 7 activation 5 launches 23",
    "ASTModel": "attention 2 norm 5 activation 2 launches 18",
    "SEWDModel": "attention 2 norm 7 activation 6 launches 48",
}
"""How many of each kind there are, and how many launches at most. The units of experts are not counted. What stands
before the layers does not join their first norm, which they share.
"""
LEFT: dict[str, set[str]] = {
    "MixtralForCausalLM": {"softmax", "gate"},  # of a router
    "Qwen3MoeForCausalLM": {"softmax", "gate"},
    "DeepseekV3ForCausalLM": {"gate"},
    "OlmoeForCausalLM": {"softmax", "gate"},
    "BambaForCausalLM": {"product", "gate"},  # of a state space
    "VitDetModel": {"product"},  # of a query with relative positions, which makes a bias
    "SEWDModel": {"product"},
}
ALWAYS = CORE | LEFT.keys() | {"NemotronForCausalLM"}
"""What every run of the tests takes; each of the others is of the kind of one of these."""
SPELLED = ("softmax", "product", "norm", "rope", "gate", "gelu")


def recognitions(name: str) -> dict[str | None, Recognition]:
    """By implementation of attention: those that the model has."""
    row = next(row for row in ROWS if row.name == name)
    return {way: recognise(captured(row, way)) for way in implementations(row.build())}


def numbers(text: str) -> dict[str, int]:
    words = text.split()
    return {kind: int(count) for kind, count in zip(words[::2], words[1::2], strict=True)}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in ALWAYS else pytest.mark.wide) for name in EXPECTED]
)
def test_everything_is_recognised(name: str) -> None:
    expected: dict[str, Any] = numbers(EXPECTED[name])
    most = expected.pop("launches", None)
    for way, found in recognitions(name).items():
        assert {kind: found.recognised[kind] for kind in expected} == expected, way
        left = {key: count for key, count in found.left_of(*SPELLED).items() if key[0] not in LEFT.get(name, ())}
        assert not left, way
        assert most is None or found.launches <= most, way


def test_both_implementations_are_told_apart() -> None:
    """Most models of the table have both, so that each is seen."""
    ways = [set(implementations(row.build())) for row in ROWS if row.name in ("LlamaForCausalLM", "BertModel")]
    assert ways == [{"sdpa", "eager"}] * 2
