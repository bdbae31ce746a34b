"""``bisect``: finds the pass, then the op, then the line of the model, where a compiled program goes wrong."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from xdsl.dialects.builtin import ModuleOp
from xdsl.dialects.func import FuncOp
from xdsl.ir import Operation

from forgec import api
from forgec.diagnostics import Diagnostic, ForgeError, Location, error
from forgec.ir.locations import from_attribute, location_of
from forgec.ir.verify import verify_module
from forgec.passes import ir_source, pipelines
from forgec.passes.ir_source import Piece
from forgec.passes.manager import run_pipeline
from forgec.passes.reproducer import CrashReproducer
from forgec.verify.arguments import in_dtype, replaced
from forgec.verify.calls import Contract, entry_function, refuse_random
from forgec.verify.evaluation import Data, Step, differences, execute, failure_text, in_caller_order, target_of
from forgec.verify.outcomes import compare_outcomes
from forgec.verify.random_data import random_data
from forgec.verify.recording import Recording
from forgec.verify.reduction import Reduced, Reducer
from forgec.verify.reproduction import Reproducer, read_data, write_reproducer
from forgec.verify.side_by_side import in_both
from forgec.verify.stages import Snapshots, Wrong, first_wrong, is_plan
from forgec.verify.tolerance import Deviation, Tolerance

Stage = Literal["capture", "pass", "runtime", "rounding"]


@dataclass(frozen=True)
class Finding:
    """Where a program goes wrong.

    ``stage``: ``capture`` (the captured graph differs from the model), ``pass``, ``runtime`` (the plan is right, its
    execution is not), or ``rounding`` (no step alone exceeds the tolerance). ``pass_name`` is the ``number``-th pass
    that ran, ``op`` the op whose result is wrong after it, ``location`` its line, ``ops`` the smallest slice that shows
    the difference, ``deviation`` how wrong its result is; ``results`` are the wrong results of the whole program.
    """

    stage: Stage
    results: Mapping[str, Deviation]
    pass_name: str = ""
    number: int = 0
    pipeline: str = ""
    failure: str = ""
    op: str = ""
    location: Location | None = None
    ops: tuple[tuple[str, Location | None], ...] = ()
    deviation: Deviation | None = None
    reproducer: Reproducer | None = None

    @property
    def is_uncertain(self) -> bool:
        """True if rounding alone may make what differs: the result is ill-conditioned, or the tolerance that was given
        lies below the rounding of the dtype.
        """
        apart = self.results.values()
        return not self.failure and bool(apart) and all(deviation.uncertain for deviation in apart)

    @property
    def headline(self) -> str:
        """What was found, in one line."""
        if self.is_uncertain and self.stage != "rounding":
            where = {"capture": "capture changes", "runtime": "the runtime changes"}.get(
                self.stage, f"pass {self.pass_name} changes"
            )
            return f"{where} what the program computes, but by no more than rounding may"
        match self.stage:
            case "capture":
                return "the captured graph computes something else than the model"
            case "runtime":
                if self.failure:
                    return f"the program cannot be run: {self.failure}"
                return "the runtime computes something else than the plan says"
            case "rounding":
                return "the compiled program differs, but no step of its compilation does by more than the tolerance"
        if self.failure:
            return f"after pass {self.pass_name} the program fails: {self.failure}"
        return f"pass {self.pass_name} changed what the program computes"

    @property
    def code(self) -> str:
        """The diagnostic's code."""
        if self.is_uncertain:
            return "FORGE-V005"
        return {"pass": "FORGE-P004", "rounding": "FORGE-V001"}.get(self.stage, "FORGE-V003")

    def diagnostic(self) -> Diagnostic:
        """The finding for people."""
        notes = [f"{name}: {deviation}" for name, deviation in self.results.items()]
        if self.pass_name:
            notes.append(f"pass {self.number} of those that ran: {self.pipeline}")
        if self.op:
            wrong = f", its result: {self.deviation}" if self.deviation is not None else ""
            notes.append(f"op: {self.op}{wrong}")
        others = dict.fromkeys(str(place) for _, place in self.ops if place is not None and place != self.location)
        notes += [f"together with {place}" for place in others]
        if self.reproducer is not None:
            notes.append(f"reproducer: {self.reproducer.path} ({len(self.ops)} ops)")
            notes.append(f"to see it: {self.reproducer.command}")
        hints = {
            "capture": "please report it with the model",
            "rounding": "raise --rtol, or run 'forgec verify' to see where rounding errors arise",
        }
        if self.is_uncertain:
            hints[self.stage] = (
                "the program's dtypes round by as much, so this need be no defect of forgec: the tolerance lies below "
                "their rounding, or the model magnifies it; --dtype float64 tells"
            )
        hint = hints.get(self.stage, "this is a defect of forgec, please report it with the reproducer")
        return Diagnostic(self.code, self.headline, self.location, tuple(notes), hint)

    def __str__(self) -> str:
        """As ``forgec bisect`` prints it."""
        return str(self.diagnostic())

    def to_dict(self) -> dict[str, Any]:
        """JSON-compatible data."""
        written = self.reproducer
        return {
            "stage": self.stage,
            "uncertain": self.is_uncertain,
            "pass": self.pass_name,
            "number": self.number,
            "pipeline": self.pipeline,
            "op": self.op,
            "ops": [name for name, _ in self.ops],
            "results": {name: deviation.to_dict() for name, deviation in self.results.items()},
            "deviation": None if self.deviation is None else self.deviation.to_dict(),
            "reproducer": None if written is None else {"path": str(written.path), "command": written.command},
            "diagnostic": self.diagnostic().to_dict(),
        }


