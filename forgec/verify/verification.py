"""``verify``: compares a compiled program with eager PyTorch, and op by op with the reference interpreter."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from xdsl.dialects.builtin import ModuleOp

from forgec import api
from forgec.diagnostics import error
from forgec.passes import ir_source
from forgec.passes.ir_source import Piece
from forgec.runtime import load
from forgec.runtime.plan import Plan
from forgec.verify.arguments import in_dtype, replaced
from forgec.verify.calls import Contract, Outcome, entry_function, refuse_random
from forgec.verify.distributions import Distributions, compare_logits
from forgec.verify.lines import LineError, LineErrors
from forgec.verify.outcomes import as_tensor, compare_leaves
from forgec.verify.side_by_side import SideBySide
from forgec.verify.stored import StoredParams
from forgec.verify.tolerance import Deviation, Tolerance, deviation


@dataclass(frozen=True)
class OutputError:
    """One tensor that a call returns or writes (``kind``: ``output``, ``argument`` or ``state``).

    ``compiled`` is how far the compiled program is from what decides the verdict: eager PyTorch, or, where there is no
    model, the float64 interpreter; ``allowed`` is how far it may be. ``exact`` is how far it is from float64,
    ``eager_exact`` how far eager PyTorch is; of both, the data tell how many elements are not exactly those of float64
    (``unequal``). ``rounding`` is by how much rounding alone may move the tensor.
    """

    name: str
    kind: str
    compiled: Deviation
    allowed: float = 0.0
    exact: Deviation | None = None
    eager_exact: Deviation | None = None
    logits: Distributions | None = None
    rounding: float = 0.0

    @property
    def is_uncertain(self) -> bool:
        """True if it differs, but rounding alone may be the reason: the tensor is ill-conditioned, or the tolerance
        that was given lies below the rounding of its dtype.
        """
        return self.compiled.uncertain and not self.compiled.agrees

    def to_dict(self) -> dict[str, Any]:
        """JSON-compatible data."""
        described: dict[str, Any] = {"compiled": self.compiled.to_dict()}
        for name, part in (("exact", self.exact), ("eager_exact", self.eager_exact)):
            if part is not None:
                described[name] = part.to_exact_dict()
        if self.logits is not None:
            described["logits"] = self.logits.to_dict()
        return {
            "name": self.name,
            "kind": self.kind,
            "agrees": self.compiled.agrees,
            "uncertain": self.is_uncertain,
            "allowed": self.allowed,
            "rounding": self.rounding,
            **described,
        }


@dataclass
class Verification:
    """What was compared (``against``: ``eager`` or ``float64``), how far apart it is, and the errors by line."""

    against: str
    tolerance: Tolerance
    outputs: list[OutputError]
    lines: list[LineError]
    decisions: int = 0
    not_followed: dict[str, int] = field(default_factory=dict)
    problem: str = ""

    @property
    def agrees(self) -> bool:
        """True if everything is certain to agree."""
        return not self.problem and all(output.compiled.agrees for output in self.outputs)

    @property
    def is_uncertain(self) -> bool:
        """True if all that differs does by no more than rounding may make."""
        wrong = [output for output in self.outputs if not output.compiled.agrees]
        return not self.problem and bool(wrong) and all(output.is_uncertain for output in wrong)

    def to_dict(self, rows: int | None = None) -> dict[str, Any]:
        """JSON-compatible data with at most so many lines."""
        return {
            "agrees": self.agrees,
            "uncertain": self.is_uncertain,
            "against": self.against,
            "tolerance": {"rtol": self.tolerance.rtol, "atol": self.tolerance.atol},
            "problem": self.problem,
            "outputs": [output.to_dict() for output in self.outputs],
            "lines": [line.to_dict() for line in self.lines[:rows]],
            "decisions": self.decisions,
            "not_followed": self.not_followed,
        }


def verify(
    model: Any,
    example_inputs: Sequence[Any] = (),
    example_kwargs: Mapping[str, Any] | None = None,
    *,
    dynamic_shapes: Any = None,
    pipeline: str = "@O2",
    target: str | None = None,
    inputs: Mapping[str, Any] | None = None,
    dtype: str | None = None,
    weights: api.Precision = "float32",
    rtol: float | None = None,
    atol: float | None = None,
    on_phase: Callable[[str], None] = lambda phase: None,
) -> Verification:
    """Compile a model and compare it with eager PyTorch on its example inputs, and with float64 op by op.

    ``inputs`` are tensors or arrays that replace example inputs by their names (``x``, ``cache.key``); ``dtype``
    (``"bfloat16"``) converts the model, in place, and its floating-point inputs first. Where ``weights`` are stored in
    fewer bits, eager PyTorch computes with others, and the float64 interpreter is what decides. The default tolerance
    is that of :data:`forgec.verify.tolerance.RELATIVE_TOLERANCES`. Raises ForgeError where the model cannot be
    compiled, draws random numbers (FORGE-V002) or fails (FORGE-V004).
    """
    model, args, kwargs = in_dtype(model, example_inputs, example_kwargs or {}, dtype)
    Tolerance.of(ModuleOp([]), rtol, atol)  # refuse bad numbers before the slow part
    compiled = api.compile(
        model,
        args,
        kwargs,
        dynamic_shapes=dynamic_shapes,
        pipeline=pipeline,
        target=target,
        weights=weights,
        on_phase=on_phase,
    )
    plan, forge = compiled.plan, compiled.forge
    refuse_random(forge)
    contract = Contract(plan, plan.public[0], entry_function(forge, plan.public[0].name))
    args, kwargs = replaced(contract.signature, args, kwargs, inputs or {})
    on_phase("running the compiled program")
    found = contract.compiled(compiled.session(), args, kwargs)
    eager = None
    if weights == "float32":
        on_phase("running eager PyTorch")
        eager = contract.eager(model, args, kwargs)
    on_phase("interpreting in float64")
    tolerance = Tolerance.of(forge, rtol, atol)
    return _compared(contract, forge, compiled.params, args, kwargs, found, eager, tolerance)


def verify_artifact(
    path: str | Path,
    inputs: Mapping[str, Any],
    *,
    entry: str | None = None,
    rtol: float | None = None,
    atol: float | None = None,
    on_phase: Callable[[str], None] = lambda phase: None,
) -> Verification:
    """Compare what an artifact computes with the float64 interpreter on the IR that it holds, op by op.

    The IR is that after the passes, so this checks lowering, kernels and the runtime; capture and passes are checked
    with the model at hand (:func:`verify`). ``inputs`` are tensors or arrays by name. Raises ForgeError for what is no
    sound artifact, for missing inputs, and for programs that draw random numbers.
    """
    Tolerance.of(ModuleOp([]), rtol, atol)
    model = load(path)
    plan = model.artifact.plan
    on_phase("reading the IR")
    forge = ir_source.parse(Piece(f"{path}:ir/forge.mlir", model.ir("forge"), 1), ir_source.context()).module
    refuse_random(forge)
    chosen = _entry(plan, entry)
    contract = Contract(plan, chosen, entry_function(forge, chosen.name))
    args, kwargs = replaced(contract.signature, None, None, inputs)
    on_phase("running the artifact")
    found = contract.compiled(model.session(), args, kwargs)
    on_phase("interpreting in float64")
    params = StoredParams(forge, plan, model.artifact.weights)
    return _compared(contract, forge, params, args, kwargs, found, None, Tolerance.of(forge, rtol, atol))


def _entry(plan: Plan, name: str | None) -> Any:
    found = next((entry for entry in plan.public if name in (None, entry.name)), None)
    if found is None:
        known = ", ".join(entry.name for entry in plan.public)
        raise error("FORGE-U005", f"there is no entry {name}", help=f"the entries are: {known}")
    return found


def _compared(
    contract: Contract,
    forge: ModuleOp,
    params: Mapping[str, Any],
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    found: Outcome,
    eager: Outcome | None,
    tolerance: Tolerance,
) -> Verification:
    lines = LineErrors()
    given = contract.inputs(args, kwargs, params)
    run = SideBySide(forge, params, lines.record)
    both = run.run(contract.function, given.tensors, given.symbols)
    native, exact = (contract.outcome([pair[side] for pair in both]) for side in (0, 1))
    problem = ""
    if eager is not None and len(eager.leaves) != len(found.leaves):
        problem = f"the model returns {len(eager.leaves)} values, the compiled program {len(found.leaves)}"
        eager = Outcome(found.leaves, eager.arguments, eager.states)
    outputs = list(_outputs(contract, found, eager, native, exact, tolerance))
    against = "float64" if eager is None else "eager"
    rows = lines.worst_first()
    return Verification(against, tolerance, outputs, rows, lines.decisions, lines.not_followed, problem)


def _outputs(
    contract: Contract, found: Outcome, eager: Outcome | None, native: Outcome, exact: Outcome, tolerance: Tolerance
) -> Iterator[OutputError]:
    """Each tensor that a call returns, writes among its arguments, or keeps as state."""

    def compared(name: str, kind: str, tensor: Any, wanted: Any, narrow: Any, wide: Any) -> OutputError:
        allowed = tolerance if wide is None else tolerance.with_rounding(as_tensor(wide), as_tensor(narrow))
        reference = wide if eager is None else wanted
        return _output(name, kind, tensor, reference, wide, eager is not None, allowed)

    wanted = exact.leaves if eager is None else eager.leaves
    for row in zip(contract.output_names, found.leaves, wanted, native.leaves, exact.leaves, strict=True):
        if eager is not None or row[-1] is not None:  # of a fixed value there is only one version
            yield compared(row[0], "output", *row[1:])
    names = [info.name for info, held in zip(contract.described, contract.is_session_state, strict=True) if not held]
    wanted = exact.arguments if eager is None else eager.arguments
    for row in zip(names, found.arguments, wanted, native.arguments, exact.arguments, strict=True):
        if row[-1] is not None:  # the program writes it
            yield compared(row[0], "argument", *row[1:])
    states = exact.states if eager is None else eager.states
    for name, wide in exact.states.items():
        if name in states and name in found.states:
            yield compared(name, "state", found.states[name], states[name], native.states[name], wide)


def _output(
    name: str, kind: str, found: Any, wanted: Any, wide: Any, has_eager: bool, tolerance: Tolerance
) -> OutputError:
    compiled = compare_leaves(wanted, found, tolerance)
    if compiled.problem or wanted is None or isinstance(wanted, str):
        return OutputError(name, kind, compiled)
    found, wanted = as_tensor(found), as_tensor(wanted)
    exact = None if wide is None else deviation(as_tensor(wide), found)
    eager_exact = None if wide is None or not has_eager else deviation(as_tensor(wide), wanted)
    allowed, logits = tolerance.allowed(compiled.scale), compare_logits(wanted, found)
    return OutputError(name, kind, compiled, allowed, exact, eager_exact, logits, tolerance.uncertain(compiled.scale))
