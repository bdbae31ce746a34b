"""How a family declares the rules of its ops."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from xdsl.builder import Builder
from xdsl.ir import Operation, SSAValue

from forgec.passes.tiles.kernel_builder import Rule

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
