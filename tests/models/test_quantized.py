"""Quantised models through the whole pipeline: linears and artifact hold every weight as the model stores it."""

from __future__ import annotations

import json
import zipfile
from math import prod
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.ao.quantization.fx._decomposed
import torch.nn.functional as F
import transformers
from torch import Tensor, nn

import forgec
from forgec.ir.cost import module_cost
from forgec.ir.ops.contraction import LinearOp
from forgec.ir.ops.quantization import DequantizeOp, QuantizeOp
from forgec.ir.ops.shape import ReshapeOp, TransposeOp
from forgec.passes.patterns import through
from tests.models.flat import flat

OPS: Any = torch.ops.quantized_decomposed
GROUP = 16


class Quantized(nn.Module):
    """A linear whose weight is quantised."""

    bias: Tensor | None

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.bias = None if linear.bias is None else nn.Parameter(linear.bias.detach())
        for name, value in self.quantize(linear.weight.detach()).items():
            self.register_buffer(name, value)

    def quantize(self, weight: Tensor) -> dict[str, Tensor]:
        scales = weight.abs().amax(1) / 127
        return {"q": (weight / scales[:, None]).round().to(torch.int8), "scales": scales}


class Plain(Quantized):
    def quantize(self, weight: Tensor) -> dict[str, Tensor]:
        return {"weight": weight}

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight, self.bias)


class Rows(Quantized):
    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.q.to(x.dtype) * self.scales[:, None], self.bias)


class AfterTheSum(Quantized):
    def forward(self, x: Tensor) -> Tensor:
        y = F.linear(x, self.q.to(x.dtype)) * self.scales
        return y if self.bias is None else y + self.bias


class Zeros(Quantized):
    def quantize(self, weight: Tensor) -> dict[str, Tensor]:
        low, high = weight.amin(1, keepdim=True), weight.amax(1, keepdim=True)
        scales = (high - low) / 255
        zeros = (-low / scales).round()
        q = (weight / scales + zeros).round().clamp(0, 255)
        return {"q": q.to(torch.uint8), "scales": scales, "zeros": zeros.to(torch.uint8)}

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, (self.q.to(x.dtype) - self.zeros.to(x.dtype)) * self.scales, self.bias)


class Packed(Quantized):
    def quantize(self, weight: Tensor) -> dict[str, Tensor]:
        groups = weight.view(weight.shape[0], -1, GROUP)
        scales = groups.abs().amax(-1) / 7
        q = ((groups / scales[..., None]).round() + 8).to(torch.uint8).view(weight.shape)
        return {"q": q[:, ::2] | (q[:, 1::2] << 4), "scales": scales}

    def forward(self, x: Tensor) -> Tensor:
        q = torch.stack([self.q & 0xF, self.q >> 4], dim=-1).view(self.q.shape[0], -1, GROUP)
        weight = ((q.to(x.dtype) - 8) * self.scales[..., None]).view(self.q.shape[0], -1)
        return F.linear(x, weight, self.bias)


class Turned(Quantized):
    def quantize(self, weight: Tensor) -> dict[str, Tensor]:
        found = super().quantize(weight)
        return {"q": found["q"].t().contiguous(), "scales": found["scales"]}

    def forward(self, x: Tensor) -> Tensor:
        y = x @ (self.q.to(x.dtype) * self.scales)
        return y if self.bias is None else y + self.bias


class Channels(Quantized):
    """As PT2E leaves it."""

    def forward(self, x: Tensor) -> Tensor:
        zeros = torch.zeros_like(self.scales, dtype=torch.int64)
        weight = OPS.dequantize_per_channel(self.q, self.scales.float(), zeros, 0, -127, 127, torch.int8)
        return F.linear(x, weight.to(x.dtype), self.bias)


class Activations(Quantized):
    """As PT2E leaves it where activations are quantised too."""

    def forward(self, x: Tensor) -> Tensor:
        x = OPS.quantize_per_tensor(x, 0.04, -3, -128, 127, torch.int8)
        x = OPS.dequantize_per_tensor(x, 0.04, -3, -128, 127, torch.int8)
        weight = OPS.dequantize_per_channel(self.q, self.scales, None, 0, -127, 127, torch.int8)
        y = F.linear(x, weight, self.bias)
        y = OPS.quantize_per_tensor(y, 0.05, 2, -128, 127, torch.int8)
        return OPS.dequantize_per_tensor(y, 0.05, 2, -128, 127, torch.int8)


def quantized(model: nn.Module, kind: type[Quantized]) -> nn.Module:
    """The model with every linear in its layers replaced."""
    for name, child in list(model.named_children()):
        if isinstance(child, nn.Linear) and name != "lm_head":
            setattr(model, name, kind(child))
        else:
            quantized(child, kind)
    return model


def llama(kind: type[Quantized], dtype: torch.dtype = torch.float32, layers: int = 2) -> nn.Module:
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=64, hidden_size=64, intermediate_size=96, num_attention_heads=4, num_key_value_heads=2,
        num_hidden_layers=layers, use_cache=False, bos_token_id=None, eos_token_id=None, pad_token_id=None,
    )  # fmt: skip
    return quantized(transformers.LlamaForCausalLM(config).eval(), kind).to(dtype)


