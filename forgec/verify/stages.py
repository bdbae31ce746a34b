"""The states of a module between the passes, and the first pass after which it computes something else."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp
from xdsl.passes import ModulePass

from forgec.ir import plan
from forgec.passes.manager import Instrument, PassReport, PassRun
from forgec.verify.calls import entry_function
from forgec.verify.evaluation import Data, Step, differences, evaluate, failure_text
from forgec.verify.tolerance import Deviation, Tolerance


@dataclass
class Snapshots(Instrument):
    """Keeps the module as it comes in, and a copy after each pass that changes it, also over several pipelines."""

    initial: ModuleOp | None = None
    passes: list[tuple[ModulePass, ModuleOp | None]] = field(default_factory=list)

    def before_pipeline(self, passes: Sequence[ModulePass], module: ModuleOp, context: Context) -> None:
        if self.initial is None:
            self.initial = module.clone()

    def after_pass(self, run: PassRun, report: PassReport) -> None:
        self.passes.append((run.pass_, run.module.clone() if report.changed else None))


@dataclass(frozen=True)
class Wrong:
    """A step that changes the result: ``source`` is the forge IR before it, ``number`` counts the pass from 1.

    ``deviations`` are those of the results by position; ``failure`` says why there are none.
    """

    step: Step
    source: ModuleOp
    number: int
    deviations: dict[int, Deviation] = field(default_factory=dict)
    failure: str = ""


def first_wrong(
    snapshots: Snapshots, expected: Sequence[Any], data: Data, name: str, tolerance: Sequence[Tolerance]
) -> Wrong | None:
    """The first pass after which the interpreter yields other results than before all passes.

    Each state is compared with the first one, so that small deviations do not add up unseen. Passes from a plan to a
    plan are looked at together with those that lead from forge to it.
    """
    assert snapshots.initial is not None, "the pipeline has begun"
    source = snapshots.initial
    shape = entry_function(source, name)
    pending: list[ModulePass] = []
    for number, (pass_, module) in enumerate(snapshots.passes, start=1):
        if module is None:
            if pending:
                pending.append(pass_)
            continue
        step = Step(pass_.name, (*pending, pass_))
        try:
            found = evaluate(module, data.of(source), name, shape=shape)
        except Exception as failure:  # after a wrong pass the interpreter may raise anything
            return Wrong(step, source, number, failure=failure_text(failure))
        deviations = differences(expected, found, tolerance)
        if deviations:
            return Wrong(step, source, number, deviations)
        if is_plan(module):
            pending.append(pass_)
        else:
            source = module
    return None


def is_plan(module: ModuleOp) -> bool:
    """True if forge has become a plan."""
    return any(isinstance(op, plan.EntryOp) for op in module.ops)
