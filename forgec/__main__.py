"""``forgec`` and ``python -m forgec``: the command line."""

from __future__ import annotations

import sys


def main() -> None:
    """Runs the command line, or says what it needs."""
    try:
        from forgec.cli import main as run
    except ModuleNotFoundError as reason:
        if reason.name != "typer":
            raise
        sys.exit("forgec's command line needs typer: pip install 'forgec[cli]'")
    run()


if __name__ == "__main__":
    main()
