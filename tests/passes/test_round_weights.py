"""Weights in fewer bits: what they become, what computes with them, and what stays."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import forgec
from forgec.diagnostics import ForgeError
from forgec.ir.ops.contraction import LinearOp
from forgec.report.rounding_errors import dequantized, stored_parts
from forgec.verify import verify

PRECISIONS = ("bf16", "int8", "int4")
NATIVE = "cpu:x86-64-v3"


def linear(weight: torch.Tensor, bias: bool = False) -> torch.nn.Module:
    rows, columns = weight.shape
    layer = torch.nn.Linear(columns, rows, bias=bias)
    layer.weight = torch.nn.Parameter(weight)
    return torch.nn.Sequential(layer).eval().requires_grad_(False)


def rounded(compiled: Any) -> dict[str, torch.Tensor]:
    """The weights that a compiled model computes with, by the names of the model's."""
    return {
        name: dequantized(precision, {part: compiled.params[stored] for part, stored in parts.items()})
        for name, precision, parts, _ in stored_parts(compiled.forge)
    }


@st.composite
def weights(draw: st.DrawFn) -> torch.Tensor:
    shape = draw(st.tuples(st.integers(1, 5), st.sampled_from((2, 7, 24, 32, 50, 64, 100))))
    seed = draw(st.integers(0, 2**31))
    scale = draw(st.sampled_from((1e-42, 1e-20, 1.0, 1e20, 1e37)))
    found = torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * scale
    found[draw(st.integers(0, shape[0] - 1))] = 0.0
    return found


