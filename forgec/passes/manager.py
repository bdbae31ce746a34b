"""Runs a pipeline on a module and reports what each pass did; everything else (printing, checking) is an instrument."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp
from xdsl.passes import ModulePass

from forgec.diagnostics import Diagnostic, ForgeError, error
from forgec.ir.cost import Cost, gain
from forgec.passes import remarks
from forgec.passes.pipelines import parse, text_of


@dataclass(frozen=True)
class PassReport:
    """What one pass did. ``changed`` errs on the safe side: an op replaced by an equal new op counts as a change.

    ``cost_before`` and ``cost_after`` are there where ``run_pipeline`` was asked for costs, and the module has some.
    """

    name: str
    pipeline: str
    seconds: float
    ops_before: int
    ops_after: int
    changed: bool
    remarks: tuple[Diagnostic, ...] = ()
    cost_before: Cost | None = None
    cost_after: Cost | None = None

    def to_dict(self) -> dict[str, Any]:
        """JSON-compatible data for reports."""
        result: dict[str, Any] = {
            "name": self.name,
            "pipeline": self.pipeline,
            "seconds": self.seconds,
            "ops_before": self.ops_before,
            "ops_after": self.ops_after,
            "changed": self.changed,
            "remarks": [remark.to_dict() for remark in self.remarks],
        }
        if self.cost_before is not None and self.cost_after is not None:
            result |= gains(self.cost_before, self.cost_after)
        return result


def gains(before: Cost, after: Cost) -> dict[str, Any]:
    """What a pass or several did to the costs, for reports."""
    return {
        "bytes_moved_before": before.bytes_moved,
        "bytes_moved_after": after.bytes_moved,
        "fusion_gain_ratio": gain(before.bytes_moved, after.bytes_moved),
        "launches_before": before.launches,
        "launches_after": after.launches,
        "launch_ratio": gain(before.launches, after.launches),
    }


@dataclass(frozen=True)
class PassRun:
    """One pass about to run, running or just run: what instruments get to see. ``module`` is the live module."""

    index: int
    pass_: ModulePass
    module: ModuleOp
    context: Context

    @property
    def name(self) -> str:
        return self.pass_.name


class Instrument:
    """Hooks into a pipeline; subclasses override what they need. An exception raised in a hook fails the pass."""

    def before_pipeline(self, passes: Sequence[ModulePass], module: ModuleOp, context: Context) -> None:
        """Called once, before the first pass."""

    def before_pass(self, run: PassRun) -> None:
        """Called before each pass."""

    def after_pass(self, run: PassRun, report: PassReport) -> None:
        """Called after each pass that did not raise."""

    def pass_failed(self, run: PassRun, failure: ForgeError) -> Iterable[str]:
        """Called when a pass or a hook raised; returns notes for the error that the user sees."""
        return ()


def run_pipeline(
    module: ModuleOp,
    pipeline: str | Sequence[ModulePass],
    *,
    context: Context,
    instruments: Sequence[Instrument] = (),
    costs: Callable[[ModuleOp], Cost | None] | None = None,
) -> list[PassReport]:
    """Runs the passes on ``module``, in place and in order, and reports one entry for each.

    A ForgeError that a pass raises is the user's and passes through; any other exception becomes FORGE-P005. What
    instruments raise (FORGE-P003, FORGE-P004) passes through as well; notes of ``pass_failed`` hooks are added to both.
    ``costs`` (``forgec.ir.cost.program_cost``) says what the module costs; it is asked after each pass that changed the
    module, outside of the time that the pass is said to have taken.
    """
    passes = parse(pipeline) if isinstance(pipeline, str) else tuple(pipeline)
    for instrument in instruments:
        instrument.before_pipeline(passes, module, context)
    reports: list[PassReport] = []
    before = _snapshot(module)
    cost = costs(module) if costs is not None else None
    for index, pass_ in enumerate(passes):
        run = PassRun(index, pass_, module, context)
        try:
            after, report = _run_pass(run, before, instruments, cost, costs)
        except Exception as exc:
            failure = exc if isinstance(exc, ForgeError) else _crash(run, exc)
            notes = tuple(note for instrument in instruments for note in instrument.pass_failed(run, failure))
            cause = exc.__cause__ if exc is failure else exc
            raise _with_notes(failure, notes) from cause
        reports.append(report)
        before, cost = after, report.cost_after
    return reports


def _run_pass(
    run: PassRun,
    before: _Snapshot,
    instruments: Sequence[Instrument],
    cost: Cost | None,
    costs: Callable[[ModuleOp], Cost | None] | None,
) -> tuple[_Snapshot, PassReport]:
    for instrument in instruments:
        instrument.before_pass(run)
    with remarks.collected() as emitted:
        start = time.perf_counter()
        run.pass_.apply(run.context, run.module)
        seconds = time.perf_counter() - start
    after = _snapshot(run.module)
    changed = before.content != after.content
    text = text_of([run.pass_])
    cost_after = costs(run.module) if costs is not None and changed else cost
    report = PassReport(
        run.name, text, seconds, before.op_count, after.op_count, changed, tuple(emitted), cost, cost_after
    )
    for instrument in instruments:
        instrument.after_pass(run, report)
    return after, report


def _crash(run: PassRun, exc: Exception) -> ForgeError:
    reason = f"{type(exc).__name__}: {exc}" if str(exc) else type(exc).__name__
    return error(
        "FORGE-P005",
        f"pass {run.name} failed: {reason.splitlines()[0]}",
        help="this is a defect of forgec, please report it",
    )


def _with_notes(failure: ForgeError, notes: tuple[str, ...]) -> ForgeError:
    if not notes:
        return failure
    first, *others = failure.diagnostics
    return ForgeError([replace(first, notes=(*first.notes, *notes)), *others])


@dataclass(frozen=True)
class _Snapshot:
    """The module's content as a flat list: ops and values compare by identity, attributes by value.

    It holds on to what it lists, so that an identity cannot be reused by a new op. Taking and comparing one costs about
    a microsecond per op, a fifteenth of cloning.
    """

    op_count: int
    content: list[Any]


def _snapshot(module: ModuleOp) -> _Snapshot:
    count = 0
    content: list[Any] = []
    for op in module.walk():
        count += 1
        content.append(op)
        content += op.operands
        content += [result.type for result in op.results]
        content += op.successors
        if op.attributes:
            content += op.attributes.items()
        if op.properties:
            content += op.properties.items()
        for region in op.regions:
            for block in region.blocks:
                content.append(block)
                content += [argument.type for argument in block.args]
    return _Snapshot(count, content)
