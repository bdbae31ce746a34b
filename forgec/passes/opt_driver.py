"""``forgec opt`` as a function: text in, text out, diagnostics back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TextIO

from xdsl.context import Context
from xdsl.ir import Operation
from xdsl.passes import ModulePass

from forgec.diagnostics import Diagnostic, ForgeError, Location
from forgec.diagnostics.remarks import Remarks
from forgec.ir.cost import program_cost
from forgec.ir.locations import location_of
from forgec.ir.verify import broken_ops
from forgec.passes import expectations, ir_source
from forgec.passes.instruments import PrintIR, Timing, VerifyEach, broken_ir, ir_text
from forgec.passes.ir_source import Piece, Source
from forgec.passes.manager import Instrument, run_pipeline
from forgec.passes.pipelines import parse as parse_pipeline
from forgec.passes.reproducer import CrashReproducer


@dataclass(frozen=True)
class OptOptions:
    """The options of ``forgec opt``, named as on its command line."""

    pipeline: str = ""
    print_ir_after_all: bool = False
    print_ir_after_change: bool = False
    print_ir_after_failure: bool = False
    print_ir_filter: str = ""
    print_locations: bool = False
    disable_verify: bool = False
    verify_each: bool = False
    time_passes: bool = False
    split_input_file: bool = False
    verify_diagnostics: bool = False
    reproducers: Path | None = None
    remarks: Remarks = Remarks.none


@dataclass
class OptResult:
    """``text`` holds the pieces that went through, ``diagnostics`` what the user must see."""

    text: str = ""
    diagnostics: list[Diagnostic] = field(default_factory=list)

    @property
    def failed(self) -> bool:
        return any(diagnostic.severity == "error" for diagnostic in self.diagnostics)


Reported = tuple[Diagnostic, int | None]
"""A diagnostic and the line of the file that it is about, None if it is about none."""


def optimize(text: str, name: str, options: OptOptions, dumps: TextIO) -> OptResult:
    """Runs the pipeline on each piece of the text. ``name`` is the file's, for locations; ``dumps`` takes IR and times.

    Raises FORGE-P001 and FORGE-P002 for the pipeline. What is wrong with the text, or happens in passes, is in the
    result.
    """
    passes = parse_pipeline(options.pipeline)
    context = ir_source.context()
    timing = Timing()
    instruments = _instruments(options, dumps)
    result = OptResult()
    outputs: list[str] = []
    for piece in ir_source.split(name, text, at_separators=options.split_input_file):
        output, reported = _run_piece(piece, passes, context, timing, instruments, options)
        if output is not None:
            outputs.append(output)
        if options.verify_diagnostics:
            expected, malformed = expectations.find(piece)
            result.diagnostics += malformed + expectations.compare(piece, expected, reported)
        else:
            result.diagnostics += [diagnostic for diagnostic, _ in reported]
    result.text = f"{ir_source.SEPARATOR}\n".join(outputs)
    if options.time_passes:
        dumps.write(timing.render() + "\n")
    return result


def _instruments(options: OptOptions, dumps: TextIO) -> list[Instrument]:
    instruments: list[Instrument] = []
    if options.print_ir_after_all or options.print_ir_after_change or options.print_ir_after_failure:
        instruments.append(
            PrintIR(
                dumps,
                after_all=options.print_ir_after_all,
                after_change=options.print_ir_after_change,
                on_failure=options.print_ir_after_failure,
                only=options.print_ir_filter,
                locations=options.print_locations,
            )
        )
    if options.verify_each:
        instruments.append(VerifyEach())
    return [*instruments, CrashReproducer(options.reproducers)]


def _run_piece(
    piece: Piece,
    passes: Sequence[ModulePass],
    context: Context,
    timing: Timing,
    instruments: list[Instrument],
    options: OptOptions,
) -> tuple[str | None, list[Reported]]:
    """The piece's output, None if there is none because of errors, and all that was reported."""
    try:
        source = ir_source.parse(piece, context)
    except ForgeError as exc:
        return None, [(d, d.location.line if d.location else None) for d in exc.diagnostics]
    broken = [] if options.disable_verify else list(broken_ops(source.module))
    if broken:
        return None, [(_broken(op, reason), source.lines.get(op)) for op, reason in broken]
    lines = _lines_of_places(source)
    ran = len(timing.reports)
    errors: list[Diagnostic] = []
    try:
        costs = program_cost if options.time_passes else None
        run_pipeline(source.module, passes, context=context, instruments=[timing, *instruments], costs=costs)
    except ForgeError as exc:
        errors = exc.diagnostics
    else:
        failure = broken_ir(source.module, "the pipeline left") if passes and not options.verify_each else None
        if failure is not None:
            hint = "run again with --verify-each to find the pass and to have a reproducer written"
            errors = [replace(diagnostic, help=hint) for diagnostic in failure.diagnostics]
    remarks = [r for report in timing.reports[ran:] for r in report.remarks if options.remarks.shows(r)]
    reported = [(diagnostic, lines.get(diagnostic.location)) for diagnostic in (*remarks, *errors)]
    return None if errors else ir_text(source.module, locations=options.print_locations), reported


def _lines_of_places(source: Source) -> dict[Location | None, int]:
    """Where in the file the first op stands that came from a place (in the file itself, or in the user's model)."""
    lines: dict[Location | None, int] = {}
    for op, line in source.lines.items():
        place = location_of(op)
        if place is not None:
            lines.setdefault(place, line)
    return lines


def _broken(op: Operation, reason: str) -> Diagnostic:
    return Diagnostic("FORGE-I002", f"{op.name} {reason}", location_of(op))
