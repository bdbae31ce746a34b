"""Runs every architecture of the tests and writes what came of it to docs/models.json, which docs/coverage.md shows.

python -m tools.models [NAME …]      about ten minutes for all; with names only these, and the others stay as they are
"""

from __future__ import annotations

import json
import sys
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from torch.utils import _pytree as pytree

import forgec
from tests.models.architectures.row import Row
from tests.models.test_architectures import ROWS, eager

FILE = Path(__file__).resolve().parent.parent / "docs" / "models.json"


def difference(actual: Any, expected: Any) -> float:
    """The largest absolute difference of any element; infinite where structures or shapes differ."""
    ours, theirs = pytree.tree_leaves(actual), pytree.tree_leaves(expected)
    if pytree.tree_structure(actual) != pytree.tree_structure(expected):
        return float("inf")
    worst = 0.0
    for a, b in zip(ours, theirs, strict=True):
        if isinstance(b, torch.Tensor) and b.numel():
            same = a.shape == b.shape
            worst = max(worst, float((a.double() - b.double()).abs().nan_to_num().max()) if same else float("inf"))
    return worst


def run(row: Row) -> dict[str, Any]:
    """What happens to one architecture: its differences from eager PyTorch, static and dynamic, or the refusal."""
    torch.manual_seed(0)
    model, arguments = row.build(), row.arguments()
    if row.refused:
        return {"refused": row.refused}
    expected = eager(model, arguments)
    static = forgec.compile(model, (), arguments)
    report = static.report.to_dict()
    found: dict[str, Any] = {
        "static": difference(static(**arguments), expected),
        "ops": report["ops_captured"],
        "fallbacks": {fallback["op"]: fallback["count"] for fallback in report["fallbacks"]},
        "varies": sorted(row.extents() - row.fixed.keys()),
        "fixed": sorted(row.fixed),
    }
    dims = row.dims(found["varies"])
    if dims:
        compiled = forgec.compile(model, (), arguments, dynamic_shapes=row.dynamic_shapes(dims))
        calls = [{name: size for name, size in sizes.items() if name in dims} for sizes in row.others]
        found["dynamic"] = max(
            difference(compiled(**given), eager(model, given)) for given in map(row.arguments, [{}, *calls])
        )
    return found


def run_named(name: str) -> dict[str, Any]:
    """``run`` in a worker."""
    import logging

    logging.disable(logging.WARNING)
    torch.set_num_threads(1)
    return run(next(row for row in ROWS if row.name == name))


def main(names: list[str]) -> None:
    """Run the rows of these names (all without names) and write the file."""
    known: dict[str, Any] = json.loads(FILE.read_text()) if FILE.exists() and names else {}
    chosen = [row.name for row in ROWS if not names or row.name in names]
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        for name, found in zip(chosen, pool.map(run_named, chosen), strict=True):
            known[name] = found
            print(name, found.get("static", "refused"), flush=True)
    FILE.write_text(json.dumps(known, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
