"""The xDSL context that knows every dialect forgec reads and writes."""

from __future__ import annotations

from xdsl.context import Context
from xdsl.dialects.builtin import Builtin
from xdsl.dialects.func import Func
from xdsl.dialects.scf import Scf

from forgec.ir.forge import FORGE
from forgec.ir.plan import PLAN
from forgec.ir.tile.dialect import TILE
from forgec.ir.tile.elementwise import ARITH, MATH
from forgec.ir.warp.dialect import AREF, WARP


def context() -> Context:
    """A fresh context with forge, plan and the builtin dialects that they use."""
    ctx = Context()
    for dialect in (Builtin, Func, Scf, ARITH, MATH, FORGE, TILE, WARP, AREF, PLAN):
        ctx.load_dialect(dialect)
    return ctx
