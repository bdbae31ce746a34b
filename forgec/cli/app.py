"""The command line as a whole: the commands, ``--version``, the help page and the way out."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from forgec import __version__
from forgec.cli import (
    bisect_command,
    cache_command,
    compile_command,
    doctor_command,
    explain_command,
    inspect_command,
    ops_command,
    opt_command,
    run_command,
    verify_command,
)
from forgec.cli.errors import EXIT_BROKEN_PIPE, EXIT_CODES, EXIT_INTERRUPTED

_EPILOG = "\n\n".join(["\b\nExit codes:\n" + "\n".join(f"  {code:<4} {text}" for code, text in EXIT_CODES.items())])

app = typer.Typer(
    name="forgec",
    help="Compile a transformer into one artifact that a small runtime loads and runs.",
    epilog=_EPILOG,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
app.command("compile")(compile_command.compile_)
app.command("run")(run_command.run)
app.command("inspect")(inspect_command.inspect)
app.command("verify")(verify_command.verify)
app.command("bisect")(bisect_command.bisect)
app.command("opt")(opt_command.opt)
app.command("doctor")(doctor_command.doctor)
app.command("ops")(ops_command.ops)
app.command("explain")(explain_command.explain)
app.add_typer(cache_command.cache)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"forgec {__version__}")
        raise typer.Exit


@app.callback()
def _global_options(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    pass


def run(arguments: Sequence[str]) -> int:
    """Runs one command line (without the program's name) and returns its exit code."""
    try:
        app(args=list(arguments), prog_name="forgec")
    except SystemExit as exc:
        code = exc.code if isinstance(exc.code, int) else 0 if exc.code is None else 1
    else:
        code = 0
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        return EXIT_BROKEN_PIPE
    return code


def main() -> None:
    """The console script."""
    try:
        code = run(sys.argv[1:])
    except KeyboardInterrupt:
        code = EXIT_INTERRUPTED
    if code == EXIT_BROKEN_PIPE:  # nobody reads on: keep the interpreter from flushing to the closed pipe at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(code)
