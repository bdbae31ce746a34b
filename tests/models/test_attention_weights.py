"""What is done to the weights of attention and in the place of its scores, in rows that are not like others."""

from __future__ import annotations

import pytest
import torch

import forgec
from forgec.capture.capture import export_model, import_program
from forgec.ir.interpreter import interpret
from tests.models.handwritten.case import Case
from tests.models.handwritten.weights import REASONS, WEIGHTS
from tests.models.leftovers import recognise

TOLERANCE = 2.1e-5
PADDED = [
    case for case in WEIGHTS if case.varies == ("bs", "bs") or case.name in ("NoNumbers", "RenormalisedWithEpsilon")
]


def of(name: str) -> Case:
    return next(case for case in WEIGHTS if case.name == name)


@pytest.mark.parametrize("name", REASONS)
def test_a_remark_says_why_not(name: str) -> None:
    case = of(name)
    model, arguments = case.model(), case.arguments()
    found = recognise(import_program(export_model(model, arguments, {}, None), model, arguments).module)
    (place,) = {place for message, place in found.missed if REASONS[name] in message}
    assert place.startswith("handwritten/weights.py:")


@pytest.mark.parametrize("case", [pytest.param(case, id=case.name) for case in PADDED])
def test_a_row_with_nothing_left(case: Case) -> None:
    """NaN, the mean, 0 or some of the weights: as eager PyTorch has it; interpreted and compiled."""
    model, (x, real) = case.model(), case.arguments()
    real[1] = False
    module = import_program(export_model(model, (x, real), {}, None), model, (x, real))
    recognise(module.module)
    (result,) = interpret(module.module, [x, real], module.tensors)
    expected = model(x, real)
    torch.testing.assert_close(result, expected, rtol=0, atol=TOLERANCE, equal_nan=True)
    compiled = forgec.compile(model, (x, real))
    torch.testing.assert_close(compiled(x, real), expected, rtol=0, atol=TOLERANCE, equal_nan=True)


@pytest.mark.parametrize("name", ["FirstGpt", "SmallFill", "TwoFills", "OldBert"])
@pytest.mark.parametrize("factor", [-3e4, 3e4])
def test_scores_as_great_as_what_masks(name: str, factor: float) -> None:
    """Numbers that scores may be lower than do not mask: what they stand for counts where it does in eager PyTorch."""
    case = of(name)
    model, (x, real) = case.model(), case.arguments()
    model.q.weight.mul_(factor)  # pyright: ignore
    module = import_program(export_model(model, (x, real), {}, None), model, (x, real))
    recognise(module.module)
    wide = model.double()
    (result,) = interpret(module.module, [x, real], module.tensors, float64=True)
    torch.testing.assert_close(result.double(), wide(x.double(), real), rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("name", ["prefix_by_length", "prefix_and_padding", "FirstGpt", "SinksFirst", "RowsGated"])
def test_compiled(name: str) -> None:
    case = of(name)
    model, arguments = case.model(), case.arguments()
    compiled = forgec.compile(model, arguments, dynamic_shapes=case.dynamic_shapes())
    for sizes in ((2, 7), (1, 2), (3, 16)):
        given = case.arguments(*sizes)
        torch.testing.assert_close(compiled(*given), model(*given), rtol=0, atol=TOLERANCE)
