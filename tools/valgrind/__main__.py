"""Runs the machine code of kernels under valgrind's memcheck and compares with the same code without it.

python -m tools.valgrind [NAME …]      without names all of them: three to five minutes

Compiled for x86-64-v3: valgrind knows no AVX-512. What is looked at: reads and writes outside of memory that somebody
allocated, and results (and addresses, branches) that depend on memory nobody wrote. Exits with 1 when there is any.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

import forgec
from tests.runtime.packages import link_packages

TARGET = "cpu:x86-64-v3"
CALLS = Path(__file__).with_name("calls.py")
ROWS = (
    "LlamaForCausalLM", "T5ForConditionalGeneration", "ConvNextModel", "MambaForCausalLM", "MixtralForCausalLM"
)  # fmt: skip
"""Architectures of the tests."""


class VectorMath(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        y = x.abs() + 0.1
        return x.exp(), x.tanh(), x.erf(), (x * 1e7).sin(), x.cos(), y.log(), y.rsqrt(), F.gelu(x), x.double().exp()


class Reductions(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return x.sum(0), x.amax(1), x.cumsum(1), x.softmax(0), x.var(1), x.argmax(1), x.norm(dim=0), x.prod(1)


class Order(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        values, places = x.sort(1)
        best = x.topk(3, 1)
        return values, places, best.values, best.indices


class Indexing(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table = torch.nn.Embedding(11, 13)

    def forward(self, x: torch.Tensor, index: torch.Tensor) -> tuple[torch.Tensor, ...]:
        rows = self.table(index)
        return (
            rows, x.index_select(0, index), x.gather(0, index[:, None].expand(-1, 5)), x[index, 2:5],
            torch.zeros(11, 13).scatter_add(0, index[:, None].expand(-1, 13), x[: len(index)]), x[:, 1::3].flip(1),
        )  # fmt: skip


class Half(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = torch.nn.Linear(37, 50), torch.nn.Linear(50, 37)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = F.layer_norm(self.down(F.silu(self.up(x))) + x, (37,))
        heads = h[:, :32].reshape(1, -1, 4, 8).transpose(1, 2)
        return F.scaled_dot_product_attention(heads, heads, heads, is_causal=True)


class Convolutions(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.plain, self.deep = torch.nn.Conv2d(3, 7, 3, padding=1), torch.nn.Conv2d(7, 7, 5, groups=7, stride=2)
        self.back = torch.nn.ConvTranspose2d(7, 2, 3, stride=2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.interpolate(self.back(F.avg_pool2d(self.deep(self.plain(x)), 2)), scale_factor=1.5, mode="bilinear")


@dataclass(frozen=True)
class Case:
    """What is compiled, and the arguments by name."""

    model: torch.nn.Module
    arguments: dict[str, Any]


def _written() -> dict[str, Callable[[], Case]]:
    x, index = torch.randn(9, 13), torch.tensor([3, 0, 8, 8, -0])
    return {
        "vector-math": lambda: Case(VectorMath(), {"x": torch.randn(5, 77)}),
        "reductions": lambda: Case(Reductions(), {"x": torch.randn(21, 37)}),
        "order": lambda: Case(Order(), {"x": torch.randn(3, 45)}),
        "indexing": lambda: Case(Indexing(), {"x": x, "index": index}),
        "float32": lambda: Case(Half(), {"x": torch.randn(19, 37)}),
        "bfloat16": lambda: Case(Half().bfloat16(), {"x": torch.randn(19, 37).bfloat16()}),
        "convolutions": lambda: Case(Convolutions(), {"x": torch.randn(1, 3, 19, 23)}),
    }


def _architecture(name: str) -> Case:
    from tests.models.test_architectures import ROWS as EVERY

    row = next(row for row in EVERY if row.name == name)
    return Case(row.build(), row.arguments())


def cases() -> dict[str, Callable[[], Case]]:
    """All by name; what is random is the same each time."""
    return {**_written(), **{name: lambda name=name: _architecture(name) for name in ROWS}}


def prepare(name: str, folder: Path) -> None:
    """Writes the artifact and the arguments of a case."""
    import numpy

    torch.manual_seed(0)
    case = cases()[name]()
    compiled = forgec.compile(case.model.eval(), (), case.arguments, target=TARGET)
    compiled.save(folder / f"{name}.forge")
    stored = {}
    for key, value in case.arguments.items():
        if isinstance(value, torch.Tensor):
            half = value.dtype == torch.bfloat16
            stored[f"{key}.bf16" if half else key] = (value.view(torch.int16) if half else value).numpy()
        else:
            stored[key] = value
    numpy.savez(folder / f"{name}.npz", **stored)


def command(folder: Path, threads: int, names: Sequence[str]) -> list[str]:
    """What runs the cases without torch."""
    return [sys.executable, "-S", "-I", str(CALLS), str(folder), str(threads), *names]


@dataclass(frozen=True)
class Judgement:
    """``problems`` are memcheck's, each with its stack; ``names`` those of the cases that ran."""

    names: tuple[str, ...]
    problems: tuple[str, ...]


def run(folder: Path, threads: int, names: Sequence[str]) -> Judgement:
    """Runs the cases under memcheck, and again without it: the bits have to be the same."""
    plain = subprocess.run(command(folder, threads, names), capture_output=True, text=True)
    if plain.returncode:
        return Judgement((), (f"without valgrind it ended with {plain.returncode}\n{plain.stderr[-2000:]}",))
    expected = {name: (folder / f"{name}-{threads}.out").read_bytes() for name in names}
    log = folder / "memcheck.log"
    options = [f"--log-file={log}", "--error-limit=no", "--num-callers=12", "--partial-loads-ok=no", "--fair-sched=yes"]
    environment = {"PYTHONMALLOC": "malloc", "PATH": "/usr/bin:/bin"}
    done = subprocess.run(
        ["valgrind", *options, *command(folder, threads, names)], capture_output=True, text=True, env=environment
    )
    problems = [text for text in errors(log.read_text()) if is_of_a_kernel(text)]
    if done.returncode:
        problems.append(f"it ended with {done.returncode}\n{done.stderr[-2000:]}")
    for name in names:
        if (folder / f"{name}-{threads}.out").read_bytes() != expected[name]:
            problems.append(f"{name} has other results under valgrind")
    return Judgement(tuple(done.stdout.split()), tuple(problems))


def errors(log: str) -> list[str]:
    """The errors in a log of memcheck, each with its stacks."""
    lines = [re.sub(r"^==\d+== ?", "", line) for line in log.splitlines()]
    blocks = "\n".join(lines).split("\n\n")
    return [block for block in blocks if re.search(r"^ +(at|by) 0x", block, re.MULTILINE)]


def is_of_a_kernel(block: str) -> bool:
    """Whether machine code of ours is among the callers, or results were written that nobody computed. What the
    interpreter and numpy do is theirs."""
    return ".forge)" in block or "forgec-kernels" in block or "write(buf)" in block


def main() -> int:
    """Compile, run on one thread and on two, tell."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", choices=[[], *cases()], help=f"of {', '.join(cases())}")
    names = parser.parse_args().names or [*cases()]
    if shutil.which("valgrind") is None:
        print("valgrind is not installed", file=sys.stderr)
        return 2
    found = 0
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        link_packages(folder / "packages", "numpy", "ml_dtypes")
        for name in names:
            prepare(name, folder)
        for threads in (1, 2):
            judged = run(folder, threads, names)
            found += len(judged.problems)
            print(f"{len(judged.names)} of {len(names)} cases on {threads} threads, {len(judged.problems)} problems")
            print("\n\n".join(judged.problems))
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
