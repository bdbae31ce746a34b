"""``forgec run``: calls an artifact and measures it."""

from __future__ import annotations

import json as json_module
from pathlib import Path
from typing import Annotated

import typer

from forgec.cli.errors import reporting


def run(
    artifact: Annotated[Path, typer.Argument(help="An artifact that 'forgec compile' wrote.")],
    inputs: Annotated[
        list[str] | None,
        typer.Option(
            "--input", "-i", metavar="NAME=VALUE", help="@file.npy, or a type and value: 1x8xi64=0. Repeatable."
        ),
    ] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Write the results to this .npz file.")] = None,
    entry: Annotated[str | None, typer.Option("--entry", metavar="NAME", help="Call this entry point.")] = None,
    warmup: Annotated[int, typer.Option("--warmup", min=0, help="Calls before those that are measured.")] = 0,
    iterations: Annotated[int, typer.Option("--iterations", min=0, help="Calls to measure, after the first.")] = 0,
    threads: Annotated[int | None, typer.Option("--threads", min=1, help="Threads to compute with.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print results and times as JSON.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Print tracebacks.")] = False,
) -> None:
    """Call an artifact once, show or save its results, and, with --iterations, measure further calls."""
    with reporting(as_json=json, debug=debug):
        from forgec.cli import calls
        from forgec.cli.files import check_writable, write_bytes
        from forgec.cli.inputs import parse_input

        if output is not None:
            check_writable(output)
        arrays = calls.by_name([parse_input(text) for text in inputs or []])
        from forgec.runtime import load

        model = load(artifact, threads=threads)
        args, kwargs, entry_name = calls.arguments(model.artifact.plan, entry, arrays)
        session = model.session()
        results, first_ms = calls.timed(session, args, kwargs, entry_name)
        named = calls.named_results(results)
        if output is not None:
            write_bytes(output, calls.npz(named))
        for _ in range(warmup):
            session(*args, entry=entry_name, **kwargs)
        latencies_ms = [calls.timed(session, args, kwargs, entry_name)[1] for _ in range(iterations)]
        if json:
            print(json_module.dumps(calls.as_data(named, first_ms, latencies_ms), indent=2))
        else:
            print(calls.as_text(named, first_ms, latencies_ms))
