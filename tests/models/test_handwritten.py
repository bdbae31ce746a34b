"""Models in the styles of people's own code: what is recognised in them, and that their values stay."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch
from torch.utils import _pytree as pytree

from forgec.capture.capture import export_model, import_program
from forgec.ir.interpreter import interpret
from tests.models.handwritten.attentions import ATTENTIONS
from tests.models.handwritten.case import Case
from tests.models.handwritten.decoders import DECODERS
from tests.models.handwritten.layers import LAYERS
from tests.models.leftovers import RECOGNISED, Recognition, recognise
from tests.passes.test_fuse_attention import words_of

CASES = [*DECODERS, *ATTENTIONS, *LAYERS]
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
