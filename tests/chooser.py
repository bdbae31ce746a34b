"""Where random programs and graphs take their choices from."""

from __future__ import annotations

import random
from typing import Any, Protocol


class Chooser(Protocol):
    """Numbers that somebody else chooses."""

    def integer(self, low: int, high: int) -> int:
        """A number in [low, high]."""
        ...


class Seeded:
    """A generator with a seed: for searching far more than hypothesis does in a test."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)

    def integer(self, low: int, high: int) -> int:
        """A number in [low, high]."""
        return self.random.randint(low, high)


class Drawn:
    """Hypothesis' ``data``, which shrinks what fails."""

    def __init__(self, data: Any) -> None:
        self.data = data

    def integer(self, low: int, high: int) -> int:
        """A number in [low, high]."""
        from hypothesis import strategies as st

        return self.data.draw(st.integers(low, high))
