"""Whole models as kernels of tiles in machine code: right, shared by layers, saved and loaded."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils import _pytree as pytree
from transformers import LlamaConfig, LlamaForCausalLM

import forgec
from forgec.backends.cpu.backend import TARGETS
from forgec.ir.types import ITEM_BYTES
from forgec.runtime import dtypes
from forgec.runtime.control import is_control
from forgec.runtime.kernels import is_kernel
from tests.models.architectures.row import Row
from tests.models.test_architectures import ROWS, TOLERANCE, eager

TARGET = "cpu:host"
NAMES = (
    "LlamaForCausalLM", "Gemma2ForCausalLM", "GPT2LMHeadModel", "FalconForCausalLM-alibi", "BertModel",
    "T5ForConditionalGeneration", "ViTModel", "ConvNextModel", "GptOssForCausalLM", "MambaForCausalLM",
)  # fmt: skip
DYNAMIC = ("LlamaForCausalLM",)
COPIES = {"aten::copy_"}
"""Between layouts; where the target has machine code for them, torch does not run them."""
ROW_OF = {row.name: row for row in ROWS}

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="machine code is for Linux on x86-64")


def calls(compiled: Any) -> tuple[Counter[str], Counter[str]]:
    """The launches of kernels, and of ATen, by name."""
    ops = Counter(
        launch.op for entry in compiled.plan.entries for launch in entry.launches if not is_control(launch.op)
    )
    return Counter({k: v for k, v in ops.items() if is_kernel(k)}), Counter(
        {k: v for k, v in ops.items() if not is_kernel(k)}
    )


def assert_same(found: Any, expected: Any) -> None:
    pairs = zip(pytree.tree_leaves(found), pytree.tree_leaves(expected), strict=True)
    for ours, theirs in pairs:
        if isinstance(theirs, torch.Tensor):
            torch.testing.assert_close(ours, theirs, rtol=0, atol=TOLERANCE, equal_nan=True)


@pytest.mark.parametrize("row", [pytest.param(ROW_OF[name], id=name) for name in NAMES])
def test_models_are_kernels(row: Row) -> None:
    model = row.build()
    arguments = row.arguments()
    compiled = forgec.compile(model, (), arguments, target=TARGET)
    assert_same(compiled(**arguments), eager(model, arguments))
    kernels, others = calls(compiled)
    assert not others.keys() - COPIES, others
    report = compiled.report.to_dict()
    assert report["kernel_calls"] == sum(kernels.values())
    assert {f"kernel::{kernel['name']}": kernel["launches"] for kernel in report["kernels"]} == dict(kernels)
    assert all(kernel["bytes_moved"] > 0 for kernel in report["kernels"])


@pytest.mark.parametrize("row", [pytest.param(ROW_OF[name], id=name) for name in DYNAMIC])
def test_extents_that_vary(row: Row) -> None:
    model = row.build()
    varying = row.dims(row.extents() - row.fixed.keys())
    compiled = forgec.compile(model, (), row.arguments(), dynamic_shapes=row.dynamic_shapes(varying), target=TARGET)
    for sizes in row.others:
        arguments = row.arguments({name: size for name, size in sizes.items() if name in varying})
        assert_same(compiled(**arguments), eager(model, arguments))
    assert not calls(compiled)[1].keys() - COPIES


def llama(layers: int) -> Any:
    torch.manual_seed(0)
    config = LlamaConfig(
        hidden_size=16, intermediate_size=24, num_hidden_layers=layers, num_attention_heads=2, num_key_value_heads=1,
        vocab_size=19, use_cache=False,
    )  # fmt: skip
    return LlamaForCausalLM(config).eval()


def test_layers_share_kernels_and_artifacts_hold_them(tmp_path: Path) -> None:
    ids = torch.arange(6)[None]
    found = [forgec.compile(llama(layers), (ids,), target=TARGET) for layers in (2, 5)]
    few, many = (calls(compiled)[0] for compiled in found)
    assert few.keys() == many.keys()
    assert sum(many.values()) > sum(few.values())
    wanted = found[1](ids)
    path, result = tmp_path / "llama.forge", tmp_path / "logits.npy"
    found[1].save(path)
    program = (
        "import sys, numpy, forgec.runtime as runtime\n"
        "model = runtime.load(sys.argv[1])\n"
        "out = model(numpy.arange(6)[None])\n"
        "numpy.save(sys.argv[2], numpy.asarray(out.logits if hasattr(out, 'logits') else out['logits']))\n"
        "assert 'xdsl' not in sys.modules and 'llvmlite' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", program, str(path), str(result)], check=True, timeout=120)
    assert np.array_equal(np.load(result), wanted.logits.detach().numpy())


class _Turned(torch.nn.Module):
    def forward(self, x: torch.Tensor, scale: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return x.transpose(0, 1).contiguous(), scale * scale


@pytest.mark.parametrize("dtype", [dtypes.torch_dtype(name) for name in ITEM_BYTES])
def test_dtypes_without_tiles_are_left_to_aten(dtype: torch.dtype) -> None:
    x, scale = torch.randn(4, 8).to(dtype), torch.randn(3)
    compiled = forgec.compile(_Turned(), (x, scale), target=TARGET)
    kernels, aten = calls(compiled)
    without = dtype.is_complex or (dtype.itemsize == 1 and dtype.is_floating_point)
    assert (kernels.total(), aten.total()) == ((1, 1) if without else (2, 0))
    turned, squared = compiled(x, scale)
    assert torch.equal(turned.view(torch.uint8), x.transpose(0, 1).contiguous().view(torch.uint8))
    assert torch.equal(squared, scale * scale)


def test_targets_are_those_of_x86() -> None:
    assert set(TARGETS) == {"cpu", "cpu:x86-64-v3", "cpu:x86-64-v4", "cpu:host"}
