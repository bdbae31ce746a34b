"""Random graphs through every pass alone, through passes in random orders, and in the runtime."""

from __future__ import annotations

import random
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path

import torch

from tests.backends.graphs import Graph, GraphAuthor
from tests.chooser import Seeded
from tests.fragments.author import FragmentAuthor
from tests.fragments.properties import PASSES, Values, check_alone, check_permutation, check_runtime, random_order
from tests.ir.build import text_of
from tools.fuzz.batches import Outcome


class PassesCase:
    """The cases of one run, by number."""

    def __init__(self, run_seed: int) -> None:
        self.run_seed = run_seed
        torch.set_num_threads(1)
        warnings.simplefilter("ignore")
        self(0)  # imports what cases need before processes are forked

    def kind_of(self, index: int) -> str:
        """Whether a graph has fragments of transformers, or any ops."""
        return random.Random(f"{self.run_seed}/{index}/kind").choice(["fragments", "fragments", "fragments", "any ops"])

    def _seed(self, index: int) -> int:
        return self.run_seed * 1_000_000_007 + index

    def _graph(self, index: int) -> Graph:
        chooser = Seeded(self._seed(index))
        if self.kind_of(index) == "fragments":
            return FragmentAuthor(chooser).draw()
        return GraphAuthor(chooser).draw(30)

    def _order(self, index: int) -> list[str]:
        draw = random.Random(f"{self.run_seed}/{index}/order")
        return random_order(Seeded(self._seed(index)), draw.randint(2, 16))

    def write(self, index: int, folder: Path) -> Path:
        """Writes the graph's text; prints the order of passes."""
        path = folder / f"{self.run_seed}-{index}.mlir"
        path.write_text(text_of(self._graph(index).module, print_debuginfo=True))
        print(f"pipeline: {','.join(self._order(index))!r}")
        return path

    def __call__(self, index: int) -> Outcome:
        graph, order, kind = self._graph(index), self._order(index), self.kind_of(index)
        before = Values.of(graph, graph.module)
        checks: list[tuple[str, Callable[[], None]]] = [
            *((name, lambda name=name: check_alone(graph, graph.module, before, name)) for name in PASSES),
            ("an order", lambda: check_permutation(graph, order, before)),
            ("the runtime", lambda: check_runtime(graph, ",".join(order))),
            ("the runtime", lambda: check_runtime(graph, "@O2")),
        ]
        for what, check in checks:
            try:
                check()
            except AssertionError as reason:
                return Outcome(kind, f"wrong: {what}", str(reason))
            except Exception:
                return Outcome(kind, f"failed: {what}", traceback.format_exc())
        return Outcome(kind, "kept its value")
