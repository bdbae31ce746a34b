"""The forgec command as a function, for tests."""

from __future__ import annotations

import io
import json
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

from forgec.cli import run


@dataclass(frozen=True)
class Finished:
    """Exit code and what was printed."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """Standard output, parsed."""
        return json.loads(self.out)

    @property
    def error_codes(self) -> list[str]:
        """The codes of the diagnostics that ``--json`` printed."""
        return [entry["code"] for entry in self.json["error"]]


def forgec(*arguments: object, stdin: bytes = b"") -> Finished:
    """Runs a command line in this process."""
    out, err = io.StringIO(), io.StringIO()
    stdin_stream = io.TextIOWrapper(io.BytesIO(stdin), encoding="utf-8")
    with redirect_stdout(out), redirect_stderr(err), patch("sys.stdin", stdin_stream):
        code = run([str(argument) for argument in arguments])
    return Finished(code, out.getvalue(), err.getvalue())
