"""Random graphs keep their value under every pass, in every order; longer runs: ``python -m tools.fuzz passes``."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from itertools import product

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp
from xdsl.passes import ModulePass

from forgec.ir.attributes import ScalarAttr
from forgec.ir.context import context
from forgec.ir.ops.norm import RmsNormOp
from forgec.passes.manager import run_pipeline
from forgec.passes.registry import added_passes, available_passes
from tests.backends.graphs import GraphAuthor
from tests.chooser import Drawn, Seeded
from tests.fragments.author import FragmentAuthor
from tests.fragments.properties import (
    LOWERING,
    PASSES,
    TILING,
    Values,
    check_alone,
    check_permutation,
    check_runtime,
    random_order,
)
from tests.fragments.recipes import FRAGMENTS


@settings(max_examples=10, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_any_order(data: st.DataObject) -> None:
    chooser = Drawn(data)
    graph = FragmentAuthor(chooser).draw(6)
    order = random_order(chooser, 8)
    check_permutation(graph, order)
    check_runtime(graph, ",".join(order))


@pytest.mark.parametrize("seed", range(8))
def test_each_pass_alone(seed: int) -> None:
    graph = FragmentAuthor(Seeded(seed)).draw()
    before = Values.of(graph, graph.module)
    for name in PASSES:
        check_alone(graph, graph.module, before, name)
    check_runtime(graph)


@pytest.mark.parametrize("seed", range(6))
def test_graphs_of_any_ops(seed: int) -> None:
    graph = GraphAuthor(Seeded(1000 + seed)).draw(30)
    check_permutation(graph, random_order(Seeded(seed), 12))


ROUNDING = ("round-weights", "round-factors")
"""What changes values on purpose: their tests compare with rounded weights and factors."""


SCHEDULING = ("extract-schedule-graph", "schedule-kernel")
"""What works on tile kernels: their own tests run random loops (tests/passes/schedule)."""


def test_every_pass_is_checked() -> None:
    names = {name.partition("{")[0] for name in PASSES}
    assert names | {*TILING, *LOWERING, *ROUNDING, *SCHEDULING} == set(available_passes())


FOUND = {
    "fuse-attention": {"forge.attention"},
    "fuse-norm": {"forge.rms_norm", "forge.layer_norm", "forge.group_norm"},
    "fuse-batch-norm": {"forge.batch_norm"},
    "fuse-rope": {"forge.rope"},
    "fuse-activation": {"forge.gelu", "forge.swish"},
    "fuse-glu": {"forge.glu"},
    "fuse-epilogue": {"forge.fused"},
    "outline-layers": {"func.call"},
}


def test_fragments_are_what_passes_look_for() -> None:
    """In some graph each fusion pass makes each of its ops."""
    found: dict[str, set[str]] = {name: set() for name in FOUND}
    for seed, fragment in product(range(12), dict.fromkeys(FRAGMENTS)):
        module = FragmentAuthor(Seeded(seed)).draw(4, [fragment]).module
        before = Counter(op.name for op in module.walk())
        for name, made in FOUND.items():
            if found[name] != made:
                after = module.clone()
                run_pipeline(after, name, context=context())
                found[name] |= made & (Counter(op.name for op in after.walk()) - before).keys()
    assert found == FOUND


@dataclass(frozen=True)
class WrongEpsilon(ModulePass):
    """A miscompilation: norms get another epsilon."""

    name = "wrong-epsilon"

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        for found in op.walk():
            if isinstance(found, RmsNormOp):
                found.eps = ScalarAttr.of(1.1e-6)


def test_a_wrong_pass_is_found() -> None:
    found = []
    with added_passes(WrongEpsilon):
        for seed in range(30):
            graph = FragmentAuthor(Seeded(seed)).draw(2)
            if not any(isinstance(op, RmsNormOp) for op in graph.module.walk()):
                continue
            try:
                check_permutation(graph, ["wrong-epsilon"])
            except AssertionError as reason:
                found.append(str(reason))
    assert found
    assert all("after wrong-epsilon" in reason for reason in found)
