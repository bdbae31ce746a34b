"""Models in the styles of people's own code: what is recognised in them, and that their values stay."""

from __future__ import annotations

import copy
from collections import Counter
from typing import Any

import pytest
import torch
from torch.utils import _pytree as pytree

import forgec
from forgec.capture.capture import export_model, import_program
from forgec.ir.interpreter import interpret
from tests.models.handwritten.attentions import ATTENTIONS
from tests.models.handwritten.case import Case
from tests.models.handwritten.decoders import DECODERS
from tests.models.handwritten.layers import LAYERS
from tests.models.handwritten.weights import WEIGHTS
from tests.models.leftovers import RECOGNISED, Recognition, recognise
from tests.passes.test_fuse_attention import words_of

CASES = [*DECODERS, *ATTENTIONS, *LAYERS, *WEIGHTS]
TOLERANCE = 2.1e-5


def named(cases: list[Case]) -> list[Any]:
    return [pytest.param(case, id=case.name) for case in cases]


def check_recognised(case: Case, found: Recognition) -> None:
    words = sorted(" ".join(sorted(words_of(op) - {"uniform"})) for op in found.attentions)
    assert words == sorted(" ".join(sorted(text.split())) for text in case.attentions)
    kinds = {kind: found.recognised[kind] for kind in RECOGNISED if kind != "attention" and found.recognised[kind]}
    assert kinds == dict(case.counts)
    left = Counter[str]()
    for (kind, _), count in found.left.items():
        left[kind] += count
    assert left == Counter(case.left)


@pytest.mark.parametrize("case", named(CASES))
def test_recognised_and_equal(case: Case) -> None:
    """As the interpreter runs it, for one shape; compiled, for every shape if there are several."""
    model, arguments = case.model(), case.arguments()
    shapes = case.dynamic_shapes() if case.varies else None
    program = export_model(model, arguments, {}, shapes)
    captured = import_program(program, model, arguments, {}, shapes)
    check_recognised(case, recognise(captured.module))
    for sizes in ((2, 7), (1, 2), (3, 16)) if case.varies else ((2, 7),):
        given = case.arguments(*sizes)
        results = interpret(captured.module, list(given), captured.tensors)
        expected = pytree.tree_leaves(model(*given))
        for ours, theirs in zip(results, expected, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=0, atol=TOLERANCE)


NARROW = ["NanoGpt", "llama_real", "Modern", "MultiQuery", "Fairseq", "PixelsByBmm", "SwigluBySplit", "Activations"]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("name", NARROW)
def test_half_precision_is_as_near_to_float64_as_eager(name: str, dtype: torch.dtype) -> None:
    case = next(case for case in CASES if case.name == name)

    def cast(values: tuple[torch.Tensor, ...], to: torch.dtype) -> tuple[torch.Tensor, ...]:
        return tuple(value.to(to) if value.is_floating_point() else value for value in values)

    model, arguments = case.model().to(dtype), cast(case.arguments(), dtype)
    program = export_model(model, arguments, {}, None)
    captured = import_program(program, model, arguments)
    check_recognised(case, recognise(captured.module))
    (result,) = interpret(captured.module, list(arguments), captured.tensors)
    expected = model(*arguments)
    assert result.dtype == expected.dtype
    exact = copy.deepcopy(model).double()(*cast(arguments, torch.float64))
    errors = [(value.double() - exact).square().mean().sqrt() for value in (result, expected)]
    assert errors[0] <= 1.5 * errors[1] + 1e-6


@pytest.mark.parametrize("name", ["NanoGpt", "llama_complex", "PixelsByBmm", "MultiQuery", "NormBySize"])
def test_compiled(name: str) -> None:
    case = next(case for case in CASES if case.name == name)
    model, arguments = case.model(), case.arguments()
    compiled = forgec.compile(model, arguments)
    torch.testing.assert_close(compiled(*arguments), model(*arguments), rtol=0, atol=TOLERANCE)


def test_rows_of_nothing_stay_nothing() -> None:
    """Lengths of 0 and far below eps: each form of eps has its own result there."""
    for name in ("NormBySize", "NormBySizeClamped", "NormByVectorNorm", "NormBySquareRoot"):
        case = next(case for case in CASES if case.name == name)
        model = case.model()
        (x,) = case.arguments()
        x = x * torch.tensor([0.0, 1e-30, 1e-13, 1e-9, 1e-8, 1e-3, 1e6])[:, None]
        program = export_model(model, (x,), {}, None)
        captured = import_program(program, model, (x,))
        check_recognised(case, recognise(captured.module))
        (result,) = interpret(captured.module, [x], captured.tensors)
        torch.testing.assert_close(result, model(x), rtol=1e-5, atol=TOLERANCE)
