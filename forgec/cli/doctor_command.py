"""``forgec doctor``: whether a model compiles, everything that stands in the way, and what falls back."""

from __future__ import annotations

import json as json_module
import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from forgec.cli.errors import reporting
from forgec.cli.exit_codes import EXIT_DIAGNOSTICS
from forgec.cli.targets import COMPILE_HELP

if TYPE_CHECKING:
    from forgec.doctor import Diagnosis


def doctor(
    model: Annotated[Path, typer.Argument(help="A Python file with 'model' and 'example_inputs', or a .pt2 file.")],
    target: Annotated[str | None, typer.Option("--target", help=COMPILE_HELP)] = None,
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
    fallbacks = found.fallbacks or []
    for fallback in fallbacks:
        count, places = fallback["count"], len(fallback["lines"])
        where = f"at {_count(places, 'place')}"
        if count > places:
            where = f"{_count(count, 'operation')} {where}" if places else _count(count, "operation")
        parts.append(f"fallback: {fallback['op']}, {where}, {fallback['share_of_flops']:.1%} of the FLOPs")
        parts += [f"  --> {line}" for line in fallback["lines"]]
    total = _count(sum(fallback["count"] for fallback in fallbacks), "operation")
    falls = f"{total} fall{'s' * (total == '1 operation')} back"
    if found.compiles:
        return "\n".join([*parts, f"{model} compiles, {falls}"])
    if found.unseen is not None:
        parts.append(f"{found.unseen} was not looked at: there may be more blockers and fallbacks")
    elif fallbacks:
        parts.append(f"of what could be captured, {falls}")
    return "\n".join([*parts, f"{model} does not compile: {_count(len(found.blockers), 'blocker')}"])


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'s' * (number != 1)}"
