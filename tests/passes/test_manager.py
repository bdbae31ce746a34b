import pytest
from xdsl.transforms.dead_code_elimination import DeadCodeElimination

from forgec.diagnostics import ForgeError
from forgec.passes import ir_source, remarks
from forgec.passes.manager import Instrument, PassReport, PassRun, run_pipeline
from forgec.passes.registry import added_passes
from tests.passes import fakes


def run(passes: list, instruments: list[Instrument] | None = None, text: str = fakes.ADDS) -> list[PassReport]:
    return run_pipeline(fakes.parse(text), passes, context=ir_source.context(), instruments=instruments or [])


class Recorder(Instrument):
    def __init__(self) -> None:
        self.events: list[str] = []

    def before_pipeline(self, passes, module, context) -> None:
        self.events.append(f"pipeline of {len(passes)}")

    def before_pass(self, run: PassRun) -> None:
        self.events.append(f"before {run.index} {run.name}")

    def after_pass(self, run: PassRun, report: PassReport) -> None:
        self.events.append(f"after {run.index} {run.name}")

    def pass_failed(self, run: PassRun, failure: ForgeError) -> list[str]:
        self.events.append(f"failed {run.index} {run.name} {failure.code}")
        return ["seen"]


def test_reports_say_what_each_pass_did():
    text = fakes.ADDS.replace("func.return %y", "func.return %x")
    dce, leave, swap = run([DeadCodeElimination(), fakes.Leave(), fakes.SwapAttribute()], text=text)
    assert (dce.name, dce.ops_before, dce.ops_after, dce.changed) == ("dce", 5, 4, True)
    assert (leave.ops_before, leave.ops_after, leave.changed) == (4, 4, False)
    assert (swap.ops_before, swap.ops_after, swap.changed) == (4, 4, True)
    assert all(report.seconds >= 0 for report in (dce, leave, swap))


def test_changed_compares_values_of_attributes_and_identity_of_ops():
    again = run([fakes.SwapAttribute(), fakes.SwapAttribute(), fakes.SubtractInstead(), fakes.SwapAttribute("other")])
    assert [report.changed for report in again] == [True, False, True, True]


def test_text_pipelines_and_options_are_kept():
    with added_passes(*fakes.ALL):
        reports = run_pipeline(fakes.parse(), "leave,subtract-instead{count=2}", context=ir_source.context())
    assert [report.pipeline for report in reports] == ["leave", "subtract-instead{count=2}"]
    assert reports[0].to_dict().keys() == {
        "name", "pipeline", "seconds", "ops_before", "ops_after", "changed", "remarks",
    }  # fmt: skip


def test_the_module_is_changed_in_place():
    module = fakes.parse()
    run_pipeline(module, [fakes.SubtractInstead(count=2)], context=ir_source.context())
    assert not fakes.adds(module)


def test_hooks_are_called_in_order():
    recorder = Recorder()
    run([fakes.Leave(), fakes.SwapAttribute()], [recorder])
    assert recorder.events == [
        "pipeline of 2", "before 0 leave", "after 0 leave", "before 1 swap-attribute", "after 1 swap-attribute",
    ]  # fmt: skip


def test_an_exception_in_a_pass_becomes_a_diagnostic_with_the_notes_of_instruments():
    recorder = Recorder()
    with pytest.raises(ForgeError) as caught:
        run([fakes.Leave(), fakes.Crash(), fakes.Leave()], [recorder])
    (diagnostic,) = caught.value.diagnostics
    assert diagnostic.code == "FORGE-P005"
    assert diagnostic.message == "pass crash failed: ZeroDivisionError: no way"
    assert diagnostic.notes == ("seen",)
    assert isinstance(caught.value.__cause__, ZeroDivisionError)
    assert recorder.events[-1] == "failed 1 crash FORGE-P005"


def test_a_forge_error_of_a_pass_is_the_users():
    with pytest.raises(ForgeError) as caught:
        run([fakes.Refuse()])
    assert caught.value.code == "FORGE-B001"
    place = caught.value.diagnostics[0].location
    assert place is not None
    assert (place.file, place.line) == ("test.mlir", 2)


def test_an_exception_in_an_instrument_fails_the_pass():
    class Bad(Instrument):
        def after_pass(self, run: PassRun, report: PassReport) -> None:
            raise KeyError("x")

    with pytest.raises(ForgeError, match="pass leave failed: KeyError"):
        run([fakes.Leave()], [Bad()])


def test_interrupts_pass_through():
    class Interrupted(Instrument):
        def before_pass(self, run: PassRun) -> None:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run([fakes.Leave()], [Interrupted()])


def test_remarks_belong_to_the_pass_that_left_them():
    leave, remark = run([fakes.Leave(), fakes.Remark()])
    assert leave.remarks == ()
    assert [r.severity for r in remark.remarks] == ["remark", "remark"]
    assert [r.location.line for r in remark.remarks if r.location] == [2, 3]


def test_remarks_outside_of_a_pipeline_are_dropped():
    with remarks.collected() as outer:
        fakes.Remark().apply(ir_source.context(), fakes.parse())
    assert len(outer) == 2
    fakes.Remark().apply(ir_source.context(), fakes.parse())
    assert len(outer) == 2
