"""Writes the pages of docs/ that are generated from the code; with --check only says which are out of date."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from functools import cache
from itertools import groupby
from pathlib import Path

from forgec.cli.exit_codes import EXIT_CODES
from forgec.diagnostics.catalog import CATALOG

DOCS = Path(__file__).resolve().parent.parent / "docs"
MODELS = DOCS / "models.json"
KERNELS = DOCS / "kernels.json"
EXAMPLE = DOCS.parent / "tests" / "passes" / "tiles" / "smoothstep.py"
CASES = DOCS.parent / "tests" / "filecheck" / "passes"

FAMILIES = {
    "U": "Usage",
    "C": "Capture",
    "I": "Intermediate representation",
    "P": "Passes",
    "O": "Optimisation remarks",
    "S": "Schedules",
    "B": "Backends",
    "A": "Artifact",
    "R": "Run time",
    "V": "Verification",
    "X": "Internal",
}


def errors_page() -> str:
    """docs/errors.md: every diagnostic with its explanation and remedy, by family, and the exit codes."""
    lines = [
        "# Error codes",
        "",
        "Every error that forgec reports has a code; `forgec explain CODE` prints the same text. Errors go to standard",
        "error, or, with `--json`, to standard output as",
        '`{"error": [{"code": …, "severity": …, "message": …, "location": …, "notes": […], "help": …}]}`.',
        "",
        "This page is generated from `forgec/diagnostics/catalog.py` by `make docs`.",
    ]
    for family, codes in groupby(sorted(CATALOG, key=_in_page_order), key=_family):
        lines += ["", f"## {FAMILIES[family]}"]
        for code in codes:
            entry = CATALOG[code]
            lines += ["", f"### {code}: {entry.title}", "", entry.explanation, "", f"**What to do:** {entry.remedy}"]
    lines += ["", "## Exit codes", "", "| code | meaning |", "|---|---|"]
    lines += [f"| {code} | {meaning} |" for code, meaning in EXIT_CODES.items()]
    return "\n".join(lines) + "\n"


def ir_page() -> str:
    """docs/ir.md: the reference of the dialects."""
    from forgec.ir.reference_docs import document

    return document()


def coverage_page() -> str:
    """docs/coverage.md: which operators work, at which stage."""
    from forgec.report.coverage_page import coverage_page
    from forgec.report.kernels_section import kernels_section, recorded

    return f"{coverage_page()}\n{kernels_section(recorded(KERNELS))}\n{models_section()}"


def models_section() -> str:
    """The architectures of the tests, from the last run of ``python -m tools.models``."""
    models = json.loads(MODELS.read_text(encoding="utf-8"))
    captured = {name: found for name, found in models.items() if "refused" not in found}
    worst = max((max(found["static"], found.get("dynamic", 0.0)) for found in captured.values()), default=0.0)
    lines = [
        "",
        "## Models",
        "",
        f"{len(models)} architectures of transformers at small sizes, with random weights, float32 on the CPU, as",
        "`python -m tools.models` found them: the largest absolute difference of any result from eager PyTorch, for",
        "the shapes of the example, and for one program with extents that vary, called with others. Fallbacks are the",
        "calls of operators that have neither an op nor a kernel of their own.",
        f"{len(captured)} compile, with differences of at most {worst:.1e};",
        f"{len(models) - len(captured)} are refused by torch.export itself.",
        "",
        "| model | ops | static | dynamic | varies | fixed by torch.export | fallbacks |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, found in sorted(captured.items()):
        dynamic = f"{found['dynamic']:.1e}" if "dynamic" in found else "–"
        fallbacks = ", ".join(f"{count} × `{op}`" for op, count in sorted(found["fallbacks"].items())) or "–"
        extents = ", ".join(found["varies"]) or "–", ", ".join(found["fixed"]) or "–"
        cells = (name, str(found["ops"]), f"{found['static']:.1e}", dynamic, *extents, fallbacks)
        lines.append(f"| {' | '.join(cells)} |")
    lines += ["", "Refused by torch.export:", ""]
    lines += [f"- {name}: “{found['refused']}”" for name, found in sorted(models.items()) if "refused" in found]
    return "\n".join(lines) + "\n"


@cache
def passes_page() -> str:
    """docs/passes.md: every pass, with a case of its test."""
    from forgec.report.passes_page import passes_page

    return passes_page(CASES)


@cache
def tile_page() -> str:
    """docs/tile.md: the level of tiles, with IR that is printed for it."""
    from forgec.report.tile_page import tile_page

    return tile_page(EXAMPLE)


def _family(code: str) -> str:
    return code.removeprefix("FORGE-")[0]


def _in_page_order(code: str) -> tuple[int, str]:
    return list(FAMILIES).index(_family(code)), code


PAGES: dict[str, Callable[[], str]] = {
    "errors.md": errors_page,
    "ir.md": ir_page,
    "coverage.md": coverage_page,
    "passes.md": passes_page,
    "tile.md": tile_page,
}
"""Generated pages by file name in docs/."""


def main(arguments: list[str]) -> int:
    """Writes or checks all pages; returns the exit code."""
    from forgec.report.pass_cases import CaseError

    stale: list[str] = []
    failed = False
    for name, generate in PAGES.items():
        try:
            path, text = DOCS / name, generate()
        except CaseError as reason:
            print(f"docs/{name}: {reason}", file=sys.stderr)
            failed = True
            continue
        if path.exists() and path.read_text(encoding="utf-8") == text:
            continue
        stale.append(name)
        if "--check" not in arguments:
            path.write_text(text, encoding="utf-8")
            print(f"wrote docs/{name}")
    if stale and "--check" in arguments:
        print(f"out of date: {', '.join(f'docs/{name}' for name in stale)}; run 'make docs'", file=sys.stderr)
        return 1
    return int(failed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
