"""Models with quantised activations multiply bytes: eager's results but for the roundings of float32."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.ao.quantization.fx._decomposed
import torch.nn.functional as F
from torch import Tensor, nn

import forgec
from forgec.backends.cpu.backend import host_level
from forgec.ir.tile.compute import DotOp
from forgec.ir.tile.types import element
from forgec.runtime import load
from tests.backends.cpu.test_short_products import HAS_FEATURES, HAS_V4
from tests.runtime.test_variants import cpuinfo, pretend

OPS: Any = torch.ops.quantized_decomposed
IMAGES = ["x86-64-v3", "x86-64-v4", "x86-64-v4+avx512vnni"]


class Quantized(nn.Module):
    def __init__(self, steps: int = 70, columns: int = 45) -> None:
        super().__init__()
        weight = torch.randn(columns, steps)
        scales = weight.abs().amax(1) / 127
        self.register_buffer("q", (weight / scales[:, None]).round().to(torch.int8))
        self.register_buffer("scales", scales)
        self.bias = nn.Parameter(torch.randn(columns))

    def dequantized(self) -> Tensor:
        return OPS.dequantize_per_channel(self.q, self.scales, None, 0, -127, 127, torch.int8)


class Signed(Quantized):
    """As PT2E leaves it."""

    def forward(self, x: Tensor) -> Tensor:
        x = OPS.quantize_per_tensor(x, 0.04, -3, -128, 127, torch.int8)
        return F.gelu(
            F.linear(OPS.dequantize_per_tensor(x, 0.04, -3, -128, 127, torch.int8), self.dequantized(), self.bias)
        )


class Unsigned(Quantized):
    def forward(self, x: Tensor) -> Tensor:
        x = OPS.quantize_per_tensor(x, 0.04, 130, 0, 255, torch.uint8)
        return F.linear(OPS.dequantize_per_tensor(x, 0.04, 130, 0, 255, torch.uint8), self.dequantized(), self.bias)


class Tokens(Quantized):
    """Scales and zero points of each row, computed as the model runs."""

    def forward(self, x: Tensor) -> Tensor:
        scales, zeros = OPS.choose_qparams_per_token_asymmetric(x, torch.int8)
        x = OPS.quantize_per_token(x, scales, zeros, -128, 127, torch.int8)
        x = OPS.dequantize_per_token(x, scales, zeros, -128, 127, torch.int8, torch.float32)
        return F.linear(x, self.dequantized())


class Integers(Quantized):
    def forward(self, x: Tensor) -> Tensor:
        scales = x.abs().amax(-1, keepdim=True) / 127
        q = (x / scales).round().clamp(-128, 127).to(torch.int8)
        return torch.ops.aten._int_mm(q, self.q.t()).float() * scales * self.scales + self.bias


KINDS = [Signed, Unsigned, Tokens, Integers]


def is_of_bytes(compiled: Any) -> bool:
    dots = [op for op in compiled._tile.walk() if isinstance(op, DotOp)]
    return [(str(element(dot.lhs)), str(element(dot.accumulator))) for dot in dots] == [("i8", "i32")]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("rows", [3, 40])
def test_products_of_bytes(kind: type[Quantized], rows: int) -> None:
    torch.manual_seed(0)
    rows = 40 if kind is Integers else rows  # torch's own asks for more than 16
    model, x = kind().eval(), torch.randn(rows, 70)
    compiled = forgec.compile(model, (x,), target="cpu:host")
    assert is_of_bytes(compiled)
    with torch.no_grad():
        torch.testing.assert_close(compiled(x), model(x), rtol=1e-5, atol=4e-5)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_targets_without_kernels_keep_the_floats(kind: type[Quantized]) -> None:
    torch.manual_seed(0)
    model, x = kind().eval(), torch.randn(40, 70)
    with torch.no_grad():
        torch.testing.assert_close(forgec.compile(model, (x,), target="cpu:aten")(x), model(x), rtol=1e-6, atol=2e-5)


@pytest.mark.skipif(host_level() is None, reason="kernels do not run here")
def test_all_images_give_the_same_bits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sums are exact; on any number of threads too."""
    torch.manual_seed(0)
    model, x = Integers().eval(), torch.randn(40, 70)
    forgec.compile(model, (x,), target="cpu").save(tmp_path / "m.forge")
    found = []
    machines = [("x86-64-v3", True), ("x86-64-v4", HAS_V4), ("x86-64-v4,avx512vnni", HAS_FEATURES)]
    for text, is_here in machines:
        if is_here:
            with monkeypatch.context() as here:
                pretend(here, tmp_path, cpuinfo(*text.split(",")))
                loaded = [load(tmp_path / "m.forge", threads=count) for count in (1, 2, 4)]
            assert [image.table.image for image in loaded[0].artifact.images] == IMAGES
            found += [each(x) for each in loaded]
    assert all(torch.equal(found[0], each) for each in found)