@dataclass
class _Search:
    """What finding the op needs beside the step."""

    data: Data
    name: str
    tolerance: Tolerance
    folder: Path | None
    result_names: Sequence[str] = field(default_factory=list)

    def finding(self, stage: Stage, wrong: Wrong) -> Finding:
        """The op, the line and the reproducer of a step that changes the result."""
        results = {self._name(index): deviation for index, deviation in wrong.deviations.items()}
        step = wrong.step
        known: dict[str, Any] = {"pass_name": step.name, "number": wrong.number, "pipeline": step.pipeline}
        recording = Recording(wrong.source, self.data.params)
        function = entry_function(wrong.source, self.name)
        recording.run(function, self.data.inputs, self.data.symbols)
        reducer = Reducer(
            wrong.source,
            step,
            recording.values,
            self.data.params,
            recording.symbols,
            self.tolerance,
            float64=self._shows_in_float64(wrong),
            fails=bool(wrong.failure),
        )
        reduced = reducer.reduce(function.body.block)
        if reduced is None:
            return Finding(stage, results, failure=wrong.failure, **known)
        finding = Finding(
            stage,
            results,
            failure=wrong.failure,
            op=reduced.op.name,
            location=_place(reduced.op),
            ops=tuple((op.name, location_of(op)) for op in reduced.part.ops),
            deviation=reduced.deviation,
            **known,
        )
        if self.folder is None:
            return finding
        written = self._written(self.folder, wrong, reduced, recording, finding)
        return Finding(**{**vars(finding), "reproducer": written})

    def _written(
        self, folder: Path, wrong: Wrong, reduced: Reduced, recording: Recording, finding: Finding
    ) -> Reproducer | None:
        return write_reproducer(
            folder,
            wrong.source,
            wrong.step,
            reduced,
            recording.values,
            self.data.params,
            recording.symbols,
            self.tolerance,
            code=finding.code,
            headline=finding.headline,
        )

    def _name(self, index: int) -> str:
        return self.result_names[index] if index < len(self.result_names) else f"result {index}"

    def _shows_in_float64(self, wrong: Wrong) -> bool:
        """True if the step is wrong without rounding too. Then slices are compared without it: two ways to compute one
        value may differ much where numbers cancel.
        """
        if wrong.step.at_run_time or wrong.failure:
            return False
        try:
            expected = wrong.step.before(wrong.source, self.data, self.name, float64=True)
            found = wrong.step.after(wrong.source, self.data, self.name, float64=True)
        except Exception:  # whatever has no form in float64 (torch's kernels raise of many kinds), or fails there
            return False
        return bool(differences(expected, found, self.tolerance))


