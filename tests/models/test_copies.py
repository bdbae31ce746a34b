"""Standard layers whose heads are merged, repeated or gathered on the way: what is launched for each, and no copies."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import transformers
from torch import nn
from torch.utils import _pytree as pytree

import forgec
from forgec.ir.cost import call_counts
from forgec.ir.ops.contraction import MatmulOp
from forgec.ir.ops.shape import CopyOp, ReshapeOp, is_free

WIDTH, HEADS = 32, 4
SMALL = {"vocab_size": 64, "hidden_size": WIDTH, "num_attention_heads": HEADS}
DECODER = {**SMALL, "use_cache": False, "bos_token_id": None, "eos_token_id": None}
DEBERTA = {**SMALL, "intermediate_size": 48, "relative_attention": True, "position_buckets": 8,
           "max_position_embeddings": 32, "pos_att_type": ["p2c", "c2p"], "norm_rel_ebd": "layer_norm",
           "share_att_key": True, "position_biased_input": False}  # fmt: skip
XLNET = {"vocab_size": 64, "d_model": WIDTH, "n_head": HEADS, "d_inner": 48}
Build = Callable[[int], tuple[Any, tuple[Any, ...], dict[str, Any]]]


class Attentions(nn.Module):
    """Layers of ``torch.nn.MultiheadAttention`` alone."""

    def __init__(self, layers: int, *, batch_first: bool, need_weights: bool, crossing: bool) -> None:
        super().__init__()
        made = (nn.MultiheadAttention(WIDTH, HEADS, batch_first=batch_first) for _ in range(layers))
        self.layers = nn.ModuleList(made)
        self.need_weights, self.crossing = need_weights, crossing

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        for layer in self.layers:
            other = y if self.crossing else x
            result, weights = layer(x, other, other, need_weights=self.need_weights)
            x = x + result if weights is None else x + result * weights.mean()
        return x


def attentions(batch_first: bool = True, need_weights: bool = False, crossing: bool = False) -> Build:
    def build(layers: int) -> tuple[Any, tuple[Any, ...], dict[str, Any]]:
        model = Attentions(layers, batch_first=batch_first, need_weights=need_weights, crossing=crossing)
        other = (2, 5, WIDTH) if batch_first else (7, 3, WIDTH)
        return model, (torch.randn(2, 3, WIDTH), torch.randn(*other)), {}

    return build


def encoder(layers: int, **options: Any) -> tuple[Any, tuple[Any, ...], dict[str, Any]]:
    layer = nn.TransformerEncoderLayer(WIDTH, HEADS, 48, **options)
    return nn.TransformerEncoder(layer, layers, enable_nested_tensor=False), (torch.randn(2, 5, WIDTH),), {}


def decoder(layers: int) -> tuple[Any, tuple[Any, ...], dict[str, Any]]:
    layer = nn.TransformerDecoderLayer(WIDTH, HEADS, 48, batch_first=True)
    return nn.TransformerDecoder(layer, layers), (torch.randn(2, 5, WIDTH), torch.randn(2, 3, WIDTH)), {}


def both(layers: int) -> tuple[Any, tuple[Any, ...], dict[str, Any]]:
    model = nn.Transformer(WIDTH, HEADS, layers, layers, 48, batch_first=True)
    return model, (torch.randn(2, 5, WIDTH), torch.randn(2, 3, WIDTH)), {}


def of_transformers(name: str, key: str = "num_hidden_layers", **options: Any) -> Build:
    def build(layers: int) -> tuple[Any, tuple[Any, ...], dict[str, Any]]:
        cls = getattr(transformers, name)
        return cls(cls.config_class(**options, **{key: layers})), (), {"input_ids": torch.randint(0, 64, (2, 9))}

    return build


MODELS: dict[str, tuple[Build, int]] = {
    "attention": (attentions(), 4),
    "attention, time first": (attentions(batch_first=False), 4),
    "attention with weights": (attentions(need_weights=True), 8),
    "attention of another": (attentions(crossing=True), 5),
    "encoder": (lambda n: encoder(n, batch_first=True), 7),
    "encoder, norm first": (lambda n: encoder(n, batch_first=True, norm_first=True), 7),
    "encoder, time first": (encoder, 7),
    "decoder": (decoder, 12),
    "encoder and decoder": (both, 19),
    "falcon": (of_transformers("FalconForCausalLM", **DECODER), 6),
    "falcon, grouped": (
        of_transformers("FalconForCausalLM", **DECODER, new_decoder_architecture=True, num_kv_heads=2),
        8,
    ),
    "falcon, alibi": (of_transformers("FalconForCausalLM", **DECODER, alibi=True, multi_query=False, bias=True), 6),
    "deberta-v2": (of_transformers("DebertaV2Model", **DEBERTA), 17),
    "xlnet": (of_transformers("XLNetModel", "n_layer", **XLNET), 11),
}
"""Each with the launches of a layer."""


def copies(compiled: forgec.CompiledModel) -> int:
    """Ops that move elements only so that they lie differently."""
    return sum(
        count
        for function, count in call_counts(compiled._forge).items()
        for op in function.walk()
        if isinstance(op, CopyOp) or (isinstance(op, ReshapeOp) and not is_free(op))
    )


@pytest.mark.parametrize("name", MODELS)
def test_layers_copy_nothing(name: str) -> None:
    """The difference between two depths, so that what surrounds the layers does not count."""
    build, most = MODELS[name]
    found: list[tuple[int, int]] = []
    for layers in (2, 3):
        torch.manual_seed(0)
        model, args, kwargs = build(layers)
        model.eval()
        compiled = forgec.compile(model, args, kwargs)
        with torch.no_grad():
            expected = pytree.tree_leaves(model(*args, **kwargs))
        for ours, theirs in zip(pytree.tree_leaves(compiled(*args, **kwargs)), expected, strict=False):
            torch.testing.assert_close(ours, theirs, rtol=0, atol=2.1e-5)
        found.append((compiled.report.launches, copies(compiled)))
        if name.startswith("falcon"):
            assert not any(isinstance(op, MatmulOp) for op in compiled._forge.walk())
    (launches, before), (more, after) = found
    assert after == before
    assert more - launches <= most
