"""forgec's own share of compile time beside torch.export's, and beside torch.compile and its growth with layers."""

from __future__ import annotations

import statistics
import tempfile
from itertools import pairwise
from pathlib import Path
from typing import Any

import forgec
from benchmarks.measure import table
from benchmarks.models import NO_CACHE, gpt2, ids, llama

ROUNDS = 5
DEPTHS = (8, 32, 128)
"""Numbers of layers."""


def main() -> None:
    """Print the tables."""
    rows = []
    for name, build in (("GPT-2", gpt2), ("Llama 12 layers", llama)):
        model, inputs = build(), (ids(64),)
        forgec.compile(model, inputs, NO_CACHE)  # imports and caches
        parts: dict[str, list[float]] = {}
        with tempfile.TemporaryDirectory() as folder:
            for _ in range(ROUNDS):
                compiled = forgec.compile(model, inputs, NO_CACHE)
                compiled.save(Path(folder) / "m.forge")
                seconds = compiled.report.seconds
                own = seconds["capture"] - seconds["export"] + seconds["passes"] + seconds["codegen"]
                sample = {
                    "export": seconds["export"],
                    "capture": seconds["capture"] - seconds["export"],
                    "passes": seconds["passes"],
                    "codegen": seconds["codegen"],
                    "own": own,
                    "ratio": own / seconds["export"],
                    "pack": seconds["pack"],
                }
                for key, value in sample.items():
                    parts.setdefault(key, []).append(value)
        median = {key: statistics.median(values) for key, values in parts.items()}
        milliseconds = [f"{median[key] * 1e3:.0f} ms" for key in ("export", "capture", "passes", "codegen", "own")]
        rows.append([name, *milliseconds, f"{median['ratio']:.2f}", f"{median['pack'] * 1e3:.0f} ms"])
    header = [
        "model",
        "torch.export",
        "capture",
        "passes",
        "codegen",
        "forgec in all",
        "forgec ÷ export",
        "writing the artifact",
    ]
    table("Compile time", header, rows)

    rows = []
    passes: dict[int, list[dict[str, Any]]] = {}
    for layers in DEPTHS:
        model = llama(layers)
        compiled = forgec.compile(model, (ids(16),), NO_CACHE)
        passes[layers] = compiled.report.passes
        seconds = compiled.report.seconds
        own = seconds["capture"] - seconds["export"] + seconds["passes"] + seconds["codegen"]
        ops = compiled.report.captured.ops
        rows.append(
            [
                str(layers),
                str(ops),
                f"{own * 1e3:.0f} ms",
                f"{own / ops * 1e6:.0f} µs",
                f"{seconds['export'] * 1e3:.0f} ms",
            ]
        )
    table("Growth with layers (Llama)", ["layers", "ops captured", "forgec in all", "per op", "torch.export"], rows)
    show_growth(passes)


def show_growth(passes: dict[int, list[dict[str, Any]]]) -> None:
    """A row for each pass of the pipeline: its time at each number of layers, and by how much that grows from each to
    the next, beside the growth of the layers. A pass that walks the module quadratically grows by the square.
    """
    depths = sorted(passes)
    rows = []
    for entries in zip(*(passes[depth] for depth in depths), strict=True):
        seconds = [entry["seconds"] for entry in entries]
        growth = [f"{after / max(before, 1e-5):.1f} ×" for before, after in pairwise(seconds)]
        rows.append([entries[0]["pipeline"], *(f"{s * 1e3:.1f} ms" for s in seconds), *growth])
    steps = [f"{before} → {after} ({after / before:g} ×)" for before, after in pairwise(depths)]
    table("Growth of each pass with layers (Llama)", ["pass", *(f"{depth} layers" for depth in depths), *steps], rows)


if __name__ == "__main__":
    main()
