import io
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from xdsl.context import Context
from xdsl.dialects import arith
from xdsl.dialects.builtin import ModuleOp
from xdsl.passes import ModulePass

from forgec.diagnostics import ForgeError
from forgec.ir.interpreter import interpret
from forgec.ir.ops import unary
from forgec.passes import ir_source
from forgec.passes.instruments import NumericCheck, PrintIR, Timing, VerifyEach, ir_text
from forgec.passes.manager import Instrument, run_pipeline
from forgec.passes.tensors import difference
from tests.passes import fakes


def run(passes: list[ModulePass], *instruments: Instrument) -> None:
    run_pipeline(fakes.parse(), passes, context=ir_source.context(), instruments=instruments)


def failure(passes: list[ModulePass], *instruments: Instrument) -> ForgeError:
    with pytest.raises(ForgeError) as caught:
        run(passes, *instruments)
    return caught.value


def test_timing_lists_all_passes_and_their_sum():
    timing = Timing()
    run([fakes.Leave(), fakes.SubtractInstead(count=2)], timing)
    table = timing.render()
    assert [report.name for report in timing.reports] == ["leave", "subtract-instead"]
    assert "subtract-instead{count=2}" in table
    assert table.splitlines()[-1].split()[-2:] == ["100.0%", "total"]


def test_print_ir_after_all():
    stream = io.StringIO()
    run([fakes.Leave(), fakes.SwapAttribute()], PrintIR(stream, after_all=True))
    text = stream.getvalue()
    assert text.count("IR Dump After") == 2
    assert text.index("After leave") < text.index("After swap-attribute") < text.index('tag = "new"')


def test_print_ir_after_change_compares_the_text():
    stream = io.StringIO()
    passes = [fakes.Leave(), fakes.SwapAttribute(), fakes.SwapAttribute(), fakes.SubtractInstead()]
    run(passes, PrintIR(stream, after_change=True))
    assert stream.getvalue().count("IR Dump") == 2


def test_print_ir_only_after_some_passes():
    stream = io.StringIO()
    run([fakes.Leave(), fakes.SwapAttribute()], PrintIR(stream, after_all=True, only="^swap"))
    assert "After leave" not in stream.getvalue()
    assert "After swap-attribute" in stream.getvalue()


def test_print_ir_on_failure_shows_what_the_pass_left():
    stream = io.StringIO()
    failure([fakes.BreakTypes()], PrintIR(stream), VerifyEach())
    assert "IR Dump After Failure Of break-types" in stream.getvalue()
    assert "arith.constant 1 : i64" in stream.getvalue()


def test_print_ir_with_locations():
    stream = io.StringIO()
    run([fakes.Leave()], PrintIR(stream, after_all=True, locations=True))
    assert 'loc("test.mlir":2:3)' in stream.getvalue()


def test_verify_each_names_the_pass_the_op_and_the_line():
    error = failure([fakes.Leave(), fakes.BreakTypes()], VerifyEach())
    (diagnostic,) = error.diagnostics
    assert diagnostic.code == "FORGE-P003"
    assert "pass break-types left 1 op" in diagnostic.message
    assert diagnostic.notes[0].startswith("func.return does not verify")
    assert diagnostic.location is not None
    assert diagnostic.location.line == 4


def test_verify_each_is_content_with_valid_ir():
    run([fakes.Leave(), fakes.SubtractInstead()], VerifyEach())


def evaluate(module: ModuleOp) -> list[torch.Tensor]:
    """3 for %a; knows additions and subtractions only."""
    values = {}
    result = torch.zeros(0)
    for op in module.walk():
        if isinstance(op, arith.AddiOp | arith.SubiOp):
            lhs, rhs = (values.get(operand, torch.tensor([3.0, float("nan")])) for operand in op.operands)
            values[op.results[0]] = result = lhs + rhs if isinstance(op, arith.AddiOp) else lhs - rhs
    return [result]