@settings(max_examples=15, deadline=None)
@given(weights(), st.sampled_from(PRECISIONS))
def test_rounds_to_nearest(weight: torch.Tensor, precision: str) -> None:
    compiled = forgec.compile(linear(weight), (torch.ones(1, weight.shape[1]),), weights=precision)
    (found,) = rounded(compiled).values()
    error = (found.double() - weight.double()).abs()
    ((_, stored, parts, _),) = stored_parts(compiled.forge)
    if stored == "bf16":
        assert torch.equal(found, weight.bfloat16().float())
        return
    scales = compiled.params[parts["scales"]].double()
    steps = scales.repeat_interleave(weight.shape[1] // scales.shape[1], 1)
    # Scales of int4 are bfloat16, whose unit roundoff is 2^-8: what lies 15 steps away may be cut off by so much.
    clipped = 15 * 2**-8 if stored == "int4" else 0
    assert bool((error <= steps * (0.5 + clipped + 1e-5)).all())
    assert bool((found[weight.abs().amax(1) == 0] == 0).all())


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize(("rows", "n", "k"), [(1, 96, 128), (3, 70, 100), (4, 33, 50), (7, 64, 96), (20, 40, 33)])
def test_kernels_compute_with_rounded_weights(precision: str, rows: int, n: int, k: int) -> None:
    """Native kernels agree with float64 on the dequantised weights, at edges of tiles and groups too."""
    generator = torch.Generator().manual_seed(n)
    model = linear(torch.randn(n, k, generator=generator), bias=True)
    x = torch.randn(rows, k, generator=generator)
    compiled = forgec.compile(model, (x,), target=NATIVE, weights=precision)
    assert compiled.report.kernel_calls == compiled.report.calls
    (weight,) = rounded(compiled).values()
    wanted = torch.nn.functional.linear(x.double(), weight.double(), model[0].bias.double())
    error = float((compiled(x).double() - wanted).abs().max() / wanted.abs().max())
    assert error <= 1e-5


@pytest.mark.parametrize("precision", PRECISIONS)
def test_rows_that_are_not_finite_are_nan(precision: str) -> None:
    weight = torch.randn(40, 64)
    weight[3, 5], weight[7, 1], weight[9] = float("nan"), float("inf"), 0.0
    compiled = forgec.compile(linear(weight), (torch.ones(1, 64),), target=NATIVE, weights=precision)
    found = compiled(torch.ones(1, 64))[0]
    assert not found[[3, 7]].isfinite().any()
    assert found[9] == 0
    assert int(found.isfinite().sum()) == 38
    entry = compiled.report.to_dict()["weights"][0]
    assert entry["max"] == "nan"


class Tied(torch.nn.Module):
    """An embedding whose weight projects at the end, and layers of one form."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = torch.nn.Embedding(70, 64)
        self.layers = torch.nn.ModuleList([torch.nn.Linear(64, 64) for _ in range(3)])
        self.head = torch.nn.Linear(64, 70, bias=False)
        self.head.weight = self.embedding.weight

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        x = self.embedding(tokens)
        for layer in self.layers:
            x = x + torch.nn.functional.gelu(layer(x))
        return self.head(x)


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("target", ["cpu", NATIVE])
def test_tied_embeddings_and_layers(precision: str, target: str) -> None:
    torch.manual_seed(0)
    model = Tied().eval().requires_grad_(False)
    tokens = torch.tensor([[0, 3, 69, 5]])
    length = torch.export.Dim("length", min=2, max=64)
    compiled = forgec.compile(
        model, (tokens,), target=target, weights=precision, dynamic_shapes={"tokens": {1: length}}
    )
    weights = rounded(compiled)
    assert len(weights) == 4, "the tied weight is one"
    model = copy.deepcopy(model)  # the compiled program in memory computes its weights from the model's
    with torch.no_grad():
        for name, value in weights.items():
            model.get_parameter(name).copy_(value)
    for count in (4, 9, 40):
        tokens = torch.arange(count).reshape(1, count)
        torch.testing.assert_close(compiled(tokens), model(tokens), rtol=1e-4, atol=1e-4)
    assert not weights.keys() & compiled._weights.keys(), "the artifact does not hold the model's weights beside them"


@pytest.mark.parametrize("precision", PRECISIONS)
def test_verify_compares_with_the_rounded_weights(precision: str) -> None:
    torch.manual_seed(0)
    found = verify(Tied().eval(), (torch.tensor([[1, 2, 3]]),), target=NATIVE, weights=precision)
    assert found.agrees
    assert found.against == "float64"
    assert found.tolerance.rtol == 2.1e-5, "stored weights do not widen what is allowed"


def test_turned_weights_are_stored_by_rows_of_outputs() -> None:
    class Turned(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(torch.randn(64, 96))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x @ self.weight

    model, x = Turned().eval().requires_grad_(False), torch.randn(2, 64)
    compiled = forgec.compile(model, (x,), target=NATIVE, weights="int8")
    (weight,) = rounded(compiled).values()
    assert weight.shape == (96, 64)
    torch.testing.assert_close(compiled(x), x @ weight.T, rtol=1e-4, atol=1e-4)


def test_what_else_reads_a_weight_keeps_it() -> None:
    class Read(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = torch.nn.Linear(32, 32), torch.nn.Linear(32, 32)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.b(self.a(x)) + self.a.weight.sum()

    compiled = forgec.compile(Read().eval(), (torch.randn(1, 32),), weights="int8")
    assert [entry["name"] for entry in compiled.report.weights] == ["b.weight"]
    assert any("a.weight is read by" in note for remark in compiled.report.remarks for note in remark.notes)


def test_a_model_without_weights_is_refused() -> None:
    with pytest.raises(ForgeError) as caught:
        forgec.compile(torch.nn.ReLU(), (torch.randn(2),), weights="int4")
    assert caught.value.code == "FORGE-U009"


def test_short_weights_are_not_rounded_to_as_many_bits() -> None:
    model = linear(torch.randn(8, 32)).bfloat16()
    with pytest.raises(ForgeError) as caught:
        forgec.compile(model, (torch.randn(1, 32).bfloat16(),), weights="bf16")
    assert caught.value.code == "FORGE-U009"
    assert "has no more bits already" in str(caught.value)


@pytest.mark.parametrize("given_", ["fp8", None, 8])
def test_unknown_precisions_are_refused(given_: Any) -> None:
    with pytest.raises(ForgeError) as caught:
        forgec.compile(torch.nn.ReLU(), (torch.randn(2),), weights=given_)
    assert caught.value.code == "FORGE-U005"


def test_float32_leaves_the_program_alone() -> None:
    model, x = linear(torch.randn(8, 32)), torch.randn(1, 32)
    plain, named = (forgec.compile(model, (x,), **given_) for given_ in ({}, {"weights": "float32"}))
    assert plain.ir() == named.ir()
    assert named.report.weights == []


def test_linears_stay_linears() -> None:
    compiled = forgec.compile(linear(torch.randn(8, 64)), (torch.randn(1, 64),), weights="int4")
    (op,) = [op for op in compiled.forge.walk() if isinstance(op, LinearOp)]
    assert op.is_quantized
    assert op.packing is not None
    assert op.packing.data == "u4"
