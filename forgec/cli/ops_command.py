"""``forgec ops``: which operators work, at which stage."""

from __future__ import annotations

import json as json_module
from collections import Counter
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Annotated

import typer

from forgec.cli.errors import reporting

if TYPE_CHECKING:
    from forgec.report.coverage import Entry


def ops(
    pattern: Annotated[
        str, typer.Argument(help="Show what has this in its name; * and ? stand for anything: 'aten::add*'.")
    ] = "",
    backend: Annotated[str, typer.Option("--backend", metavar="NAME", help="The backend to ask.")] = "aten",
    json: Annotated[bool, typer.Option("--json", help="Print the matrix as JSON.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Print tracebacks.")] = False,
) -> None:
    """Show which operators are captured, interpreted and lowered, or why they are not.

    Without a pattern: the ops of the forge dialect, the operators on functions (torch.cond), and how many operators of
    ATen there are of each kind. Operators of ATen without an op of their own run as forge.aten.
    """
    with reporting(as_json=json, debug=debug):
        from forgec.backends.base import backend_named
        from forgec.report.coverage import aten_entries, control_entries, forge_entries

        found = backend_named(backend)
        forge = [entry for entry in forge_entries(found) if _matches(entry.name, pattern)]
        control = [entry for entry in control_entries() if _matches(entry.name, pattern)]
        aten = [entry for entry in aten_entries(found) if _matches(entry.name, pattern)]
        if json:
            listed = [entry.to_dict() for entry in (*forge, *control, *aten)]
            print(json_module.dumps({"backend": found.name, "operators": listed}, indent=2))
            return
        supported = [entry for entry in control if entry.kind == "control"]
        _show(forge, control if pattern else supported, aten if pattern else [], found.name)
        if not pattern:
            _summarize(aten)
        elif not forge and not control and not aten:
            print(f"no operator has {pattern!r} in its name")


def _matches(name: str, pattern: str) -> bool:
    return fnmatchcase(name, pattern) if any(c in pattern for c in "*?[") else pattern in name


def _show(forge: list[Entry], control: list[Entry], aten: list[Entry], backend: str) -> None:
    from forgec.cli.inspect_view import console, escaped, table

    out = console()
    for title, entries in (("op", forge), ("operator on functions", control), ("operator of ATen", aten)):
        if entries:
            rows = table(title, "capture", "reference", f"backend {backend}")
            for entry in entries:
                rows.add_row(*(escaped(str(cell)) for cell in (entry.name, *_cells(entry))))
            out.print(rows)
            out.print()


def _cells(entry: Entry) -> tuple[object, ...]:
    """The three cells; what is refused everywhere says so once."""
    if entry.kind == "refused":
        return (entry.capture, "", "")
    return (entry.capture, entry.reference, entry.backend)


_KINDS = {
    "row": "have ops of their own",
    "fallback": "run as forge.aten",
    "write": "write their arguments: captured as values, and written back",
    "number": "yield numbers of the program",
    "refused": "are refused",
}


def _summarize(aten: list[Entry]) -> None:
    counts = Counter(entry.kind for entry in aten)
    print(f"{len(aten)} operators of ATen; 'forgec ops aten::' lists them:")
    for kind, text in _KINDS.items():
        print(f"{counts[kind]:>6}  {text}")
