"""What the FileCheck tests of passes say about them: a marked case to show, and what the passes leave alone.

The case that docs/passes.md shows has a line ``// DOC: …`` among the comments above it, which says what it shows. What
the page prints as the result is what the pipeline of the file's RUN line makes of the case, so it is always true.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TypeVar

from xdsl.context import Context

from forgec.diagnostics import Diagnostic, ForgeError
from forgec.passes import ir_source, pipelines
from forgec.passes.instruments import ir_text
from forgec.passes.ir_source import Piece
from forgec.passes.manager import run_pipeline
from forgec.passes.registry import available_passes

T = TypeVar("T")

MARK = "// DOC:"
LONGEST = 22
"""Lines that a case may have to be shown."""


class CaseError(Exception):
    """A test that cannot be shown, or none at all; the message says what to write where."""


@dataclass(frozen=True)
class Case:
    """A case of a test file. ``says`` is the comment above it, ``shows`` what follows its mark (None without one)."""

    file: Path
    piece: Piece
    pipeline: str
    says: str
    shows: str | None

    @property
    def text(self) -> str:
        """The IR without the comments of the test."""
        lines = [line.rstrip() for line in self.piece.text.splitlines()]
        return "\n".join(line for line in lines if line and not line.lstrip().startswith("//"))


@dataclass
class PassCases:
    """What the tests of one pass show: IR before and after, what it leaves alone, the remarks that it leaves."""

    shown: Case
    after: str
    left_alone: list[str] = field(default_factory=list)
    remarks: list[Diagnostic] = field(default_factory=list)


def cases_of(name: str, folder: Path) -> list[Case]:
    """The cases of a pass: of ``<name>.mlir`` and of files whose names go on after that (``<name>-refuse.mlir``)."""
    return [case for path in sorted(folder.glob(f"{name}*.mlir")) if _owner(path.stem) == name for case in _read(path)]


def evaluate_cases(name: str, folder: Path) -> PassCases:
    """Run the pass on its cases. Raises CaseError where none is marked, or the marked one cannot be shown."""
    cases = cases_of(name, folder)
    shown = _marked(name, cases, folder)
    context = _context()
    result = PassCases(shown, _after(shown, context))
    if result.after == _program(ir_text(ir_source.parse(shown.piece, context).module)):
        raise CaseError(f"{shown.file.name}: the pass leaves the case that {MARK} marks as it is")
    for case in cases:
        module = ir_source.parse(case.piece, context).module
        before = ir_text(module)
        alone = [p for p in pipelines.parse(case.pipeline) if p.name == name]
        try:
            reports = run_pipeline(module, alone, context=context)
        except ForgeError as refusal:
            _add(result.left_alone, [f"`{d.code}` {d.message}" for d in refusal.diagnostics])
            continue
        _add(result.remarks, [_without_place(remark) for report in reports for remark in report.remarks])
        if ir_text(module) == before and case.says:
            _add(result.left_alone, [case.says])
    return result


def _marked(name: str, cases: list[Case], folder: Path) -> Case:
    marked = [case for case in cases if case.shows is not None]
    where = folder / f"{name}.mlir"
    if not marked:
        raise CaseError(f"pass {name} has no case to show: write '{MARK} what it shows.' above a short one in {where}")
    if len(marked) > 1:
        raise CaseError(f"pass {name} has {len(marked)} cases with '{MARK}' in {where}: mark one")
    lines = marked[0].text.count("\n") + 1
    if lines > LONGEST:
        raise CaseError(f"pass {name}: the case that {MARK} marks in {where} has {lines} lines, at most {LONGEST} fit")
    return marked[0]


def _after(case: Case, context: Context) -> str:
    module = ir_source.parse(case.piece, context).module
    run_pipeline(module, case.pipeline, context=context)
    return _program(ir_text(module))


def _program(text: str) -> str:
    """The text of a module without the op around it."""
    lines = text.strip().splitlines()
    if lines[0] == "builtin.module {" and lines[-1] == "}":
        lines = [line.removeprefix("  ") for line in lines[1:-1]]
    return "\n".join(lines)


def _read(path: Path) -> list[Case]:
    text = path.read_text(encoding="utf-8")
    run = re.search(r"^// RUN: .*? -p (?:'([^']*)'|(\S+)).*$", text, re.MULTILINE)
    if run is None:
        return []
    cases = []
    for piece in ir_source.split(path.name, text, at_separators="--split-input-file" in run[0]):
        says, shows = _comment(piece.text.splitlines())
        cases.append(Case(path, piece, run[1] or run[2], says, shows))
    return cases


def _comment(lines: Iterable[str]) -> tuple[str, str | None]:
    """What the comments above a case say, without those for tools, and what follows its mark."""
    says: list[str] = []
    shows = None
    for line in lines:
        if line.startswith(MARK):
            shows = line.removeprefix(MARK).strip()
        elif line.startswith("//"):
            if not re.match(r"// ?(RUN|CHECK[\w-]*|expected-\S+):?", line):
                says.append(line.removeprefix("//").strip())
        elif line.strip():
            break
    return " ".join(says), shows


def _owner(stem: str) -> str | None:
    return max((n for n in available_passes() if stem == n or stem.startswith(f"{n}-")), key=len, default=None)


def _add(known: list[T], found: Iterable[T]) -> None:
    known += [item for item in dict.fromkeys(found) if item not in known]


def _without_place(remark: Diagnostic) -> Diagnostic:
    return Diagnostic(remark.code, remark.message, notes=remark.notes, severity=remark.severity)


@cache
def _context() -> Context:
    return ir_source.context()
