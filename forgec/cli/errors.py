"""From exceptions to what the user sees: diagnostics on standard error, JSON on request, and an exit code."""

from __future__ import annotations

import json
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import typer

from forgec.cli.exit_codes import EXIT_BROKEN_PIPE, EXIT_DIAGNOSTICS, EXIT_INTERNAL
from forgec.diagnostics import Diagnostic, ForgeError, render
from forgec.diagnostics.missing_package import missing_package


@contextmanager
def reporting(*, as_json: bool = False, debug: bool = False) -> Iterator[None]:
    """Turns what is raised in the ``with`` block into diagnostics and an exit code; ``debug`` prints tracebacks."""
    try:
        yield
    except (ForgeError, ModuleNotFoundError) as exc:
        if debug:
            traceback.print_exc()
        known = exc if isinstance(exc, ForgeError) else missing_package(exc)
        report(known.diagnostics if known else [_internal(exc, debug)], as_json=as_json)
        raise typer.Exit(EXIT_DIAGNOSTICS if known else EXIT_INTERNAL) from None
    except (typer.Exit, typer.Abort, typer.BadParameter, KeyboardInterrupt):
        raise
    except BrokenPipeError:
        raise typer.Exit(EXIT_BROKEN_PIPE) from None
    except Exception as exc:
        if debug:
            traceback.print_exc()
        report([_internal(exc, debug)], as_json=as_json)
        raise typer.Exit(EXIT_INTERNAL) from None


def report(diagnostics: Sequence[Diagnostic], *, as_json: bool = False) -> None:
    """Prints diagnostics: as text on standard error, or as ``{"error": [...]}`` on standard output."""
    if as_json:
        print(json.dumps({"error": [diagnostic.to_dict() for diagnostic in diagnostics]}, indent=2))
    else:
        print("\n\n".join(render(diagnostic) for diagnostic in diagnostics), file=sys.stderr)


def _internal(exc: Exception, debug: bool) -> Diagnostic:
    last = traceback.extract_tb(exc.__traceback__)[-1]
    place = f"raised in {last.name}, {last.filename.rsplit('/', 1)[-1]}:{last.lineno}"
    return Diagnostic(
        "FORGE-X001",
        f"internal error: {type(exc).__name__}: {exc}".splitlines()[0].rstrip(".: "),
        notes=(place,),
        help="please report it" + ("" if debug else "; --debug prints the traceback"),
    )
