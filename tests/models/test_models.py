"""Whole models: the bits of eager without passes, its values with them, and a plan that is small."""

from __future__ import annotations

import subprocess
import sys
from functools import cache
from typing import Any

import pytest
import torch
from torch.utils import _pytree as pytree

import forgec
from forgec.runtime.linear_scan import Interval, allocate
from forgec.runtime.plan import Buffer
from tests.models.zoo import CASES, Case, build, ids

REPORT_KEYS = {
    "ops_captured", "ops_optimized", "launches", "fallbacks", "buffers", "buffers_naive", "peak_bytes",
    "peak_bytes_naive", "fusion_gain_ratio", "passes", "seconds",
}  # fmt: skip


def tensors(value: Any) -> list[torch.Tensor]:
    """The tensors of a result, in order."""
    return [leaf for leaf in pytree.tree_leaves(value) if isinstance(leaf, torch.Tensor)]


@cache
def eager(case: Case) -> tuple[Any, Any]:
    """The model and what it returns."""
    model = build(case)
    with torch.no_grad():
        return model, model(*case.args, **case.kwargs)


@cache
def compiled(case: Case, pipeline: str) -> Any:
    return forgec.compile(eager(case)[0], case.args, case.kwargs, pipeline=pipeline)


ALL = [pytest.param(case, id=case.name) for case in CASES]
DYNAMIC = [pytest.param(case, id=case.name) for case in CASES if case.dynamic]


@pytest.mark.parametrize("case", ALL)
def test_without_passes_results_are_the_same_bits(case: Case) -> None:
    _, expected = eager(case)
    actual = compiled(case, "")(*case.args, **case.kwargs)
    assert type(actual) is type(expected)
    assert len(tensors(actual)) == len(tensors(expected)) > 0
    for ours, theirs in zip(tensors(actual), tensors(expected), strict=True):
        assert ours.dtype == theirs.dtype
        assert torch.equal(ours, theirs)
        assert not ours.requires_grad


@pytest.mark.parametrize("case", ALL)
def test_optimized_results_are_close(case: Case) -> None:
    _, expected = eager(case)
    actual = compiled(case, "@O2")(*case.args, **case.kwargs)
    for ours, theirs in zip(tensors(actual), tensors(expected), strict=True):
        assert float((ours - theirs).abs().max()) <= 2.1e-5


@pytest.mark.parametrize("case", ALL)
def test_live_buffers_and_arena(case: Case) -> None:
    model = compiled(case, "@O2")
    report = model.report.to_dict()
    assert report.keys() >= REPORT_KEYS
    assert report["buffers"] <= 0.52 * report["buffers_naive"]
    assert report["peak_bytes"] < 0.5 * report["peak_bytes_naive"]
    assert report["ops_optimized"] < report["ops_captured"]
    assert report["fusion_gain_ratio"] >= 1.0
    (entry,) = model._program.plan.entries
    buffers = [register for register in entry.registers if isinstance(register, Buffer)]
    bound = allocate([Interval(int(b.nbytes), b.first, b.last) for b in buffers]).lower_bound_bytes
    assert bound <= entry.arena_bytes <= 1.1 * bound


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[torch.Tensor]]:
    """What the artifacts of all cases return in one process that compiles nothing, by name."""
    folder = tmp_path_factory.mktemp("artifacts")
    for case in CASES:
        compiled(case, "@O2").save(folder / f"{case.name}.forge")
    torch.save({case.name: (case.args, case.kwargs) for case in CASES}, folder / "calls.pt")
    program = (
        "import sys, torch, forgec\n"
        "folder, results = sys.argv[1], {}\n"
        "for name, (args, kwargs) in torch.load(f'{folder}/calls.pt').items():\n"
        "    result = forgec.load(f'{folder}/{name}.forge', verify='full')(*args, **kwargs)\n"
        "    results[name] = [v for v in result.values()]\n"
        "torch.save(results, f'{folder}/results.pt')\n"
        "compiler = ('xdsl', 'transformers', 'forgec.ir', 'forgec.capture')\n"
        "assert not any(name.startswith(compiler) for name in sys.modules)\n"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", program, str(folder)], check=True)
    return torch.load(folder / "results.pt")


@pytest.mark.parametrize("case", ALL)
def test_artifact_in_a_new_process(case: Case, loaded: dict[str, list[torch.Tensor]]) -> None:
    expected = tensors(compiled(case, "@O2")(*case.args, **case.kwargs))
    for ours, theirs in zip(loaded[case.name], expected, strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("case", DYNAMIC)
def test_one_artifact_for_many_shapes(case: Case) -> None:
    model, _ = eager(case)
    batch, seq = forgec.Dim("batch", min=1, max=8), forgec.Dim("seq", min=2, max=64)
    shape = {0: batch, 1: seq}
    names = ["input_ids", "attention_mask"][: len(case.args)]
    shapes = {**dict.fromkeys(names, shape), **dict.fromkeys(case.kwargs)}
    examples = tuple(torch.ones_like(ids(2)) if i else ids(2) for i in range(len(case.args)))
    dynamic = forgec.compile(model, examples, case.kwargs, dynamic_shapes=shapes)
    for size, tokens in ((1, 2), (3, 17), (8, 64), (1, 7)):
        args = tuple(torch.ones(size, tokens, dtype=torch.long) if i else ids(size, tokens) for i in range(len(names)))
        with torch.no_grad():
            expected = model(*args, **case.kwargs)
        for ours, theirs in zip(tensors(dynamic(*args, **case.kwargs)), tensors(expected), strict=True):
            assert float((ours - theirs).abs().max()) <= 2.1e-5
    too_long = tuple(torch.ones(1, 65, dtype=torch.long) for _ in names)
    with pytest.raises(forgec.ForgeError, match=r"FORGE-R004.*\n.*'seq' in \[2, 64\]"):
        dynamic(*too_long, **case.kwargs)
