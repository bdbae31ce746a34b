"""``forgec`` and ``python -m forgec``: the command line."""

from __future__ import annotations

from forgec.cli import main

__all__ = ["main"]

if __name__ == "__main__":
    main()
