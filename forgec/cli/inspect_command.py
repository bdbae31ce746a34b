"""``forgec inspect``: what an artifact holds, without running it."""

from __future__ import annotations

import json as json_module
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from forgec.cli.errors import reporting


class Level(StrEnum):
    """The levels of IR that artifacts hold."""

    forge = "forge"
    plan = "plan"


def inspect(
    artifact: Annotated[Path, typer.Argument(help="An artifact that 'forgec compile' wrote.")],
    ir: Annotated[Level | None, typer.Option("--ir", help="Print the IR of this level and nothing else.")] = None,
    locations: Annotated[bool, typer.Option("--locations", help="With --ir: print loc(…), the model's lines.")] = False,
    memory: Annotated[bool, typer.Option("--memory", help="Show every buffer with its place and its life.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print everything as JSON.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Print tracebacks.")] = False,
) -> None:
    """Show what an artifact was compiled for, how it is called, what it runs and the memory that it needs."""
    with reporting(as_json=json, debug=debug):
        from forgec.diagnostics import error
        from forgec.runtime import open_artifact

        opened = open_artifact(artifact)
        if ir is not None:
            from forgec.cli.ir_text import without_locations

            text = opened.ir(ir.value) if locations else without_locations(opened.ir(ir.value))
            sys.stdout.write(json_module.dumps({"ir": {ir.value: text}}) + "\n" if json else text)
            return
        if json:
            data: dict[str, Any] = {"manifest": opened.manifest, "report": opened.report}
            if memory:
                from forgec.cli.memory_view import as_data

                data["memory"] = [as_data(opened.plan, entry) for entry in opened.plan.entries]
            print(json_module.dumps(data, indent=2))
            return
        from forgec.cli import inspect_view, memory_view

        console = inspect_view.console()
        try:
            inspect_view.show(console, opened)
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as reason:
            # Loading checks what it uses of the manifest and nothing of the report: here is where their form shows.
            message = f"'{artifact}' cannot be shown: its manifest or report is not of the form that forgec writes"
            raise error("FORGE-A003", message) from reason
        if memory:
            for entry in opened.plan.entries:
                memory_view.show(console, opened.plan, entry)
