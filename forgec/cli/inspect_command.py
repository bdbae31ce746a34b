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
    """The levels of IR: artifacts hold all but ``llvm``, which is made of ``tile``."""

    forge = "forge"
    tile = "tile"
    plan = "plan"
    llvm = "llvm"


def inspect(
    artifact: Annotated[Path, typer.Argument(help="An artifact that 'forgec compile' wrote.")],
    ir: Annotated[Level | None, typer.Option("--ir", help="Print the IR of this level and nothing else.")] = None,
    kernel: Annotated[
        str | None, typer.Option("--kernel", metavar="NAME", help="With --ir tile or llvm: only this kernel.")
    ] = None,
    locations: Annotated[bool, typer.Option("--locations", help="With --ir: print loc(…), the model's lines.")] = False,
    memory: Annotated[bool, typer.Option("--memory", help="Show every buffer with its place and its life.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print everything as JSON.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Print tracebacks.")] = False,
) -> None:
    """Show what an artifact was compiled for, how it is called, what it runs and the memory that it needs.

    With --ir it prints the IR of a level: forge (after the passes), tile (the kernels, each with the candidates for its
    tile extents and their estimates), plan (what is executed), or llvm (what the kernels become, for the greatest
    level of x86-64 that the artifact has).
    """
    with reporting(as_json=json, debug=debug):
        from forgec.diagnostics import error
        from forgec.runtime import open_artifact

        opened = open_artifact(artifact)
        if ir is not None:
            from forgec.cli.ir_text import without_locations

            stored = opened.ir("tile" if ir is Level.llvm else ir.value)
            text = stored if locations else without_locations(stored)
            if ir in (Level.tile, Level.llvm):
                text = _kernels(opened, ir, text, stored, kernel)
            elif kernel is not None:
                raise error("FORGE-U005", f"--kernel is for --ir tile and --ir llvm, not for --ir {ir.value}")
            sys.stdout.write(json_module.dumps({"ir": {ir.value: text}}) + "\n" if json else text)
            return
        if kernel is not None:
            raise error("FORGE-U005", "--kernel is for --ir tile and --ir llvm")
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


def _kernels(opened: Any, level: Level, text: str, stored: str, kernel: str | None) -> str:
    from forgec.cli import tile_view
    from forgec.diagnostics import error

    names = tile_view.kernel_names(text)
    if kernel is not None and kernel not in names:
        raise error("FORGE-U005", f"there is no kernel {kernel}", help=f"the kernels are: {', '.join(names) or 'none'}")
    if level is Level.llvm:
        from forgec.backends.cpu.backend import LEVELS

        images = [image.table.image for image in opened.images]
        variant = images[-1] if images else opened.manifest["target"]
        if variant.partition("+")[0] not in LEVELS:
            raise error("FORGE-U005", f"kernels for {variant} have no LLVM IR, those for {', '.join(LEVELS)} have")
        return tile_view.llvm(stored, variant, kernel)
    try:
        return tile_view.annotated(text, opened.report.get("kernels", []), kernel)
    except (AttributeError, LookupError, TypeError, ValueError) as reason:
        raise error(
            "FORGE-A003", f"'{opened.path}' has a report that is not of the form that forgec writes"
        ) from reason
