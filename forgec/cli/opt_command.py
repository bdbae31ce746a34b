"""``forgec opt``: runs passes on IR text, in the manner of mlir-opt."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Annotated

import typer

from forgec.cli.errors import EXIT_DIAGNOSTICS, report, reporting
from forgec.diagnostics.remarks import Remarks


def opt(
    file: Annotated[str, typer.Argument(help="MLIR text; - reads standard input.")] = "-",
    pipeline: Annotated[str, typer.Option("--pipeline", "-p", help="Passes to run: 'canonicalize,cse,@O2'.")] = "",
    output: Annotated[Path | None, typer.Option("-o", help="Write here instead of to standard output.")] = None,
    print_ir_after_all: Annotated[bool, typer.Option("--print-ir-after-all", help="Dump after each pass.")] = False,
    print_ir_after_change: Annotated[
        bool, typer.Option("--print-ir-after-change", help="Dump after passes that changed the IR.")
    ] = False,
    print_ir_after_failure: Annotated[
        bool, typer.Option("--print-ir-after-failure", help="Dump what a failing pass left.")
    ] = False,
    print_ir_filter: Annotated[
        str, typer.Option("--print-ir-filter", metavar="REGEX", help="Dump only after passes whose name matches.")
    ] = "",
    print_locations: Annotated[bool, typer.Option("--print-locations", help="Print loc(…) in the IR.")] = False,
    disable_verify: Annotated[
        bool, typer.Option("--disable-verify", help="Accept input that does not verify: for passes that mend it.")
    ] = False,
    verify_each: Annotated[bool, typer.Option("--verify-each", help="Verify the IR after each pass.")] = False,
    time_passes: Annotated[
        bool, typer.Option("--time-passes", help="Print what each pass took and did: time, ops, launches, FGR.")
    ] = False,
    split_input_file: Annotated[
        bool, typer.Option("--split-input-file", help="Process the parts between '// -----' lines one by one.")
    ] = False,
    verify_diagnostics: Annotated[
        bool, typer.Option("--verify-diagnostics", help="Compare diagnostics with 'expected-error {{…}}' comments.")
    ] = False,
    reproducers: Annotated[
        Path | None, typer.Option("--reproducers", metavar="FOLDER", help="Where reproducers of failing passes go.")
    ] = None,
    remarks: Annotated[
        Remarks, typer.Option("--remarks", help="Show what was optimised (applied), what was not (missed), or all.")
    ] = Remarks.none,
    list_passes: Annotated[bool, typer.Option("--list-passes", help="List passes and presets, and exit.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Print tracebacks.")] = False,
) -> None:
    """Run passes on IR text and print the result. Dumps, times and diagnostics go to standard error."""
    with reporting(debug=debug):
        if list_passes:
            print(_listing())
            return
        from forgec.cli.files import check_writable, read_text, write_bytes
        from forgec.diagnostics import error
        from forgec.passes.opt_driver import OptOptions, optimize

        try:
            re.compile(print_ir_filter)
        except re.error as exc:
            raise error("FORGE-U005", f"--print-ir-filter is no regular expression: {exc}") from exc
        options = OptOptions(
            pipeline=pipeline,
            print_ir_after_all=print_ir_after_all,
            print_ir_after_change=print_ir_after_change,
            print_ir_after_failure=print_ir_after_failure,
            print_ir_filter=print_ir_filter,
            print_locations=print_locations,
            disable_verify=disable_verify,
            verify_each=verify_each,
            time_passes=time_passes,
            split_input_file=split_input_file,
            verify_diagnostics=verify_diagnostics,
            reproducers=reproducers,
            remarks=remarks,
        )
        if output is not None:
            check_writable(output)
        result = optimize(read_text(file), "<stdin>" if file == "-" else file, options, sys.stderr)
        if output is None:
            sys.stdout.write(result.text)
        elif not result.failed:
            write_bytes(output, result.text.encode())
        if result.diagnostics:
            sys.stdout.flush()
            report(result.diagnostics)
        if result.failed:
            raise typer.Exit(EXIT_DIAGNOSTICS)


def _listing() -> str:
    from forgec.passes.pipelines import PRESETS
    from forgec.passes.registry import all_passes, available_passes

    own = available_passes()
    lines = ["Presets:", *(f"  {name:<24} {text or '(no passes)'}" for name, text in PRESETS.items()), "Passes:"]
    for name, factory in own.items():
        summary = (factory().__doc__ or "").strip().partition("\n")[0]
        lines.append(f"  {name:<24} {summary}".rstrip())
    lines += ["Passes of xDSL:", *(f"  {name}" for name in sorted(all_passes()) if name not in own)]
    return "\n".join(lines)
