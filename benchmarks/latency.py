"""Latency beside eager PyTorch with the same ATen kernels, and the runtime's overhead per op."""

from __future__ import annotations

import torch

import forgec
from benchmarks.measure import interleaved, ratio, table
from benchmarks.models import CASES

ROUNDS = 25
CHAIN = 500


def main() -> None:
    """Print the tables."""
    rows = []
    for case in CASES:
        model = case.build()
        compiled = forgec.compile(model, case.args, case.kwargs)
        with torch.no_grad():
            samples = interleaved(
                [
                    ("eager", lambda model=model, case=case: model(*case.args, **case.kwargs)),
                    ("forgec", lambda compiled=compiled, case=case: compiled(*case.args, **case.kwargs)),
                ],
                rounds=ROUNDS,
                inner=2,
            )
        eager, ours = samples
        rows.append(
            [case.name, f"{ratio(ours, eager):.3f}", f"{eager.median * 1e3:.2f} ms", f"{ours.median * 1e3:.2f} ms"]
        )
    table("Latency beside eager PyTorch", ["model", "forgec ÷ eager", "eager", "forgec"], rows)
    dispatch()


def dispatch() -> None:
    """A chain of tiny additions: what a launch costs beside the same launches in a bare loop."""

    def chain(x: torch.Tensor) -> torch.Tensor:
        for _ in range(CHAIN):
            x = x + 1.0
        return x

    x = torch.zeros(8)
    out = torch.empty(8)
    compiled = forgec.compile(chain, (x,), pipeline="")
    launches = compiled.report.launches
    add = torch.ops.aten.add.out._op

    def bare() -> None:
        for _ in range(launches):
            add(x, 1.0, out=out)

    with torch.no_grad():
        samples = interleaved(
            [("bare", bare), ("forgec", lambda: compiled(x)), ("eager", lambda: chain(x))], rounds=ROUNDS, inner=5
        )
    cells = [f"{sample.median / launches * 1e6:.2f} µs" for sample in samples]
    overhead = (samples[1].median - samples[0].median) / launches * 1e6
    title = f"Dispatch: a chain of {launches} additions of 8 numbers, per op, kernel included"
    table(
        title,
        ["bare loop of the operator's C entry", "forgec", "eager", "forgec's overhead"],
        [[*cells, f"{overhead:.2f} µs"]],
    )


if __name__ == "__main__":
    main()
