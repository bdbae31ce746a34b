"""Seeds that the model sets while it is traced: torch.export leaves them out of the graph and says nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import wraps
from typing import Any

import torch
import torch._dynamo  # torch.export loads it, and it replaces torch.manual_seed once: that has to come first

from forgec.capture.places import calling_line
from forgec.diagnostics import Location

SEEDS = "forgec.seeds"
"""Key in the exported graph's ``meta``: the seeds that the model set while it was traced."""

SEEDING = ("manual_seed", "seed", "set_rng_state")
"""Functions of ``torch`` and ``torch.random`` that set what the next random numbers are."""


@dataclass(frozen=True)
class Seed:
    """The function that was called, and the line of the call."""

    function: str
    place: Location


@contextmanager
def recorded_seeds() -> Iterator[dict[Seed, None]]:
    """The calls of ``SEEDING`` from the user's code inside the ``with`` block, each line once, in order."""
    found: dict[Seed, None] = {}
    originals = [(module, name, getattr(module, name)) for module in (torch, torch.random) for name in SEEDING]

    def listening(name: str, original: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(original)
        def seed(*args: Any, **kwargs: Any) -> Any:
            place = calling_line()
            if place is not None:
                found[Seed(name, place)] = None
            return original(*args, **kwargs)

        return seed

    for module, name, original in originals:
        setattr(module, name, listening(name, original))
    try:
        yield found
    finally:
        for module, name, original in originals:
            setattr(module, name, original)
