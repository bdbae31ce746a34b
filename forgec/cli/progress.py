"""The current phase of a long command, beside a spinner on standard error."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def progress(*, quiet: bool) -> Iterator[Callable[[str], None]]:
    """A function that shows the current phase; nothing is shown if ``quiet``."""
    if quiet:
        yield lambda phase: None
        return
    from rich.console import Console

    with Console(stderr=True).status("") as status:
        yield lambda phase: status.update(f"{phase} …")
