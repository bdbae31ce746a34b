"""``forgec.compile``: the one path that the decorator, the command line and ``torch.compile`` all take."""

from __future__ import annotations

import io
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from forgec.diagnostics import Diagnostic, ForgeError, error, warn
from forgec.runtime.cpu_count import check_threads
from forgec.runtime.refusals import NotCopied, refuse_path

if TYPE_CHECKING:
    from xdsl.dialects.builtin import ModuleOp

    from forgec.passes.instruments import Instrument
    from forgec.passes.stored_weights import Taken
    from forgec.report import Report
    from forgec.runtime import Session
    from forgec.runtime.kernel_table import NativeCode
    from forgec.runtime.plan import Plan
    from forgec.runtime.program import Program

Fallback = Literal["allow", "error"]
Precision = Literal["float32", "bf16", "int8", "int4"]
"""What weights of linears and embeddings are stored in; ``float32`` leaves them as the model has them."""
GGUF = "gguf:"
"""Before the name of a file that the model was loaded from: its weights are stored as they are there."""
Products = Literal["float32", "bf16"]
"""What products of float32 round their factors to; ``float32`` leaves them as they are."""


@dataclass(repr=False, eq=False)
class CompiledModel(NotCopied):
    """A compiled model in memory. Calls take and return what the model does; ``save`` writes the artifact."""

    _exported: Plan
    _forge: ModuleOp
    _plan: ModuleOp
    _weights: Mapping[str, Any]
    """Tensors that the program reads, or functions that compute them."""
    _params: Mapping[str, Any]
    """The tensors that parameters and states of the forge IR name."""
    report: Report
    pipeline: str
    target: str
    threads: int | None = None
    _kernels: Sequence[NativeCode] = ()
    """The machine code of the kernels, an image for each instruction set."""
    _tile: ModuleOp | None = None
    """The forge functions with launches of kernels, and the kernels; None for targets without."""
    _made: Program | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def _program(self) -> Program:
        """The program in memory, made when it is first called: weights that are computed take memory from then on.
        One for all threads, since the state that calls without a session use is the program's.
        """
        with self._lock:
            if self._made is None:
                from forgec.runtime.processor import best
                from forgec.runtime.program import LiveWeights, Program

                held = self._weights.items()
                tensors: dict[str, Any] = {name: source() if callable(source) else source for name, source in held}
                kernels = best(self._kernels)
                program = Program(self._exported, LiveWeights(tensors), threads=self.threads, kernels=kernels)
                self._made = program
            return self._made

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the model. Raises ForgeError (R001–R007) for arguments that do not fit what was compiled."""
        return self._program(*args, **kwargs)

    def __repr__(self) -> str:
        entries = ", ".join(entry.name for entry in self._exported.public)
        return f"CompiledModel(target={self.target!r}, entries=[{entries}], launches={self.report.launches})"

    def session(self) -> Session:
        """A session with state of its own (a KV cache), starting at the initial values."""
        return self._program.session()

    def reset(self) -> None:
        """Give the state that calls of the model itself use its initial values again."""
        self._program.reset()

    @property
    def forge(self) -> ModuleOp:
        """The forge IR after its passes; not to be changed."""
        return self._forge

    @property
    def plan(self) -> Plan:
        """What is executed."""
        return self._exported

    @property
    def params(self) -> Mapping[str, Any]:
        """The tensors that parameters and states of the forge IR name."""
        return self._params

    def ir(self, level: Literal["forge", "tile", "plan"] = "forge", *, locations: bool = False) -> str:
        """The text of one level of IR after its passes; ``tile`` is there for targets with kernels."""
        modules = self._modules
        if level not in modules:
            levels = f"levels: {', '.join(modules)}"
            raise error("FORGE-U005", f"there is no level of IR named {level!r}", notes=(levels,))
        return print_module(modules[level], locations=locations)

    @property
    def _modules(self) -> dict[str, ModuleOp]:
        levels = {"forge": self._forge, "tile": self._tile, "plan": self._plan}
        return {level: module for level, module in levels.items() if module is not None}

    def save(self, path: str | Path, *, external_weights: bool = False) -> None:
        """Write the artifact, complete or not at all. Raises ForgeError (U004) where that is impossible.

        With ``external_weights`` the weights go to ``<stem>.safetensors`` beside it.
        """
        from forgec.runtime.artifact_writer import write_artifact

        refuse_path(path, "the file to save to")
        path = Path(path)
        started = time.perf_counter()
        write_artifact(
            path,
            self._exported,
            self._weights,
            ir={level: print_module(module, locations=True) for level, module in self._modules.items()},
            report=self.report.to_dict(times=False),
            target=self.target,
            pipeline=self.pipeline,
            producer=versions(),
            external_weights=path.with_suffix(".safetensors") if external_weights else None,
            kernels=self._kernels,
            precision=self.report.precision,
        )
        self.report.seconds["pack"] = time.perf_counter() - started
        self.report.seconds["total"] = sum(
            v for k, v in self.report.seconds.items() if k in ("capture", "passes", "codegen", "pack")
        )


def compile(
    model: Any = None,
    example_inputs: Sequence[Any] | None = None,
    example_kwargs: Mapping[str, Any] | None = None,
    *,
    target: str | None = None,
    dynamic_shapes: Any = None,
    pipeline: str = "@O2",
    fallback: Fallback = "allow",
    weights: Precision | str = "float32",
    calibration: str | None = None,
    precision: Products = "float32",
    threads: int | None = None,
    max_signatures: int = 8,
    on_phase: Callable[[str], None] | None = None,
    instruments: Sequence[Instrument] = (),
    pass_costs: bool = False,
) -> Any:
    """Compile a module, a function or an exported program.

    With ``example_inputs`` (a tuple) or ``example_kwargs`` (a dict) it compiles now and returns a
    :class:`CompiledModel`. Without them it returns a callable that compiles on the first call for each signature of
    inputs (shapes, dtypes and fixed values), at most
    ``max_signatures`` of them; so it serves as a decorator, with or without arguments.

    ``target`` is what to compile for: ``cpu:x86-64-v3``, ``cpu:x86-64-v4`` and ``cpu:host`` (this processor's level)
    make machine code for one level of x86-64, ``cpu`` for all in one artifact, ``cpu:aten`` calls torch's operations.
    None: what ``FORGEC_TARGET`` names, else ``cpu:host``, or ``cpu:aten`` where this processor has no level.
    ``pipeline`` is the text of a pass pipeline or a preset (``"@O2"``); ``fallback="error"`` refuses operations that
    have neither an op nor a kernel of their own; ``dynamic_shapes`` is torch.export's.
    ``weights`` says what the weights of linears and embeddings are rounded to
    (``"bf16"``, ``"int8"``, ``"int4"``): the pass ``round-weights`` then ends the pipeline.
    ``"gguf:FILE"`` stores them as the GGUF file does that the model was loaded from (Q8_0, Q4_0, Q4_1, Q6_K), which
    changes no value.
    ``report.weights`` says how far each is from the model's, and with ``calibration`` ``report.calibration`` what that
    does to the model's perplexity, or to its outputs: it is a file of token ids (``.npy``, ``.safetensors``, ``.pt``),
    or ``"examples"`` for the example inputs. ``precision`` says what products of float32 round their factors to
    (``"bf16"``, about twice as fast on processors that have instructions for it; sums stay float32): targets with
    kernels alone do. Raises ForgeError; its ``code`` says why (``forgec
    explain CODE``). What the compiled program will do otherwise than the model is a ForgecWarning, one for each
    compilation. With ``pass_costs`` each entry of ``report.passes`` says what the pass did to the bytes moved and the
    launches.
    """
    options: dict[str, Any] = {
        "target": target,
        "dynamic_shapes": dynamic_shapes,
        "pipeline": pipeline,
        "fallback": fallback,
        "weights": weights,
        "calibration": calibration,
        "precision": precision,
        "threads": threads,
        "on_phase": on_phase,
        "instruments": instruments,
        "pass_costs": pass_costs,
    }
    if fallback not in ("allow", "error"):
        raise error("FORGE-U005", f"fallback is {fallback!r}", notes=("values: allow, error",))
    if weights not in get_args(Precision) and not (isinstance(weights, str) and weights.startswith(GGUF)):
        values = f"values: {', '.join(get_args(Precision))}, {GGUF}FILE"
        raise error("FORGE-U005", f"weights is {weights!r}", notes=(values,))
    if precision not in get_args(Products):
        raise error("FORGE-U005", f"precision is {precision!r}", notes=(f"values: {', '.join(get_args(Products))}",))
    if type(max_signatures) is not int or max_signatures < 1:
        raise error("FORGE-U005", f"max_signatures is {max_signatures!r}, a number of at least 1 is needed")
    check_threads(threads)
    for name, value in (("target", "" if target is None else target), ("pipeline", pipeline)):
        if not isinstance(value, str):
            raise error("FORGE-U005", f"{name} is a {type(value).__name__}, text is needed")
    if model is None:
        if example_inputs is not None or example_kwargs is not None:
            raise error("FORGE-U002", "there are example inputs but no model")
        return lambda function: _lazily(function, max_signatures, options)
    if not _is_exported(model) and (not callable(model) or isinstance(model, type)):
        what = f"the class {model.__name__}" if isinstance(model, type) else f"a value of type {type(model).__name__}"
        raise error("FORGE-U002", f"{what} is no model", help="pass a torch.nn.Module or a function")
    if example_inputs is None and example_kwargs is None and not _is_exported(model):
        return _lazily(model, max_signatures, options)
    return _compile(
        model,
        () if example_inputs is None else example_inputs,
        {} if example_kwargs is None else example_kwargs,
        **options,
    )


def _lazily(model: Any, max_signatures: int, options: dict[str, Any]) -> Any:
    from forgec.lazy import LazyModel

    return LazyModel(model, lambda args, kwargs: _compile(model, args, kwargs, **options), max_signatures)


def _is_exported(model: Any) -> bool:
    import torch

    return isinstance(model, torch.export.ExportedProgram)


def _compile(
    model: Any,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    *,
    target: str | None,
    dynamic_shapes: Any,
    pipeline: str,
    fallback: Fallback,
    weights: Precision | str,
    calibration: str | None,
    precision: Products,
    threads: int | None,
    on_phase: Callable[[str], None] | None,
    instruments: Sequence[Instrument],
    pass_costs: bool,
) -> CompiledModel:
    import torch

    from forgec.backends.base import backend_for
    from forgec.backends.default_target import default_target, falls_short
    from forgec.capture.capture import export_model, import_program
    from forgec.ir.context import context
    from forgec.ir.cost import program_cost
    from forgec.ir.literals import to_tensor
    from forgec.ir.params import ParamValues
    from forgec.ir.plan_export import export_plan
    from forgec.ir.tile.kernel import KernelOp
    from forgec.passes import pipelines
    from forgec.passes.lowering import plan_passes, tile_passes
    from forgec.passes.manager import run_pipeline
    from forgec.passes.tile_choices import noted
    from forgec.report import build
    from forgec.report.calibration import calibrated
    from forgec.report.rounding_errors import errors_of_weights

    clock = _Clock(on_phase)
    remarks: list[Diagnostic] = []
    if target is None:
        target = default_target()
        if (reason := falls_short(target)) is not None:
            message = f"compiled for {target}, not for machine code: {reason}"
            remarks.append(Diagnostic("FORGE-O002", message, severity="remark"))
    if weights in get_args(Precision) and weights != "float32":
        pipeline = ",".join(filter(None, (pipeline, f"round-weights{{to={weights}}}")))
    backend = backend_for(target)
    if precision != "float32" and not backend.kernels:
        message = f"target {target} has no kernels whose products could be of precision {precision}"
        raise error("FORGE-U005", message, help="compile for cpu, or without a precision")
    passes = pipelines.parse(pipeline)  # refuse a bad pipeline before the slow part
    ctx = context()
    with clock.phase("export"):
        program = export_model(model, args, kwargs, dynamic_shapes)
    with clock.phase("capture"):
        captured = import_program(program, model, args, kwargs, dynamic_shapes)
        bindings = build.default_bindings(captured.module)
        before = build.totals(captured.module, bindings)
    with clock.phase("passes"):
        costs = clock.aside("costs", lambda module: program_cost(module, bindings)) if pass_costs else None
        done = run_pipeline(captured.module, passes, context=ctx, instruments=instruments, costs=costs)
        forge = captured.module
        taken = _taken(forge, captured.tensors, weights) if weights.startswith(GGUF) else None
    with clock.phase("codegen"):
        plan = forge.clone()
        with noted() as choices:
            lowered = run_pipeline(plan, tile_passes(target, precision), context=ctx, instruments=instruments)
        tile = plan.clone() if backend.kernels else None
        if fallback == "error":
            _refuse_fallbacks(forge if tile is None else tile)
        lowered += run_pipeline(plan, plan_passes(target), context=ctx, instruments=instruments)
        kernels = backend.native(plan, target)
        for kernel in [op for op in plan.ops if isinstance(op, KernelOp)]:  # they stand at the level of tiles
            kernel.detach()
            kernel.erase()
        exported = export_plan(plan, torch_version=torch.__version__.partition("+")[0])
        if _is_exported(model) and (args or kwargs):
            _check_examples(exported.plan, args, kwargs)
        constants = {name: to_tensor(value) for name, value in exported.constants.items()}
        held = captured.tensors if taken is None else {**captured.tensors, **taken.tensors}
        params = ParamValues(forge if tile is None else tile, {**held, **constants})
        tensors = {name: params.source(name) for name in build.referenced(exported.plan)}
        rounded = errors_of_weights(forge, params) if weights != "float32" else []
        rounded += [] if taken is None else taken.entries
    report: Report = build.report(
        target=target,
        pipeline=pipeline,
        before=before,
        forge=forge,
        tile=tile,
        plan=plan,
        exported=exported.plan,
        passes=[p.to_dict() for p in (*done, *lowered)],
        seconds=clock.seconds,
        bindings=bindings,
        warnings=captured.warnings,
        remarks=remarks + [remark for done_pass in (*done, *lowered) for remark in done_pass.remarks],
        choices=choices,
        weights=rounded,
        precision=precision,
    )
    warn(captured.warnings)
    text = pipelines.expand(pipeline)
    made = CompiledModel(exported.plan, forge, plan, tensors, params, report, text, target, threads, kernels, tile)
    if calibration is not None:
        with clock.phase("calibration"):
            report.calibration = calibrated(model, made.session, args, kwargs, calibration)
    return made


def _taken(forge: ModuleOp, tensors: Mapping[str, Any], weights: str) -> Taken:
    """Has a module read weights as a GGUF file stores them."""
    from forgec.ir.params import ParamValues
    from forgec.passes.gguf_rows import gguf_rows
    from forgec.passes.stored_weights import take_stored_weights

    path = Path(weights.removeprefix(GGUF))
    return take_stored_weights(forge, ParamValues(forge, tensors), gguf_rows(path))


def _check_examples(plan: Plan, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
    """FORGE-C002 for example inputs that an exported program was not exported for."""
    import torch

    from forgec.runtime.binding import bind
    from forgec.runtime.inputs import InputChecker
    from forgec.runtime.signature import Signature
    from forgec.runtime.tensor_library import torch_library

    entry = plan.public[0]
    signature = Signature(entry, plan.symbols)
    checker = InputChecker(entry, plan.symbols, signature)
    try:
        leaves = signature.leaves(tuple(args), kwargs)
        with torch.no_grad():
            accepted = checker.accept(leaves, torch_library())
            binding = bind(entry, dict(zip(checker.names, accepted.symbols, strict=True)))
            checker.check_extents(leaves, accepted, binding)
    except ForgeError as reason:
        raise error(
            "FORGE-C002",
            "the example inputs do not fit the exported program",
            notes=tuple(note for d in reason.diagnostics for note in (d.message, *d.notes)),
            help="leave them out, or pass inputs such as it was exported with",
        ) from None


def _refuse_fallbacks(forge: ModuleOp) -> None:
    """With ``fallback="error"``: every operation without an op or a kernel of its own, all in one error."""
    from forgec.ir.locations import from_attribute
    from forgec.passes.outlining import occurrences
    from forgec.report.report import is_fallback

    found = {
        (op.callee.data, next(iter(from_attribute(location)), None)): None
        for op, location in occurrences(forge, is_fallback)
    }
    diagnostics = {
        (name, place): Diagnostic("FORGE-B001", f"{name} has no op of its own and would fall back to ATen", place)
        for name, place in found
    }
    if diagnostics:
        raise ForgeError(list(diagnostics.values()))


@dataclass
class _Clock:
    """Wall-clock seconds of each phase. ``capture`` includes torch.export, whose own share is ``export``."""

    on_phase: Callable[[str], None] | None
    seconds: dict[str, float] = field(default_factory=dict)
    asides: set[str] = field(default_factory=set)

    def aside(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, timed under a name of its own instead of in the phase that calls it."""

        def timed(*args: Any) -> Any:
            started = time.perf_counter()
            result = function(*args)
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - started
            return result

        self.asides.add(name)
        return timed

    @contextmanager
    def phase(self, name: str):
        if self.on_phase is not None:
            self.on_phase(name)
        from forgec.runtime.collector import paused_collector

        spent = self._aside()
        started = time.perf_counter()
        with paused_collector():  # a full collection would take 0.2 s in the middle of a phase of 0.05 s
            yield
        elapsed = time.perf_counter() - started - (self._aside() - spent)
        if name == "export":
            self.seconds["export"] = elapsed
            name = "capture"
        self.seconds[name] = self.seconds.get(name, 0.0) + elapsed
        self.seconds.setdefault("pack", 0.0)
        left_out = {"export", "total", *self.asides}
        self.seconds["total"] = sum(v for k, v in self.seconds.items() if k not in left_out)

    def _aside(self) -> float:
        return sum(self.seconds.get(name, 0.0) for name in self.asides)


def print_module(module: ModuleOp, *, locations: bool = False) -> str:
    """A module as MLIR text."""
    from xdsl.printer import Printer

    stream = io.StringIO()
    Printer(stream, print_debuginfo=locations).print_op(module)
    return stream.getvalue() + "\n"


def versions() -> dict[str, str]:
    """Versions of what made an artifact."""
    from importlib.metadata import version

    return {name: version(name) for name in ("forgec", "torch", "xdsl")}


@dataclass
class ModelSource:
    """What a model file offers."""

    model: Any
    example_inputs: Sequence[Any]
    example_kwargs: Mapping[str, Any]
    dynamic_shapes: Any = None

    @cached_property
    def is_exported(self) -> bool:
        """True for a program that torch.export saved."""
        return _is_exported(self.model)


def load_model_file(path: str | Path, entry: str | None = None) -> ModelSource:
    """Read a model from a Python file (``model``, ``example_inputs``, and if wanted ``example_kwargs``,
    ``dynamic_shapes``) or a
    ``.pt2`` file.

    ``entry`` names another attribute than ``model`` (``NAME`` or ``FILE.py:NAME``). ``model`` may be a module, a
    callable that is the model, or a function without parameters that returns one. Raises ForgeError (U001, U002, U006).
    """
    from forgec.model_file import read

    return ModelSource(*read(Path(path), entry))
