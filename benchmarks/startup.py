"""What a user waits for: the command's help page, importing the runtime, loading an artifact of 500 MB."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import torch

import forgec
from benchmarks.measure import interleaved, table

ROUNDS = 7


class Wide(torch.nn.Module):
    """Weights of 500 MB."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = torch.nn.ModuleList(torch.nn.Linear(2500, 2500, bias=False) for _ in range(20))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.layers:
            x = layer(x)
        return x


def main() -> None:
    """Print the table."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "wide.forge"
        forgec.compile(Wide().eval(), (torch.randn(1, 2500),)).save(path)

        def command(*arguments: str) -> None:
            subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)

        samples = interleaved(
            [
                ("`forgec --help`", lambda: command("-m", "forgec", "--help")),
                ("`python -c 'import forgec.runtime'`", lambda: command("-c", "import forgec.runtime")),
                ("`python -c pass`", lambda: command("-c", "pass")),
                (f"`forgec.load` of {path.stat().st_size / 1e6:.0f} MB", lambda: forgec.load(path)),
                ("the same with verify='full'", lambda: forgec.load(path, verify="full")),
            ],
            rounds=ROUNDS,
        )
    table("Starting and loading", ["what", "median"], [[s.name, f"{s.median * 1e3:.0f} ms"] for s in samples])


if __name__ == "__main__":
    main()
