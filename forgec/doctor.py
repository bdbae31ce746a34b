"""What stands between a model and an artifact: every blocker and every fallback, in one run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from forgec.diagnostics import Diagnostic, ForgeError


@dataclass
class Diagnosis:
    """``blockers`` are why the model does not compile (none: it does), ``warnings`` what will be different.

    ``fallbacks`` are the operations without an op of their own, as in the report of a compilation; None where it did
    not get that far.
    """

    blockers: list[Diagnostic] = field(default_factory=list)
    warnings: list[Diagnostic] = field(default_factory=list)
    fallbacks: list[dict[str, Any]] | None = None

    @property
    def compiles(self) -> bool:
        """True if nothing stands in the way."""
        return not self.blockers

    def to_dict(self) -> dict[str, Any]:
        """As JSON-compatible data."""
        return {
            "compiles": self.compiles,
            "blockers": [diagnostic.to_dict() for diagnostic in self.blockers],
            "warnings": [diagnostic.to_dict() for diagnostic in self.warnings],
            "fallbacks": self.fallbacks,
        }


def diagnose(
    model: Any,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    *,
    target: str = "cpu",
    dynamic_shapes: Any = None,
    pipeline: str = "@O2",
) -> Diagnosis:
    """Go as far as a compilation goes, collecting what is wrong instead of stopping at the first thing.

    Where torch.export refuses the model, its draft export goes on without the checks that failed, so that everything it
    would refuse is found, and what forgec could not capture behind that as well. Nothing is run and nothing written.
    """
    from forgec.backends.base import backend_for
    from forgec.capture.capture import export_model, import_program
    from forgec.capture.draft import draft
    from forgec.ir.context import context
    from forgec.passes import pipelines
    from forgec.passes.lower_to_plan import LowerToPlan
    from forgec.passes.manager import run_pipeline
    from forgec.report import build
    from forgec.report.report import fallbacks

    backend_for(target)
    passes = pipelines.parse(pipeline)
    found = Diagnosis()
    try:
        program = export_model(model, args, kwargs, dynamic_shapes)
    except ForgeError as failure:
        found.blockers += failure.diagnostics
        if failure.code != "FORGE-C001":
            return found
        drafted = draft(model, args, kwargs, dynamic_shapes)
        if drafted is None:
            return found
        program = drafted.program
        found.blockers += [d for d in drafted.diagnostics if not _is_said(d, failure.diagnostics)]
    try:
        captured = import_program(program, model, args, kwargs, dynamic_shapes)
    except ForgeError as failure:
        found.blockers += failure.diagnostics
        return found
    found.warnings += captured.warnings
    if found.blockers:
        return found
    try:
        run_pipeline(captured.module, passes, context=context())
        found.fallbacks = fallbacks(captured.module, build.default_bindings(captured.module))
        run_pipeline(captured.module.clone(), [LowerToPlan(target)], context=context())
    except ForgeError as failure:
        found.blockers += failure.diagnostics
    return found


def _is_said(diagnostic: Diagnostic, known: Sequence[Diagnostic]) -> bool:
    """True if the first refusal was about the same line."""
    lines = [(d.location.file, d.location.line) for d in known if d.location is not None]
    place = diagnostic.location
    return place is not None and (place.file, place.line) in lines
