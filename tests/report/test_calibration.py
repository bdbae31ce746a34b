"""``calibration``: what weights in fewer bits do to a model's perplexity, or to its outputs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import forgec
from forgec.diagnostics import ForgeError

VOCABULARY = 50


class Bigrams(torch.nn.Module):
    """The logits of each next id, of the id before it."""

    def __init__(self, *, named: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.table = torch.nn.Embedding(VOCABULARY, 32)
        self.head = torch.nn.Linear(32, VOCABULARY, bias=False)
        self.named = named

    def forward(self, ids: torch.Tensor) -> Any:
        found = self.head(self.table(ids))
        return {"hidden": found.sum(-1), "logits": found} if self.named else found


def perplexity(model: Any, windows: torch.Tensor) -> float:
    with torch.no_grad():
        found = [model(window) for window in windows]
    logits = torch.cat([each["logits"] if isinstance(each, dict) else each for each in found])[:, :-1].double()
    return float(torch.nn.functional.cross_entropy(logits.flatten(0, 1), windows.flatten(0, 1)[:, 1:].flatten()).exp())


@pytest.mark.parametrize("suffix", ["npy", "safetensors", "pt"])
def test_perplexity_of_a_file_of_ids(suffix: str, tmp_path: Path) -> None:
    model = Bigrams(named=suffix != "pt").eval()
    ids = torch.randint(VOCABULARY, (75,), generator=torch.Generator().manual_seed(1))
    path = tmp_path / f"ids.{suffix}"
    if suffix == "npy":
        np.save(path, ids.numpy())
    elif suffix == "pt":
        torch.save(ids, path)
    else:
        save_file({"ids": ids}, path)
    example = torch.zeros(1, 16, dtype=torch.int64)
    compiled = forgec.compile(model, (example,), weights="int4", calibration=str(path))
    windows = ids[:64].reshape(4, 1, 16)
    found = compiled.report.to_dict()["calibration"]
    assert found["tokens"] == 60
    assert found["perplexity_before"] == pytest.approx(perplexity(model, windows), rel=1e-4)
    assert found["perplexity_after"] == pytest.approx(perplexity(compiled, windows), rel=1e-4)
    assert found["perplexity_before"] != found["perplexity_after"]


def test_change_of_outputs_that_are_no_logits() -> None:
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(64, 8)).eval()
    x = torch.randn(3, 64)
    compiled = forgec.compile(model, (x,), weights="int8", calibration="examples")
    with torch.no_grad():
        wanted, found = model(x), compiled(x)
    change = float((wanted - found).square().mean().sqrt() / wanted.square().mean().sqrt())
    assert 0 < change < 0.02
    assert compiled.report.calibration == {"output_rms": pytest.approx(change, rel=1e-3)}
    assert not forgec.compile(model, (x,), weights="int8").report.calibration


def test_hidden_states_are_no_logits() -> None:
    model = torch.nn.Sequential(torch.nn.Embedding(VOCABULARY, 64), torch.nn.Linear(64, 64)).eval()
    ids = torch.arange(12).reshape(1, 12)
    assert set(forgec.compile(model, (ids,), calibration="examples").report.calibration) == {"output_rms"}


def test_files_that_hold_no_ids(tmp_path: Path) -> None:
    model, ids = Bigrams(named=False).eval(), torch.zeros(1, 16, dtype=torch.int64)
    for name, code in (("missing.npy", "FORGE-U001"), ("short.npy", "FORGE-U005"), ("floats.npy", "FORGE-U005")):
        if name != "missing.npy":
            np.save(tmp_path / name, np.zeros(3, dtype=np.int64 if name == "short.npy" else np.float32))
        with pytest.raises(ForgeError, match=code):
            forgec.compile(model, (ids,), calibration=str(tmp_path / name))
    with pytest.raises(ForgeError, match="FORGE-U005"):
        forgec.compile(torch.nn.Linear(4, 4), (torch.ones(1, 4),), calibration=str(tmp_path / "short.npy"))
