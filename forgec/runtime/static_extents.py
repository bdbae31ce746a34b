"""Extents that are numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from forgec.runtime.symbolic import Extent


def static(extents: Sequence[Extent]) -> tuple[int, ...]:
    """The extents of a static shape as numbers. ``TypeError`` when one is dynamic."""
    numbers = tuple(extent for extent in extents if isinstance(extent, int))
    if len(numbers) != len(extents):
        raise TypeError("a dynamic extent where a static one is needed")
    return numbers
