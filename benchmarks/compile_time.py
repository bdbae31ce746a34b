"""forgec's own share of compile time beside torch.export's, and beside torch.compile and its growth with layers."""

from __future__ import annotations

import statistics
import tempfile
from pathlib import Path

import forgec
from benchmarks.measure import table
from benchmarks.models import NO_CACHE, gpt2, ids, llama

ROUNDS = 5


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
    for layers in (8, 32, 128):
        model = llama(layers)
        compiled = forgec.compile(model, (ids(16),), NO_CACHE)
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


if __name__ == "__main__":
    main()
