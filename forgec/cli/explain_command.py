"""``forgec explain``: what an error code means and what to do about it."""

from __future__ import annotations

import difflib
import textwrap
from typing import Annotated

import typer

from forgec.cli.errors import reporting


def explain(
    code: Annotated[str, typer.Argument(help="A code such as FORGE-R004; without one, all codes are listed.")] = "",
) -> None:
    """Say what an error code means and what to do about it."""
    from forgec.diagnostics import error
    from forgec.diagnostics.catalog import CATALOG

    with reporting():
        if not code:
            print("\n".join(f"{known}  {entry.title}" for known, entry in sorted(CATALOG.items())))
            return
        wanted = code.upper()
        if wanted not in CATALOG and f"FORGE-{wanted}" in CATALOG:
            wanted = f"FORGE-{wanted}"
        if wanted not in CATALOG:
            close = difflib.get_close_matches(wanted, CATALOG, n=1)
            hint = f"did you mean {close[0]}?" if close else "'forgec explain' lists all codes"
            raise error("FORGE-U007", f"there is no diagnostic {code}", help=hint)
        entry = CATALOG[wanted]
        paragraphs = (f"{wanted}: {entry.title}", entry.explanation, f"What to do: {entry.remedy}")
        print("\n\n".join(textwrap.fill(paragraph, 100) for paragraph in paragraphs))
