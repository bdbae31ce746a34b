"""The rules: one file for each family of ops, each found by its presence in this folder."""

from __future__ import annotations

import importlib
import pkgutil
from functools import cache

from xdsl.ir import Operation

from forgec.passes.tiles.kernel_builder import Rule
from forgec.passes.tiles.rule import RULES


@cache
def all_rules() -> dict[type[Operation], Rule]:
    """Every op class that has a rule."""
    for info in pkgutil.iter_modules(__path__):
        importlib.import_module(f"{__name__}.{info.name}")
    return dict(RULES)
