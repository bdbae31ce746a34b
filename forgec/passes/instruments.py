"""Instruments that watch and check a pipeline: times, IR dumps, verification, numeric comparison.

The one that writes reproducers is in ``forgec.passes.reproducer``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, TextIO

from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp
from xdsl.passes import ModulePass
from xdsl.printer import Printer

from forgec.diagnostics import ForgeError, error
from forgec.ir.cost import Cost, gain
from forgec.ir.locations import location_of
from forgec.ir.verify import broken_ops
from forgec.passes.manager import Instrument, PassReport, PassRun
from forgec.passes.tensors import difference

SHOWN_OPS = 10
"""Ops that an error names one by one; the rest is counted."""


@dataclass
class Timing(Instrument):
    """Collects what passes report; ``render`` shows it as a table, in the manner of mlir-opt.

    Where the pipeline was run with ``costs`` the table has the launches and the fusion gain ratio (bytes moved through
    memory before ÷ after) of each pass as well.
    """

    reports: list[PassReport] = field(default_factory=list)

    def after_pass(self, run: PassRun, report: PassReport) -> None:
        self.reports.append(report)

    def render(self) -> str:
        total = sum(report.seconds for report in self.reports)
        measured = [r for r in self.reports if r.cost_before is not None and r.cost_after is not None]
        rows = [_row("seconds", "share", "ops", *(("launches", "FGR") if measured else ()), "pass")]
        for report in self.reports:
            share = report.seconds / total if total else 0.0
            ops = _change(report.ops_before, report.ops_after)
            gained = _gained(report.cost_before, report.cost_after) if measured else ()
            rows.append(_row(f"{report.seconds:.4f}", f"{share:.1%}", ops, *gained, report.pipeline))
        gained = _gained(*self._whole()) if measured else ()
        rows.append(_row(f"{total:.4f}", "100.0%", "", *gained, "total"))
        return "\n".join(["// Pass execution times", *rows])

    def _whole(self) -> tuple[Cost | None, Cost | None]:
        """The cost before the first pass and after the last, if one module went through all."""
        measured = [r for r in self.reports if r.cost_before is not None and r.cost_after is not None]
        chained = all(one.cost_after == other.cost_before for one, other in pairwise(measured))
        return (measured[0].cost_before, measured[-1].cost_after) if chained else (None, None)


def _row(seconds: str, share: str, ops: str, *rest: str) -> str:
    *gained, name = rest
    cells = [
        f"{seconds:>8}",
        f"{share:>6}",
        f"{ops:>14}",
        *(f"{g:>{w}}" for g, w in zip(gained, (14, 7), strict=False)),
    ]
    return f"//  {'  '.join(cells)}  {name}"


def _change(before: int, after: int) -> str:
    return str(after) if before == after else f"{before} → {after}"


def _gained(before: Cost | None, after: Cost | None) -> tuple[str, str]:
    if before is None or after is None:
        return "", ""
    return _change(before.launches, after.launches), f"{gain(before.bytes_moved, after.bytes_moved):.2f}"


@dataclass
class PrintIR(Instrument):
    """Prints the module after passes: after all of them, after those that changed its text, or where one failed.

    ``only`` is a regular expression that a pass's name must contain for the module to be printed after it.
    """

    stream: TextIO
    after_all: bool = False
    after_change: bool = False
    on_failure: bool = True
    only: str = ""
    locations: bool = False
    _last_text: str = field(default="", init=False)

    def before_pass(self, run: PassRun) -> None:
        if self.after_change and not self.after_all and run.index == 0:
            self._last_text = self._text(run.module)

    def after_pass(self, run: PassRun, report: PassReport) -> None:
        if self.after_all:
            self._print(run, "After", self._text(run.module))
        elif self.after_change and report.changed:
            text = self._text(run.module)
            if text != self._last_text:
                self._print(run, "After", text)
            self._last_text = text

    def pass_failed(self, run: PassRun, failure: ForgeError) -> Iterable[str]:
        if self.on_failure:
            self._print(run, "After Failure Of", self._text(run.module))
        return ()

    def _print(self, run: PassRun, when: str, text: str) -> None:
        if re.search(self.only, run.name):
            self.stream.write(f"// -----// IR Dump {when} {run.name} //----- //\n{text}")

    def _text(self, module: ModuleOp) -> str:
        return ir_text(module, locations=self.locations)


@dataclass
class VerifyEach(Instrument):
    """Verifies the module after each pass; FORGE-P003 names every op that a pass broke."""

    def after_pass(self, run: PassRun, report: PassReport) -> None:
        failure = broken_ir(run.module, f"pass {run.name} left")
        if failure is not None:
            raise failure


def broken_ir(module: ModuleOp, who: str) -> ForgeError | None:
    """FORGE-P003 with the ops that do not verify, ``who`` having left them; None if the module is valid."""
    broken = list(broken_ops(module))
    if not broken:
        return None
    notes = [f"{op.name} {reason}" for op, reason in broken[:SHOWN_OPS]]
    if len(broken) > SHOWN_OPS:
        notes.append(f"and {len(broken) - SHOWN_OPS} more")
    ops = "1 op that does not verify" if len(broken) == 1 else f"{len(broken)} ops that do not verify"
    return error(
        "FORGE-P003",
        f"{who} {ops}",
        location=location_of(broken[0][0]),
        notes=tuple(notes),
        help="this is a defect of forgec, please report it",
    )


@dataclass
class NumericCheck(Instrument):
    """Evaluates the module before the pipeline and after each pass; FORGE-P004 when a result differs.

    ``evaluate(module)`` runs the module on fixed inputs and returns its results (tensors of torch or numpy). Results
    are equal when shapes and dtypes are, NaNs stand in the same places, and every element satisfies
    ``|after - before| <= atol + rtol |before|``; integers and booleans must be identical. Each pass is compared with
    the module as it came in, so that small deviations do not add up unseen.
    """

    evaluate: Callable[[ModuleOp], Sequence[Any]]
    rtol: float = 1e-5
    atol: float = 1e-6
    _expected: list[Any] = field(default_factory=list, init=False)

    def before_pipeline(self, passes: Sequence[ModulePass], module: ModuleOp, context: Context) -> None:
        self._expected = list(self.evaluate(module))

    def after_pass(self, run: PassRun, report: PassReport) -> None:
        if not report.changed:
            return
        results = list(self.evaluate(run.module))
        if len(results) != len(self._expected):
            notes = [f"{len(self._expected)} results before, {len(results)} after"]
        else:
            found = (
                difference(old, new, self.rtol, self.atol) for old, new in zip(self._expected, results, strict=True)
            )
            notes = [f"result {index}: {text}" for index, text in enumerate(found) if text]
        if notes:
            raise error(
                "FORGE-P004",
                f"pass {run.name} changed what the module computes",
                notes=tuple(notes),
                help="this is a defect of forgec, please report it",
            )


def ir_text(module: ModuleOp, *, locations: bool = False) -> str:
    """The module as MLIR text that ends in a newline, with ``loc(…)`` on request.

    In the generic form where an op that does not verify cannot be printed in its own, as mlir-opt does.
    """
    from io import StringIO

    stream = StringIO()
    try:
        Printer(stream=stream, print_debuginfo=locations).print_op(module)
    except Exception:
        if not any(True for _ in broken_ops(module)):
            raise
        stream = StringIO()
        Printer(stream=stream, print_debuginfo=locations, print_generic_format=True).print_op(module)
    return stream.getvalue() + "\n"
