"""Whole kernels cross-compile to AArch64: vectors of NEON, nothing of x86, and nothing of another library."""

from __future__ import annotations

import re

import pytest
import torch
from torch import nn

import forgec
from forgec.backends.cpu.compile import AARCH64, assembly
from forgec.backends.cpu.tile_to_llvm import kernel_module
from forgec.ir.tile.kernel import KernelOp
from tests.backends.cpu.launch import kernels_of
from tests.backends.cpu.test_products import product


class Model(nn.Module):
    """Linear and GELU, layer norm, attention and an integer dequantised: no extent is a multiple of a vector."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.norm, self.qkv = nn.Linear(45, 37), nn.LayerNorm(37), nn.Linear(37, 90)
        self.register_buffer("numbers", torch.randint(-99, 99, (19, 45)).to(torch.int8))

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        y = self.norm(nn.functional.gelu(self.up(x)))
        q, k, v = self.qkv(y).view(2, 11, 3, 2, 15).permute(2, 0, 3, 1, 4)
        found = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        return found, nn.functional.linear(x, self.numbers.to(x.dtype) * 0.25)


def neon(kernel: KernelOp) -> str:
    module = kernel_module([kernel], vector_bytes=16)
    return assembly(module, cpu="neoverse-n1", features="", triple=AARCH64)


def is_of_aarch64_alone(text: str) -> bool:
    called = set(re.findall(r"^\s+bl\s+(\S+)", text, re.MULTILINE))
    own = set(re.findall(r"^(\S+):", text, re.MULTILINE))
    return re.search(r"[xyz]mm\d", text) is None and called <= own | {"memset", "memcpy"}


@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_the_kernels_of_a_model(precision: str) -> None:
    x = torch.randn(2, 11, 45)
    compiled = forgec.compile(Model().eval(), (x,), target="cpu:x86-64-v3", precision=precision)  # type: ignore[arg-type]
    assert compiled._tile is not None
    kernels = [op for op in compiled._tile.ops if isinstance(op, KernelOp)]
    texts = {kernel.sym_name.data: neon(kernel) for kernel in kernels}
    assert {name.partition("_")[0] for name in texts} >= {"linear", "attention"}
    for name, text in texts.items():
        assert is_of_aarch64_alone(text), name
        assert name.startswith("full_") or re.search(r"fmla\s+v\d+\.4s", text), name


def test_masked_tails() -> None:
    """Rows, columns and steps that no tile covers evenly: lanes beyond the end are neither read nor written."""
    (kernel,) = kernels_of(product(101, 70, 15, 32))
    text = neon(kernel)
    assert is_of_aarch64_alone(text)
    assert re.search(r"fmla\s+v\d+\.4s", text)
