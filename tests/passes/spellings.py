"""What tests of fusion passes share: a function captured, before and after a pass, on the interpreter and compiled."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import torch
from xdsl.dialects.builtin import ModuleOp

import forgec
from forgec.diagnostics import Diagnostic
from forgec.ir.context import context
from forgec.passes.manager import run_pipeline
from tests.oracle import Forms, lower

CLEAN = "canonicalize,constant-fold,cse,canonicalize"
RELATIVE = {torch.float64: 1e-12, torch.float32: 4e-6, torch.bfloat16: 2.0**-7, torch.float16: 2.0**-10}
"""Sums in another order; for half precision a unit in the last place, where that crosses a boundary of rounding."""


class Fused:
    """A function after a pass, compared with what it was before on the same inputs.

    The first ``dynamic`` inputs (the first one, if True) may have any number of rows.
    """

    def __init__(self, function: Callable[..., Any], inputs: Sequence[torch.Tensor], pipeline: str, *, dynamic: int,
                 clean: str = CLEAN) -> None:  # fmt: skip
        shapes = None
        if dynamic:
            batch = forgec.Dim("batch", min=2, max=64)
            shapes = (tuple({0: batch} if position < dynamic else None for position in range(len(inputs))),)
        self.function, self.inputs = function, list(inputs)
        self.forms = Forms(_Module(function), inputs, dynamic_shapes=shapes)
        self.before = self.forms.optimized(clean)
        self.module = self.before.clone()
        reports = run_pipeline(self.module, f"{pipeline},dce", context=context())
        self.remarks: list[Diagnostic] = [remark for report in reports for remark in report.remarks]
        self.module.verify()

    @property
    def ops(self) -> Counter[str]:
        """How often each op of the dialect stands in the module after the pass."""
        return counted(self.module)

    def check(self, *, others: Sequence[Sequence[torch.Tensor]] = (), exact: float = 0.98) -> None:
        """The interpreter before and after, in the model's precision and in float64, and the runtime against eager.

        In half precision at least the share ``exact`` of the elements are the same bits.
        """
        program = self.forms.program(lower(self.module))
        for inputs in (self.inputs, *others):
            expected, found = (self.forms.forge_results(module, *inputs) for module in (self.before, self.module))
            eager = self.function(*inputs)
            for result in (found[0], program(*inputs)):
                _close(result, expected[0], exact)
                _close(result, eager, exact)
            wide = [self.forms.forge_results(m, *inputs, float64=True)[0] for m in (self.before, self.module)]
            torch.testing.assert_close(wide[1], wide[0], rtol=1e-9, atol=1e-9, equal_nan=True)


def counted(module: ModuleOp) -> Counter[str]:
    """How often each op of the dialect stands in a module."""
    return Counter(op.name.removeprefix("forge.") for op in module.walk() if op.name.startswith("forge."))


def _close(found: torch.Tensor, expected: torch.Tensor, exact: float) -> None:
    assert (found.dtype, found.shape) == (expected.dtype, expected.shape)
    tolerance = RELATIVE[expected.dtype]
    torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance / 4, equal_nan=True)
    if expected.dtype in (torch.bfloat16, torch.float16):
        assert (found == expected).float().mean() >= exact


class _Module(torch.nn.Module):
    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *inputs: torch.Tensor) -> Any:
        return self.function(*inputs)
