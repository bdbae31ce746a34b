"""What stands between a model and an artifact: every blocker and every fallback, in one run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from forgec.diagnostics import Diagnostic, ForgeError


@dataclass
class Diagnosis:
    """``blockers`` are why the model does not compile (none: it does), ``warnings`` what will be different.

    ``fallbacks`` are the operations without an op or a kernel of their own, as in the report of a compilation: those
    that were captured if it ends before the passes, None if it ends before that. ``unseen`` names the part of the model
    of which nothing is known, because even torch's draft export ended before it.
    """

    blockers: list[Diagnostic] = field(default_factory=list)
    warnings: list[Diagnostic] = field(default_factory=list)
    fallbacks: list[dict[str, Any]] | None = None
    unseen: str | None = None

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
            "unseen": self.unseen,
        }

    def add(self, diagnostics: Iterable[Diagnostic]) -> None:
        """More blockers; of those that say the same of one line, the first is kept."""
        for diagnostic in diagnostics:
            if not any(_is_same(diagnostic, known) for known in self.blockers):
                self.blockers.append(diagnostic)


def diagnose(
    model: Any,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    *,
    target: str | None = None,
    dynamic_shapes: Any = None,
    pipeline: str = "@O2",
) -> Diagnosis:
    """Go as far as a compilation goes, collecting what is wrong instead of stopping at the first thing.

    Where torch.export refuses the model, its draft export goes on past what failed, on the example's own data, so that
    everything it would refuse is found, and what forgec could not capture behind that as well. Nothing is written.
    """
    from forgec.backends.base import backend_for
    from forgec.backends.default_target import default_target
    from forgec.capture.capture import changed, export_model, import_program
    from forgec.capture.convert import Incomplete
    from forgec.capture.draft import draft
    from forgec.ir.context import context
    from forgec.passes import pipelines
    from forgec.passes.lowering import plan_passes, tile_passes
    from forgec.passes.manager import run_pipeline
    from forgec.report import build
    from forgec.report.report import fallbacks

    target = default_target(for_others=True) if target is None else target
    backend_for(target)
    passes = pipelines.parse(pipeline)
    found = Diagnosis()
    try:
        program = export_model(model, args, kwargs, dynamic_shapes)
    except ForgeError as failure:
        found.blockers += failure.diagnostics
        drafted = draft(model, args, kwargs, dynamic_shapes)
        found.add(drafted.diagnostics)
        found.warnings += changed(drafted.changes)
        if drafted.program is None:
            place = drafted.seen_to
            found.unseen = "the model" if place is None else f"the rest of the model past {place.file}:{place.line}"
            return found
        program = drafted.program
    try:
        captured = import_program(program, model, args, kwargs, dynamic_shapes)
    except Incomplete as failure:
        found.add(failure.diagnostics)
        found.fallbacks = fallbacks(failure.module, build.default_bindings(failure.module))
        return found
    except ForgeError as failure:
        found.add(failure.diagnostics)
        return found
    found.warnings += [warning for warning in captured.warnings if warning not in found.warnings]
    found.fallbacks = fallbacks(captured.module, build.default_bindings(captured.module))
    if found.blockers:
        return found
    try:
        run_pipeline(captured.module, passes, context=context())
        lowered = captured.module.clone()
        run_pipeline(lowered, tile_passes(target), context=context())
        found.fallbacks = fallbacks(captured.module, build.default_bindings(captured.module), lowered)
        run_pipeline(lowered, plan_passes(target), context=context())
    except ForgeError as failure:
        found.blockers += failure.diagnostics
    return found


def _is_same(diagnostic: Diagnostic, known: Diagnostic) -> bool:
    """True if two refusals have one cause: torch refuses each line once, capture may have more to say of it."""
    one, other = diagnostic.location, known.location
    if one is None or other is None:
        return diagnostic == known
    at_one_line = (one.file, one.line) == (other.file, other.line) and diagnostic.code == known.code
    return at_one_line and (diagnostic.code == "FORGE-C001" or diagnostic.message == known.message)
