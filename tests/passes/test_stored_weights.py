"""Weights that a GGUF file holds: read as they are there, found by their values, computed with to the bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import forgec
from forgec.diagnostics import ForgeError
from forgec.passes.gguf_rows import gguf_rows

gguf: Any = pytest.importorskip("gguf", reason="the files are written by the package gguf")

FORMATS = ("Q8_0", "Q4_0", "Q4_1", "Q6_K")
ROWS, COLUMNS = 96, 512


def quantised(name: str, rows: int, columns: int, seed: int) -> np.ndarray:
    """Blocks of random numbers: those of a matrix, or any where the package only reads the format."""
    random = np.random.default_rng(seed)
    kind = gguf.GGMLQuantizationType[name]
    if name != "Q6_K":
        return gguf.quantize(random.standard_normal((rows, columns)).astype(np.float32) * 0.05, kind)
    blocks = random.integers(0, 256, (rows * columns // 256, 210), dtype=np.uint8)
    scale = random.uniform(1e-5, 1e-4, (len(blocks), 1)).astype(np.float16)
    return np.concatenate([blocks[:, :208], scale.view(np.uint8)], 1).reshape(rows, -1)


def written(path: Path, tensors: dict[str, tuple[str, np.ndarray]]) -> dict[str, torch.Tensor]:
    """A file of tensors; returns what the package reads for each."""
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_array("words", ["one", "two", "three"])
    writer.add_array("numbers", [1, 2, 3])
    writer.add_float32("rate", 0.5)
    for name, (kind, data) in tensors.items():
        writer.add_tensor(name, data, raw_dtype=gguf.GGMLQuantizationType[kind])
    writer.add_tensor("norm", np.ones(7, dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    found = {t.name: gguf.dequantize(t.data, t.tensor_type) for t in gguf.GGUFReader(path).tensors if t.name != "norm"}
    return {name: torch.from_numpy(value.copy()) for name, value in found.items()}


class Small(torch.nn.Module):
    """An embedding and two linears, of which one has its rows in another order than the file."""

    def __init__(self, table: torch.Tensor, first: torch.Tensor, second: torch.Tensor) -> None:
        super().__init__()
        self.table = torch.nn.Embedding.from_pretrained(table)
        self.first, self.second = (torch.nn.Linear(w.shape[1], w.shape[0], bias=False) for w in (first, second))
        self.first.weight, self.second.weight = torch.nn.Parameter(first), torch.nn.Parameter(second)
        self.requires_grad_(False).eval()

    def forward(self, ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        found = self.table(ids)
        return self.first(found) * 2, self.second(found.tanh())


@pytest.mark.parametrize("name", FORMATS)
def test_computes_what_the_file_stands_for(name: str, tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    blocks = {part: (name, quantised(name, ROWS, COLUMNS, seed)) for seed, part in enumerate(("table", "a", "b"))}
    read = written(path, blocks)
    order = torch.randperm(ROWS, generator=torch.Generator().manual_seed(0))
    model = Small(read["table"], read["a"][order], read["b"])
    for rows in (1, 20):
        ids = torch.arange(rows)
        compiled = forgec.compile(model, (ids,), weights=f"gguf:{path}", target="cpu:x86-64-v3")
        assert [entry["precision"] for entry in compiled.report.weights] == [name] * 3
        assert all(entry["bytes"] < entry["bytes_before"] / 3 for entry in compiled.report.weights)
        for found, wanted in zip(compiled(ids), model(ids), strict=True):
            torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)
        unit = torch.eye(ROWS, COLUMNS)[:rows]
        single = torch.nn.Sequential(torch.nn.Linear(COLUMNS, ROWS, bias=False)).requires_grad_(False)
        single[0].weight = torch.nn.Parameter(read["a"][order], requires_grad=False)
        compiled = forgec.compile(single, (unit,), weights=f"gguf:{path}", pipeline="", target="cpu:aten")
        assert torch.equal(compiled(unit), read["a"][order].T[:rows])


def test_rows_are_what_the_package_reads(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    read = written(path, {name: (name, quantised(name, 5, 256, 3)) for name in FORMATS})
    found = {rows.format: rows.floats for rows in gguf_rows(path)}
    assert all(torch.equal(found[name], read[name]) for name in FORMATS)


def test_layers_of_several_formats_and_what_is_not_in_the_file(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    blocks = {n: (n, quantised(n, ROWS, 256, seed)) for seed, n in enumerate(("Q8_0", "Q6_K"))}
    read = written(path, blocks)
    mixed = torch.cat((read["Q8_0"][:48], read["Q6_K"][48:]))
    ids = torch.arange(9)
    model = Small(read["Q8_0"], mixed, torch.randn(ROWS, 256, generator=torch.Generator().manual_seed(1)))
    compiled = forgec.compile(model, (ids,), weights=f"gguf:{path}", target="cpu:x86-64-v3")
    assert [entry["precision"] for entry in compiled.report.weights] == ["Q8_0", "8 bits"]
    for found, wanted in zip(compiled(ids), model(ids), strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)


def test_refuses_what_is_no_such_file(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    written(path, {"a": ("Q8_0", quantised("Q8_0", 4, 64, 0))})
    layer = torch.nn.Linear(64, 4)
    with pytest.raises(ForgeError, match="FORGE-U009"):
        forgec.compile(layer, (torch.ones(1, 64),), weights=f"gguf:{path}")
    whole = path.read_bytes()
    for damaged in (b"", b"GGUF", whole[:40], whole[: len(whole) // 2], b"XGUF" + whole[4:]):
        path.write_bytes(damaged)
        with pytest.raises(ForgeError, match="FORGE-U004"):
            list(gguf_rows(path))
