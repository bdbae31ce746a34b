"""Runs every ``.mlir`` file below this folder that has ``// RUN:`` lines, as lit would, but within pytest's process.

    // RUN: forgec opt %s -p 'canonicalize' | filecheck %s
    // RUN: not forgec opt %s -p 'no-such-pass' 2>&1 | filecheck %s --check-prefix=ERROR

Commands are ``forgec …`` (``not`` before it: it must fail) and, last in a line, ``filecheck …``; ``%s`` is the file
itself. Starting no process, hundreds of files take seconds.
"""

from __future__ import annotations

import io
import os
import re
import shlex
from collections.abc import Iterable
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from unittest.mock import patch

import pytest

_RUN = re.compile(r"^\s*//\s*RUN:\s*(.*)$", re.MULTILINE)


class RunLineFailed(Exception):
    """A RUN line did not do what it should; the message is what a reader of the test's output needs."""


def pytest_collect_file(parent: pytest.Collector, file_path: Path) -> pytest.Collector | None:
    """Collects ``.mlir`` files."""
    if file_path.suffix == ".mlir":
        return MlirFile.from_parent(parent, path=file_path)
    return None


class MlirFile(pytest.File):
    """A file with RUN lines; one without is an error, because it would silently test nothing."""

    def collect(self) -> Iterable[pytest.Item]:
        lines = _RUN.findall(self.path.read_text(encoding="utf-8"))
        if not lines:
            raise self.CollectError(f"{self.path} has no '// RUN:' line")
        for number, line in enumerate(lines, 1):
            yield RunLine.from_parent(self, name=f"RUN{number}" if len(lines) > 1 else "RUN", line=line)


class RunLine(pytest.Item):
    """One RUN line."""

    def __init__(self, *, line: str, **kwargs: object) -> None:
        super().__init__(**kwargs)  # pyright: ignore[reportArgumentType]
        self.line = line

    def runtest(self) -> None:
        """Runs the commands of the line from left to right, each reading what the one before it printed."""
        text = ""
        for command in self.line.split(" | "):
            words = shlex.split(command.replace("%s", shlex.quote(str(self.path))))
            joined = "2>&1" in words
            words = [word for word in words if word != "2>&1"]
            must_fail = words[0] == "not"
            program, *arguments = words[must_fail:]
            if program == "filecheck":
                _filecheck(arguments, text)
            elif program == "forgec":
                text = _forgec(arguments, text, must_fail, joined)
            else:
                raise RunLineFailed(f"RUN line has the unknown command {program!r}: {self.line}")

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: object = None) -> str:
        """The message alone for failed checks, the traceback for anything unforeseen."""
        if isinstance(excinfo.value, RunLineFailed):
            return f"{self.line}\n{excinfo.value}"
        return str(super().repr_failure(excinfo))

    def reportinfo(self) -> tuple[Path, int, str]:
        return self.path, 0, f"{self.path.name}: {self.name}"


def _forgec(arguments: list[str], stdin: str, must_fail: bool, joined: bool) -> str:
    from forgec.cli import run

    out = io.StringIO()
    err = out if joined else io.StringIO()
    stdin_stream = io.TextIOWrapper(io.BytesIO(stdin.encode()), encoding="utf-8")
    with redirect_stdout(out), redirect_stderr(err), patch("sys.stdin", stdin_stream):
        code = run(arguments)
    if (code != 0) != must_fail:
        printed = err.getvalue()
        raise RunLineFailed(f"forgec exited with {code}\n{printed}")
    return out.getvalue()


def _filecheck(arguments: list[str], text: str) -> None:
    from filecheck.finput import FInput
    from filecheck.matcher import Matcher
    from filecheck.options import parse_argv_options
    from filecheck.parser import Parser

    options = parse_argv_options(["filecheck", *arguments])
    err = io.StringIO()
    with redirect_stderr(err), patch.dict(os.environ, {"NO_COLOR": "1"}):
        code = Matcher(options, FInput("-", FInput.canonicalize_line_ends(text)), Parser.from_opts(options)).run()
    if code:
        raise RunLineFailed(f"{err.getvalue()}\n--- output that was checked\n{text}")
