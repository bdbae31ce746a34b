"""What weights in fewer bits cost and save: SmolLM2-135M-Instruct on the text of ``fidelity``.

Perplexity of the compiled program on the CPU, by the precision of the weights, beside the size of the artifact and the
errors of weights that the report names.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import torch

import forgec
from benchmarks.fidelity import TEXT, TOKENS
from benchmarks.measure import table

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "examples"))

PRECISIONS = ("float32", "bf16", "int8", "int4")


def main() -> None:
    """Print the table."""
    import smollm2

    ids = smollm2.tokenizer()(TEXT, return_tensors="pt").input_ids[:, :TOKENS]
    model = smollm2.load()
    rows: list[list[str]] = []
    for precision in PRECISIONS:
        compiled = forgec.compile(model, (ids,), {"use_cache": False}, target="cpu:host", weights=precision)
        logits = compiled(ids, use_cache=False).logits[0, :-1].double()
        perplexity = float(torch.nn.functional.cross_entropy(logits, ids[0, 1:]).exp())
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.forge"
            compiled.save(path)
            size = path.stat().st_size
        errors = compiled.report.weights
        worst = {key: max((float(each[key]) for each in errors), default=0.0) for key in ("rms", "output_rms")}
        rows.append(
            [
                precision,
                f"{perplexity:.3f}",
                f"{size / 1e6:.1f} MB",
                f"{worst['rms']:.2g}",
                f"{worst['output_rms']:.2g}",
            ]
        )
        del compiled
    header = ["weights", "perplexity", "artifact", "worst RMS error of a weight", "of its outputs"]
    table(f"Weights in fewer bits: SmolLM2-135M-Instruct, {ids.shape[1]} tokens", header, rows)


if __name__ == "__main__":
    main()
