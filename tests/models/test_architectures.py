"""Small random models of many architectures: what forgec makes of them returns what they return."""

from __future__ import annotations

from collections.abc import Iterable, Set
from typing import Any

import pytest
import torch
from torch.utils import _pytree as pytree

import forgec
from tests.models.architectures.decoders import DECODERS
from tests.models.architectures.encoders import ENCODERS
from tests.models.architectures.multimodal import MULTIMODAL
from tests.models.architectures.pairs import PAIRS
from tests.models.architectures.row import Row
from tests.models.architectures.sound import SOUND
from tests.models.architectures.sparse import SPARSE
from tests.models.architectures.vision import VISION

ROWS = [*DECODERS, *SPARSE, *ENCODERS, *PAIRS, *VISION, *SOUND, *MULTIMODAL]
TOLERANCE = 2.1e-5
CORE = frozenset(
    """
    LlamaForCausalLM MistralForCausalLM Qwen2ForCausalLM Qwen3ForCausalLM GemmaForCausalLM Gemma2ForCausalLM
    Gemma3ForCausalLM PhiForCausalLM Phi3ForCausalLM Cohere2ForCausalLM GPTNeoXForCausalLM Glm4ForCausalLM
    DiffLlamaForCausalLM Exaone4ForCausalLM GPT2LMHeadModel GPTBigCodeForCausalLM GPTJForCausalLM CTRLLMHeadModel
    OPTForCausalLM BloomForCausalLM FalconForCausalLM FalconForCausalLM-alibi MptForCausalLM MixtralForCausalLM
    Qwen3MoeForCausalLM GptOssForCausalLM DeepseekV3ForCausalLM JambaForCausalLM Lfm2ForCausalLM
    RecurrentGemmaForCausalLM MambaForCausalLM Mamba2ForCausalLM RwkvForCausalLM BertModel RobertaModel
    ElectraForPreTraining AlbertModel RoFormerModel MobileBertModel FNetModel DebertaV2Model ModernBertModel EsmModel
    LayoutLMModel BigBirdModel LongformerModel DistilBertModel XLMModel XLNetModel PerceiverModel
    T5ForConditionalGeneration SwitchTransformersForConditionalGeneration BartForConditionalGeneration ViTModel
    Dinov2Model DINOv3ViTModel BeitModel CLIPVisionModel ViTMAEModel SwinModel ConvNextModel
    ResNetForImageClassification PoolFormerModel MobileNetV1Model EfficientNetModel LevitModel PvtModel
    SegformerForSemanticSegmentation VideoMAEModel Wav2Vec2Model WavLMModel WhisperForConditionalGeneration ASTModel
    EncodecModel DacModel PatchTSTModel DecisionTransformerModel CLIPModel DetrForObjectDetection SamVisionModel
    TrOCRForCausalLM
    """.split()  # noqa: SIM905 - a list of strings would be four times as long
)
"""The rows that every run of the tests takes; ``-m wide`` takes the others."""
STATIC = frozenset(
    """
    LlamaForCausalLM Gemma3ForCausalLM GPT2LMHeadModel FalconForCausalLM-alibi GptOssForCausalLM DeepseekV3ForCausalLM
    Mamba2ForCausalLM DebertaV2Model XLNetModel T5ForConditionalGeneration SwinModel ConvNextModel LevitModel WavLMModel
    DetrForObjectDetection
    """.split()  # noqa: SIM905
)
"""Those that it takes for one shape as well: each of another kind."""


def rows(chosen: Iterable[Row], core: Set[str] = CORE) -> list[Any]:
    """The parameters of a test."""
    marks = {row.name: () if row.name in core else (pytest.mark.wide,) for row in ROWS}
    return [pytest.param(row, id=row.name, marks=marks[row.name]) for row in chosen]


def same(actual: Any, expected: Any) -> None:
    """Equal structure, types, shapes and dtypes; every tensor's values within the tolerance."""
    assert type(actual) is type(expected)
    assert pytree.tree_structure(actual) == pytree.tree_structure(expected)
    for ours, theirs in zip(pytree.tree_leaves(actual), pytree.tree_leaves(expected), strict=True):
        if not isinstance(theirs, torch.Tensor):
            assert ours == theirs
            continue
        assert ours.shape == theirs.shape
        assert not ours.requires_grad
        torch.testing.assert_close(ours, theirs, rtol=0, atol=TOLERANCE, equal_nan=True)


def eager(model: Any, arguments: dict[str, Any]) -> Any:
    with torch.no_grad():
        return model(**arguments)


@pytest.mark.filterwarnings("ignore:.*FORGE-C007:forgec.ForgecWarning")  # RecurrentGemma keeps its state in attributes
@pytest.mark.parametrize("row", rows(row for row in ROWS if not row.refused))
def test_results_are_those_of_eager(row: Row) -> None:
    """Compiled once for every shape, or for the only one."""
    model, arguments = row.build(), row.arguments()
    expected = eager(model, arguments)
    dims = varying(row)
    compiled = forgec.compile(model, (), arguments, dynamic_shapes=row.dynamic_shapes(dims) if dims else None)
    same(compiled(**arguments), expected)
    for sizes in row.others if dims else ():
        other = row.arguments({name: size for name, size in sizes.items() if name in dims})
        same(compiled(**other), eager(model, other))


def varying(row: Row) -> dict[str, Any]:
    """The extents of a row that may vary."""
    return row.dims(row.extents() - row.fixed.keys())


@pytest.mark.filterwarnings("ignore:.*FORGE-C007:forgec.ForgecWarning")
@pytest.mark.parametrize(
    "row",
    [
        pytest.param(row, id=row.name, marks=() if row.name in STATIC else pytest.mark.wide)
        for row in ROWS
        if not row.refused and row.inputs and row.extents() - row.fixed.keys()
    ],
)
def test_results_for_one_shape_are_those_of_eager(row: Row) -> None:
    """Where the test above compiles for all shapes: for those of the example alone."""
    model, arguments = row.build(), row.arguments()
    expected = eager(model, arguments)
    same(forgec.compile(model, (), arguments)(**arguments), expected)


@pytest.mark.parametrize("row", rows(row for row in ROWS if row.refused))
def test_what_torch_export_refuses_is_refused_with_its_words(row: Row) -> None:
    model, arguments = row.build(), row.arguments()
    eager(model, arguments)
    with pytest.raises(forgec.ForgeError, match="FORGE-C001") as caught:
        forgec.compile(model, (), arguments)
    assert row.refused in str(caught.value.__cause__)


# Mamba2 takes torch.export eight seconds; Jamba and Mamba are refused in the same way.
@pytest.mark.parametrize("row", rows((row for row in ROWS if any(row.fixed.values())), CORE - {"Mamba2ForCausalLM"}))
def test_an_extent_that_torch_export_fixes_is_refused_with_its_words(row: Row) -> None:
    model, arguments = row.build(), row.arguments()
    shapes = row.dynamic_shapes(row.dims(row.fixed))
    with pytest.raises(forgec.ForgeError, match="FORGE-C001") as caught:
        forgec.compile(model, (), arguments, dynamic_shapes=shapes)
    for reason in row.fixed.values():
        assert reason in str(caught.value.__cause__)
