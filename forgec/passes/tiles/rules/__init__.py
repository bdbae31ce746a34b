"""The rules: one file for each family of ops, each found by its presence in this folder."""

from __future__ import annotations

import importlib
import pkgutil
from functools import cache
from types import ModuleType

from xdsl.ir import Operation

from forgec.ir.ops.base import ForgeOp
from forgec.passes.tiles.kernel_builder import Rule
from forgec.passes.tiles.rule import RULES


@cache
def _modules() -> tuple[ModuleType, ...]:
    return tuple(importlib.import_module(f"{__name__}.{info.name}") for info in pkgutil.iter_modules(__path__))


def own_ops() -> list[type[Operation]]:
    """The op classes that files of this folder define themselves, beside their rules."""
    return [
        value
        for module in _modules()
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, ForgeOp) and value.__module__ == module.__name__
    ]


@cache
def all_rules() -> dict[type[Operation], Rule]:
    """Every op class that has a rule."""
    _modules()
    return dict(RULES)
