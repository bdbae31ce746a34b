"""How a family declares the rules of its ops."""

from __future__ import annotations

from collections.abc import Callable

from xdsl.ir import Operation

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
