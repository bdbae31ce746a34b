"""The xDSL universe: has xdsl-opt and xDSL's interactive viewer know forgec's dialects and passes.

xDSL refuses two passes of one name. Where it has a pass that is called like one of forgec's (``canonicalize``,
``cse``), forgec's goes by ``forge-canonicalize`` there; ``forgec opt`` knows it by its own name only.
"""

from __future__ import annotations

from collections.abc import Callable

from xdsl.ir import Dialect
from xdsl.passes import ModulePass
from xdsl.transforms import get_all_passes
from xdsl.universe import Universe

from forgec.passes.registry import PassFactory, available_passes


def _forge() -> Dialect:
    from forgec.ir.forge import FORGE

    return FORGE


def _plan() -> Dialect:
    from forgec.ir.plan import PLAN

    return PLAN


def _tile() -> Dialect:
    from forgec.ir.tile.dialect import TILE

    return TILE


def _warp() -> Dialect:
    from forgec.ir.warp.dialect import WARP

    return WARP


def _aref() -> Dialect:
    from forgec.ir.warp.dialect import AREF

    return AREF


def _passes() -> dict[str, PassFactory]:
    taken = get_all_passes()
    return dict(
        (f"forge-{name}", _renamed(factory, f"forge-{name}")) if name in taken else (name, factory)
        for name, factory in available_passes().items()
    )


def _renamed(factory: PassFactory, name: str) -> Callable[[], type[ModulePass]]:
    def load() -> type[ModulePass]:
        pass_class = factory()
        return type(pass_class.__name__, (pass_class,), {"name": name, "__doc__": pass_class.__doc__})

    return load


FORGE_UNIVERSE = Universe(
    all_dialects={"forge": _forge, "tile": _tile, "warp": _warp, "aref": _aref, "plan": _plan}, all_passes=_passes()
)