def bisect(
    model: Any,
    example_inputs: Sequence[Any] = (),
    example_kwargs: Mapping[str, Any] | None = None,
    *,
    dynamic_shapes: Any = None,
    pipeline: str = "@O2",
    target: str | None = None,
    inputs: Mapping[str, Any] | None = None,
    dtype: str | None = None,
    rtol: float | None = None,
    atol: float | None = None,
    folder: Path | None = None,
    on_phase: Callable[[str], None] = lambda phase: None,
) -> Finding | None:
    """Where the compiled model goes wrong; None if it agrees with eager PyTorch.

    Arguments are those of :func:`forgec.verify.verify`; ``folder`` is where a reproducer is written (None: nowhere).
    Raises ForgeError where the model cannot be compiled, draws random numbers (FORGE-V002) or fails (FORGE-V004).
    """
    Tolerance.of(ModuleOp([]), rtol, atol)
    model, args, kwargs = in_dtype(model, example_inputs, example_kwargs or {}, dtype)
    snapshots = Snapshots()
    compiled = api.compile(
        model,
        args,
        kwargs,
        dynamic_shapes=dynamic_shapes,
        pipeline=pipeline,
        target=target,
        on_phase=on_phase,
        instruments=[snapshots, CrashReproducer(folder)],
    )
    captured = snapshots.initial
    assert captured is not None, "the pipeline has begun"
    refuse_random(captured)
    tolerance = Tolerance.of(captured, rtol, atol)
    name = compiled.plan.public[0].name
    contract = Contract(compiled.plan, compiled.plan.public[0], entry_function(captured, name))
    args, kwargs = replaced(contract.signature, args, kwargs, inputs or {})
    on_phase("comparing with eager PyTorch")
    given = contract.inputs(args, kwargs, compiled.params)
    data = Data(given.tensors, compiled.params, given.symbols)
    eager = contract.eager(model, args, kwargs)
    failure = ""
    try:
        found = contract.compiled(compiled.session(), args, kwargs)
    except ForgeError as reason:
        found, failure = eager, failure_text(reason)
    apart = compare_outcomes(contract, eager, found, tolerance)
    if not apart and not failure:
        return None
    on_phase("interpreting the captured graph")
    function = contract.function
    native, wide = in_both(captured, function, data.inputs, data.params, data.symbols)
    right, exact = contract.outcome(native), contract.outcome(wide)
    apart = compare_outcomes(contract, eager, found, tolerance, exact, right)
    if not apart and not failure:
        return None
    wrongly_captured = compare_outcomes(contract, eager, right, tolerance, exact, right)
    if wrongly_captured:
        return Finding("capture", wrongly_captured)
    search = _Search(data, name, tolerance, folder, contract.tensor_names)
    expected, each = _expected(function, native, wide, tolerance)
    on_phase("interpreting after each pass")
    wrong = first_wrong(snapshots, expected, data, name, each)
    if wrong is not None:
        on_phase(f"reducing what pass {wrong.step.name} changes")
        return search.finding("pass", wrong)
    at_run_time = {} if failure else compare_outcomes(contract, right, found, tolerance, exact, right)
    if not at_run_time and not failure:
        return Finding("rounding", apart)
    on_phase("reducing what the runtime changes")
    step = Step("runtime", Step.lowering(compiled.target), at_run_time=True)
    finding = search.finding("runtime", Wrong(step, compiled.forge, 0, failure=failure))
    return Finding(**{**vars(finding), "results": at_run_time, "pass_name": ""})


def bisect_ir(
    text: str,
    file_name: str,
    *,
    pipeline: str,
    seed: int = 0,
    inputs: Mapping[str, Any] | None = None,
    data_file: Path | None = None,
    rtol: float | None = None,
    atol: float | None = None,
    folder: Path | None = None,
) -> Finding | None:
    """Where a pipeline changes what IR text computes; None if it does not.

    Inputs are random, the same for the same ``seed``, but for those in ``inputs`` (by argument, or by ``@parameter``)
    and in ``data_file``. Raises ForgeError for text that does not parse or verify, and for a bad pipeline.
    """
    module = ir_source.parse(Piece(file_name, text, 1), ir_source.context()).module
    verify_module(module)
    refuse_random(module)
    tolerance = Tolerance.of(module, rtol, atol)
    function = _main(module, file_name)
    name = function.sym_name.data
    given, symbols = ({}, {}) if data_file is None else read_data(data_file)
    data = random_data(module, function, seed, {**given, **(inputs or {})})
    data = Data(data.inputs, data.params, {**data.symbols, **symbols})
    snapshots = Snapshots()
    context = ir_source.context()
    native, wide = in_both(module, function, data.inputs, data.params, data.symbols)
    expected, each = _expected(function, native, wide, tolerance)
    passes = pipelines.parse(pipeline)
    run_pipeline(module, passes, context=context, instruments=[snapshots, CrashReproducer(folder)])
    search = _Search(data, name, tolerance, folder)
    wrong = first_wrong(snapshots, expected, data, name, each)
    if wrong is not None:
        return search.finding("pass", wrong)
    if not is_plan(module):
        return None
    assert snapshots.initial is not None, "the pipeline has begun"
    before = next((m for _, m in reversed(snapshots.passes) if m is not None and not is_plan(m)), snapshots.initial)
    try:
        deviations = differences(expected, execute(module, data.of(before), name, target_of(passes)), each)
    except ForgeError:
        return None
    step = Step("runtime", Step.lowering(target_of(passes)), at_run_time=True)
    return search.finding("runtime", Wrong(step, before, 0, deviations)) if deviations else None


def _expected(
    function: FuncOp, native: Sequence[Any], wide: Sequence[Any], tolerance: Tolerance
) -> tuple[list[Any], list[Tolerance]]:
    """What an entry returns, and for each result the tolerance with what rounding costs it."""
    expected, exact = in_caller_order(function, native), in_caller_order(function, wide)
    return expected, [tolerance.with_rounding(*pair) for pair in zip(exact, expected, strict=True)]


def _main(module: ModuleOp, file_name: str) -> FuncOp:
    functions = [op for op in module.ops if isinstance(op, FuncOp) and not op.is_declaration]
    public = [op for op in functions if op.sym_visibility is None or op.sym_visibility.data != "private"]
    named = [op for op in public if op.sym_name.data == "forward"] or public
    if not named:
        raise error("FORGE-U005", f"{file_name} has no public function")
    return named[0]


def _place(op: Operation) -> Location | None:
    """The line that gives the op its result: the last one that it stands for."""
    places = from_attribute(op.location)
    return places[-1] if places else None
