import io
from collections.abc import Iterator
from pathlib import Path

import pytest

from forgec.diagnostics import ForgeError
from forgec.passes.opt_driver import OptOptions, OptResult, optimize
from forgec.passes.registry import added_passes
from tests.passes import fakes


@pytest.fixture(autouse=True)
def _fake_passes() -> Iterator[None]:
    with added_passes(*fakes.ALL):
        yield


def opt(text: str, tmp_path: Path | None = None, **options) -> tuple[OptResult, str]:
    dumps = io.StringIO()
    result = optimize(text, "t.mlir", OptOptions(reproducers=tmp_path, **options), dumps)
    return result, dumps.getvalue()


def codes(result: OptResult) -> list[str]:
    return [diagnostic.code for diagnostic in result.diagnostics]


def test_the_text_that_comes_out_goes_in_again():
    once, _ = opt(fakes.ADDS)
    twice, _ = opt(once.text)
    assert once.text == twice.text
    assert not once.diagnostics


def test_an_empty_file_is_an_empty_module():
    result, _ = opt("")
    assert result.text == "builtin.module {\n}\n"


def test_a_bad_pipeline_is_refused_before_anything_runs():
    with pytest.raises(ForgeError) as caught:
        opt("not even IR", pipeline="no-such-pass")
    assert caught.value.code == "FORGE-P001"


def test_all_pieces_are_processed_and_all_errors_reported():
    text = f"%x = no.op\n// -----\n{fakes.ADDS}// -----\nfunc.func @g(%a : i32) -> i64 {{\n  func.return %a : i32\n}}\n"
    result, _ = opt(text, split_input_file=True)
    assert codes(result) == ["FORGE-I001", "FORGE-I002"]
    assert [d.location.line for d in result.diagnostics if d.location] == [1, 10]
    assert result.failed
    assert result.text.count("func.func") == 1


def test_errors_of_passes_stand_at_the_op():
    result, _ = opt(fakes.ADDS, pipeline="refuse")
    (diagnostic,) = result.diagnostics
    assert str(diagnostic.location) == "t.mlir:2"


def test_what_a_pass_breaks_is_found_at_the_end_without_verify_each(tmp_path: Path):
    result, _ = opt(fakes.ADDS, tmp_path, pipeline="leave,break-types")
    assert codes(result) == ["FORGE-P003"]
    assert "the pipeline left 1 op that does not verify" in result.diagnostics[0].message
    assert not result.text


def test_verify_each_names_the_pass_and_writes_a_reproducer(tmp_path: Path):
    result, _ = opt(fakes.ADDS, tmp_path, pipeline="leave,break-types,leave", verify_each=True)
    assert "pass break-types left" in result.diagnostics[0].message
    (reproducer,) = tmp_path.iterdir()
    assert f"reproducer: {reproducer}" in result.diagnostics[0].notes


def test_times_of_all_pieces():
    _, dumps = opt(f"{fakes.ADDS}// -----\n{fakes.ADDS}", pipeline="leave", split_input_file=True, time_passes=True)
    assert dumps.count("leave") == 2
    assert "total" in dumps


def test_dumps_after_failure(tmp_path: Path):
    _, dumps = opt(fakes.ADDS, tmp_path, pipeline="crash", print_ir_after_failure=True)
    assert "IR Dump After Failure Of crash" in dumps


def test_remarks_are_shown_and_do_not_fail():
    result, _ = opt(fakes.ADDS, pipeline="remark")
    assert [(d.severity, str(d.location)) for d in result.diagnostics] == [
        ("remark", "t.mlir:2"),
        ("remark", "t.mlir:3"),
    ]
    assert not result.failed
    assert "arith.addi" in result.text


def test_remarks_and_errors_of_passes_can_be_expected():
    text = fakes.ADDS.replace(
        "  %x", "  // expected-error@+2 {{no native kernel}}\n  // expected-remark@below {{fused}}\n  %x"
    )
    text = text.replace("%a : i32\n  func", "%a : i32 // expected-remark {{FORGE-B001: not fused}}\n  func")
    result, _ = opt(text, pipeline="remark,refuse", verify_diagnostics=True)
    assert result.diagnostics == []


def test_expected_errors_at_ops_that_came_from_a_model_are_found_by_their_line_in_the_file():
    place = 'loc("layers.0"("f"("model.py":70:0)))'
    text = fakes.ADDS.replace("%a, %a : i32", f"%a, %a : i32 {place} // expected-error {{{{no native}}}}")
    result, _ = opt(text, pipeline="refuse", verify_diagnostics=True)
    assert result.diagnostics == []


def test_unmet_expectations_fail():
    result, _ = opt("// expected-error@+1 {{x}}\n" + fakes.ADDS, verify_diagnostics=True)
    assert codes(result) == ["FORGE-P006"]
    assert result.failed