def test_numeric_check_names_the_pass_that_changed_the_result():
    error = failure([fakes.Leave(), fakes.SwapAttribute(), fakes.SubtractInstead()], NumericCheck(evaluate))
    (diagnostic,) = error.diagnostics
    assert diagnostic.code == "FORGE-P004"
    assert "pass subtract-instead changed what the module computes" in diagnostic.message
    assert diagnostic.notes == ("result 0: 1 of 2 elements differ, by up to 6",)


def test_numeric_check_accepts_equal_results():
    run([fakes.Leave(), fakes.SwapAttribute()], NumericCheck(evaluate))


def test_numeric_check_evaluates_only_after_changes():
    calls = []

    def counted(module: ModuleOp) -> list[torch.Tensor]:
        calls.append(1)
        return evaluate(module)

    run([fakes.Leave(), fakes.Leave(), fakes.SwapAttribute()], NumericCheck(counted))
    assert len(calls) == 2


def test_numeric_check_counts_results():
    results = iter([[], [np.zeros(1)]])
    error = failure([fakes.SwapAttribute()], NumericCheck(lambda module: next(results)))
    assert error.diagnostics[0].notes == ("0 results before, 1 after",)


FORGE = """\
func.func @forward(%x: tensor<2x3xf32>) -> tensor<2x3xf32> {
  %0 = forge.cos %x : (tensor<2x3xf32>) -> tensor<2x3xf32>
  %1 = forge.cos %x : (tensor<2x3xf32>) -> tensor<2x3xf32>
  %2 = forge.add %0, %1 : (tensor<2x3xf32>, tensor<2x3xf32>) -> tensor<2x3xf32>
  func.return %2 : tensor<2x3xf32>
}
"""


@dataclass(frozen=True)
class SineForCosine(ModulePass):
    """Wrong on purpose."""

    name = "sine-for-cosine"

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        for cosine in [inner for inner in op.walk() if inner.name == "forge.cos"]:
            fakes.replace(cosine, unary.SinOp.create(operands=cosine.operands, result_types=[cosine.results[0].type]))


def test_numeric_check_with_the_reference_interpreter():
    x = torch.tensor([[0.0, 0.5, 1.0], [2.0, -1.0, 3.0]])
    check = NumericCheck(lambda module: interpret(module, [x]))
    context = ir_source.context()
    reports = run_pipeline(fakes.parse(FORGE), "cse,dce", context=context, instruments=[check])
    assert reports[0].changed
    with pytest.raises(ForgeError, match="pass sine-for-cosine changed what the module computes"):
        run_pipeline(fakes.parse(FORGE), [SineForCosine()], context=context, instruments=[check])


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        (np.array([1.0, np.nan, np.inf]), np.array([1.0 + 1e-7, np.nan, np.inf]), None),
        (np.array([1.0, np.inf]), np.array([1.0, -np.inf]), "1 of 2 elements differ, by up to inf"),
        (np.array([1.0, np.inf]), np.array([1.0, 5.0]), "1 of 2 elements differ, by up to inf"),
        (np.array([1.0, 2.0]), np.array([1.0, np.nan]), "0 NaNs became 1, or moved"),
        (np.array([1, 2]), np.array([1, 3]), "1 of 2 elements differ"),
        (np.array([True]), np.array([True]), None),
        (np.zeros((2, 1)), np.zeros((1, 2)), "shape (2, 1) became (1, 2)"),
        (np.zeros(2, np.float32), np.zeros(2), "dtype float32 became float64"),
        (torch.ones(2, dtype=torch.bfloat16), torch.ones(2, dtype=torch.bfloat16), None),
        (
            torch.ones(2, dtype=torch.bfloat16),
            torch.zeros(2, dtype=torch.bfloat16),
            "2 of 2 elements differ, by up to 1",
        ),
        (torch.ones(1, requires_grad=True), torch.ones(1), None),
        (np.array([1 + 1j]), np.array([1 - 1j]), "1 of 1 elements differ, by up to 2"),
        (np.zeros(0), np.zeros(0), None),
    ],
)
def test_difference(before, after, expected):
    assert difference(before, after, 1e-5, 1e-6) == expected


def test_ir_text_ends_in_a_newline():
    assert ir_text(fakes.parse()).endswith("}\n")
