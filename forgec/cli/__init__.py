"""The ``forgec`` command: parses, calls, prints; no logic of its own.

Importing this imports neither torch nor xdsl nor numpy: commands import what they need when they run.
"""

from forgec.cli.app import main, run

__all__ = ["main", "run"]
