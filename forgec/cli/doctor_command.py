"""``forgec doctor``: whether a model compiles, everything that stands in the way, and what falls back."""

from __future__ import annotations

import json as json_module
import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from forgec.cli.errors import EXIT_DIAGNOSTICS, reporting

if TYPE_CHECKING:
    from forgec.doctor import Diagnosis


def doctor(
    model: Annotated[Path, typer.Argument(help="A Python file with 'model' and 'example_inputs', or a .pt2 file.")],
    target: Annotated[str, typer.Option("--target", help="What to compile for.")] = "cpu",
    entry: Annotated[
        str | None, typer.Option("--entry", metavar="FILE.py:NAME", help="Take the model from this name.")
    ] = None,
    pipeline: Annotated[str, typer.Option("--pipeline", "-p", help="Passes to run: 'canonicalize,cse,@O2'.")] = "@O2",
    json: Annotated[bool, typer.Option("--json", help="Print the findings as JSON.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Print tracebacks.")] = False,
) -> None:
    """List all that keeps a model from compiling, and all operations that fall back, in one run."""
    with reporting(as_json=json, debug=debug):
        from forgec.cli.files import check_readable
        from forgec.doctor import diagnose
        from forgec.model_file import read

        check_readable(model)
        with redirect_stdout(sys.stderr):
            loaded, args, kwargs, dynamic_shapes = read(model, entry)
            found = diagnose(loaded, args, kwargs, target=target, dynamic_shapes=dynamic_shapes, pipeline=pipeline)
    print(json_module.dumps(found.to_dict(), indent=2) if json else _text(model, found))
    if not found.compiles:
        raise typer.Exit(EXIT_DIAGNOSTICS)


def _text(model: Path, found: Diagnosis) -> str:
    from forgec.diagnostics import render

    parts = [render(diagnostic) for diagnostic in (*found.blockers, *found.warnings)]
    if not found.compiles:
        count = len(found.blockers)
        return "\n".join([*parts, f"{model} does not compile: {count} blocker{'s' * (count != 1)}"])
    fallbacks = found.fallbacks or []
    for fallback in fallbacks:
        share = f"{fallback['share_of_flops']:.1%} of the FLOPs"
        parts.append(f"fallback: {fallback['op']}, {fallback['count']} times, {share}")
        parts += [f"  --> {line}" for line in fallback["lines"]]
    total = sum(fallback["count"] for fallback in fallbacks)
    return "\n".join([*parts, f"{model} compiles, {total} operation{'s' * (total != 1)} fall{'s' * (total == 1)} back"])
