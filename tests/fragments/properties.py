"""What every pass owes every graph: the same values, a module that verifies, locations, text that reads back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch
from xdsl.dialects.builtin import ModuleOp, TensorType

from forgec.ir import types
from forgec.ir.context import context
from forgec.ir.interpreter import interpret
from forgec.ir.ops.attention import AttentionOp
from forgec.ir.params import ParamValues
from forgec.passes.manager import run_pipeline
from forgec.passes.pipelines import parse as parse_pipeline
from tests.backends.graphs import Graph
from tests.chooser import Chooser
from tests.ir.build import parse, text_of
from tests.oracle import assert_located, lower, program_of, tensor_leaves

RELATIVE = 1e-9
"""Of the greatest number of a result: what float64 may lose where sums are taken in another order."""
NATIVE = {"f64": 1e-9, "f32": 1e-4, "bf16": 0.15, "f16": 0.03}
"""The same in the precision of the model, after what rounds less or elsewhere."""

PASSES = (
    "assign-layout", "canonicalize", "classify-masks", "constant-fold", "cse", "cut-segments", "dce", "decompose",
    "expand-einsum", "fuse-activation", "fuse-attention", "fuse-batch-norm", "fuse-dequantize", "fuse-elementwise",
    "fuse-epilogue", "fuse-glu", "fuse-indexing", "fuse-linear", "fuse-moe", "fuse-norm", "fuse-rope", "fuse-softmax",
    "select-masked-rows",
    "group-query-heads", "hoist-tables", "infer-shapes", "inline-kernels", "inline-layers",
    "materialize-masks", "merge-linears", "multiply-bytes", "outline-control-flow", "outline-layers",
    "outline-layers{unnamed=false min-ops=3}", "roll-loops", "sink-tables",
)  # fmt: skip
"""Every pass on forge's level. Whatever their order, and however often each runs, a module keeps its value: what the
standard pipelines order, they order for what is found. Later passes find less in kernels (``inline-kernels`` opens
them) and in layers whose weights are arguments (``inline-layers``). ``cut-segments`` wants regions to be calls
(``outline-control-flow``) where a function has run-time extents.
"""
LOWERING = ("lower-to-plan", "allocate-buffers")
"""These end forge's level, in this order: a pass on forge's level finds nothing afterwards."""
TILING = ("lower-to-tile", "bind-tiles")
"""These stand between the two: ``tests.fragments.tiles`` checks them."""
NOT_IDEMPOTENT = ("decompose", "materialize-masks", "outline-layers", "outline-layers{unnamed=false min-ops=3}")
"""Passes of which a second run may find more to do."""


@dataclass
class Values:
    """What a module yields for each of the graph's inputs, in float64 or in the precision of the model."""

    results: list[list[torch.Tensor]]

    @staticmethod
    def of(graph: Graph, module: ModuleOp, *, float64: bool = True) -> Values:
        run = partial(interpret, module, params=graph.params, float64=float64)
        return Values([run(graph.arguments(inputs)) for inputs in (graph.inputs, *graph.sizes)])


def check_alone(graph: Graph, module: ModuleOp, before: Values, name: str) -> None:
    """One pass on a copy of a module: what it owes, and that a second run changes nothing."""
    module = module.clone()
    if name not in NOT_IDEMPOTENT:
        run_pipeline(module, "dce", context=context())
    if check_pass(graph, module, before, name) is before or name in NOT_IDEMPOTENT:
        return
    run_pipeline(module, "dce", context=context())  # what was replaced, and would be again
    first = text_of(module)
    reports = run_pipeline(module, [*parse_pipeline(name), *parse_pipeline("dce")], context=context())
    if any(report.changed for report in reports):
        assert text_of(module) == first, f"{name} changes its own result: from\n{first}\nto\n{text_of(module)}"


def check_pass(graph: Graph, module: ModuleOp, before: Values, name: str) -> Values:
    """Runs one pass on a module in place; the module's values then. Raises AssertionError for what it owes."""
    copy = module.clone() if name == "constant-fold" else None
    reports = run_pipeline(module, name, context=context())
    if not any(report.changed for report in reports):
        return before
    module.verify()
    assert_located(module, name)
    after = Values.of(graph, module)
    if copy is None:
        assert_same(after, before, name, RELATIVE, masked_rows="fuse-attention" in name)
    else:  # it computes in the dtypes of the types
        exact = [Values.of(graph, each, float64=False) for each in (module, copy)]
        assert_same(*exact, name, 0.0)
    return after


def check_text(module: ModuleOp) -> None:
    """The module is what its text says, locations included."""
    text = text_of(module, print_debuginfo=True)
    read = parse(text)
    assert text_of(read, print_debuginfo=True) == text, "the text reads back as another module"


