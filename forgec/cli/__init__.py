"""The ``forgec`` command: parses, calls, prints; no logic of its own.

Importing this imports neither torch nor xdsl nor numpy: commands import what they need when they run. ``forgec check``
answers before the command line as a whole would be imported.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from forgec.cli.exit_codes import EXIT_BROKEN_PIPE, EXIT_DIAGNOSTICS, EXIT_INTERRUPTED

__all__ = ["main", "run"]


def run(arguments: Sequence[str]) -> int:
    """Runs one command line (without the program's name) and returns its exit code."""
    if arguments[:1] == ["check"]:
        from forgec.cli.check_command import check

        return check(arguments[1:])
    try:
        from forgec.cli.app import run as run_any
    except ModuleNotFoundError as reason:
        if reason.name != "typer":
            raise
        print("forgec's command line needs typer: pip install 'forgec[cli]'", file=sys.stderr)
        return EXIT_DIAGNOSTICS
    return run_any(arguments)


def main() -> None:
    """The console script."""
    try:
        code = run(sys.argv[1:])
    except KeyboardInterrupt:
        code = EXIT_INTERRUPTED
    if code == EXIT_BROKEN_PIPE:  # nobody reads on: keep the interpreter from flushing to the closed pipe at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(code)
