"""Peak memory while a model is compiled and saved, in a process for each size of its weights."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.measure import table

WIDTH = 2048
SIZES = (4, 16, 64)
"""Layers: of 16.8 MB each."""


def main() -> None:
    """Print the table."""
    rows: list[list[str]] = []
    for layers in SIZES:
        found = measure(layers)
        weights, extra = found["weights"], found["peak"] - found["before"]
        allowed = weights * 1.2 + 300e6
        figures = [weights, extra, extra - weights, allowed]
        rows.append([str(layers), *(f"{figure / 1e6:.0f} MB" for figure in figures)])
    header = ["layers", "weights", "peak over torch alone", "without the weights", "at most allowed"]
    table("Memory while compiling", header, rows)


def measure(layers: int) -> dict[str, int]:
    """Bytes: the weights, the process with torch imported, and its peak until the artifact is written."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "benchmarks.compile_memory", str(layers), folder]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def compile_one(layers: int, folder: Path) -> dict[str, int]:
    """What a process of its own does."""
    import torch

    before = _bytes("VmRSS")
    import forgec

    model = torch.nn.Sequential(*(torch.nn.Linear(WIDTH, WIDTH) for _ in range(layers))).eval()
    weights = sum(parameter.nbytes for parameter in model.parameters())
    forgec.compile(model, (torch.randn(4, WIDTH),)).save(folder / "m.forge")
    return {"weights": weights, "before": before, "peak": _bytes("VmHWM")}


def _bytes(name: str) -> int:
    """A figure of this process; the peak is that of this program, not of the one that started it."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:"))


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(json.dumps(compile_one(int(sys.argv[1]), Path(sys.argv[2]))))
    else:
        main()
