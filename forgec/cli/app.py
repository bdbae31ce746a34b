"""The command line as a whole: the commands, ``--version``, the help page and the way out."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import typer

from forgec import __version__
from forgec.cli import (
    bisect_command,
    cache_command,
    check_command,
    compile_command,
    doctor_command,
    explain_command,
    inspect_command,
    ops_command,
    opt_command,
    run_command,
    schedule_command,
    verify_command,
)
from forgec.cli.exit_codes import EXIT_BROKEN_PIPE, EXIT_CODES

_VARIABLES = {
    "FORGEC_TARGET": "what to compile for where no --target is given",
    "FORGEC_CACHE_DIR": "where compiled kernels and solved schedules are kept (see 'forgec cache path')",
    "FORGEC_PERF=1": "programs list their kernels in /tmp/perf-PID.map, for perf",
}


def _table(title: str, rows: Mapping[Any, str]) -> str:
    width = max(4, *(len(str(name)) for name in rows))
    return "\n".join([f"\b\n{title}:", *(f"  {name:<{width}} {text}" for name, text in rows.items())])


_EPILOG = "\n\n".join([_table("Exit codes", EXIT_CODES), _table("Environment variables", _VARIABLES)])

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
app.command("check", help=check_command.SUMMARY)(check_command.listed)
app.command("verify")(verify_command.verify)
app.command("bisect")(bisect_command.bisect)
app.command("opt")(opt_command.opt)
app.command("schedule")(schedule_command.schedule)
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
