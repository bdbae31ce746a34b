"""Which arguments an operator writes, by its schema in torch."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, lru_cache
from typing import Any

from forgec.ir.text import CallArguments
from forgec.runtime.plan import Arg, Reg


@lru_cache(maxsize=1024)
def written_arguments(callee: str) -> tuple[frozenset[int], frozenset[str]]:
    """Positions of the positional arguments that an operator writes, and the names of all that it writes."""
    schema = _schema(callee)
    positional = [argument for argument in schema.arguments if not argument.kwarg_only]
    positions = {i for i, argument in enumerate(positional) if argument.alias_info and argument.alias_info.is_write}
    names = {argument.name for argument in schema.arguments if argument.alias_info and argument.alias_info.is_write}
    return frozenset(positions), frozenset(names)


def names_operator(callee: str) -> bool:
    """True if torch has an operator of this name."""
    try:
        written_arguments(callee)
    except (AttributeError, RuntimeError):
        return False
    return True


@cache
def yields_views(callee: str) -> bool:
    """True if all results of an operator are views of its arguments, which costs nothing."""
    try:
        returns = _schema(callee).returns
    except (AttributeError, RuntimeError):
        return False
    return bool(returns) and all(r.alias_info is not None and not r.alias_info.is_write for r in returns)


def _schema(callee: str) -> Any:
    import torch

    namespace, _, name = callee.partition("::")
    name, _, overload = name.partition(".")
    return getattr(getattr(getattr(torch.ops, namespace), name), overload or "default")._schema


def _map_written(callee: str, arguments: CallArguments, change: Callable[[Reg], Any]) -> tuple[list[Any], list[Any]]:
    """A call's arguments with ``change`` applied to the references to what the operator writes."""
    positional, named = arguments
    positions, names = written_arguments(callee)

    def mapped(arg: Any) -> Any:
        if isinstance(arg, tuple):
            return tuple(mapped(item) for item in arg)
        return change(arg) if isinstance(arg, Reg) else arg

    args = [mapped(arg) if index in positions else arg for index, arg in enumerate(positional)]
    return args, [(name, mapped(arg) if name in names else arg) for name, arg in named]


def split_written(callee: str, arguments: CallArguments, count: int) -> tuple[list[int], list[int], CallArguments]:
    """Arguments in which everything that the operator writes is an operand of its own, after ``count`` operands.

    A tensor may be given to an operator twice, once to be written and once to be read: only the former changes. Yields
    the operands that are read, those that are written, and the arguments, which count both in this order.
    """
    repeated: list[int] = []

    def own(arg: Reg) -> Reg:
        repeated.append(arg.id)
        return Reg(count + len(repeated) - 1)

    args, named = _map_written(callee, arguments, own)
    kept = sorted({index for index in _references((args, named)) if index < count})
    number = {index: position for position, index in enumerate([*kept, *range(count, count + len(repeated))])}

    def renumbered(arg: Any) -> Arg:
        if isinstance(arg, tuple):
            return tuple(renumbered(item) for item in arg)
        return Reg(number[arg.id]) if isinstance(arg, Reg) else arg

    return kept, repeated, (tuple(map(renumbered, args)), tuple((name, renumbered(arg)) for name, arg in named))


def _references(arg: Any) -> list[int]:
    if isinstance(arg, Reg):
        return [arg.id]
    return [index for item in arg for index in _references(item)] if isinstance(arg, (tuple, list)) else []
