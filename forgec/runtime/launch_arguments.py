"""The argument lists of launches of ATen: where tensors stand in them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

from forgec.runtime.plan import Arg, Launch, Reg

Slot: TypeAlias = "tuple[Any, Any]"
"""A list and an index in it, or a dict and a key: where a tensor has to be put."""


def taking_numbers(call: Callable[..., Any], numbers: Sequence[int | str]) -> Callable[..., Any]:
    """The call with some arguments, tensors of rank 0, as numbers."""

    def converted(*args: Any, **kwargs: Any) -> Any:
        values: list[Any] = list(args)
        for key in numbers:
            if isinstance(key, int):
                values[key] = values[key].item()
            else:
                kwargs[key] = kwargs[key].item()
        return call(*values, **kwargs)

    return converted


def slots_of(args: list[Any], kwargs: dict[str, Any], launch: Launch, wanted: set[Reg] | None = None) -> list[Slot]:
    """Where a launch's arguments hold tensors: all of them, or those of the wanted registers."""
    found: list[Slot] = []

    def visit(container: Any, key: Any, value: Arg) -> None:
        if isinstance(value, Reg):
            if wanted is None or value in wanted:
                found.append((container, key))
        elif isinstance(value, tuple):
            for index, item in enumerate(value):
                visit(container[key], index, item)

    for index, value in enumerate(launch.args):
        visit(args, index, value)
    for name, value in launch.kwargs:
        visit(kwargs, name, value)
    return found