def check_permutation(graph: Graph, pipeline: Sequence[str], values: Values | None = None) -> None:
    """The passes one after the other, each compared with what was before it."""
    module = graph.module.clone()
    values = values or Values.of(graph, module)
    done: list[str] = []
    for name in pipeline:
        done.append(name)
        try:
            values = check_pass(graph, module, values, name)
        except Exception as failure:
            raise AssertionError(f"after {','.join(done)}: {failure}") from failure
    check_text(module)


def random_order(chooser: Chooser, count: int) -> list[str]:
    """So many passes in some order, some of them several times."""
    return [PASSES[chooser.integer(0, len(PASSES) - 1)] for _ in range(count)]


def check_runtime(graph: Graph, pipeline: str = "@O2", target: str = "cpu:aten") -> None:
    """What the runtime computes after a pipeline is what the interpreter does before it: within a small part of the
    greatest number, and some of what the model's own precision loses against float64.
    """
    module = graph.module.clone()
    expected = Values.of(graph, module, float64=False)
    run_pipeline(module, pipeline, context=context())
    program = program_of(lower(module, target), ParamValues(module, graph.params), target)
    found = []
    for inputs in (graph.inputs, *graph.sizes):
        session = program.session()
        results = tensor_leaves(session(*(tensor.clone() for tensor in inputs)))
        found.append([*results, *session.state_dict().values()])
    limit = max(NATIVE[name] for name in dtypes_of(graph.module) if name in NATIVE)
    exact = Values.of(graph, graph.module).results
    for results, wanted, ideal in zip(found, expected.results, exact, strict=True):
        attends = any(isinstance(op, AttentionOp) for op in module.walk())
        if attends and any(bool(t.isnan().any()) for t in wanted if t.is_floating_point()):
            continue  # ATen multiplies what is masked by 0
        rounding = max((distance(a, b) for a, b in zip(wanted, ideal, strict=True)), default=0.0)
        what = f"the runtime after {pipeline}, for {target}"
        assert_same(Values([results]), Values([wanted]), what, limit + 4 * rounding, masked_rows=True)


def distance(a: torch.Tensor, b: torch.Tensor) -> float:
    """The greatest difference, as a part of the greatest number."""
    if not a.is_floating_point() or not a.isfinite().all() or not b.isfinite().all() or not a.numel():
        return 0.0
    return ((a.double() - b.double()).abs().max() / b.abs().max().clamp(min=1e-30)).item()


def dtypes_of(module: ModuleOp) -> set[str]:
    """The dtypes of a module's values."""
    results = (result for op in module.walk() for result in op.results)
    return {types.dtype(result) for result in results if isinstance(result.type, TensorType)} | {"f64"}


def assert_same(found: Values, expected: Values, what: str, relative: float, *, masked_rows: bool = False) -> None:
    """The same dtypes and shapes; integers and booleans equal; floating-point numbers within ``relative`` of the
    greatest one, NaN and infinities in the same places. With ``masked_rows``, where NaN was expected may be numbers.
    """
    for number, (results, wanted) in enumerate(zip(found.results, expected.results, strict=True)):
        assert len(results) == len(wanted), what
        spoilt = masked_rows and any(bool(t.isnan().any()) for t in wanted if t.is_floating_point())
        for place, (a, b) in enumerate(zip(results, wanted, strict=True)):
            at = f"{what}, inputs {number}, result {place}"
            assert (a.dtype, a.shape) == (b.dtype, b.shape), (
                f"{at}: {a.dtype}{list(a.shape)}, not {b.dtype}{list(b.shape)}"
            )
            if not b.is_floating_point():
                assert spoilt or relative > RELATIVE or torch.equal(a, b), f"{at}:\n{a}\nexpected\n{b}"
                continue
            if masked_rows:
                a = torch.where(b.isnan(), b, a)
            _assert_near(a.double(), b.double(), relative, at)


def _assert_near(a: torch.Tensor, b: torch.Tensor, relative: float, at: str) -> None:
    finite = b.isfinite()
    assert torch.equal(a.isnan(), b.isnan()), f"{at}: NaN in other places:\n{a}\nexpected\n{b}"
    assert torch.equal(a.isfinite(), finite), f"{at}: infinities in other places:\n{a}\nexpected\n{b}"
    assert bool((a[~finite] == b[~finite])[~b[~finite].isnan()].all()), f"{at}: infinities of other signs"
    if finite.any():
        error, scale = (a - b)[finite].abs().max().item(), b[finite].abs().max().item()
        assert error <= relative * max(scale, 1e-30), f"{at}: error {error:g} where numbers go up to {scale:g}"
