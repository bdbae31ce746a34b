"""docs/passes.md: what every pass does, from its docstring and its tests."""

from __future__ import annotations

import dataclasses
import inspect
import re
from pathlib import Path

from xdsl.passes import ModulePass

from forgec.diagnostics import Diagnostic
from forgec.diagnostics.catalog import CATALOG
from forgec.passes import pipelines
from forgec.passes.registry import available_passes
from forgec.report.pass_cases import CaseError, PassCases, evaluate_cases

PRESET = "@O2"
SHOWN_REMARKS = 4
"""Remarks of one code that are shown for each pass."""

INTRODUCTION = """\
# Passes

Every pass of forgec, in the order in which `@O2` runs them first, then the others. *Before* is a case of the pass's own
test, in `tests/filecheck/passes/`, and *After* what the pipeline that is named there makes of it.

This page is generated from the passes and their tests by `make docs`. How to write a pass, and how to test it, is in
the [cookbook](cookbook.md#write-a-pass); what the ops mean is in the [reference of the IR](ir.md). `forgec opt` runs
passes on text, and `--time-passes` shows what each took and did.
"""

REMARKS = """\
## Remarks

`--remarks=applied`, `missed` or `all`, of `forgec compile` and `forgec opt`, shows what passes did and did not do, with
the line of the model. Their codes ([all codes](errors.md)):
"""


def passes_page(folder: Path) -> str:
    """The page, for the tests in ``folder``. Raises CaseError with all that is missing."""
    classes = {name: load() for name, load in available_passes().items()}
    steps = _steps()
    names = [*steps, *(name for name in classes if name not in steps)]
    docs: dict[str, PassDoc] = {}
    missing: list[str] = []
    for name in names:
        try:
            docs[name] = PassDoc.of(classes[name], evaluate_cases(name, folder))
        except CaseError as reason:
            missing.append(str(reason))
        else:
            if name in steps and not docs[name].order:
                missing.append(f"pass {name} is part of {PRESET}: end its docstring with 'Order: why it stands there.'")
    if missing:
        raise CaseError("\n".join(missing))
    parts = [INTRODUCTION, _overview(steps, docs), REMARKS, *(_remark_code(code) for code in _remark_codes())]
    parts += ["", *("\n".join(docs[name].lines(steps.get(name, []))) for name in names)]
    return "\n".join(parts) + "\n"


@dataclasses.dataclass(frozen=True)
class PassDoc:
    """What the page says of one pass."""

    pass_class: type[ModulePass]
    cases: PassCases
    summary: str
    details: list[str]
    order: str

    @classmethod
    def of(cls, pass_class: type[ModulePass], cases: PassCases) -> PassDoc:
        """Take the docstring apart: a summary, ``Before::`` and ``After::`` (which the tests show better), more, and
        ``Order: …``.
        """
        summary, *rest = _paragraphs(inspect.getdoc(pass_class) or "")
        order = next((p.removeprefix("Order:").strip() for p in rest if p.startswith("Order:")), "")
        return cls(pass_class, cases, summary, [p for p in rest if not p.startswith("Order:")], order)

    def lines(self, steps: list[int]) -> list[str]:
        """The section of the page."""
        case = self.cases.shown
        lines = [f"## {self.pass_class.name}", "", self.summary, ""]
        for paragraph in self.details:
            lines += [paragraph, ""]
        lines += [_place(steps, self.order), ""]
        options = dataclasses.fields(self.pass_class)
        if options:
            lines += ["| option | type | default |", "|---|---|---|", *map(_option, options), ""]
        lines += [f"Before (`{case.file.name}`): {case.shows}", "", "```mlir", case.text, "```", ""]
        lines += [f"After `{case.pipeline}`:", "", "```mlir", self.cases.after, "```", ""]
        if self.cases.left_alone:
            lines += ["Cases that it leaves alone:", "", *(f"- {text}" for text in self.cases.left_alone), ""]
        remarks = [r for code in _remark_codes() for r in self._remarks(code)[:SHOWN_REMARKS]]
        if remarks:
            lines += ["Remarks, as its tests have them:", ""]
            lines += [f"- `{r.code}` {'; '.join(map(_escaped, (r.message, *r.notes)))}" for r in remarks] + [""]
        return lines

    def _remarks(self, code: str) -> list[Diagnostic]:
        return [remark for remark in self.cases.remarks if remark.code == code]


def _steps() -> dict[str, list[int]]:
    """The numbers of the steps of the preset that each of its passes is, by name, in order."""
    steps: dict[str, list[int]] = {}
    for number, step in enumerate(pipelines.parse(PRESET), 1):
        steps.setdefault(step.name, []).append(number)
    return steps


def _overview(steps: dict[str, list[int]], docs: dict[str, PassDoc]) -> str:
    lines = [f"## The order of `{PRESET}`", "", "```"]
    lines += [f"{name:<11} {text or '(no passes)'}" for name, text in pipelines.PRESETS.items()]
    lines += ["```", "", f"Where the passes of `{PRESET}` stand, and why:", "", "| steps | pass | why there |"]
    lines.append("|---|---|---|")
    for name, numbers in steps.items():
        lines.append(f"| {', '.join(map(str, numbers))} | [{name}](#{name}) | {' '.join(docs[name].order.split())} |")
    return "\n".join([*lines, ""])


def _place(steps: list[int], order: str) -> str:
    count = f"Step{'s' * (len(steps) > 1)} {_listed(steps)} of `{PRESET}`" if steps else f"Not in `{PRESET}`"
    return f"{count}{': ' if order else '.'}{order}"


def _listed(numbers: list[int]) -> str:
    *most, last = map(str, numbers)
    return f"{', '.join(most)} and {last}" if most else last


def _option(option: dataclasses.Field) -> str:
    default = option.default if option.default is not dataclasses.MISSING else "–"
    shown = str(default).lower() if isinstance(default, bool) else str(default)
    kind = option.type if isinstance(option.type, str) else getattr(option.type, "__name__", str(option.type))
    return f"| `{option.name.replace('_', '-')}` | {kind.replace('|', 'or')} | `{shown}` |"


def _remark_codes() -> list[str]:
    return [code for code in CATALOG if code.startswith("FORGE-O")]


def _remark_code(code: str) -> str:
    entry = CATALOG[code]
    return f"- `{code}`, {entry.title}: {entry.explanation}"


def _paragraphs(docstring: str) -> list[str]:
    """The paragraphs of a docstring as Markdown, without the IR before and after."""
    found: list[str] = []
    literal: list[str] = []
    shown = True
    for part in [*docstring.split("\n\n"), ""]:
        if literal and part.startswith("  "):
            literal.append(part)
            continue
        if len(literal) > 1 and shown:
            found.append("```\n" + inspect.cleandoc("\n\n".join(literal[1:])) + "\n```")
        literal = [part] if part.endswith("::") else []
        shown = part not in ("Before::", "After::")
        if part and shown:
            found.append(_markdown(part.removesuffix("::") + ":" * bool(literal)))
    return found


def _markdown(text: str) -> str:
    text = re.sub(r":\w+:`~?([^`]+)`", r"`\1`", text)
    return text.replace("``", "`")


def _escaped(text: str) -> str:
    return text.replace("*", "\\*").replace("<", "\\<")
