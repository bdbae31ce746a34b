"""What a model says that torch.export forgets: the message and the line of ``torch._check``, where derivatives are."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from forgec.capture.places import calling_line, calling_place
from forgec.diagnostics import Location

CHECKS = "forgec.checks"
"""Key in the exported graph's ``meta``: the checks that the model made while it was traced."""


@dataclass(frozen=True)
class Check:
    """Torch's expression that must hold, the model's message, and the line of the call."""

    expression: Any
    message: str
    place: Location


@contextmanager
def recorded_checks() -> Iterator[list[Check]]:
    """The calls of ``torch._check`` with a message, on conditions that only the run tells, inside the ``with`` block.

    There ``torch._assert`` of a tensor becomes an assertion in the graph; as it is, tracing would ask for the tensor.
    """
    found: list[Check] = []
    original, original_assert = torch._check, torch._assert

    def check(cond: Any, message: Callable[[], str] | None = None) -> None:
        place = calling_line()  # None where torch checks something itself
        if isinstance(cond, torch.SymBool) and callable(message) and place is not None:
            found.append(Check(cond.node.expr, str(message()), place))
        original(cond, message)

    def asserted(condition: Any, message: Any = "") -> None:
        if isinstance(condition, torch.Tensor):
            torch.ops.aten._assert_async.msg(condition, str(message))
        else:
            original_assert(condition, message)

    torch._check, torch._assert = check, asserted
    try:
        yield found
    finally:
        torch._check, torch._assert = original, original_assert


@contextmanager
def recorded_transforms() -> Iterator[list[Location]]:
    """The lines in the ``with`` block at which torch.func takes derivatives, of which a graph says nothing."""
    from torch._functorch import eager_transforms

    found: list[Location] = []
    originals = {n: value for n, value in vars(eager_transforms).items() if n.endswith("_increment_nesting")}

    def recording(original: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any) -> Any:
            place = calling_place("export.py")
            if place is not None:
                found.append(place)
            return original(*args)

        return call

    for name, original in originals.items():
        setattr(eager_transforms, name, recording(original))
    try:
        yield found
    finally:
        for name, original in originals.items():
            setattr(eager_transforms, name, original)
