"""What lowering to tiles owes every graph: the same values, whatever tile extents and whatever order of programs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from unittest.mock import patch

from xdsl.dialects.builtin import ModuleOp

from forgec.ir.context import context
from forgec.ir.evaluator import Evaluator
from forgec.ir.interpreter import interpret
from forgec.ir.tile import interpreter
from forgec.ir.tile.kernel import KernelOp, LaunchOp
from forgec.ir.tile.memory_model import Memory
from forgec.passes.bind_tiles import bind
from forgec.passes.manager import run_pipeline
from forgec.passes.tile_sizes import SymbolUse, most
from forgec.runtime.symbolic import evaluate
from tests.backends.graphs import Graph
from tests.chooser import Chooser
from tests.fragments.properties import NATIVE, Values, assert_same, distance, dtypes_of
from tests.oracle import assert_located

ROUNDED = 1e-6
"""Of the greatest number of a result: what it costs in float64 that a kernel's constants have the dtype of what they
are combined with, and those of forge are Python's."""
LARGEST = 64
"""What an axis of unknown extent is taken for where a kernel must hold all of it."""


def check_tiles(graph: Graph, pipeline: Sequence[str], chooser: Chooser) -> ModuleOp:
    """Runs ``lower-to-tile`` after a pipeline; the kernels, unbound and bound at random, compute the same."""
    module = graph.module.clone()
    run_pipeline(module, ",".join(pipeline), context=context())
    exact, native = Values.of(graph, module), _first(graph, module)
    run_pipeline(module, "lower-to-tile", context=context())
    module.verify()
    assert_located(module, "lower-to-tile")
    with programs_in_random_order(chooser):
        assert_same(Values.of(graph, module), exact, "tiles, float64", ROUNDED, masked_rows=True)
        bind_at_random(module, chooser)
        module.verify()
        found = _first(graph, module)
    limit = max(NATIVE[name] for name in dtypes_of(graph.module) if name in NATIVE)
    rounding = max((distance(a, b) for a, b in zip(native.results[0], exact.results[0], strict=True)), default=0.0)
    assert_same(found, native, "bound tiles, in the model's precision", limit + 4 * rounding, masked_rows=True)
    return module


def _first(graph: Graph, module: ModuleOp) -> Values:
    """What a module yields for the first inputs, in the model's precision."""
    return Values([interpret(module, graph.arguments(), graph.params)])


def bind_at_random(module: ModuleOp, chooser: Chooser) -> None:
    """Give every kernel some tile extents, powers of two or not."""
    for kernel in [op for op in module.ops if isinstance(op, KernelOp)]:
        uses = {name: SymbolUse(0, LARGEST) for name in kernel.symbol_names}
        chosen: dict[str, int] = {}
        for parameter in kernel.tiles.data:
            if parameter.whole:
                chosen[parameter.name] = max(most(parameter.extent, uses) or LARGEST, 1) + chooser.integer(0, 3)
            else:
                chosen[parameter.name] = (2, 3, 4, 5, 8, 16, 32, 64)[chooser.integer(0, 7)]
        bind(kernel, chosen)


@contextmanager
def programs_in_random_order(chooser: Chooser) -> Iterator[None]:
    """The interpreter runs the programs of every grid in another order than the grid's."""
    run = interpreter._run

    def shuffled(kernel: KernelOp, ev: Evaluator, parameters: Sequence[Memory], order: Iterable[int] | None) -> None:
        assert order is None
        count = 1
        for extent in kernel.grid.data:
            count *= max(evaluate(extent, ev.symbols), 0)
        numbers = list(range(count))
        step = chooser.integer(0, max(count - 1, 0))
        turned = numbers[step:] + numbers[:step]
        run(kernel, ev, parameters, turned[::-1] if chooser.integer(0, 1) else turned)

    with patch.object(interpreter, "_run", shuffled):
        yield


def launches(module: ModuleOp) -> list[LaunchOp]:
    """The launches of a module."""
    return [op for op in module.walk() if isinstance(op, LaunchOp)]
