"""How ``tools.gpu_kernels`` tells right outputs from wrong ones, and what it says of a run."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tools.gpu_kernels import report
from tools.gpu_kernels.judgement import OK, ROUNDED, WRONG, judge

NAN, INF = float("nan"), float("inf")


def of(*values: float, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64).to(dtype)


@pytest.mark.parametrize(
    ("found", "exact", "typed", "verdict"),
    [
        ((1.0, 2.0), (1.0, 2.0 + 1e-5), (1.0, 2.0), OK),
        ((1.0, 2.001), (1.0, 2.0), (1.0, 2.0), WRONG),
        ((1.0, 2.001), (1.0, 2.0), (1.0, 2.0009), ROUNDED),
        ((NAN, 2.0), (NAN, 2.0), (NAN, 2.0), OK),
        ((NAN, 2.0), (1.0, 2.0), (1.0, 2.0), WRONG),
        ((INF, 2.0), (1e39, 2.0), (INF, 2.0), OK),
        ((3e38, 2.0), (1e39, 2.0), (INF, 2.0), WRONG),
        ((INF, 2.0), (-INF, 2.0), (-INF, 2.0), WRONG),
        ((INF, 2.0), (1.0, 2.0), (INF, 2.0), OK),
        ((0.0, 1e-3), (0.0, 0.0), (0.0, 0.0), WRONG),
    ],
)
def test_floats(found: Any, exact: Any, typed: Any, verdict: str) -> None:
    single = torch.float32
    assert judge("y", of(*found, dtype=single), of(*exact), of(*typed, dtype=single)).verdict == verdict


def test_half_precision_has_its_limit_and_what_the_ir_rounds() -> None:
    exact = of(1.0 + 2.0**-12, 1.0)
    assert judge("y", of(1.0, 1.0, dtype=torch.float16), exact, of(1.0, 1.0, dtype=torch.float16)).verdict == OK
    found = of(1.0 + 2.0**-10, 1.0, dtype=torch.float16)
    assert judge("y", found, exact, found).verdict == ROUNDED
    assert judge("y", found + 0.01, exact, found).verdict == WRONG


def test_integers_are_equal_to_one_of_the_references() -> None:
    one, two, three = torch.tensor([1, 2]), torch.tensor([1, 3]), torch.tensor([1, 4])
    assert judge("y", one, one, two).verdict == OK
    assert judge("y", two, one, two).verdict == ROUNDED
    found = judge("y", three, one, two)
    assert (found.verdict, found.error) == (WRONG, 0.5)


def test_a_run_becomes_tables_that_name_what_failed() -> None:
    good = judge("y", of(1.0, dtype=torch.float32), of(1.0 + 1e-6), of(1.0, dtype=torch.float32)).to_json()
    bad = judge("y", of(9.0, dtype=torch.float32), of(1.0), of(1.0, dtype=torch.float32)).to_json()
    kernel = {"kind": "linear", "dtype": "f32", "compile_seconds": 0.5}
    found = {
        "device": "a GPU", "architecture": "sm_90a", "torch": "2", "triton": "3", "jobs": 4,
        "rows": {"A/f32": {"kernels": ["k0"], "left": {"forge.sort": 2}}, "B/f32": {"failure": "refused"}},
        "kernels": {
            "k0": {**kernel, "name": "linear_0", "result": good},
            "k1": {**kernel, "name": "linear_1", "result": bad},
            "k2": {"kind": "sum", "dtype": "f16", "name": "sum_2", "failure": "too large"},
            "k3": {**kernel, "name": "linear_3"},
        },
    }  # fmt: skip
    text = report.summary(found)
    assert "linear_1: y (float32): error 8" in text
    assert "sum_2: too large" in text
    assert "4 kernels of 1 models: 2 failed, 1 not run" in text
    assert "{'forge.sort': 2}" in text
    assert "| linear | 2: 8.0e+00 |  | linear_1 |" in report.markdown(found)
    assert "Not exported or lowered there: B." in report.markdown(found)