IDS = {"input_ids": torch.randint(0, 64, (2, 9), generator=torch.Generator().manual_seed(0))}
LAYERS = 2
KINDS = [Rows, AfterTheSum, Zeros, Packed, Turned, Channels, Activations]
"""A layer has four linears: queries, keys and values are one, gate and up are one."""


def linears(compiled: Any) -> list[LinearOp]:
    module = flat(compiled.forge, "inline-layers,inline-kernels")
    return [op for op in module.walk() if isinstance(op, LinearOp)]


def stored(compiled: Any, path: Path) -> dict[str, tuple[str, int]]:
    """The dtype and the bytes of each tensor of an artifact."""
    compiled.save(path)
    with zipfile.ZipFile(path) as archive, archive.open("weights.safetensors") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    header = {name: entry for name, entry in header.items() if not name.startswith("__")}  # metadata and padding
    widths = {"I8": 1, "U8": 1, "BF16": 2, "F32": 4, "I64": 8}
    return {name: (e["dtype"], prod(e["shape"]) * widths[e["dtype"]]) for name, e in header.items()}


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_every_linear_of_a_transformer_takes_its_weight_as_it_is_stored(kind: type[Quantized], tmp_path: Path) -> None:
    model = llama(kind)
    result = forgec.compile(model, (), IDS)
    with torch.no_grad():
        expected = model(**IDS).logits
    assert (result(**IDS)["logits"] - expected).abs().max() <= 2.1e-5
    found = [op.is_quantized for op in linears(result)]
    assert (found.count(True), found.count(False)) == (LAYERS * 4, 1)  # and lm_head
    sizes = stored(result, tmp_path / "model.forge")
    held = {name: value for name, value in model.named_buffers() if name.endswith((".q", ".zeros", ".scales"))}
    bytes_ = sum(value.nbytes for value in held.values() if not value.is_floating_point())
    assert sum(size for dtype, size in sizes.values() if dtype in ("I8", "U8")) == bytes_
    floats = sum(p.nbytes for p in model.parameters()) + sum(v.nbytes for v in held.values() if v.is_floating_point())
    tables = 256  # inverse frequencies of rotary embeddings, positions
    assert sum(size for dtype, size in sizes.values() if dtype == "F32") <= floats + tables


def test_the_loaded_artifact_computes_the_same(tmp_path: Path) -> None:
    model = llama(Packed, layers=1)
    result = forgec.compile(model, (), IDS)
    result.save(tmp_path / "model.forge")
    torch.testing.assert_close(forgec.load(tmp_path / "model.forge")(**IDS), result(**IDS), rtol=0, atol=0)


@pytest.mark.parametrize("kind", [Rows, AfterTheSum, Zeros, Packed], ids=lambda kind: kind.__name__)
def test_bfloat16(kind: type[Quantized]) -> None:
    """In the MLP, where nothing else is fused: the same bits."""
    torch.manual_seed(0)
    mlp = nn.Sequential(nn.Linear(64, 96), nn.ReLU(), nn.Linear(96, 64, bias=False), nn.Tanh())
    model = quantized(mlp, kind).to(torch.bfloat16).eval()
    x = torch.randn(5, 64).bfloat16()
    result = forgec.compile(model, (x,))
    with torch.no_grad():
        assert torch.equal(result(x), model(x))
    assert [op.is_quantized for op in linears(result)] == [True, True]


def test_quantised_activations_stay_around_the_linears() -> None:
    model = llama(Activations, layers=1)
    result = forgec.compile(model, (), IDS)
    for op in linears(result):
        if op.is_quantized:
            dequantized = through(op.input, ReshapeOp, TransposeOp).owner
            assert isinstance(dequantized, DequantizeOp)
            assert isinstance(through(dequantized.quantized, ReshapeOp, TransposeOp).owner, QuantizeOp)
    ops = list(result._forge.walk())
    assert sum(isinstance(op, QuantizeOp) for op in ops) == sum(isinstance(op, DequantizeOp) for op in ops) >= 8


def test_the_numbers_of_launches_and_bytes_count_quantised_weights() -> None:
    reports = []
    for kind in (Plain, Rows):
        torch.manual_seed(0)
        x = torch.randn(2, 256)
        result = forgec.compile(quantized(nn.Sequential(nn.Linear(256, 256, bias=False)), kind), (x,))
        reports.append((result.report.launches, module_cost(result._forge).total.bytes_moved))
    (launches, moved), (quantised_launches, quantised_moved) = reports
    assert launches == quantised_launches == 1
    assert moved - quantised_moved == 256 * 256 * 3 - 256 * 4


def test_a_weight_that_layers_share_is_stored_once(tmp_path: Path) -> None:
    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = Rows(nn.Linear(64, 64))

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            weight = self.first.q.float() * self.first.scales[:, None]
            return self.first(torch.relu(self.first(x))), weight

    torch.manual_seed(0)
    model, x = Shared().eval(), torch.randn(3, 64)
    result = forgec.compile(model, (x,))
    for found, expected in zip(result(x), model(x), strict=True):
        assert torch.equal(found, expected)
    assert [op.is_quantized for op in linears(result)] == [True, True]
    sizes = stored(result, tmp_path / "model.forge")
    assert sorted(sizes.values()) == [("F32", 64 * 4), ("F32", 64 * 4), ("I8", 64 * 64)]
