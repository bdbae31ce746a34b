"""What a backend is, and how to find one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from functools import lru_cache
from importlib.metadata import entry_points
from typing import Any

from xdsl.dialects.builtin import ModuleOp
from xdsl.ir import Operation

from forgec.backends.plan_builder import PlanBuilder
from forgec.diagnostics import error
from forgec.runtime.kernel_table import NativeCode

Lowering = Callable[[Any, PlanBuilder], None]
"""Adds the launches of one op to the plan; declares the op's results with ``PlanBuilder.define``."""


@dataclass(frozen=True)
class Backend:
    """``targets`` are the names that ``--target`` accepts; ``lowerings`` map forge op classes to their launches.

    ``covers`` may refuse a single op although its class has a lowering: for a modifier that the backend cannot honour.
    ``native`` makes the machine code of the kernels (``kernel::NAME``) that the launches of a module of plan entries
    call, for one of the targets: an image for each instruction set, none when they call none. ``kernels``: ops become
    kernels of tiles before the plan is made (``lower-to-tile``, ``bind-tiles``), but for those with values of the
    dtypes in ``without``; ``panel``: how many rows of a linear's weight are stored together for them, 0 if weights stay
    as they are.
    """

    name: str
    targets: tuple[str, ...]
    lowerings: Mapping[type[Operation], Lowering]
    covers: Callable[[Operation], bool] = lambda op: True
    native: Callable[[ModuleOp, str], tuple[NativeCode, ...]] = lambda module, target: ()
    kernels: bool = False
    without: tuple[str, ...] = ()
    panel: int = 0

    def lowers(self, op: Operation) -> bool:
        """True if the backend runs this op as it is."""
        return type(op) in self.lowerings and self.covers(op)


@lru_cache(maxsize=1)
def backends() -> dict[str, Backend]:
    """Installed backends by name: the built-in ones, and those of the entry point group ``forgec.backends``."""
    from forgec.backends import aten
    from forgec.backends.cpu import backend as cpu

    found = {backend.name: backend for backend in (aten.BACKEND, cpu.BACKEND)}
    for point in entry_points(group="forgec.backends"):
        backend = point.load()
        found.setdefault(backend.name, backend)
    return found


def targets() -> dict[str, Backend]:
    """Target name → the backend that serves it."""
    return {target: backend for backend in backends().values() for target in backend.targets}


def backend_for(target: str) -> Backend:
    """The backend of a target. Raises ForgeError (FORGE-U003) with the known targets."""
    known = targets()
    if target not in known:
        close = get_close_matches(target, known, n=1)
        raise error(
            "FORGE-U003",
            f"unknown target {target!r}",
            notes=(f"known targets: {', '.join(sorted(known))}",),
            help=f"did you mean {close[0]!r}?" if close else None,
        )
    return known[target]


def backend_named(name: str) -> Backend:
    """A backend by its own name. Raises ForgeError (FORGE-U003) with the known ones."""
    known = backends()
    if name not in known:
        raise error("FORGE-U003", f"unknown backend {name!r}", notes=(f"known backends: {', '.join(sorted(known))}",))
    return known[name]
