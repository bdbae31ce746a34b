"""``forgec bisect``: finds the pass, the op and the line where a compiled program goes wrong."""

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
    from forgec.verify import Finding


def bisect(
    subject: Annotated[
        Path, typer.Argument(metavar="MODEL|IR", help="A Python model file, a .pt2 file, or .mlir text.")
    ],
    pipeline: Annotated[
        str | None, typer.Option("--pipeline", "-p", help="Passes to look at: 'canonicalize,cse,@O2'. @O2 for models.")
    ] = None,
    target: Annotated[str | None, typer.Option("--target", help=MODEL_HELP)] = None,
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FOLDER", help="Where the reproducer is written.")
    ] = Path("."),
    inputs: Annotated[
        list[str] | None,
        typer.Option("--input", "-i", metavar="NAME=VALUE", help="As for 'run'; replaces an example input."),
    ] = None,
    entry: Annotated[
        str | None, typer.Option("--entry", metavar="FILE.py:NAME", help="Take the model from this name.")
    ] = None,
    dtype: Annotated[
        str | None, typer.Option("--dtype", help="Convert the model first: float32, float64, bfloat16, float16.")
    ] = None,
    rtol: Annotated[
        float | None, typer.Option("--rtol", help="Error allowed, relative to the largest magnitude of the tensor.")
    ] = None,
    atol: Annotated[float | None, typer.Option("--atol", help="Error allowed beside that, absolute.")] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of the random inputs of .mlir text.")] = 0,
    data: Annotated[
        Path | None, typer.Option("--data", metavar="FILE.safetensors", help="Inputs and parameters of .mlir text.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print the finding as JSON.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Print tracebacks.")] = False,
) -> None:
    """Find the pass, the op and the line of the model where the compiled program goes wrong.

    Where it differs from eager PyTorch by more than the tolerance (as for 'verify'), the captured graph is interpreted
    after each pass, and the first pass after which it differs is named. What that pass was given is then reduced to
    the fewest ops that it changes the result of, which are written as a reproducer for 'forgec opt'. Capture, lowering
    and the runtime are looked at as well. For .mlir text the pipeline's passes are compared on random inputs.
    Exit code 0 says that nothing differs, 1 that something does (or an error).

    \b
    forgec bisect model.py
    forgec bisect model.py -p '@O2' --rtol 1e-6 -o reproducers
    forgec bisect graph.mlir -p 'canonicalize,cse' --seed 3
    """
    with reporting(as_json=json, debug=debug):
        from forgec.cli.calls import by_name
        from forgec.cli.files import check_readable
        from forgec.cli.inputs import parse_input
        from forgec.diagnostics import ForgecWarning, error

        check_readable(subject)
        if output.exists() and not output.is_dir():
            raise error("FORGE-U004", f"cannot write to {output}: it is no folder")
        arrays = by_name([parse_input(text) for text in inputs or []])
        tolerance: dict[str, Any] = {"rtol": rtol, "atol": atol, "folder": output}
        with (
            redirect_stdout(sys.stderr),
            progress(quiet=json or not sys.stderr.isatty()) as show_phase,
            warnings.catch_warnings(),
        ):
            warnings.simplefilter("ignore", ForgecWarning)
            if subject.suffix == ".mlir":
                for option, given in (("--dtype", dtype), ("--entry", entry), ("--target", target)):
                    if given is not None:
                        raise error("FORGE-U005", f"{option} is for models, {subject} is IR")
                found = _ir(subject, arrays, pipeline or "", seed, data, tolerance)
            else:
                from forgec.api import load_model_file
                from forgec.verify import bisect

                if data is not None:
                    raise error("FORGE-U005", "--data is for .mlir text; models have example inputs, or take --input")
                show_phase("loading the model")
                source = load_model_file(subject, entry)
                found = bisect(
                    source.model,
                    source.example_inputs,
                    source.example_kwargs,
                    dynamic_shapes=source.dynamic_shapes,
                    pipeline="@O2" if pipeline is None else pipeline,
                    target=target,
                    inputs=arrays,
                    dtype=dtype,
                    on_phase=show_phase,
                    **tolerance,
                )
        _print(found, as_json=json)


def _ir(
    path: Path, arrays: dict[str, Any], pipeline: str, seed: int, data: Path | None, tolerance: dict[str, Any]
) -> Finding | None:
    from forgec.cli.files import read_text
    from forgec.runtime.arrays import to_tensor
    from forgec.verify import bisect_ir

    tensors = {name: to_tensor(array) for name, array in arrays.items()}
    text = read_text(str(path))
    return bisect_ir(text, str(path), pipeline=pipeline, seed=seed, inputs=tensors, data_file=data, **tolerance)


def _print(found: Finding | None, *, as_json: bool) -> None:
    if as_json:
        print(json_module.dumps({"differs": found is not None, **({} if found is None else found.to_dict())}, indent=2))
    elif found is None:
        print("nothing differs by more than the tolerance")
    else:
        report([found.diagnostic()])
    if found is not None:
        raise typer.Exit(EXIT_DIAGNOSTICS)
