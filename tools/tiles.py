"""Compiles architectures of the tests to kernels of tiles, compares them with eager, and counts what runs as ATen.

python -m tools.tiles [--jobs N] [--dynamic] [--target cpu:host] [--record] [NAME …]

All without names, which takes half an hour. ``--record`` writes what was found to docs/kernels.json, which
docs/coverage.md shows.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from torch.utils import _pytree as pytree

import forgec
from forgec.runtime.aten import is_of_torch
from forgec.runtime.binding import rows_of
from forgec.runtime.kernels import is_kernel
from tests.models.architectures.row import Row
from tests.models.test_architectures import ROWS, TOLERANCE, eager

RECORD = Path(__file__).parents[1] / "docs" / "kernels.json"


@dataclass
class Found:
    """What came of one architecture."""

    name: str
    error: float = 0.0
    """The largest difference of an element, relative to the largest element of its tensor."""
    kernels: int = 0
    calls: int = 0
    """Launches, where those of machine code that follow each other are one."""
    aten: Counter[str] = field(default_factory=Counter)
    """Launches that torch runs, by name."""
    reasons: Counter[str] = field(default_factory=Counter)
    failure: str = ""
    seconds: float = 0.0

    @property
    def is_right(self) -> bool:
        return not self.failure and self.error <= TOLERANCE

    @property
    def is_native(self) -> bool:
        return self.is_right and not self.aten

    def __str__(self) -> str:
        if self.failure:
            return f"{self.name:44} FAILED {self.failure}"
        mark = "" if self.is_right else " WRONG"
        head = f"{self.name:44} error {self.error:.1e}{mark}, {self.kernels} kernels launched, {self.seconds:.1f} s"
        lines = [head + (f"; aten {dict(self.aten)}" if self.aten else "")]
        return "\n".join([*lines, *(f"    {count} {reason}" for reason, count in self.reasons.most_common())])


def difference(actual: Any, expected: Any) -> float:
    """The largest relative difference; infinite where structures, shapes, dtypes, NaNs or infinities differ."""
    if pytree.tree_structure(actual) != pytree.tree_structure(expected):
        return float("inf")
    worst = 0.0
    for ours, theirs in zip(pytree.tree_leaves(actual), pytree.tree_leaves(expected), strict=True):
        if not isinstance(theirs, torch.Tensor):
            worst = worst if ours == theirs else float("inf")
            continue
        if ours.shape != theirs.shape or ours.dtype != theirs.dtype:
            return float("inf")
        wide = torch.complex128 if theirs.is_complex() else torch.float64
        a, b = ours.to(wide), theirs.to(wide)
        finite = torch.isfinite(b)
        if not torch.equal(a[~finite].nan_to_num(7.0), b[~finite].nan_to_num(7.0)):
            return float("inf")
        if not torch.isfinite(a[finite]).all():
            return float("inf")
        if finite.any():
            worst = max(worst, ((a - b)[finite].abs().max() / b[finite].abs().max().clamp(min=1e-30)).item())
    return worst


def run(row: Row, target: str, dynamic: bool) -> Found:
    """Compile an architecture and call it with its example, and with its other extents if it is ``dynamic``."""
    found = Found(row.name)
    model, arguments = row.build(), row.arguments()
    dims = row.dims(row.extents() - row.fixed.keys()) if dynamic else {}
    first = eager(model, arguments)  # before capture: a model may set itself up in its first call
    begin = time.process_time()
    compiled = forgec.compile(
        model, (), arguments, dynamic_shapes=row.dynamic_shapes(dims) if dims else None, target=target
    )
    found.seconds = time.process_time() - begin
    found.reasons.update(each.message for each in compiled.report.remarks if "has no kernel" in each.message)
    for entry in compiled._exported.entries:
        found.kernels += sum(is_kernel(launch.op) for launch in entry.launches)
        found.calls += len(rows_of(entry))
        found.aten.update(launch.op for launch in entry.launches if is_of_torch(launch, entry))
    calls = [arguments, *(row.arguments({n: s for n, s in o.items() if n in dims}) for o in row.others if dims)]
    for each in calls:
        expected = first if each is arguments else eager(model, each)
        found.error = max(found.error, difference(compiled(**each), expected))
    return found


def run_named(job: tuple[str, str, bool]) -> Found:
    """``run`` in a worker."""
    logging.disable(logging.WARNING)
    torch.set_num_threads(1)
    name, target, dynamic = job
    row = next(row for row in ROWS if row.name == name)
    try:
        return run(row, target, dynamic)
    except Exception as exc:
        text = str(exc).splitlines()
        return Found(name, failure=f"{type(exc).__name__}: {' '.join(text)[:400]}")


def record(every: Sequence[Found]) -> None:
    """Puts what was found into docs/kernels.json; architectures that were not run stay as they are there."""
    known = json.loads(RECORD.read_text(encoding="utf-8")) if RECORD.exists() else {}
    known |= {
        found.name: {
            "error": float(f"{found.error:.1e}"),
            "kernels": found.kernels,
            "calls": found.calls,
            "torch": dict(sorted(found.aten.items())),
            "reasons": sorted(found.reasons) if found.aten else [],
        }
        for found in every
        if not found.failure
    }
    RECORD.write_text(json.dumps(dict(sorted(known.items())), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def main() -> int:
    """Run the rows of the names given (all without names), and sum up."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--target", default="cpu:host")
    parser.add_argument("--dynamic", action="store_true")
    parser.add_argument("--record", action="store_true", help="write docs/kernels.json")
    options = parser.parse_args()
    chosen = [row.name for row in ROWS if not row.refused and (not options.names or row.name in options.names)]
    every: list[Found] = []
    context = get_context("spawn")
    with ProcessPoolExecutor(options.jobs, mp_context=context) as pool:
        for found in pool.map(run_named, [(name, options.target, options.dynamic) for name in chosen]):
            print(found, flush=True)
            every.append(found)
    if options.record:
        record(every)
    native, right = sum(f.is_native for f in every), sum(f.is_right for f in every)
    print(f"\n{len(every)} architectures, {right} right, {native} without ATen")
    for title, counters in (("ATen", [f.aten for f in every]), ("reasons", [f.reasons for f in every])):
        models = Counter(key for counter in counters for key in counter)
        total = sum(counters, Counter[str]())
        print(f"\n{title}: launches, architectures")
        for key, count in models.most_common():
            print(f"{total[key]:6} {count:4} {key}")
    return 0 if right == len(every) else 1


if __name__ == "__main__":
    sys.exit(main())
