"""Which fragments a random graph may have."""

from __future__ import annotations

from collections.abc import Callable

from tests.fragments.attention import attention
from tests.fragments.author import FragmentAuthor
from tests.fragments.blocks import channels, gated, mlp, norms, shared

FRAGMENTS: list[Callable[[FragmentAuthor], None]] = [
    attention, attention, attention, attention, norms, norms, channels, gated, gated, mlp, shared,
]  # fmt: skip
"""Each as often as it is drawn."""
