"""What ``bind-tiles`` chose, and what it could have chosen: for reports and for people.

The pass calls :func:`note`; whoever runs it wraps the run in :func:`noted`. Outside of that nothing is kept.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from forgec.ir.tile.cost import KernelCost
from forgec.passes.tile_sizes import Candidate
from forgec.runtime.symbolic import evaluate

SHOWN = 8
"""Candidates that reports name for each kernel, the best ones."""


@dataclass(frozen=True)
class Choice:
    """The candidates for a kernel's tile extents, the chosen one first; ``typical`` are the extents that estimates hold
    for, ``cost`` is what a launch costs then, over the kernel's tile parameters.
    """

    name: str
    kind: str
    typical: Mapping[str, int]
    cost: KernelCost
    table: Sequence[Candidate]

    @property
    def flops(self) -> int:
        """Operations on floats of a launch; a multiply-add of a product counts two."""
        launch = self.cost.launch
        return evaluate(launch.dot_flops + launch.flops, self._bindings)

    @property
    def moved_bytes(self) -> int:
        """Bytes that all programs of a launch read and write, each as often as one does."""
        launch = self.cost.launch
        return evaluate(launch.bytes_read + launch.bytes_written, self._bindings)

    @property
    def _bindings(self) -> Mapping[str, int]:
        return self.table[0].bindings

    def to_dict(self) -> dict[str, Any]:
        """JSON-compatible data."""
        best = self.table[0]
        return {
            "name": self.name,
            "kind": self.kind,
            "extents": dict(self.typical),
            "tiles": dict(best.bindings),
            "programs": best.programs,
            "flops": self.flops,
            "bytes_moved": self.moved_bytes,
            "live_bytes": best.live_bytes,
            "estimated_seconds": best.seconds,
            "candidates": [_candidate(candidate) for candidate in self.table[:SHOWN]],
            "candidates_more": max(len(self.table) - SHOWN, 0),
        }


def _candidate(candidate: Candidate) -> dict[str, Any]:
    return {
        "tiles": dict(candidate.bindings),
        "programs": candidate.programs,
        "live_bytes": candidate.live_bytes,
        "estimated_seconds": candidate.seconds,
        "limit": candidate.limit,
    }


_SINK: ContextVar[list[Choice] | None] = ContextVar("forgec_tile_choices", default=None)


def note(choice: Choice) -> None:
    """Keeps what was chosen for a kernel, if someone asked."""
    sink = _SINK.get()
    if sink is not None:
        sink.append(choice)


@contextmanager
def noted() -> Iterator[list[Choice]]:
    """A list that holds, at the end of the ``with`` block, every choice that was made in it."""
    sink: list[Choice] = []
    token = _SINK.set(sink)
    try:
        yield sink
    finally:
        _SINK.reset(token)
