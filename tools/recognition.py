"""Prints what the optimiser recognised in every architecture of the tests, and what it left spelled out.

python -m tools.recognition [--jobs N] [--dynamic] [NAME …]      all without names; a quarter of an hour for all
"""

from __future__ import annotations

import argparse
import logging
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any

import torch

from tests.models.architectures.row import Row
from tests.models.leftovers import RECOGNISED, captured, implementations, recognise
from tests.models.test_architectures import ROWS

KINDS = ("softmax", "product", "norm", "rope", "gate", "gelu", "tanh", "erf", "exp")


def run(row: Row, dynamic: bool) -> Iterator[tuple[str, dict[str, Any]]]:
    """What is found in one architecture, for each implementation of its attention."""
    for implementation in list(implementations(row.build())):
        name = f"{row.name} {implementation or 'own'}"
        try:
            found = recognise(captured(row, implementation, dynamic))
        except Exception as exc:
            yield name, {"error": f"{type(exc).__name__}: {str(exc).splitlines()[0] if str(exc) else ''}"}
            continue
        plain = ("captured", "optimised", "launches", "recognised", "masks", "left", "missed")
        yield name, {key: getattr(found, key) for key in plain}


def run_named(job: tuple[str, bool]) -> list[tuple[str, dict[str, Any]]]:
    """``run`` in a worker."""
    logging.disable(logging.WARNING)
    torch.set_num_threads(1)
    name, dynamic = job
    row = next(row for row in ROWS if row.name == name)
    return [] if row.refused else list(run(row, dynamic))


def shown(name: str, found: dict[str, Any]) -> str:
    """The lines of one architecture."""
    if "error" in found:
        return f"{name:52} {found['error']}"
    kinds = Counter[str]()
    for (kind, _), count in found["left"].items():
        kinds[kind] += count
    counts = " ".join(f"{kind} {found['recognised'][kind]}" for kind in RECOGNISED if found["recognised"][kind])
    ops = f"{found['captured']} → {found['optimised']} ops of any kind, {found['launches']} launches"
    lines = [f"{name:52} {ops}; {counts}; {dict(found['masks']) or ''}"]
    lines += [f"    left {count} {kind} {place}" for (kind, place), count in sorted(found["left"].items())]
    lines += [f"    missed {count} {place} {what}" for (what, place), count in sorted(found["missed"].items())]
    return "\n".join(lines)


def main() -> None:
    """Run the rows of the names given (all without names), and sum up."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--dynamic", action="store_true")
    options = parser.parse_args()
    chosen = [(row.name, options.dynamic) for row in ROWS if not options.names or row.name in options.names]
    total, models = Counter[str](), Counter[str]()
    with ProcessPoolExecutor(options.jobs, mp_context=get_context("spawn")) as pool:
        for found in pool.map(run_named, chosen):
            for name, counts in found:
                print(shown(name, counts), flush=True)
                kinds = Counter[str]()
                for (kind, _), count in counts.get("left", {}).items():
                    kinds[kind] += count
                total.update(kinds)
                models.update(kinds.keys())
    for kind in KINDS:
        print(f"{kind:8} {total[kind]:5} left in {models[kind]:4} models")


if __name__ == "__main__":
    main()
