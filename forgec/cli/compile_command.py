"""``forgec compile``: from a model file to an artifact."""

from __future__ import annotations

import json as json_module
import sys
import warnings
from contextlib import redirect_stdout
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from forgec.cli.errors import reporting
from forgec.cli.progress import progress
from forgec.cli.targets import COMPILE_HELP
from forgec.diagnostics.remarks import Remarks

if TYPE_CHECKING:
    from forgec.passes.manager import Instrument


class Products(StrEnum):
    """What products multiply."""

    float32 = "float32"
    bf16 = "bf16"


class Fallback(StrEnum):
    """What to do with an operation that has no native kernel."""

    allow = "allow"
    error = "error"


def compile_(
    model: Annotated[Path, typer.Argument(help="A Python file with 'model' and 'example_inputs', or a .pt2 file.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The artifact to write.")],
    target: Annotated[str | None, typer.Option("--target", help=COMPILE_HELP)] = None,
    entry: Annotated[
        str | None, typer.Option("--entry", metavar="FILE.py:NAME", help="Take the model from this name.")
    ] = None,
    pipeline: Annotated[str, typer.Option("--pipeline", "-p", help="Passes to run: 'canonicalize,cse,@O2'.")] = "@O2",
    fallback: Annotated[
        Fallback, typer.Option("--fallback", help="Whether ATen may execute what has no native kernel.")
    ] = Fallback.allow,
    weights: Annotated[
        str,
        typer.Option(
            "--weights",
            metavar="float32|bf16|int8|int4|gguf:FILE",
            help="What weights of linears and embeddings are stored in, or the GGUF file that the model was loaded "
            "from: they stay as they are there. Sums stay float32.",
        ),
    ] = "float32",
    calibration: Annotated[
        str | None,
        typer.Option(
            "--calibration",
            metavar="FILE|examples",
            help="Token ids (.npy, .safetensors, .pt), or the example inputs: the report says what the weights' "
            "precision does to the model's perplexity, or to its outputs.",
        ),
    ] = None,
    precision: Annotated[
        Products,
        typer.Option("--precision", help="What products of float32 round their factors to; sums stay float32."),
    ] = Products.float32,
    external_weights: Annotated[
        bool, typer.Option("--external-weights", help="Refer to the weights instead of holding them.")
    ] = False,
    print_ir_after_all: Annotated[bool, typer.Option("--print-ir-after-all", help="Dump after each pass.")] = False,
    verify_each: Annotated[bool, typer.Option("--verify-each", help="Verify the IR after each pass.")] = False,
    time_passes: Annotated[
        bool, typer.Option("--time-passes", help="Print what each pass took and did: time, ops, launches, FGR.")
    ] = False,
    remarks: Annotated[
        Remarks, typer.Option("--remarks", help="Show what was optimised (applied), what was not (missed), or all.")
    ] = Remarks.none,
    json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Print tracebacks.")] = False,
) -> None:
    """Compile a model into an artifact. Shows its progress on a terminal and is quiet otherwise."""
    with reporting(as_json=json, debug=debug):
        from forgec.cli.files import check_readable, check_writable
        from forgec.diagnostics import ForgecWarning, error, render

        check_writable(output)
        if output.exists() and not output.is_file():
            raise error("FORGE-U004", f"cannot write {output}: it is not a regular file")
        check_readable(model)
        from forgec import api
        from forgec.backends.default_target import default_target
        from forgec.passes.instruments import Timing

        target = default_target(for_others=True) if target is None else target
        timing = Timing()
        with redirect_stdout(sys.stderr), progress(quiet=json or not sys.stderr.isatty()) as show_phase:
            show_phase("loading the model")
            source = api.load_model_file(model, entry)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ForgecWarning)  # they are printed below
                compiled = api.compile(
                    source.model,
                    example_inputs=source.example_inputs,
                    example_kwargs=source.example_kwargs,
                    dynamic_shapes=source.dynamic_shapes,
                    target=target,
                    pipeline=pipeline,
                    fallback=fallback.value,
                    weights=weights,
                    calibration=calibration,
                    precision=precision.value,
                    on_phase=show_phase,
                    instruments=[timing, *_instruments(print_ir_after_all, verify_each)],
                    pass_costs=time_passes or json,
                )
            show_phase("writing the artifact")
            compiled.save(output, external_weights=external_weights)
        for warning in compiled.report.warnings:
            print(render(warning), file=sys.stderr)
        for remark in filter(remarks.shows, compiled.report.remarks if remarks is not Remarks.none else ()):
            print(render(remark), file=sys.stderr)
        if time_passes:
            print(timing.render(), file=sys.stderr)
        report = compiled.report.to_dict()
        if json:
            print(json_module.dumps(report, indent=2))
        elif sys.stderr.isatty():
            print(_summary(output, report), file=sys.stderr)


def _instruments(print_ir_after_all: bool, verify_each: bool) -> list[Instrument]:
    from forgec.passes.instruments import PrintIR, VerifyEach
    from forgec.passes.reproducer import CrashReproducer

    instruments: list[Instrument] = []
    if print_ir_after_all:
        instruments.append(PrintIR(sys.stderr, after_all=True))
    if verify_each:
        instruments.append(VerifyEach())
    return [*instruments, CrashReproducer()]


def _summary(output: Path, report: dict[str, Any]) -> str:
    from forgec.cli.inspect_view import size

    fallbacks = sum(fallback["count"] for fallback in report["fallbacks"])
    found = report["calibration"]
    if "tokens" in found:
        change = f", perplexity {found['perplexity_before']} → {found['perplexity_after']}"
    else:
        change = f", outputs change by {found['output_rms']}" if found else ""
    return (
        f"{output}: {size(output.stat().st_size)}, {report['launches']} launches, {fallbacks} fallbacks, "
        f"compiled in {report['seconds']['total']:.1f} s{change}"
    )
