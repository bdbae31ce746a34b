"""The xDSL universe: makes xdsl-opt and xDSL's interactive viewer work on forgec's files and passes."""

from __future__ import annotations

from xdsl.ir import Dialect
from xdsl.universe import Universe


def _forge() -> Dialect:
    from forgec.ir.forge import FORGE

    return FORGE


def _plan() -> Dialect:
    from forgec.ir.plan import PLAN

    return PLAN
