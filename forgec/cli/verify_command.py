"""``forgec verify``: compares a compiled program with eager PyTorch, and op by op with float64."""

from __future__ import annotations

import json as json_module
import sys
import warnings
from contextlib import redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from forgec.cli.errors import report, reporting
from forgec.cli.exit_codes import EXIT_DIAGNOSTICS
from forgec.cli.progress import progress
from forgec.cli.targets import MODEL_HELP

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from forgec.verify import Verification


def verify(
    subject: Annotated[
        Path, typer.Argument(metavar="ARTIFACT|MODEL", help="A .forge artifact, a Python model file or a .pt2 file.")
    ],
    inputs: Annotated[
        list[str] | None,
        typer.Option(
            "--input", "-i", metavar="NAME=VALUE", help="As for 'run'; replaces an example input of the model file."
        ),
    ] = None,
    entry: Annotated[
        str | None, typer.Option("--entry", metavar="NAME", help="The entry point, or FILE.py:NAME of the model.")
    ] = None,
    pipeline: Annotated[
        str | None, typer.Option("--pipeline", "-p", help="Passes to compile a model with, @O2 unless given.")
    ] = None,
    target: Annotated[str | None, typer.Option("--target", help=MODEL_HELP)] = None,
    dtype: Annotated[
        str | None, typer.Option("--dtype", help="Convert the model first: float32, float64, bfloat16, float16.")
    ] = None,
    weights: Annotated[
        str, typer.Option("--weights", help="As for 'compile': float32, bf16, int8, int4; compares with float64 then.")
    ] = "float32",
    rtol: Annotated[
        float | None, typer.Option("--rtol", help="Error allowed, relative to the largest magnitude of the tensor.")
    ] = None,
    atol: Annotated[float | None, typer.Option("--atol", help="Error allowed beside that, absolute.")] = None,
    lines: Annotated[int, typer.Option("--lines", min=0, help="Source lines to show at most.")] = 10,
    json: Annotated[bool, typer.Option("--json", help="Print everything as JSON.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Print tracebacks.")] = False,
) -> None:
    """Compare a compiled program with eager PyTorch, and op by op with float64 arithmetic.

    A model file is compiled and compared with the model itself, on its example inputs or on --input. An artifact is
    compared with the float64 interpreter on the IR that it holds, the IR after all passes; it needs --input. So is a
    model whose --weights are stored in fewer bits: the interpreter computes with the rounded weights.
    Without --rtol and --atol the tolerance is that of the narrowest floating-point type in the program (2.1e-5 of the
    largest magnitude for float32, 5e-3 for float16, 3e-2 for bfloat16, 1e-12 for float64), plus what rounding costs
    the program, up to a tenth of the largest magnitude. Integers must be equal, NaN and infinity in the same places.
    What differs by more, but not by more than rounding alone may make, is marked '?': whether it is wrong cannot be
    told. Exit code 0 says that everything agrees, 1 that something differs or cannot be told (or an error).
    In --json, 'wrong' counts the elements that differ by more than what is allowed, 'unequal' those that are not
    exactly the float64 interpreter's.

    \b
    forgec verify model.py
    forgec verify model.py --target cpu:host
    forgec verify model.py --dtype bfloat16 --input input_ids=@ids.npy
    forgec verify model.forge --input x=2x3xf32=1 --rtol 1e-6 --json
    """
    with reporting(as_json=json, debug=debug):
        from forgec.cli.calls import by_name
        from forgec.cli.files import check_readable
        from forgec.cli.inputs import parse_input
        from forgec.cli.verify_view import render, verdict
        from forgec.diagnostics import Diagnostic, ForgecWarning

        check_readable(subject)
        arrays = by_name([parse_input(text) for text in inputs or []])
        tolerance = {"rtol": rtol, "atol": atol}
        with (
            redirect_stdout(sys.stderr),
            progress(quiet=json or not sys.stderr.isatty()) as show_phase,
            warnings.catch_warnings(),
        ):
            warnings.simplefilter("ignore", ForgecWarning)  # 'compile' prints them
            if subject.suffix in (".py", ".pt2"):
                found = _model(subject, arrays, entry, pipeline, target, dtype, weights, tolerance, show_phase)
            else:
                weights_given = None if weights == "float32" else weights
                found = _artifact(subject, arrays, entry, pipeline, target, dtype, weights_given, tolerance, show_phase)
        if json:
            print(json_module.dumps(found.to_dict(lines), indent=2))
        else:
            print(render(found, lines))
        if not found.agrees:
            if not json:
                sys.stdout.flush()
                report([_differs(Diagnostic, verdict(found), subject, uncertain=found.is_uncertain)])
            raise typer.Exit(EXIT_DIAGNOSTICS)


def _model(
    path: Path,
    arrays: Mapping[str, Any],
    entry: str | None,
    pipeline: str | None,
    target: str | None,
    dtype: str | None,
    weights: Any,
    tolerance: dict[str, float | None],
    show_phase: Callable[[str], None],
) -> Verification:
    from forgec.api import load_model_file
    from forgec.verify import verify

    show_phase("loading the model")
    source = load_model_file(path, entry)
    return verify(
        source.model,
        source.example_inputs,
        source.example_kwargs,
        dynamic_shapes=source.dynamic_shapes,
        pipeline="@O2" if pipeline is None else pipeline,
        target=target,
        inputs=arrays,
        dtype=dtype,
        weights=weights,
        on_phase=show_phase,
        **tolerance,
    )


def _artifact(
    path: Path,
    arrays: Mapping[str, Any],
    entry: str | None,
    pipeline: str | None,
    target: str | None,
    dtype: str | None,
    weights: str | None,
    tolerance: dict[str, float | None],
    show_phase: Callable[[str], None],
) -> Verification:
    from forgec.diagnostics import error
    from forgec.verify import verify_artifact

    for option, given in (("--dtype", dtype), ("--pipeline", pipeline), ("--target", target), ("--weights", weights)):
        if given is not None:
            raise error("FORGE-U005", f"{option} is for models; '{path}' is compiled", help=f"leave out {option}")
    return verify_artifact(path, arrays, entry=entry, on_phase=show_phase, **tolerance)


def _differs(diagnostic: Any, text: str, subject: Path, *, uncertain: bool) -> Any:
    found = text.partition(": ")[2]
    is_model = subject.suffix in (".py", ".pt2")
    if uncertain:
        message = f"whether the compiled program is right cannot be told of {found}: rounding alone may differ as much"
        hint = "give --rtol or --atol, of at least what the dtype rounds by, or inputs that the model is meant for"
        return diagnostic("FORGE-V005", message, help=hint)
    hint = f"'forgec bisect {subject}' finds the pass, the op and the line" if is_model else None
    return diagnostic("FORGE-V001", f"the compiled program differs in {found}", help=hint)
