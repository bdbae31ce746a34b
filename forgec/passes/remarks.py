"""Warnings and remarks of passes: facts that do not stop the pipeline, such as an optimisation that was refused.

A pass calls :func:`emit`; whoever runs it wraps the run in :func:`collected`. Outside of that, remarks are dropped.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from forgec.diagnostics import Diagnostic

_SINK: ContextVar[list[Diagnostic] | None] = ContextVar("forgec_remarks", default=None)


def emit(diagnostic: Diagnostic) -> None:
    """Reports a diagnostic of severity ``warning`` or ``remark`` (an error is raised as a ForgeError instead)."""
    sink = _SINK.get()
    if sink is not None:
        sink.append(diagnostic)


@contextmanager
def collected() -> Iterator[list[Diagnostic]]:
    """A list that holds, at the end of the ``with`` block, everything that was emitted in it."""
    sink: list[Diagnostic] = []
    token = _SINK.set(sink)
    try:
        yield sink
    finally:
        _SINK.reset(token)
