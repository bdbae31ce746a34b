"""The table of lowerings, and what most of them share."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from xdsl.ir import Operation, SSAValue

from forgec.backends.plan_builder import Place, PlanBuilder

Lowering = Callable[[Any, PlanBuilder], None]
LOWERINGS: dict[type[Operation], Lowering] = {}


def lowers(*classes: type[Operation]) -> Callable[[Lowering], Lowering]:
    """Declare how ops of some classes become launches."""

    def register(lowering: Lowering) -> Lowering:
        for cls in classes:
            if cls in LOWERINGS:
                raise ValueError(f"{cls.name} has two lowerings")
            LOWERINGS[cls] = lowering
        return lowering

    return register


def into(
    b: PlanBuilder,
    callee: str,
    result: SSAValue,
    args: Sequence[Any],
    kwargs: Iterable[tuple[str, Any]] = (),
    reuse: Sequence[SSAValue] = (),
    *,
    row_major: bool = False,
) -> None:
    """Launch an operator's ``out=`` form; it writes ``result``, in the bytes of a dying ``reuse`` operand where that
    is safe."""
    place: Place = b.destination(result, reuse, row_major=row_major)
    b.launch(callee, args, [*kwargs, ("out", place)], writes=[place])
