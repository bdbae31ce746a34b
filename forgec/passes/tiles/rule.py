"""How a family declares the rules of its ops."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from xdsl.builder import Builder
from xdsl.ir import Operation, SSAValue

from forgec.passes.tiles.axes import Place
from forgec.passes.tiles.kernel_builder import KernelBuilder, Rule, Tile

RULES: dict[type[Operation], Rule] = {}


def computes(*classes: type[Operation]) -> Callable[[Rule], Rule]:
    """Declare how ops of some classes are computed at a place of a result."""

    def register(rule: Rule) -> Rule:
        for cls in classes:
            if cls in RULES:
                raise ValueError(f"{cls.name} has two rules")
            RULES[cls] = rule
        return rule

    return register


OPERATORS: dict[str, Callable[[KernelBuilder, Any, Place], Tile]] = {}
"""Rules of ATen operators that have no op of their own, by name: ``aten::pad``, ``aten::pow.Scalar``. A name without
an overload stands for all overloads that are not named themselves.
"""


def computes_operator(
    *callees: str,
) -> Callable[[Callable[[KernelBuilder, Any, Place], Tile]], Callable[[KernelBuilder, Any, Place], Tile]]:
    """Declare how the result of ``forge.aten`` calls of some operators is computed at a place."""

    def register(rule: Callable[[KernelBuilder, Any, Place], Tile]) -> Callable[[KernelBuilder, Any, Place], Tile]:
        for callee in callees:
            if callee in OPERATORS:
                raise ValueError(f"{callee} has two rules")
            OPERATORS[callee] = rule
        return rule

    return register


Expansion = Callable[[Any, Builder], list[SSAValue]]
EXPANSIONS: dict[type[Operation], Expansion] = {}


def expands(*classes: type[Operation]) -> Callable[[Expansion], Expansion]:
    """Declare how an op that one kernel cannot compute is written as several; what is declared is asked where the op's
    rule raises NotLowered, and may raise it as well.
    """

    def register(expansion: Expansion) -> Expansion:
        EXPANSIONS.update(dict.fromkeys(classes, expansion))
        return expansion

    return register


OPERATOR_EXPANSIONS: dict[str, Expansion] = {}
"""Expansions of ATen operators that have no op of their own, by name, as in ``OPERATORS``."""

Declared = TypeVar("Declared")


def of_operator(table: Mapping[str, Declared], callee: str) -> Declared | None:
    """What a table has for an overload: what was declared for it by name, else for all overloads."""
    found = table.get(callee)
    return table.get(callee.partition(".")[0]) if found is None else found


def expands_operator(*callees: str) -> Callable[[Expansion], Expansion]:
    """``expands`` for ``forge.aten`` calls of some operators."""

    def register(expansion: Expansion) -> Expansion:
        for callee in callees:
            if callee in OPERATOR_EXPANSIONS:
                raise ValueError(f"{callee} has two expansions")
            OPERATOR_EXPANSIONS[callee] = expansion
        return expansion

    return register
